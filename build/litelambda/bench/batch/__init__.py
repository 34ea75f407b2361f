"""`litelambda bench batch`: rows per second of one core."""
