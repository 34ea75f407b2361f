"""Imported once, by the process that those of `litelambda bench conversion` are forked from."""

from litelambda.bench.conversion_child import run_case
from litelambda.keras_tools.backend import load_keras

__all__ = ["run_case"]

load_keras()
