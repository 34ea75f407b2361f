"""What the runtime's status codes mean. Loaded with the first failure.

Source: google-ai-edge/LiteRT `litert/c/litert_common.h`.
"""

from __future__ import annotations

from litelambda_serving.errors import LiteRtError

__all__ = ["failure"]

_RUNTIME_FAILURE = 3  # kLiteRtStatusErrorRuntimeFailure

_STATUS = {
    1: "invalid argument",
    2: "out of memory",
    3: "runtime failure; the runtime's own line on stderr names the operator",
    4: "missing input tensor",
    5: "unsupported",
    6: "not found",
    9: "unknown error",
    500: "file error",
    501: "not a TFLite flatbuffer, or one that was cut short",
    504: "the model could not be compiled",
    1000: "index out of bounds",
}


def failure(name: str, status: int) -> LiteRtError:
    """The error for a status that `LiteRt<name>` returned.

    >>> str(failure("CreateCompiledModel", 504))
    'LiteRtCreateCompiledModel failed with status 504: the model could not be compiled'
    """
    meaning = _STATUS.get(status, "see LiteRtStatus in litert/c/litert_common.h")
    error = LiteRtError(f"LiteRt{name} failed with status {status}: {meaning}")
    error.in_operator = name == "RunCompiledModel" and status == _RUNTIME_FAILURE
    return error
