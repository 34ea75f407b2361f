"""Tensors as they travel: dtypes, shapes, and nested lists to and from row-major little-endian bytes.

Knows no protocol and no runtime. Every machine litelambda runs on (x86_64, aarch64) is little-endian, so
bytes go to the runtime and over the wire as they are.
"""

from __future__ import annotations

import struct
from itertools import chain
from math import isfinite, prod

from litelambda_serving.errors import TensorError
from litelambda_serving.json_codec import UnreadNumbers, nest_texts, number_texts, pays_native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from typing_extensions import Buffer

__all__ = [
    "DTYPES", "DYNAMIC", "Dtype", "Quantization", "Tensor", "TensorSpec", "check_finite", "json_text",
    "pack", "row_count", "type_error", "unpack_flat",
]  # fmt: skip

DYNAMIC = -1
"""The size of a dimension that the client chooses; only ever the first one, the batch."""


class Dtype:
    """One element type under all its names.

    Attributes:
        name: numpy's name, as in the manifest.
        itemsize: bytes per element; 0 for strings, whose elements differ in size.
        format: code of the `struct` module; "" for strings.
        kind: "bool", "int", "float" or "string": which JSON values it takes.
        element_type: number of LiteRT's `LiteRtElementType`.
    """

    __slots__ = ("element_type", "format", "itemsize", "kind", "name")

    def __init__(self, name: str, itemsize: int, format: str, kind: str, element_type: int) -> None:  # noqa: A002 - struct's word
        self.name = name
        self.itemsize = itemsize
        self.format = format
        self.kind = kind
        self.element_type = element_type

    def __repr__(self) -> str:
        return self.name


DTYPES = {
    dtype.name: dtype
    for dtype in (
        #     name     bytes  struct  kind  LiteRtElementType
        Dtype("bool", 1, "?", "bool", 6),
        Dtype("uint8", 1, "B", "int", 3),
        Dtype("uint16", 2, "H", "int", 17),
        Dtype("uint32", 4, "I", "int", 16),
        Dtype("uint64", 8, "Q", "int", 13),
        Dtype("int8", 1, "b", "int", 9),
        Dtype("int16", 2, "h", "int", 7),
        Dtype("int32", 4, "i", "int", 2),
        Dtype("int64", 8, "q", "int", 4),
        Dtype("float16", 2, "e", "float", 10),
        Dtype("float32", 4, "f", "float", 1),
        Dtype("float64", 8, "d", "float", 11),
        Dtype("string", 0, "", "string", 5),
    )
}

# Exact types, as JSON gives them: a bool is not a number and 1.0 is not an integer.
_ACCEPTED: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "float": frozenset({int, float}),
}


class Quantization:
    """The affine scheme of a raw int8 or uint8 tensor: real = (code - zero_point) * scale.

    Attributes:
        scale: real units per step, > 0.
        zero_point: the code of real 0.0.
    """

    __slots__ = ("scale", "zero_point")

    def __init__(self, scale: float, zero_point: int) -> None:
        self.scale = scale
        self.zero_point = zero_point


