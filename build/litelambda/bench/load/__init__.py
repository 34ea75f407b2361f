"""Many clients at once: what a server of a model answers in a second, and how long each waits."""
