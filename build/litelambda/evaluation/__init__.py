"""Evaluation: the artifact against the model that was handed in, against its labels, and against the runtime that ships."""
