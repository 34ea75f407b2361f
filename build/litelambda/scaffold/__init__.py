"""A new project: what a data set or a model looks like, and the files to build, serve, test and deploy it."""
