"""Every error the toolchain raises on purpose; each knows the exit code of the command that met it.

LitelambdaError
├── UsageError           wrong usage (exit 2)
│   └── RecipeError      the recipe is not valid: the message names every wrong key by its path
├── DataError            the data set is missing, unreadable or not what the recipe says
├── TrainError           training failed (a loss of NaN, a model that does not fit its data, …)
├── ConversionError      the model could not be converted to a flatbuffer
├── GateError            the quantized model is worse than the gate allows: nothing was published
├── MemoryShortageError  a stage ran out of memory, the machine's or a GPU's
├── VerificationError    the artifact does not behave in the shipped runtime as it must
├── PublishError         the store refused the artifact, or another publisher was first
├── PackageError         the deployment package could not be made, or is beyond its size budget
└── BenchError           a benchmark could not be run
"""

from __future__ import annotations


class LitelambdaError(Exception):
    """Base of all errors raised by `litelambda`."""

    exit_code = 1


class UsageError(LitelambdaError):
    """The command was used in a way it cannot be."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is not valid; the message names every wrong key by its path."""


class DataError(LitelambdaError):
    """The data set is missing, unreadable or not what the recipe says."""


class TrainError(LitelambdaError):
    """Training failed."""


class ConversionError(LitelambdaError):
    """The model could not be converted to a TFLite flatbuffer."""


class GateError(LitelambdaError):
    """The quantized model is worse than the gate allows; nothing was published."""


class MemoryShortageError(LitelambdaError):
    """A stage ran out of memory; nothing was published."""


class VerificationError(LitelambdaError):
    """The artifact does not behave in the shipped runtime as it must."""


class PublishError(LitelambdaError):
    """The store refused the artifact, or another publisher was first."""


class PackageError(LitelambdaError):
    """The deployment package could not be made, or is beyond its size budget."""


class BenchError(LitelambdaError):
    """A benchmark could not be run."""


def first_line(error: BaseException) -> str:
    """The first line of what a library says, of which some say pages and some nothing; at most 300 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
