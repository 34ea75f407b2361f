"""`litelambda bench conversion`: what converts to int8, and how far it is from the source."""
