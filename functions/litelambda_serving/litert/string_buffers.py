"""String tensors in the runtime's memory. Imported with the first model that has one.

The runtime's layout (tflite `string_util.h`) is int32, little-endian: how many strings there are, where each of them
starts and where the last one ends, counted from the buffer's own start; then their bytes, without anything between.

The size of a string output is not known before the run. The runtime keeps the output to itself, compares its size with
the buffer that it was given and copies it only if it fits: what is too large fails the run and touches no memory. So an
output gets more address space than any answer takes; memory is only what was written to of it.
"""

from __future__ import annotations

import ctypes
import struct
from itertools import accumulate, pairwise

from litelambda_serving.errors import LiteRtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from litelambda_serving.tensor import TensorSpec

__all__ = ["MAX_OUTPUT_BYTES", "encode_strings", "fill", "read_strings", "run"]

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
"""Of one string output of one run: five times what a response can hold. From this size on, the C library takes memory
from the kernel and gives it back when it is released."""

_AMPLE_BYTES = 128 * 1024 * 1024
"""More than any string output takes: a run that fails with so much room fails for another reason."""

_MAX_TENSOR_BYTES = (1 << 31) - 1
_KEPT_BYTES = 1024 * 1024  # an output that took more is released after the run


def fill(buffers: Any, index: int, data: Any, name: str) -> None:
    """Hand strings to the runtime in a buffer of exactly their size, which operators take for the tensor's own.

    Args:
        buffers: of the inputs, see `SignatureRunner.ins`.
        index: the input's.
        data: the strings.
        name: the input's, for messages.

    Raises:
        LiteRtError: it is not a list, has another length than the tensor, or is too large.
    """
    if not isinstance(data, list):
        raise LiteRtError(f"input {name!r} takes a list of strings, got {type(data).__name__}")
    encoded = encode_strings(data, buffers.strings[index], name)
    if buffers.sizes[index] != len(encoded):
        buffers.place(index, len(encoded))
    buffers.views[index][:] = encoded


def run(runner: Any, specs: Sequence[TensorSpec], check_late: Callable[[], None]) -> list[Any]:
    """Run a signature with string outputs; their buffers are address space that is used as far as it is needed.

    Args:
        runner: the `SignatureRunner`, its inputs filled.
        specs: of the outputs.
        check_late: checks the shapes of the outputs in `SignatureRunner.late` after the run.

    Returns:
        The bytes of each output, or the list of its strings.

    Raises:
        LiteRtError: the runtime's own failure, or a string output that is too large or not what its shape says.
    """
    outs = runner.outs
    for index in outs.strings:
        if not outs.sizes[index]:
            outs.place(index, MAX_OUTPUT_BYTES)
        outs.views[index][:4] = bytes(4)  # the runtime writes nothing for a tensor without data
    try:
        runner.run()
    except LiteRtError as error:
        raise _reason(runner, error) from error
    if runner.late:
        check_late()
    outputs: list[Any] = []
    for index, spec in enumerate(specs):
        if index not in outs.strings:
            outputs.append(ctypes.string_at(outs.addresses[index], outs.sizes[index]))
            continue
        outputs.append(read_strings(outs.views[index], outs.strings[index], spec.name))
        if _used_bytes(outs.views[index]) > _KEPT_BYTES:
            outs.place(index, MAX_OUTPUT_BYTES)
    return outputs


def encode_strings(strings: Sequence[bytes], count: int, name: str) -> bytes:
    """Lay strings out as the runtime reads them.

    Args:
        strings: row-major.
        count: how many the tensor has.
        name: the tensor's, for messages.

    Raises:
        LiteRtError: there are more or fewer of them, or they are larger than a tensor can be.
    """
    if len(strings) != count:
        raise LiteRtError(f"input {name!r} takes {count} strings, got {len(strings)}")
    offsets = list(accumulate(map(len, strings), initial=4 * (count + 2)))
    if offsets[-1] > _MAX_TENSOR_BYTES:
        raise LiteRtError(f"input {name!r} takes at most {_MAX_TENSOR_BYTES} bytes, got {offsets[-1]}")
    return b"".join((struct.pack(f"<{count + 2}i", count, *offsets), *strings))


def read_strings(memory: memoryview, count: int, name: str) -> list[bytes]:
    """Copy a string tensor out of the runtime's memory, every number in it checked before it is followed.

    Args:
        memory: the tensor's buffer.
        count: how many strings its shape says.
        name: the tensor's, for messages.

    Raises:
        LiteRtError: another number of strings, or one that does not lie in the buffer.
    """
    found = struct.unpack_from("<i", memory)[0]
    if found != count:
        raise LiteRtError(f"output {name!r} has {found} strings, its shape says {count}")
    offsets = struct.unpack_from(f"<{count + 1}i", memory, 4)
    bounds = (4 * (count + 2), *offsets, len(memory))
    if any(start > end for start, end in pairwise(bounds)):
        raise LiteRtError(f"output {name!r}: its strings do not lie in its buffer")
    return [bytes(memory[start:end]) for start, end in pairwise(offsets)]


def _used_bytes(memory: memoryview) -> int:
    """How far a tensor that was read reaches into its buffer."""
    count = struct.unpack_from("<i", memory)[0]
    return int(struct.unpack_from("<i", memory, 4 * (count + 1))[0])


def _reason(runner: Any, error: LiteRtError) -> LiteRtError:
    """The reason of a run that failed: an output larger than its buffer, or an operator, which fails again with room.

    The runtime gives one status for both, but only the second may be the fault of the values.
    """
    if not error.in_operator:
        return error
    try:
        _make_room(runner, _AMPLE_BYTES)
        runner.run()
    except LiteRtError as again:
        return again
    finally:
        _make_room(runner, MAX_OUTPUT_BYTES)
    return LiteRtError(f"a string output of one run takes at most {MAX_OUTPUT_BYTES} bytes, and this one is larger")


def _make_room(runner: Any, size: int) -> None:
    for index in runner.outs.strings:
        runner.outs.place(index, size)
        runner.outs.views[index][:4] = bytes(4)  # see `run`
