"""`--preprocessing` of an import: what turns raw values (pixels, a picture, a row of a table) into the model's.

The documents are the manifest's, with what may be left out filled in, and are checked by what will read them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.common.errors import UsageError
from litelambda.common.extras import require_extra
from litelambda_serving.errors import ManifestError
from litelambda_serving.preprocessing import open_preprocessor
from litelambda_serving.tensor import DTYPES, TensorSpec

_FORM = (
    'expected {"scale": 0.00784, "offset": -1}, or lists with a number for each channel; or {"kind": "image"}, "table" '
    'or "text" with the rules of that kind; or these by input'
)
_KEYS = {
    "numbers": ("scale", "offset"),
    "image": ("field", "shape", "resize", "fit", "background", "scale", "offset"),
    "table": ("columns", "label"),
}
_RAW = {"numbers": "numbers", "image": "pictures", "table": "a table's columns"}
_PICTURE = {"resize": "bilinear", "fit": "stretch", "background": [255, 255, 255]}
_COLUMN_KEYS = {
    "number": ("scale", "offset", "missing"),
    "category": ("vocabulary", "encoding", "unknown", "missing"),
}


def read_preprocessing(
    given: str | None, inputs: Sequence[FlatbufferTensor], in_metadata: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Read the manifest's `preprocessing`.

    Args:
        given: JSON, or the name of a file of it: `{"scale": …, "offset": …}`, numbers or a number for each channel, for
            a model of one input, or such objects by input name; `{"kind": "image", …}` and `{"kind": "table", …}` as
            the manifest has them, `{"kind": "text", …}` for a text. None takes what the model's metadata says.
        inputs: of the model.
        in_metadata: by input, TFLite's own NormalizationOptions.

    Raises:
        UsageError: it is not such a thing, or does not fit the model's inputs.
    """
    if given is None:
        return {name: fields for name, fields in in_metadata.items() if name in {each.name for each in inputs}}
    document = _load(given)
    if {"scale", "offset", "kind"} & document.keys():
        if len(inputs) != 1:
            names = ", ".join(each.name for each in inputs)
            raise UsageError(f"--preprocessing: the model has the inputs {names}: give an object for each of these")
        document = {inputs[0].name: document}
    tensors = {each.name: each for each in inputs}
    if unknown := sorted(set(document) - set(tensors)):
        raise UsageError(f"--preprocessing: the model has no input {', '.join(unknown)}; it has {', '.join(tensors)}")
    return {name: _checked(tensors[name], fields) for name, fields in document.items()}


