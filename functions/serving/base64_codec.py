"""Base64 of large bodies, through OpenSSL's libcrypto where the machine has it: about a third of binascii's time.

API Gateway hands binary bodies over as base64, so that for an image or a binary tensor this is most of what a request
costs beside the model's own run. Imported with the first large body.
"""

from __future__ import annotations

import ctypes
from binascii import Error as Base64Error
from binascii import a2b_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["decode"]

_LIBRARIES = ("libcrypto.so.3", "libcrypto.so.1.1")


def decode(text: str) -> Buffer:
    """Decode base64, strictly: no white space, right padding, nothing after it.

    Raises:
        binascii.Error: `text` is not base64.
    """
    native = _decoder()
    if native is None:
        return a2b_base64(text, strict_mode=True)
    try:
        source = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise Base64Error("a character that is not ASCII") from error
    padding = len(source) - len(source.rstrip(b"="))
    if len(source) % 4 or padding > 2 or source.find(b"=", 0, len(source) - padding) >= 0:
        raise Base64Error("the padding is wrong")
    target = bytearray(len(source) // 4 * 3)
    length = native((ctypes.c_char * len(target)).from_buffer(target), source, len(source))
    # libcrypto skips white space at both ends, which makes what it found shorter.
    if length != len(target):
        raise Base64Error("a character outside the alphabet")
    return memoryview(target).toreadonly()[: length - padding]


_native: Callable[..., int] | None = None
_looked = False


def _decoder() -> Callable[..., int] | None:
    """Libcrypto's decoder, looked for once; None on a machine without the library."""
    global _native, _looked
    if not _looked:
        _native, _looked = next(filter(None, map(_load, _LIBRARIES)), None), True
    return _native


def _load(name: str) -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(name).EVP_DecodeBlock
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
