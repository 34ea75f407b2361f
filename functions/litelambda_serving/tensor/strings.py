"""String tensors in JSON and in V2's binary tensors. Loaded with the first one.

A string tensor's data is a list of bytes, row-major: a model's strings are bytes of any kind, which JSON has two forms
for, text in UTF-8 and, in TensorFlow Serving's protocol, `{"b64": "…"}`.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from litelambda_serving.errors import RequestError, TensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

__all__ = ["BASE64_SUFFIX", "from_json", "from_wire", "to_json", "to_text", "to_wire"]

BASE64_SUFFIX = "_bytes"
"""TensorFlow Serving's rule: the values of an output with such a name are binary, and answered as base64."""


def from_json(values: Sequence[Any], name: str, base64: bool, refusal: Callable[[Any], TensorError]) -> list[bytes]:
    r"""Read the strings of a request.

    Args:
        values: as JSON gives them, row-major.
        name: the input's, for messages.
        base64: whether `{"b64": "…"}` is accepted for a string.
        refusal: makes the error for a value of another type.

    Raises:
        TensorError: a value is neither a string nor base64, or holds text that UTF-8 cannot encode.

    >>> from_json(["text", {"b64": "AP8="}], "x", True, TensorError)
    [b'text', b'\x00\xff']
    """
    strings = []
    for value in values:
        if type(value) is str:
            try:
                strings.append(value.encode())
            except UnicodeEncodeError as error:
                raise TensorError(f"input {name!r}: a string is not Unicode text: {error.reason}") from error
        elif base64 and type(value) is dict and len(value) == 1 and type(value.get("b64")) is str:
            strings.append(_from_base64(value["b64"], name))
        else:
            raise refusal(value)
    return strings


def to_json(strings: Iterable[bytes], name: str) -> list[Any]:
    """Strings of a V1 answer: text, or base64 for outputs named `…_bytes` and for what is not UTF-8."""
    if name.endswith(BASE64_SUFFIX):
        return [_to_object(value) for value in strings]
    return [_text_or_object(value) for value in strings]


def to_text(strings: Iterable[bytes], name: str) -> list[str]:
    """Strings of a V2 answer in JSON, which has no form for other bytes.

    Raises:
        RequestError: a string is not UTF-8.
    """
    try:
        return [value.decode() for value in strings]
    except UnicodeDecodeError as error:
        raise RequestError(
            f"output {name!r} holds bytes that are not UTF-8 text: request it with 'binary_data'"
        ) from error


def to_wire(strings: Iterable[bytes]) -> bytes:
    r"""Strings as a binary tensor of V2: the length of each as a little-endian uint32, then its bytes.

    >>> to_wire([b"cat", b""])
    b'\x03\x00\x00\x00cat\x00\x00\x00\x00'
    """
    return b"".join([part for value in strings for part in (len(value).to_bytes(4, "little"), value)])


def from_wire(data: memoryview, name: str, count: int) -> list[bytes]:
    """Strings of a binary tensor of V2.

    Args:
        data: all of the tensor.
        name: the input's, for messages.
        count: how many its shape says.

    Raises:
        TensorError: the data ends inside a string, or holds more or fewer of them.
    """
    strings: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        if start > end or position > end:
            raise TensorError(f"incomplete string data for input '{name}': it ends inside string {len(strings)}")
        strings.append(bytes(data[start:position]))
    if len(strings) != count:
        raise TensorError(f"unexpected number of strings {len(strings)} for input '{name}', expecting {count}")
    return strings


def _from_base64(text: str, name: str) -> bytes:
    try:
        return a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise TensorError(f"input {name!r}: Unable to base64 decode: {error}") from error


def _to_object(value: bytes) -> dict[str, str]:
    return {"b64": b2a_base64(value, newline=False).decode("ascii")}


def _text_or_object(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _to_object(value)
