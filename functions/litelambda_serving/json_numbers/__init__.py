"""Large arrays of numbers in JSON, read straight into tensors: a tenth of the time of lists and `struct`.

`json_numbers.c` does it, which `make native` compiles for both of Lambda's architectures; 6 kB each. What it does not
read - a ragged array, a value of another kind or out of range, text that is not JSON - is read in Python as ever, so
that answers and errors are the same with it and without.

Loaded with the first large document. Where there is no compiled file for a machine, documents are read in Python.
"""

from __future__ import annotations

import os
from ctypes import CDLL, addressof, c_char, c_char_p, c_float, c_int64, c_void_p, cast
from math import prod

from litelambda_serving.json_codec import MIN_ARRAY_BYTES, UnreadNumbers, loads
from litelambda_serving.tensor import DTYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Any

__all__ = ["NumberArray", "library_path", "loads_with_arrays"]

_MIN_BYTES = 512  # of an array
_MAX_ARRAYS, _SPAN = 64, 4
# As in the C source's `enum kind`.
_KINDS = {
    name: kind
    for kind, name in enumerate(
        ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    )
}


def library_path(machine: str) -> str:
    """Where the compiled file for a machine is, if it is there.

    Args:
        machine: "x86_64" or "aarch64".
    """
    return os.path.join(os.path.dirname(__file__), f"json_numbers-{machine}.so")


def _load() -> CDLL | None:
    path = library_path(os.uname().machine)
    if not os.path.exists(path):
        return None
    library = CDLL(path)
    library.find_arrays.restype = library.read_array.restype = library.scale.restype = c_int64
    library.find_arrays.argtypes = [c_char_p, c_int64, c_int64, c_void_p, c_int64]
    library.read_array.argtypes = [c_void_p, c_int64, c_void_p, c_int64, c_void_p]
    library.scale.argtypes = [c_void_p, c_int64, c_void_p, c_void_p, c_int64]
    return library


_library = _load()
_mark = f"litelambda:{os.urandom(16).hex()}:"  # stands for an array; no client can guess it


class NumberArray(UnreadNumbers):
    """An array of a document that holds numbers, or arrays of them; made by `loads_with_arrays`."""

    __slots__ = ("_document", "_end", "_length", "_start")

    def __init__(self, document: bytes, span: Sequence[int]) -> None:
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
        kind, count = _KINDS.get(dtype), prod(shape)
        # Two characters for each value at least: a shape from elsewhere cannot ask for more memory than the text has.
        if kind is None or _library is None or not 0 < 2 * count <= self._end - self._start:
            return None
        data = bytearray(count * DTYPES[dtype].itemsize)
        sizes = (c_int64 * len(shape))(*shape)
        text = (cast(c_char_p(self._document), c_void_p).value or 0) + self._start  # CPython ends bytes with a zero
        into = addressof(c_char.from_buffer(data))
        return data if _library.read_array(text, kind, sizes, len(shape), into) else None

    def scale(self, data: bytearray, scale: Sequence[float], offset: Sequence[float]) -> bool:
        """See `UnreadNumbers.scale`."""
        steps = max(len(scale), len(offset))
        factors, terms = ((c_float * steps)(*tuple(each) * (steps // len(each))) for each in (scale, offset))
        values = addressof(c_char.from_buffer(data))
        return _library is not None and bool(
            _library.scale(values, len(data) // 4, factors, terms if any(offset) else None, steps)
        )


def loads_with_arrays(document: bytes) -> Any:
    """Read one JSON value as `json_codec.loads` does, but for large arrays of numbers, which are read later.

    Those are where the protocols have tensors: `instances`, `inputs`, an input of these, the `data` of one.

    Raises:
        ValueError, RecursionError: see `json_codec.loads`.

    >>> fields = loads_with_arrays(b'{"instances": [' + b"0.5," * 9999 + b"1]}")
    >>> len(fields["instances"])
    10000
    """
    if _library is None or len(document) < MIN_ARRAY_BYTES:
        return loads(document)
    found = (c_int64 * (_SPAN * _MAX_ARRAYS))()
    count = _library.find_arrays(document, len(document), _MIN_BYTES, found, _MAX_ARRAYS)
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
