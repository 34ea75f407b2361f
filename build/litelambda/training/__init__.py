"""Training: the model of a recipe, the input pipeline, fitting on devices and hosts."""
