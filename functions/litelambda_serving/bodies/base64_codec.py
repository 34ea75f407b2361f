"""Base64 of large bodies, through OpenSSL's libcrypto where the machine has it: about a third of binascii's time.

API Gateway hands binary bodies over as base64, so that for an image or a binary tensor this is most of what a request
costs in addition to the model's own run. Loaded with the first large body.
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
    """Decode base64, strictly: no white space, correct padding, nothing after it.

    Raises:
        binascii.Error: `text` is not base64.

    >>> bytes(decode("aGVsbG8="))
    b'hello'
    """
    native = _decoder()
    if native is None:
        return a2b_base64(text, strict_mode=True)
    size = len(text)
    padding = size - len(text[-3:].rstrip("=")) - max(size - 3, 0)
    if size % 4 or padding > 2 or not text.isascii() or text.find("=", 0, size - padding) >= 0:
        raise Base64Error("the padding is wrong, or a character is outside the alphabet")
    target = _take(size // 4 * 3)
    # The characters of an ASCII text lie in memory as its bytes: no copy is made to read them.
    length = native(ctypes.byref(ctypes.c_char.from_buffer(target)), _characters(text), size)
    # libcrypto skips white space at both ends, which makes what it found shorter.
    if length != size // 4 * 3:
        raise Base64Error("a character is outside the alphabet")
    view = memoryview(target).toreadonly()[: length - padding]
    _spare.append(target)
    return view


_spare: list[bytearray] = []  # popping and appending are atomic: no buffer is taken twice


def _take(size: int) -> bytearray:
    """A buffer of at least `size` bytes, the last one again if it is no longer in use.

    Memory fresh from the kernel costs more than decoding into it: every page is faulted in, request after request.
    """
    while _spare:
        buffer = _spare.pop()
        if len(buffer) >= size:
            try:
                buffer.append(0)
            except BufferError:  # an earlier request still reads it
                continue
            buffer.pop()
            return buffer
    return bytearray(max(size, 1))


_characters = ctypes.pythonapi.PyUnicode_AsUTF8
_characters.argtypes = (ctypes.py_object,)
_characters.restype = ctypes.c_void_p

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
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
