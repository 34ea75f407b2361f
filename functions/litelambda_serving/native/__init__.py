"""What is done in C: large arrays of numbers from JSON to tensors and back, an event's large body, large base64.

`native.c` does it, which `make native` compiles for both of Lambda's architectures. What it does not take - a ragged
array, a value of another kind or out of range, text that is not JSON - is Python's as ever, so that answers and errors
are the same with it and without.

Loaded with the first request that it pays for, see `json_codec.pays_native`. Where there is no compiled file for a
machine, everything is done in Python.
"""

from __future__ import annotations

import os
from binascii import a2b_base64
from ctypes import CDLL, addressof, c_char, c_char_p, c_float, c_int, c_int64, c_void_p, py_object, pythonapi
from math import isfinite, prod
from struct import pack, unpack

from litelambda_serving.json_codec import UnreadNumbers, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Any

    from typing_extensions import Buffer

__all__ = [
    "NumberArray", "are_finite", "array_text", "decode_base64", "library_path", "loads_event", "loads_with_arrays",
]  # fmt: skip

_MIN_BYTES = 512  # of an array
_MAX_ARRAYS, _SPAN = 64, 4
# As in the C source's `enum kind`, with each value's size.
_KINDS = {
    name: (kind, size)
    for kind, (name, size) in enumerate(
        [
            *(("float32", 4), ("float64", 8), ("int8", 1), ("int16", 2), ("int32", 4), ("int64", 8)),
            *(("uint8", 1), ("uint16", 2), ("uint32", 4), ("uint64", 8), ("bool", 1)),
        ]
    )
}
_READ, _WRITTEN = _KINDS.keys() - {"bool"}, _KINDS.keys() - {"float64"}
_MAX_CHARACTERS = 24  # of a value, with a comma


def library_path(machine: str) -> str:
    """Where the compiled file for a machine is, if it is there.

    Args:
        machine: "x86_64" or "aarch64".
    """
    return os.path.join(os.path.dirname(__file__), f"native-{machine}.so")


def _load() -> CDLL | None:
    path = library_path(os.uname().machine)
    if not os.path.exists(path):
        return None
    library = CDLL(path)
    text, size, address = c_void_p, c_int64, c_void_p
    for name, types in {
        "find_arrays": [text, size, size, address, size],
        "read_array": [text, size, size, address, size, address],
        "scale": [address, size, address, address, size],
        "take_string": [text, size, c_char_p, address, address],
        "decode_base64": [text, size, address],
        "are_finite": [address, size],
        "write_array": [address, size, address, size, size, address],
    }.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, c_int64
    return library


_library = _load()
_mark = f"litelambda:{os.urandom(16).hex()}:"  # stands for an array or a body; no client can guess it
_get_buffer, _release_buffer = pythonapi.PyObject_GetBuffer, pythonapi.PyBuffer_Release
_get_buffer.argtypes, _release_buffer.argtypes = (py_object, c_void_p, c_int), (c_void_p,)


def _call(name: str, data: Buffer, *arguments: Any) -> int:
    """Call a function with the address of bytes, and more; -1 where nothing is compiled for this machine."""
    if _library is None:
        return -1
    view = (c_void_p * 11)()  # a Py_buffer, which begins with the address
    _get_buffer(data, view, 0)
    try:
        found: int = getattr(_library, name)(view[0], *arguments)
    finally:
        _release_buffer(view)
    return found


def _target(data: bytearray) -> int:
    """Where a function may write; it stays there while `data` is not resized."""
    return addressof(c_char.from_buffer(data))


def _sizes(shape: Sequence[int]) -> Any:
    return (c_int64 * len(shape))(*shape)


