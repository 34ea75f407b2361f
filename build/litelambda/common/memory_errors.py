"""Error messages for a build that ran out of memory: which stage, and what may help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from litelambda.common.errors import MemoryShortageError, first_line

_ADVICE = {
    "data": "set data.streaming = true, and rows stay on disk",
    "train": "lower train.batch_size, set data.streaming = true, or train a smaller model",
    "compress": "lower train.batch_size, set data.streaming = true, or compress a smaller model",
    "convert": "give fewer rows with --representative, or import on a machine with more memory",
    "quantize": "lower quantize.representative_samples, or build a smaller model",
}
_OTHERWISE = "build a smaller model, or on a machine with more memory"


@contextmanager
def shortages_explained(stage: str) -> Iterator[None]:
    """Turn a lack of memory, of the machine or of a GPU, into an error that names the stage.

    Raises:
        MemoryShortageError: in place of the error of Python, NumPy, TensorFlow or JAX.
    """
    try:
        yield
    except Exception as error:
        if not (reason := _shortage(error)):
            raise
        advice = _ADVICE.get(stage, _OTHERWISE)
        outcome = "" if stage == "publish" else ". Nothing was published"
        raise MemoryShortageError(f"the stage {stage!r} ran out of memory ({reason}): {advice}{outcome}") from error


def _shortage(error: BaseException | None) -> str | None:
    """The first line of the error that lacked memory, among an error and its causes."""
    while error is not None:
        name, text = type(error).__name__, str(error)
        if isinstance(error, MemoryError) or name == "ResourceExhaustedError" or text.startswith("RESOURCE_EXHAUSTED"):
            return first_line(error)
        error = error.__cause__
    return None
