"""Raw values in a V2 request: an input for each field of a row, by its name, with a value for each row.

    numbers, categories    shape [rows] or [rows, 1], of any datatype that can hold them; BYTES are text in UTF-8
    text                   BYTES in UTF-8
    pictures               BYTES of the file in binary form, in JSON its base64; or the raw pixels in the model's shape

Loaded with the first request to a model that prepares its inputs. The model's own values are said by the parameter
`prepared` of the request, or by the names of its inputs where its fields have others.
"""

from __future__ import annotations

from litelambda_serving.errors import MalformedRequestError, RequestError, TensorError
from litelambda_serving.inference_protocol.inputs import DATATYPES, decode_inputs, entries_by_name
from litelambda_serving.manifest import SignatureSpec
from litelambda_serving.tensor import DTYPES, DYNAMIC, TensorSpec, unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.preprocessing import RawArray, RawInputs
    from litelambda_serving.preprocessing.base import Field
    from litelambda_serving.tensor import Tensor

__all__ = ["are_prepared", "decode_columns", "decode_raw_inputs"]

_DTYPES = {datatype: DTYPES[name] for name, datatype in DATATYPES.items()}


def are_prepared(fields: Mapping[str, Any], raw_inputs: RawInputs) -> bool:
    """Whether a request has the model's own values.

    Raises:
        MalformedRequestError: its parameter `prepared` is neither true nor false.
    """
    said = fields["parameters"].get("prepared")
    if said is not None:
        if type(said) is not bool:
            raise MalformedRequestError("parameter 'prepared' must be true, for the model's own values, or false")
        return said
    entries = fields.get("inputs")
    names = {entry.get("name") for entry in entries if type(entry) is dict} if type(entries) is list else set()
    return bool(names) and names == raw_inputs.preprocessors.keys() and not names & raw_inputs.fields.keys()


def decode_raw_inputs(fields: Mapping[str, Any], binary: memoryview, raw_inputs: RawInputs) -> dict[str, Tensor]:
    """The model's inputs, from an input of the request for each field.

    Args:
        fields: the request's JSON.
        binary: what follows it.
        raw_inputs: of the model.

    Raises:
        RequestError: names, shapes, datatypes, sizes or values that do not fit; the message names the field.
    """
    return raw_inputs.prepare(*decode_columns(fields, binary, raw_inputs))


def decode_columns(
    fields: Mapping[str, Any], binary: memoryview, raw_inputs: RawInputs
) -> tuple[dict[str, list[Any]], dict[str, RawArray]]:
    """What `RawInputs.prepare` takes, from the same request; see `decode_raw_inputs`."""
    entries = entries_by_name(fields, "inputs", raw_inputs.fields)
    specs = [_spec_of(field, entries.get(name, {})) for name, field in raw_inputs.fields.items()]
    tensors = decode_inputs(fields, binary, SignatureSpec(tuple(specs), ()))
    if len({tensor.shape[0] for tensor in tensors.values()}) > 1:
        sizes = {name: tensor.shape[0] for name, tensor in tensors.items()}
        raise TensorError(f"inputs disagree on the number of rows: {sizes}")
    columns: dict[str, list[Any]] = {}
    arrays: dict[str, RawArray] = {}
    for name, preprocessor in raw_inputs.preprocessors.items():
        first = tensors[preprocessor.fields[0].name]
        is_whole = preprocessor.fields[0].type in ("tensor", "image")
        if is_whole and preprocessor.raw_spec is not None and first.dtype.itemsize:
            arrays[name] = _floats(first, name), first.shape
            continue
        for field in preprocessor.fields:
            in_json = "binary_data_size" not in entries[field.name]["parameters"]
            columns[field.name] = _values(tensors[field.name], field, in_json=in_json)
    return columns, arrays


def _spec_of(field: Field, entry: Mapping[str, Any]) -> TensorSpec:
    """A field as a tensor of the datatype and rank that came."""
    datatype, shape = entry.get("datatype"), entry.get("shape")
    dtype = _DTYPES.get(datatype) if type(datatype) is str else None
    takes_text = field.type in ("category", "text", "image")
    takes_numbers = field.type in ("number", "category", "tensor", "image")
    if entry and (dtype is None or not (takes_numbers if dtype.itemsize else takes_text)):
        wanted = "BYTES" if not takes_numbers else "BYTES or a datatype of numbers" if takes_text else "one of numbers"
        raise RequestError(f"input {field.name!r}: expected datatype {wanted}, got {str(datatype)[:20]}")
    row = field.shape if dtype is not None and dtype.itemsize else ()
    if not row and type(shape) is list and len(shape) == 2:
        row = (1,)
    return TensorSpec(field.name, dtype or DTYPES["float32"], (DYNAMIC, *row))


def _floats(tensor: Tensor, name: str) -> Any:
    """Numbers of any datatype, flat."""
    if tensor.dtype.kind == "bool":
        raise RequestError(f"input {name!r}: expected a datatype of numbers, got BOOL")
    if tensor.dtype.name == "float32":
        return memoryview(tensor.data).cast("B").cast("f")
    return unpack_flat(tensor)


def _values(tensor: Tensor, field: Field, *, in_json: bool) -> list[Any]:
    """The raw value of each row."""
    flat = list(unpack_flat(tensor))
    if not tensor.dtype.itemsize and field.type == "image":
        return [{"b64": value.decode("ascii", "replace")} for value in flat] if in_json else flat
    if not tensor.dtype.itemsize:
        try:
            return [value.decode() for value in flat]
        except UnicodeDecodeError as error:
            raise TensorError(f"input {field.name!r}: a value is not text in UTF-8") from error
    size = len(flat) // (tensor.shape[0] or 1)
    if field.shape:
        return [_nested(flat[start : start + size], field.shape) for start in range(0, len(flat), size)]
    return flat


def _nested(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values
