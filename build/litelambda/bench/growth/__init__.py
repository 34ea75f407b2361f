"""`litelambda bench growth`: how a function's times grow with its store, its requests and its model."""
