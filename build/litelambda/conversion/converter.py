"""The TFLite converter as its callers see it: a model that crashes it becomes an error, not a crash of the build.

The converter runs in a process of its own, see `converter_process`, which is kept for the next list. It knows
SavedModels and Keras files, not models in memory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import ConversionError
from litelambda.conversion.converter_process import STARTED, Conversion, make_flatbuffers

__all__ = ["Conversion", "ConverterCrashError", "convert"]

_PROCESS = ChildProcess()


class ConverterCrashError(ConversionError):
    """The converter's process died.

    Attributes:
        subject: the conversion that it died at.
        for_memory: it was killed, or gave up, most likely for lack of memory: no layer is to blame.
    """

    def __init__(self, subject: str, crash: ChildCrashError) -> None:
        self.subject, self.for_memory = subject, crash.for_memory
        # The message of the exception that ended it, if it wrote any.
        found = re.findall(r"^  what\(\):\s+(.+)$|^(MemoryError.*)$", crash.stderr, re.MULTILINE)
        last_words = "".join(found[-1])[:300] if found else ""
        reason = "out of memory: use a machine with more memory or a smaller model" if self.for_memory else last_words
        ended = f"TensorFlow's converter crashed ({crash.ended}) on {subject}"
        super().__init__(f"{ended}, {reason}" if reason else ended)


def convert(conversions: Sequence[Conversion]) -> None:
    """Make flatbuffers, one after the other, in a child process.

    Args:
        conversions: what to make.

    Raises:
        ConverterCrashError: the child died; its `subject` says at which conversion.
        ConversionError: the converter refused a model; the message names the operators.
    """
    try:
        _PROCESS.call(make_flatbuffers, conversions)
    except ChildCrashError as error:
        started = re.findall(f"^{STARTED}(.+)$", error.stderr, re.MULTILINE)
        raise ConverterCrashError(started[-1] if started else conversions[0].subject, error) from error
