"""Files that are written aside and become visible whole, as the writers of local outputs and stores need them.

Such a file is locked as long as its writer lives. What a killed writer left behind has no lock: the next writer of the
same file removes it. Its name cannot be foreseen, and no link that lies there is followed. Not loaded at INIT.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

__all__ = ["create_part", "remove_stale_parts"]

_ENDING = ".part"
_SHOWN = 40  # characters of the final name, so that a person sees what it is


def create_part(path: Path) -> tuple[Path, int]:
    """Make an empty file beside a path, hidden, for this process alone.

    Returns:
        Its path and its descriptor, which holds the lock.

    Raises:
        OSError: the folder cannot be written to.
    """
    remove_stale_parts(path)
    while True:
        part = path.with_name(f"{_beginning(path)}{secrets.token_hex(8)}{_ENDING}")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        _lock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # another writer came between the two lines above, and took it for one left behind


def remove_stale_parts(path: Path) -> None:
    """Remove what writers of a path that were killed left behind."""
    beginning = _beginning(path)
    for name in os.listdir(path.parent):
        if not (name.startswith(beginning) and name.endswith(_ENDING)):
            continue
        part = path.with_name(name)
        with suppress(OSError):  # it is gone, or not this user's
            descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    part.unlink()
            finally:
                os.close(descriptor)


def _beginning(path: Path) -> str:
    return f".{path.name[:_SHOWN]}."


def _lock(descriptor: int, how: int) -> bool:
    """Whether the lock was to be had; on a file system that knows none it never is."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True