def from_metadata(
    normalization: Mapping[str, Mapping[str, Sequence[float]]], inputs: Sequence[FlatbufferTensor]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Turn TFLite's own NormalizationOptions, (raw - mean) / std, into the manifest's raw * scale + offset.

    Args:
        normalization: mean and std by input, a number or one for each channel.
        inputs: of the model.

    Returns:
        By input, and a warning for each whose options are left out because they make no sense.
    """
    tensors = {each.name: each for each in inputs}
    found, warnings = {}, []
    for name, options in normalization.items():
        if name in tensors and options["std"]:
            try:
                found[name] = _checked(tensors[name], _scaling(**options), "the file's NormalizationOptions")
            except (UsageError, ArithmeticError) as error:
                warnings.append(
                    f"the file's metadata normalizes input {name!r} with mean {options['mean']} and std "
                    f"{options['std']}, which is left out ({error}): give --preprocessing"
                )
    return found, tuple(warnings)


def _scaling(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    count = max(len(mean), len(std))
    if {len(mean), len(std)} - {1, count}:
        raise UsageError(f"{len(mean)} numbers do not go with {len(std)}")
    means, widths = (list(each) * (count // len(each)) for each in (mean, std))
    scale = [1 / width for width in widths]
    offset = [-center / width + 0.0 for center, width in zip(means, widths, strict=True)]
    return {"scale": scale, "offset": offset} if count > 1 else {"scale": scale[0], "offset": offset[0]}


def _load(given: str) -> dict[str, Any]:
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text()
        document = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--preprocessing: {given[:60]!r} is neither JSON nor a file of it ({error}): {_FORM}"
        ) from error
    if not isinstance(document, dict):
        raise UsageError(f"--preprocessing: {given[:60]!r}: {_FORM}")
    return document


def _checked(tensor: FlatbufferTensor, fields: Any, origin: str = "--preprocessing") -> dict[str, Any]:
    if isinstance(fields, dict) and fields.get("kind") == "text":
        return fields  # `import_text` completes and checks it
    place = f"{origin} of input {tensor.name!r}"
    if not isinstance(fields, dict) or not fields or str(fields.get("kind", "numbers")) not in _KEYS:
        raise UsageError(f"{place}: {fields!r}: {_FORM}")
    kind = str(fields.get("kind", "numbers"))
    _check_keys(place, fields, ("kind", *_KEYS[kind]))
    if tensor.dtype == "string":
        raise UsageError(f"{place}: it takes strings, which cannot be made of {_RAW[kind]}")
    if kind == "table":
        _check_columns(place, fields.get("columns"))
        return _opened(tensor, fields)
    scaling = _scaling_of(tensor, fields, place)
    if kind == "numbers":
        return {"kind": kind, **scaling}
    require_extra("images")
    row = tensor.shape[1:] if tensor.shape[:1] in ((-1,), (1,)) else tensor.shape
    defaults = {"field": tensor.name, "shape": [*row], **_PICTURE}
    return _opened(tensor, {"kind": kind, **defaults, **fields, **scaling})


def _check_keys(place: str, fields: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse keys that nothing would read, such as one that is spelled wrongly."""
    if unknown := sorted(set(fields) - set(known)):
        raise UsageError(f"{place}: unknown key {unknown[0]!r}: choose {', '.join(known)}; {_FORM}")


def _check_columns(place: str, columns: Any) -> None:
    """Refuse columns that are not objects with a name, a type, and what goes with it."""
    if not isinstance(columns, list) or not columns or not all(isinstance(each, dict) for each in columns):
        raise UsageError(f'{place}: columns: expected a list of objects such as {{"name": "mass", "type": "number"}}')
    for each in columns:
        kind = str(each.get("type"))
        needed = ("name", "type", *(["vocabulary"] if kind == "category" else []))
        if missing := [key for key in needed if key not in each]:
            raise UsageError(f"{place}: the column {json.dumps(each)[:60]} lacks {missing[0]!r}")
        if kind in _COLUMN_KEYS:
            _check_keys(f"{place}, column {each['name']!r}", each, ("name", "type", *_COLUMN_KEYS[kind]))


def _opened(tensor: FlatbufferTensor, document: dict[str, Any]) -> dict[str, Any]:
    """A document that what serves the model can read.

    Raises:
        UsageError: it cannot; the message is its own.
    """
    try:
        open_preprocessor(TensorSpec(tensor.name, DTYPES[tensor.dtype], tensor.shape), document, {})
    except ManifestError as error:
        raise UsageError(f"--preprocessing: {error}") from error
    return document


def _scaling_of(tensor: FlatbufferTensor, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """`scale` and `offset`: finite numbers, one or as many as there are channels."""
    found = {"scale": fields.get("scale", 1.0), "offset": fields.get("offset", 0.0)}
    for key, value in found.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers) or not numbers:
            raise UsageError(f"{place}: {key} {value!r} is not finite numbers: {_FORM}")
        if isinstance(value, list) and (len(value),) != tensor.shape[-1:]:
            raise UsageError(
                f"{place}: {key} has {len(value)} numbers, the input has "
                f"{tensor.shape[-1] if tensor.shape else 'no'} channels (shape {list(tensor.shape)})"
            )
        if key == "scale" and 0 in numbers:
            raise UsageError(f"{place}: a scale of 0 would make all values equal")
    return found
