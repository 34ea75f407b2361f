"""`litelambda bench growth`: what becomes of a function's times when something about it grows."""
