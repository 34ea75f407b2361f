"""The recipe: its sections, their limits and defaults, and what is said about a wrong one. Knows no Keras."""
