"""The inputs of a V2 inference request: its JSON and the binary tensors after it, to the model's tensors.

The binary tensor extension puts the bytes of tensors after the JSON, in its order; they go to the runtime as slices of
the body, uncopied.
"""

from __future__ import annotations

from math import prod

from litelambda_serving.bodies.raw import tensor_of_bytes
from litelambda_serving.errors import MalformedRequestError, RequestError, TensorError, UnsupportedError
from litelambda_serving.json_codec import UnreadNumbers, loads
from litelambda_serving.tensor import DTYPES, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from litelambda_serving.manifest import SignatureSpec
    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["DATATYPES", "decode_inputs", "entries_by_name", "parse_request"]

DATATYPES = {
    "bool": "BOOL", "string": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
"""The protocol's word for each dtype."""

_MAX_DEPTH = 100
_MAX_SIZE = 2**100  # of a dimension or a tensor: far above any real one, and short enough for a message


def parse_request(document: bytes, read: Callable[[bytes], Any] = loads) -> dict[str, Any]:
    """Read a request's JSON.

    Args:
        document: the JSON.
        read: reads any JSON.

    Returns:
        Its fields; `parameters` is there even when the request has none.

    Raises:
        MalformedRequestError: not JSON, nested too deeply, or a field of the wrong kind.
        UnsupportedError: it asks for an explanation.
    """
    try:
        fields = read(document)
    except RecursionError:
        raise MalformedRequestError(f"the request's JSON is nested more than {_MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise MalformedRequestError(f"the request is not JSON: {error}") from error
    if type(fields) is not dict:
        raise MalformedRequestError("the request must be a JSON object with the key 'inputs'")
    _check_depth(fields)
    fields = without_nulls(fields)
    if type(fields.get("id", "")) is not str:
        raise MalformedRequestError("'id' must be a string")
    if type(fields.setdefault("parameters", {})) is not dict:
        raise MalformedRequestError("'parameters' must be an object")
    fields["parameters"] = without_nulls(fields["parameters"])
    if fields["parameters"].get("explain"):
        raise UnsupportedError("parameter 'explain' is not supported: use POST /v2/models/NAME/explain")
    return fields


def without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    """An object without its nulls: clients that write all fields of a type, set or not, mean that these are absent."""
    return {name: value for name, value in fields.items() if value is not None} if None in fields.values() else fields


def _check_depth(fields: Mapping[str, Any]) -> None:
    """Refuse what is nested too deeply, level by level; tensors' data is left to their shapes."""
    level: list[Any] = [value for name, value in fields.items() if name != "inputs"]
    inputs = fields.get("inputs")
    level += [
        {name: value for name, value in entry.items() if name != "data"} if type(entry) is dict else entry
        for entry in (inputs if type(inputs) is list else ())
    ]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            if type(node) is dict or type(node) is list
            for child in (node.values() if type(node) is dict else node)
        ]
        if not level:
            return
    raise MalformedRequestError(f"the request's JSON is nested more than {_MAX_DEPTH} levels deep")


def entries_by_name(fields: Mapping[str, Any], side: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The objects of `inputs` or `outputs` by name, each with its `parameters`.

    Args:
        fields: the request's.
        side: "inputs" or "outputs".
        names: that there are.

    Raises:
        RequestError: unknown or repeated names, or entries of the wrong kind.
    """
    entries = fields.get(side, [])
    if type(entries) is not list or not all(type(entry) is dict for entry in entries):
        raise MalformedRequestError(f"'{side}' must be a list of objects with 'name'")
    known = dict.fromkeys(names)
    by_name: dict[str, dict[str, Any]] = {}
    for entry in map(without_nulls, entries):
        name = entry.get("name")
        if type(name) is not str or name not in known:
            raise RequestError(f"unexpected name in '{side}': the model has {', '.join(known)}")
        if name in by_name:
            raise RequestError(f"'{side}' names {name!r} more than once")
        parameters = entry.setdefault("parameters", {})
        if type(parameters) is not dict:
            raise MalformedRequestError(f"'parameters' of {name!r} must be an object")
        parameters = entry["parameters"] = without_nulls(parameters)
        if "shared_memory_region" in parameters:
            raise UnsupportedError(f"{name!r}: shared memory is not supported: send the tensor in the request")
        by_name[name] = entry
    return by_name


def decode_inputs(fields: Mapping[str, Any], binary: memoryview, signature: SignatureSpec) -> dict[str, Tensor]:
    """The model's inputs by name.

    Args:
        fields: the request's JSON.
        binary: what follows it.
        signature: the entry point it is for.

    Raises:
        RequestError: names, shapes, datatypes, sizes or values that do not fit; the message names the input.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    entries = entries_by_name(fields, "inputs", specs)
    if len(entries) != len(specs):
        missing = ", ".join(name for name in specs if name not in entries)
        raise RequestError(f"expected {len(specs)} inputs but got {len(entries)}: {missing} missing from 'inputs'")
    tensors = {}
    offset = 0
    for name, entry in entries.items():
        spec = specs[name]
        shape = _checked_shape(entry, spec)
        size = entry["parameters"].get("binary_data_size")
        if size is None:
            tensors[name] = _decode_data(entry, spec, shape)
            continue
        if type(size) is not int or not 0 <= size < _MAX_SIZE or "data" in entry:
            raise MalformedRequestError(f"input {name!r}: 'binary_data_size' must be a size in bytes, without 'data'")
        expected = prod(shape) * spec.dtype.itemsize
        if spec.dtype.itemsize and size != expected:
            raise TensorError(f"unexpected total byte size {size} for input '{name}', expecting {expected}")
        if offset + size > len(binary):
            missing_bytes = offset + size - len(binary)
            raise TensorError(f"unexpected size for input '{name}', expecting {missing_bytes} additional bytes")
        tensors[name] = tensor_of_bytes(binary[offset : offset + size], spec, shape)
        offset += size
    if offset != len(binary):
        raise TensorError(f"unexpected additional input data: {len(binary) - offset} bytes after the last tensor")
    return tensors


def _checked_shape(entry: Mapping[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if datatype != DATATYPES[spec.dtype.name]:
        raise TensorError(
            f"input {spec.name!r}: expected datatype {DATATYPES[spec.dtype.name]}, got {_short(datatype)}"
        )
    if type(shape) is not list or not all(type(size) is int and 0 <= size < _MAX_SIZE for size in shape):
        raise TensorError(f"input {spec.name!r}: 'shape' must be a list of sizes, got {_short(shape)}")
    expected = spec.shape
    if not expected and shape == [1]:  # clients that cannot say "no dimension"
        return ()
    if len(shape) != len(expected) or any(
        size != wanted for size, wanted in zip(shape[spec.batched :], expected[spec.batched :], strict=True)
    ):
        raise TensorError(f"unexpected shape for input '{spec.name}'. Expected {list(expected)}, got {_short(shape)}")
    if spec.batched and not shape[0]:
        raise TensorError(f"input {spec.name!r}: expected at least one row, got shape {_short(shape)}")
    return tuple(shape)


def _decode_data(entry: Mapping[str, Any], spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    """Tensor data in JSON: nested lists or one flat list, row-major."""
    data: Any = entry.get("data")
    is_array = isinstance(data, UnreadNumbers)
    if type(data) is not list and not is_array:
        raise TensorError(f"input {spec.name!r}: expected 'data', a list, or the parameter 'binary_data_size'")
    if spec.dtype is DTYPES["float16"]:
        raise TensorError(f"input {spec.name!r}: FP16 cannot be sent as JSON, use the binary tensor extension")
    if not data.is_flat if is_array else data and type(data[0]) is list:
        return pack(data, spec, shape, base64=False)
    count = prod(shape)
    if len(data) != count:
        raise TensorError(
            f"input {spec.name!r}: expected {count} values for shape {list(shape)}, got {len(data)} in 'data'"
        )
    tensor = pack(data, spec, (count,), base64=False)
    tensor.shape = shape
    return tensor


def _short(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    text = repr(value) if type(value) in (str, int, float, bool, type(None)) else type(value).__name__
    if type(value) is list and len(value) <= 8 and all(type(item) is int for item in value):
        text = str(value)
    return text[:60]
