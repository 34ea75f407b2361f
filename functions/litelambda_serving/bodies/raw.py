"""Bodies that are a tensor or an image themselves, not JSON about one. Imported with the first of them.

application/octet-stream   row-major little-endian bytes of the only input; as many rows as there are bytes for
application/x-npy          a .npy file of raw values, or with the parameter `prepared=true` of the model's own; number
                           types are converted where nothing is lost
image/*                    one picture for an image input (`litelambda_serving.bodies.images`)

Where the manifest is of format version 1, floats are the model's own values and integers for a float input raw ones.
"""

from __future__ import annotations

import struct
from math import prod

from litelambda_serving.errors import MalformedRequestError, RequestError, TensorError
from litelambda_serving.json_codec import loads
from litelambda_serving.tensor import DTYPES, Tensor, check_finite, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.tensor import Dtype, TensorSpec

__all__ = ["decode_raw", "holds_json", "tensor_of_bytes"]

_NPY_MAGIC = b"\x93NUMPY"
_MAX_NPY_HEADER_BYTES = 4096
_JSON_STARTS = (b"{", b" ", b"\n", b"\r", b"\t", b"\xef")  # the last begins a byte order mark
_NPY_DTYPES = {
    {"bool": "b", "int": "i", "float": "f"}[dtype.kind] + str(dtype.itemsize): dtype
    for dtype in DTYPES.values()
    if dtype.itemsize and not dtype.name.startswith("uint")
} | {f"u{dtype.itemsize}": dtype for dtype in DTYPES.values() if dtype.name.startswith("uint")}


def decode_raw(
    body: Buffer, content_type: str, signature: SignatureSpec, manifest: Manifest, raw_inputs: RawInputs | None
) -> dict[str, Tensor]:
    """Decode a body into the only input of a signature.

    Args:
        body: the request's body.
        content_type: its type; of its parameters, `prepared=true` says that the values are the model's own.
        signature: the entry point it is for.
        manifest: of the model; says how pixels become inputs.
        raw_inputs: what prepares the model's inputs; None where requests have the model's own values.

    Raises:
        RequestError: the model has several inputs, or the body is not what its type says, or does not fit.
        UnsupportedError: an image, and no decoder in the package.
    """
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise RequestError(f"a raw body is for models with one input, this one has {names}: send them by name")
    spec = signature.inputs[0]
    if spec.dtype.kind == "string":
        raise RequestError(f"input {spec.name!r} holds strings, which a raw body cannot express: send them as JSON")
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/octet-stream":
        return {spec.name: _decode_bytes(memoryview(body), spec)}
    if kind == "application/x-npy":
        if raw_inputs is not None and "prepared=true" not in parameters.lower():
            return _decode_raw_npy(memoryview(body), spec.name, raw_inputs)
        return {spec.name: _decode_npy(memoryview(body), spec, manifest.scaling.get(spec.name))}
    from litelambda_serving.bodies.images import decode_image

    return decode_image(body, spec, manifest, raw_inputs)


def holds_json(body: Buffer, content_type: str) -> bool:
    """Whether a body is JSON after all: HTTP libraries label any bytes as application/octet-stream."""
    if not content_type.startswith("application/octet-stream") or bytes(memoryview(body)[:1]) not in _JSON_STARTS:
        return False
    try:
        return type(loads(bytes(body))) is dict
    except (ValueError, RecursionError):
        return False


