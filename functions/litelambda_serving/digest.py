"""SHA-256, by the cheapest implementation for the size at hand.

`hashlib` loads OpenSSL, which takes longer than hashing a small model: small inputs go through CPython's own C module.
OpenSSL uses the CPU's SHA instructions, which pays from some megabytes on.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _hashlib

    from typing_extensions import Buffer

    Hasher = _hashlib.HASH

__all__ = ["Hasher", "hexdigest", "new_hasher"]

_OPENSSL_PAYS_FROM_BYTES = 2 * 1024 * 1024


def new_hasher(size_bytes: int) -> Hasher:
    """A SHA-256 that suits an input of about `size_bytes`."""
    if size_bytes >= _OPENSSL_PAYS_FROM_BYTES or "hashlib" in sys.modules:
        from hashlib import sha256

        return sha256()
    # The module was renamed in CPython 3.12.
    hasher: Hasher = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256()
    return hasher


def hexdigest(data: Buffer) -> str:
    """SHA-256 of `data` in lower-case hex.

    >>> hexdigest(b"abc")[:16]
    'ba7816bf8f01cfea'
    """
    view = memoryview(data)
    hasher = new_hasher(view.nbytes)
    hasher.update(view)
    return hasher.hexdigest()
