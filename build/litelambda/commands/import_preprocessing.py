"""`--preprocessing` of an import: what turns raw values, such as pixels, into the model's: raw * scale + offset."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.common.errors import UsageError

_FORM = 'expected {"scale": 0.00784, "offset": -1}, or lists with a number for each channel, or these by input'


def read_preprocessing(
    given: str | None, inputs: Sequence[FlatbufferTensor], in_metadata: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Read the manifest's `preprocessing`.

    Args:
        given: JSON, or the name of a file of it: `{"scale": …, "offset": …}`, numbers or a number for each channel, for
            a model of one input, or such objects by input name; `{"kind": "text", …}` for a text. None takes what the
            model's metadata says.
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
    if not isinstance(fields, dict) or not fields or set(fields) - {"scale", "offset"}:
        raise UsageError(f"{origin} of input {tensor.name!r}: {fields!r}: {_FORM}")
    found = {"scale": fields.get("scale", 1.0), "offset": fields.get("offset", 0.0)}
    if tensor.dtype == "string":
        raise UsageError(f"{origin}: input {tensor.name!r} takes strings, which cannot be scaled")
    for key, value in found.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(type(each) in (int, float) and math.isfinite(each) for each in numbers) or not numbers:
            raise UsageError(f"{origin} of input {tensor.name!r}: {key} {value!r} is not finite numbers: {_FORM}")
        if isinstance(value, list) and (len(value),) != tensor.shape[-1:]:
            raise UsageError(
                f"{origin} of input {tensor.name!r}: {key} has {len(value)} numbers, the input has "
                f"{tensor.shape[-1] if tensor.shape else 'no'} channels (shape {list(tensor.shape)})"
            )
        if key == "scale" and 0 in numbers:
            raise UsageError(f"{origin} of input {tensor.name!r}: a scale of 0 would make all values equal")
    return {"kind": "numbers", **found}
