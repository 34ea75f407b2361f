"""Evaluation: the artifact against the model handed in, against its labels, and against the runtime that ships."""
