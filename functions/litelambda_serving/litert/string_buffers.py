"""String tensors in the runtime's memory. Imported with the first model that has one.

The runtime's layout (tflite `string_util.h`) is int32, little-endian: how many strings there are, where each of them
starts and where the last one ends, counted from the buffer's own start; then their bytes, without anything between.

Nobody knows how large a string output will be before the run. The runtime keeps it to itself, holds its size against
the buffer it was given and copies it only if it fits: what is too large fails the run and touches no memory. So an
output gets more address space than any answer takes; memory is only what was written to of it.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

from litelambda_serving.errors import LiteRtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.litert import SignatureRunner

__all__ = ["MAX_OUTPUT_BYTES", "encode_strings", "read_strings", "used_bytes", "why_it_failed"]

MAX_OUTPUT_BYTES = 32 * 1024 * 1024
"""Of one string output of one run: five times what a response can hold. From this size on, the C library takes memory
from the kernel and gives it back when it is released."""

_AMPLE_BYTES = 128 * 1024 * 1024
"""More than any string output takes: a run that fails with so much room does not fail for want of it."""

_MAX_TENSOR_BYTES = (1 << 31) - 1


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


def used_bytes(memory: memoryview) -> int:
    """How far a tensor that was read reaches into its buffer."""
    count = struct.unpack_from("<i", memory)[0]
    return int(struct.unpack_from("<i", memory, 4 * (count + 1))[0])


def why_it_failed(runner: SignatureRunner, error: LiteRtError) -> LiteRtError:
    """The reason of a run that failed: an output larger than its buffer, or an operator, which fails again with room.

    The runtime gives one status for both, but only the second may be the fault of the values.

    Args:
        runner: what was run, with its inputs.
        error: how it failed.
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


def _make_room(runner: SignatureRunner, size: int) -> None:
    for index in runner.outs.strings:
        runner.outs.place(index, size)
        runner.outs.views[index][:4] = bytes(4)  # see CompiledModel._run_to_strings
