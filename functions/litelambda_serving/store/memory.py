"""Where a model's bytes can go in a function of a given memory size: into memory, onto /tmp, or nowhere.

XNNPACK repacks all weights when a model is compiled, so that a model needs twice its size while that lasts. Where twice
does not fit, the file goes to the function's ephemeral storage and is mapped: the kernel can drop its pages, and what
must stay is the packed copy alone. Where not even one copy fits, nothing is loaded, and the error says what to set.
"""

from __future__ import annotations

import mmap as _mmap
import os
from mmap import ACCESS_DEFAULT, MAP_ANONYMOUS, MAP_PRIVATE, mmap

from litelambda_serving.errors import ModelTooLargeError

__all__ = ["allocate", "check_fits", "needed_memory_mb"]

FLOOR_BYTES = 48 * 1024 * 1024
"""Interpreter, handler, runtime, S3 client and activations of a usual model: 32 MB measured, and some room."""

_ANONYMOUS = 2.05  # of the model's size: the file and XNNPACK's packed copy of its weights
_MAPPED = 1.05  # the packed copy; the file's own pages can be dropped
_HUGE_PAGES = getattr(_mmap, "MADV_HUGEPAGE", None)  # Linux alone
_EPHEMERAL_STORAGE = "/tmp"  # noqa: S108 - Lambda's one writable folder, private to the environment


def needed_memory_mb(size_bytes: int) -> int:
    """The function's MemorySize that a model of this size needs at least, in MB.

    >>> needed_memory_mb(100 * 1024 * 1024)
    153
    """
    return -(-int(size_bytes * _MAPPED + FLOOR_BYTES) // (1024 * 1024))


def check_fits(name: str, size_bytes: int) -> None:
    """Refuse a model that this function cannot hold, before the kernel kills it without a word.

    Raises:
        ModelTooLargeError: the message says which MemorySize would do.
    """
    memory = _memory_bytes()
    if memory and size_bytes * _MAPPED + FLOOR_BYTES > memory:
        raise ModelTooLargeError(
            f"{name} has {size_bytes / 2**20:.0f} MB, too large for this function's {memory >> 20} MB of memory: "
            f"set MemorySize to at least {needed_memory_mb(size_bytes)}"
        )


def allocate(name: str, size_bytes: int, *, in_memory: bool = False) -> mmap:
    """Room for a model's file: anonymous memory, or a file on /tmp where memory is too short for both copies.

    Args:
        name: its name, for messages.
        size_bytes: its size.
        in_memory: never on /tmp: what was encrypted is not written to a disk.

    Raises:
        ModelTooLargeError: neither is large enough; the message says which setting would do.
    """
    check_fits(name, size_bytes)
    memory = _memory_bytes()
    if not memory or size_bytes * _ANONYMOUS + FLOOR_BYTES <= memory:
        return _anonymous(size_bytes)
    if in_memory:
        raise ModelTooLargeError(
            f"{name} has {size_bytes / 2**20:.0f} MB and was encrypted, so that it is decrypted in memory alone: set "
            f"MemorySize to at least {(size_bytes * _ANONYMOUS + FLOOR_BYTES) / 2**20:.0f}"
        )
    storage = os.statvfs(_EPHEMERAL_STORAGE)
    if storage.f_bavail * storage.f_frsize < size_bytes:
        raise ModelTooLargeError(
            f"{name} has {size_bytes / 2**20:.0f} MB: with {memory >> 20} MB of memory it must be mapped from "
            f"{_EPHEMERAL_STORAGE}, where {storage.f_bavail * storage.f_frsize / 2**20:.0f} MB are free. Set "
            f"EphemeralStorage to at least {size_bytes / 2**20 + 64:.0f} MB, or MemorySize to at least "
            f"{(size_bytes * _ANONYMOUS + FLOOR_BYTES) / 2**20:.0f}"
        )
    # Unlinked at once: the file does not outlive the process.
    path = f"{_EPHEMERAL_STORAGE}/litelambda-{os.getpid()}-{id(name):x}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.unlink(path)
        os.ftruncate(descriptor, size_bytes)
        return mmap(descriptor, size_bytes, access=ACCESS_DEFAULT)
    finally:
        os.close(descriptor)


def _anonymous(size_bytes: int) -> mmap:
    """Private memory, in pages of 2 MB where the kernel has them: the 25,000 small ones of 100 MB take it 25 ms."""
    memory = mmap(-1, size_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS)  # shared memory, the default, is filled slower
    if _HUGE_PAGES is not None:
        try:  # noqa: SIM105 - contextlib is not for INIT
            memory.madvise(_HUGE_PAGES)
        except OSError:
            pass  # a kernel without them
    return memory


def _memory_bytes() -> int:
    """The function's memory, 0 where there is no limit to keep."""
    memory_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return int(memory_mb) << 20 if memory_mb.isdecimal() else 0
