"""The TFLite converter as its callers see it: a model that crashes it becomes an error, not a crash of the build.

The converter runs in a process of its own, see `converter_process`. A file lists the conversions; the child notes in
another, "progress", which one it is at. It knows SavedModels and Keras files, not models in memory.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from litelambda.common.errors import ConversionError
from litelambda.common.kept_process import KeptProcess
from litelambda.common.processes import describe_exit, lacked_memory

PROCESS = "litelambda.conversion.converter_process"
launch: Callable[[Path], subprocess.CompletedProcess[str]] = KeptProcess(PROCESS).run
"""How a file of jobs gets to a child; tests tamper with what comes back."""


@dataclass(frozen=True)
class Conversion:
    """One flatbuffer to make.

    Attributes:
        subject: what is converted, for messages.
        saved_model: folder of the SavedModel, with the signature "predict"; or a .keras file from `export`.
        output: where the flatbuffer goes.
        scheme: int8, dynamic, float16 or float32.
        io: dtype at the edges of an int8 model.
        representative: calibration rows by input name, from `write_arrays`; needed by int8.
        batch: the only number of rows that a source from elsewhere is converted for; None for any.
        is_signature: the SavedModel is from elsewhere, and its default signature is to be called "predict" first.
    """

    subject: str
    saved_model: str
    output: str
    scheme: str = "float32"
    io: str = "float32"
    representative: str | None = None
    batch: int | None = None
    is_signature: bool = False


class ConverterCrashError(ConversionError):
    """The converter's process died.

    Attributes:
        subject: the conversion that it died at.
        for_memory: it was killed, or gave up, most likely for lack of memory: no layer is to blame.
    """

    def __init__(self, subject: str, returncode: int, last_line: str = "") -> None:
        self.subject = subject
        self.for_memory = lacked_memory(returncode, last_line)
        reason = "out of memory: use a machine with more memory or a smaller model" if self.for_memory else last_line
        ended = f"TensorFlow's converter crashed ({describe_exit(returncode)}) on {subject}"
        super().__init__(f"{ended}, {reason}" if reason else ended)


def convert(conversions: Sequence[Conversion], folder: Path) -> None:
    """Make flatbuffers, one after the other, in a child process.

    Args:
        conversions: what to make.
        folder: a scratch folder for the child's job and progress files.

    Raises:
        ConverterCrashError: the child died; its `subject` says at which conversion.
        ConversionError: the converter refused a model; the message names the operators.
    """
    jobs, progress, failure = folder / "jobs.json", folder / "progress", folder / "failure"
    failure.unlink(missing_ok=True)  # an earlier list's
    jobs.write_text(json.dumps([asdict(conversion) for conversion in conversions]))
    progress.write_text(conversions[0].subject)
    child = launch(jobs.absolute())
    if child.returncode == 0:
        return
    subject = progress.read_text()
    if failure.exists():
        raise ConversionError(f"{subject} cannot be converted: {failure.read_text()}")
    raise ConverterCrashError(subject, child.returncode, _last_words(child.stderr))


def _last_words(stderr: str) -> str:
    """The message of the exception that ended a crashed process, if it wrote any."""
    found = re.findall(r"^  what\(\):\s+(.+)$|^(MemoryError.*)$", stderr, re.MULTILINE)
    return (found[-1][0] or found[-1][1])[:300] if found else ""