class NumberArray(UnreadNumbers):
    """An array of a document that holds numbers, or arrays of them; made by `loads_with_arrays`."""

    __slots__ = ("_document", "_end", "_length", "_start")

    def __init__(self, document: bytes | bytearray, span: Sequence[int]) -> None:
        self._document = document
        self._start, self._end, self._length, depth = span
        self.is_flat = depth == 1

    def __len__(self) -> int:
        return self._length

    def to_list(self) -> Any:
        """See `UnreadNumbers.to_list`."""
        return loads(self._document[self._start : self._end])

    def read(self, dtype: str, shape: Sequence[int]) -> bytearray | None:
        """See `UnreadNumbers.read`."""
        count = prod(shape)
        # Two characters for each value at least: a shape from elsewhere cannot ask for more memory than the text has.
        if dtype not in _READ or not 0 < 2 * count <= self._end - self._start:
            return None
        kind, size = _KINDS[dtype]
        data = bytearray(count * size)
        done = _call("read_array", self._document, self._start, kind, _sizes(shape), len(shape), _target(data))
        return data if done > 0 else None

    def scale(self, data: bytearray, scale: Sequence[float], offset: Sequence[float]) -> bool:
        """See `UnreadNumbers.scale`."""
        steps = max(len(scale), len(offset))
        factors, terms = ((c_float * steps)(*tuple(each) * (steps // len(each))) for each in (scale, offset))
        return _call("scale", data, len(data) // 4, factors, terms if any(offset) else None, steps) > 0


def loads_with_arrays(document: bytes | bytearray) -> Any:
    """Read one JSON value as `json_codec.loads` does, but for large arrays of numbers, which are read later.

    Those are where the protocols have tensors: `instances`, `inputs`, an input of these, the `data` of one.

    Raises:
        ValueError, RecursionError: see `json_codec.loads`.

    >>> fields = loads_with_arrays(b'{"instances": [' + b"0.5," * 9999 + b"1]}")
    >>> len(fields["instances"])
    10000
    """
    found = (c_int64 * (_SPAN * _MAX_ARRAYS))()
    count = _call("find_arrays", document, len(document), _MIN_BYTES, found, _MAX_ARRAYS)
    if count <= 0:
        return loads(document)
    spans = [found[_SPAN * index : _SPAN * (index + 1)] for index in range(count)]
    arrays = {f"{_mark}{index}": NumberArray(document, span) for index, span in enumerate(spans)}
    pieces, position = [], 0
    for mark, span in zip(arrays, spans, strict=True):
        pieces += [document[position : span[0]], f'"{mark}"'.encode()]
        position = span[1]
    try:
        fields = loads(b"".join([*pieces, document[position:]]))
    except (ValueError, RecursionError):
        return loads(document)  # it says where in the document
    return fields if _put_back(fields, arrays) == count else loads(document)


def loads_event(payload: bytes) -> Any:
    r"""Read an event as `json_codec.loads` does, but for a body in ASCII: as the bytes of it, not as text.

    Raises:
        ValueError, RecursionError: see `json_codec.loads`.

    >>> loads_event(rb'{"path": "/", "body": "{\"inputs\": [\u00e4]}"}')
    {'path': '/', 'body': bytearray(b'{"inputs": [\xc3\xa4]}')}
    """
    body, span = bytearray(len(payload) + 1), (c_int64 * 2)()
    length = _call("take_string", payload, len(payload), b"body", span, _target(body))
    if length < 0:
        return loads(payload)
    try:
        event = loads(b'%b"%b"%b' % (payload[: span[0]], _mark.encode(), payload[span[1] :]))
    except (ValueError, RecursionError):
        return loads(payload)  # it says where in the event
    if event["body"] == _mark:  # it may come once more
        del body[length:]
        event["body"] = body
    return event


def decode_base64(text: str | bytearray) -> Buffer:
    """Decode base64, strictly: no white space, correct padding, nothing after it.

    Raises:
        ValueError: `text` is not base64.

    >>> decode_base64("aGVsbG8=")
    bytearray(b'hello')
    """
    data = bytearray(len(text) // 4 * 3 + 1)
    length = -1
    if not isinstance(text, str):
        length = _call("decode_base64", text, len(text), _target(data))
    elif text.isascii() and _library is not None:
        # The characters of an ASCII text lie in memory as its bytes: no copy is made to read them.
        length = _library.decode_base64(_characters(text), len(text), _target(data))
    if length < 0:
        return a2b_base64(text, strict_mode=True)
    del data[length:]
    return data


_characters = pythonapi.PyUnicode_AsUTF8
_characters.argtypes, _characters.restype = (py_object,), c_void_p


def are_finite(values: memoryview) -> bool:
    """Whether float32 values, a view of which has the format "f", have neither NaN nor infinities."""
    found = _call("are_finite", values, len(values))
    return all(map(isfinite, values)) if found < 0 else found > 0


def array_text(data: Buffer, dtype: str, shape: Sequence[int], between: str) -> str | None:
    """Write numbers or booleans as JSON, nested as their shape, without the outermost brackets.

    Args:
        data: their bytes, row-major.
        dtype: their type's name; half floats are written as the float32 that they are.
        shape: sizes of all dimensions; of a scalar, none.
        between: the character between the entries of the first dimension.

    Returns:
        The text; None where it cannot be written here.

    >>> array_text(bytes([1, 2, 3, 4]), "int8", (2, 2), ";")
    '[1,2];[3,4]'
    """
    count = prod(shape)
    if dtype == "float16":
        data, dtype = pack(f"<{count}f", *unpack(f"<{count}e", data)), "float32"
    if dtype not in _WRITTEN or memoryview(data).nbytes != count * _KINDS[dtype][1]:
        return None
    lists = sum(prod(shape[:axis]) for axis in range(1, len(shape)))
    text = bytearray(_MAX_CHARACTERS * count + 3 * lists + 1)
    kind, sizes = _KINDS[dtype][0], _sizes(shape or (1,))
    length = _call("write_array", data, kind, sizes, len(sizes), ord(between), _target(text))
    return None if length < 0 else str(memoryview(text)[:length], "ascii")


def _put_back(fields: Any, arrays: dict[str, NumberArray]) -> int:
    """Replace marks: with their arrays where the protocols have tensors, with lists elsewhere; how many there were."""
    if type(fields) is not dict:
        return 0
    inputs: Any = fields.get("inputs")
    count = _put_back_in(fields, arrays, ("instances", "inputs"))
    for value in fields.values():
        if type(value) is dict:
            count += _put_back_in(value, arrays, tuple(inputs) if value is inputs else ())
        for entry in value if type(value) is list else ():
            if type(entry) is dict:
                count += _put_back_in(entry, arrays, ("data",) if value is inputs else ())
    return count


def _put_back_in(holder: dict[str, Any], arrays: dict[str, NumberArray], tensors: Container[str]) -> int:
    found = [(name, arrays[value]) for name, value in holder.items() if type(value) is str and value in arrays]
    holder.update((name, array if name in tensors else array.to_list()) for name, array in found)
    return len(found)