class TensorSpec:
    """Name, dtype and shape of one input or output of a signature.

    Attributes:
        name: the name under which clients address it.
        dtype: its element type.
        shape: sizes per dimension; `DYNAMIC` in first place for a batch dimension.
        quantization: the affine scheme when the codes themselves go over the wire, else None.
        finite: whether NaN and infinities are refused: a graph that quantizes its input has no code for them.
        limits: the smallest and the largest value that the graph can compute with, if known.
        same_as: of an output, the name of the output that is the same tensor of the graph.
        constant: whether an output is the same for all inputs.
    """

    __slots__ = ("constant", "dtype", "finite", "limits", "name", "quantization", "same_as", "shape")

    def __init__(
        self,
        name: str,
        dtype: Dtype,
        shape: Sequence[int],
        quantization: Quantization | None = None,
        *,
        finite: bool = False,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = tuple(shape)
        self.quantization = quantization
        self.finite = finite
        self.limits: tuple[int, int] | None = None
        self.same_as = ""
        self.constant = False

    @property
    def batched(self) -> bool:
        """Whether the first dimension is the client's to choose."""
        return bool(self.shape) and self.shape[0] == DYNAMIC

    def shape_of(self, rows: int) -> tuple[int, ...]:
        """The sizes of a tensor with so many rows; `shape` where there is no batch dimension.

        >>> TensorSpec("x", DTYPES["float32"], (DYNAMIC, 28, 28)).shape_of(2)
        (2, 28, 28)
        """
        return (rows, *self.shape[1:]) if self.batched else self.shape

    @property
    def row_values(self) -> int:
        """Values of one row (of the whole tensor where there is no batch dimension)."""
        return prod(self.shape[1:] if self.batched else self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; 0 for strings, whose elements differ in size."""
        return self.row_values * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype.name}{list(self.shape)}"


class Tensor:
    """Values on their way in or out.

    Attributes:
        dtype: element type.
        shape: sizes per dimension, all known.
        data: row-major little-endian bytes; of strings a list of bytes, row-major.
    """

    __slots__ = ("data", "dtype", "shape")

    # Any, not a union: each reader knows by the dtype which of the two it has.
    data: Any

    def __init__(self, dtype: Dtype, shape: Sequence[int], data: Buffer | list[bytes]) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = data


def row_count(values: Any) -> int:
    """Number of rows of a nested list.

    Raises:
        TensorError: `values` is not a list, or an empty one.
    """
    if type(values) is not list and not isinstance(values, UnreadNumbers):
        raise TensorError(f"expected a list of rows, got {_json_type(values)}")
    if not values:
        raise TensorError("expected at least one row, got an empty list")
    return len(values)


def pack(values: Any, spec: TensorSpec, shape: Sequence[int], *, base64: bool = True) -> Tensor:
    """Turn nested lists, as JSON gives them, into a tensor.

    Args:
        values: nested lists of the depth and sizes of `shape`, or `UnreadNumbers`; a bare value for a scalar.
        spec: what the values are for; names the tensor in errors and says the dtype.
        shape: the shape the values must have, the batch dimension filled in.
        base64: whether `{"b64": "…"}` is taken for a string.

    Raises:
        TensorError: ragged or wrongly shaped lists, or values that the dtype cannot hold. The message names the
            tensor, what came and what was expected.

    >>> spec = TensorSpec("x", DTYPES["int8"], (DYNAMIC, 2))
    >>> pack([[1, 2], [3, -1]], spec, (2, 2)).data.hex(" ")
    '01 02 03 ff'
    """
    dtype = spec.dtype
    if isinstance(values, UnreadNumbers):
        read = values.read(dtype.name, shape)
        if read is not None:
            return Tensor(dtype, shape, read)
        values = values.to_list()
    flat = _flatten(values, spec, shape)
    if dtype.kind == "string":
        from litelambda_serving.tensor.strings import from_json

        return Tensor(dtype, shape, from_json(flat, spec.name, base64, lambda value: type_error(value, spec)))
    unexpected = set(map(type, flat)) - _ACCEPTED[dtype.kind]
    if unexpected:
        raise type_error(next(value for value in flat if type(value) in unexpected), spec)
    try:
        check_finite(flat, spec)
        data = struct.pack(f"<{len(flat)}{dtype.format}", *flat)
    except (struct.error, OverflowError) as error:
        raise TensorError(f"input {spec.name!r}: a value is outside the range of {dtype.name}") from error
    return Tensor(dtype, shape, data)


def check_finite(values: Sequence[float], spec: TensorSpec) -> None:
    """Refuse NaN and infinities where a graph quantizes its input: it has no code for them.

    Args:
        values: of a float tensor; a memoryview is not copied.
        spec: what they are for.

    Raises:
        TensorError: there are some.
    """
    if spec.finite and spec.dtype.kind == "float" and not _are_finite(values):
        raise TensorError(f"input {spec.name!r} holds NaN or an infinity, which a quantized model cannot represent")


def _are_finite(values: Sequence[float]) -> bool:
    if isinstance(values, memoryview) and values.format == "f" and pays_native(values.nbytes // 8):
        from litelambda_serving.native import are_finite

        return are_finite(values)
    # One sum settles nearly all cases: NaN and infinities survive addition, and few finite values add up to one.
    return isfinite(sum(values)) or all(map(isfinite, values))


def type_error(value: Any, spec: TensorSpec) -> TensorError:
    """The error for a value that a tensor's dtype does not take, in TensorFlow Serving's words."""
    return TensorError(
        f"JSON Value: {_shown(value)} Type: {_json_type(value)} is not of expected type: {spec.dtype.name} "
        f"(input {spec.name!r}, shape {_dimensions(spec.shape)})"
    )


def unpack_flat(tensor: Tensor) -> tuple[Any, ...]:
    r"""Turn a tensor into Python numbers, or bytes for each of its strings, row-major.

    >>> unpack_flat(Tensor(DTYPES["int16"], (2,), b"\x01\x00\xff\xff"))
    (1, -1)
    """
    if not tensor.dtype.itemsize:
        return tuple(tensor.data)
    count = len(memoryview(tensor.data)) // tensor.dtype.itemsize
    return struct.unpack(f"<{count}{tensor.dtype.format}", tensor.data)


def json_text(data: Buffer, dtype: Dtype, shape: Sequence[int], between: str = ",") -> str:
    r"""Write numbers or booleans as JSON, nested as their shape, without the outermost brackets.

    Args:
        data: their bytes, row-major little-endian.
        dtype: not strings.
        shape: sizes of all dimensions.
        between: the character between the entries of the first dimension; one that no number has parts them again.

    >>> json_text(b"\x01\x00\xff\xff", DTYPES["int16"], (2, 1))
    '[1],[-1]'
    """
    text = None
    if pays_native(16 * prod(shape)):  # to write a value takes as long as to read so many bytes
        from litelambda_serving.native import array_text

        text = array_text(data, dtype.name, shape, between)
    return between.join(nest_texts(number_texts(data, dtype.format), shape)) if text is None else text


def _flatten(values: Any, spec: TensorSpec, shape: Sequence[int]) -> list[Any]:
    """Flatten one dimension after the other: never deeper than the shape, however deeply the lists are nested."""
    level: Iterable[Any] = (values,)
    for depth, dimension in enumerate(shape):
        nodes = list(level)
        for node in nodes if set(map(type, nodes)) != {list} else ():
            if type(node) is not list:
                raise TensorError(
                    f"input {spec.name!r}: expected {len(shape)} dimensions of sizes {_dimensions(spec.shape)}, "
                    f"got {_json_type(node)} at depth {depth}"
                )
        if nodes and set(map(len, nodes)) != {dimension}:
            size = next(len(node) for node in nodes if len(node) != dimension)
            raise TensorError(
                f"Expecting tensor size: {dimension} but got: {size} "
                f"(input {spec.name!r}, dimension {depth} of shape {_dimensions(spec.shape)})"
            )
        level = chain.from_iterable(nodes)
    return list(level)


def _dimensions(shape: Sequence[int]) -> str:
    return "[" + ", ".join("batch" if size == DYNAMIC else str(size) for size in shape) + "]"


def _json_type(value: Any) -> str:
    """JSON's own word for a value, since that is what the client wrote."""
    names = {list: "Array", dict: "Object", str: "String", bool: "Boolean", int: "Number", float: "Number"}
    return names.get(type(value), "Null")


def _shown(value: Any) -> str:
    """A value short enough to echo: numbers and names help the client, contents do not belong in a log."""
    if isinstance(value, str):
        return f'"{value[:20]}…"' if len(value) > 20 else f'"{value}"'
    return "…" if isinstance(value, (list, dict)) else str(value).lower()[:40]
