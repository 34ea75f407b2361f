"""`litelambda bench warm`: what a prediction costs once the function runs."""
