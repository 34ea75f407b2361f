"""The recipe: its sections, their limits and defaults, and what is said about a wrong one. Knows no Keras."""

from litelambda.common.extras import require_extra

require_extra("build")  # here: whatever trains, converts or imports a model imports this package first