def tensor_of_bytes(data: memoryview, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    """A tensor of bytes as they came, uncopied; strings are read out of V2's binary form.

    Raises:
        TensorError: a byte of a bool tensor is neither 0 nor 1, a quantized model's input is not finite, or the
            strings are not what the shape says.
    """
    if spec.dtype.kind == "string":
        from litelambda_serving.tensor.strings import from_wire

        return Tensor(spec.dtype, shape, from_wire(data, spec.name, prod(shape)))
    if spec.dtype.kind == "bool" and max(data, default=0) > 1:
        raise TensorError(f"input {spec.name!r}: a byte of a bool tensor is neither 0 nor 1")
    if spec.finite and spec.dtype.kind == "float":
        check_finite(_floats(data, spec.dtype.itemsize), spec)
    return Tensor(spec.dtype, shape, data)


def _floats(data: memoryview, itemsize: int) -> Sequence[float]:
    """The numbers, uncopied but for half floats, which no view knows."""
    if itemsize == 2:
        return struct.unpack(f"<{len(data) // 2}e", data)
    return data.cast("f") if itemsize == 4 else data.cast("d")


def _decode_bytes(data: memoryview, spec: TensorSpec) -> Tensor:
    rows, rest = divmod(len(data), spec.row_bytes)
    if rest or not rows or (rows > 1 and not spec.batched):
        expected = f"{'a multiple of ' if spec.batched else ''}{spec.row_bytes}"
        raise TensorError(f"unexpected size for input '{spec.name}': {len(data)} bytes, expected {expected}")
    return tensor_of_bytes(data, spec, spec.shape_of(rows))


def _decode_raw_npy(body: memoryview, name: str, raw_inputs: RawInputs) -> dict[str, Tensor]:
    """An array of raw values, for the input of that name."""
    raw_spec = raw_inputs.preprocessors[name].raw_spec
    if raw_spec is None:
        return raw_inputs.prepare({}, {name: ((), ())})  # raises, and says why arrays do not fit
    raw = _decode_npy(body, raw_spec, None)
    data: Any = memoryview(raw.data).cast("B")
    return raw_inputs.prepare({}, {name: (data.cast(raw_spec.dtype.format), raw.shape)})


def _decode_npy(body: memoryview, spec: TensorSpec, scaling: Mapping[str, Any] | None) -> Tensor:
    dtype, order, shape, data = _read_npy(body)
    if dtype.itemsize * prod(shape) != len(data):
        raise TensorError(f"the .npy file says shape {shape} of {dtype}, but holds {len(data)} bytes")
    row_shape = spec.shape[1:] if spec.batched else spec.shape
    if spec.batched and shape == row_shape:
        shape = (1, *shape)
    if shape[spec.batched :] != row_shape or len(shape) != len(spec.shape) or not len(data):
        raise TensorError(f"unexpected shape for input '{spec.name}'. Expected {list(spec.shape)}, got {list(shape)}")
    if dtype is spec.dtype and (order == "<" or dtype.itemsize == 1):
        return tensor_of_bytes(data, spec, shape)
    values: Sequence[float] = struct.unpack(f"{order}{prod(shape)}{dtype.format}", data)
    if scaling and dtype.kind == "int" and spec.dtype.kind == "float":
        from litelambda_serving.preprocessing.numbers import Numbers

        return Numbers(spec, scaling).prepare_array(values, shape)
    flat = pack(list(values), spec, (len(values),))
    flat.shape = shape
    return flat


def _read_npy(body: memoryview) -> tuple[Dtype, str, tuple[int, ...], memoryview]:
    """Element type, byte order, shape and data of a .npy file (format versions 1 to 3)."""
    from ast import literal_eval

    head = bytes(body[:12])
    start = 10 if head[6:7] == b"\x01" else 12
    length = int.from_bytes(head[8:start], "little")
    if head[:6] != _NPY_MAGIC or head[6:7] not in (b"\x01", b"\x02", b"\x03") or length > _MAX_NPY_HEADER_BYTES:
        raise MalformedRequestError("the body is not a .npy file of format version 1, 2 or 3")
    try:
        header = literal_eval(bytes(body[start : start + length]).decode())
        description, shape = header["descr"], header["shape"]
        dtype = _NPY_DTYPES[description[1:]]
        fortran = header["fortran_order"]
    except (ValueError, SyntaxError, LookupError, TypeError, MemoryError, RecursionError) as error:
        raise MalformedRequestError(
            f"the .npy file's header cannot be read, or holds no numbers: {type(error).__name__}"
        ) from error
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 8:
        raise MalformedRequestError("the .npy file's shape is not a tuple of sizes")
    if fortran and len(shape) > 1:
        raise MalformedRequestError("the .npy file is in Fortran order: save numpy.ascontiguousarray(values)")
    return dtype, ">" if description[0] == ">" else "<", shape, body[start + length :]
