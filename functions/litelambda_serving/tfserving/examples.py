"""TensorFlow Serving's `:classify` and `:regress`: examples of named features in, labels or values out.

TensorFlow's own models take serialized tf.Example messages there; ours take their inputs by name, which the same
requests describe. Imported with the first such request.
"""

from __future__ import annotations

from itertools import cycle
from math import prod

from litelambda_serving.errors import RequestError, TensorError
from litelambda_serving.json_codec import dumps, nest_texts
from litelambda_serving.tensor import json_text, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.preprocessing.base import Field
    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["decode", "encode", "scores_of"]

_METHODS = {"classify": ("Classification", "classify"), "regress": ("Regression", "regress")}


def scores_of(verb: str, signature: SignatureSpec, manifest: Manifest) -> str:
    """Name the output with the scores, shape (batch, classes), or with the values, shape (batch,) or (batch, 1).

    Raises:
        RequestError: there is none.
    """
    # Scores of a model that answers with names are theirs, not those of classes.
    for spec in signature.outputs if not manifest.vocabularies else ():
        rank = len(spec.shape)
        if not spec.batched or spec.dtype.kind in ("bool", "string"):
            continue
        if rank == 2 if verb == "classify" else rank == 1 or (rank == 2 and spec.shape[1] == 1):
            return spec.name
    name, method = _METHODS[verb]
    raise RequestError(
        f"Expected {name} signature method_name to be tensorflow/serving/{method}. Was: tensorflow/serving/predict: "
        f"no output of the model has the shape for it, they are {', '.join(map(repr, signature.outputs))}"
    )


def encode(verb: str, scores: Tensor, manifest: Manifest) -> str:
    """The body: `{"results": [[[label, score], …], …]}` or `{"results": [value, …]}`."""
    text = json_text(scores.data, scores.dtype, (prod(scores.shape),))
    if verb == "regress":
        return f'{{"results":[{text}]}}'
    texts = text.split(",")
    if scores.dtype.kind == "int":
        texts = [f"{text}.0" for text in texts]
    labels = [dumps(label) for label in _labels(manifest, scores.shape[1])]
    pairs = [f"[{label},{text}]" for label, text in zip(cycle(labels), texts, strict=False)]
    return f'{{"results":[{",".join(nest_texts(pairs, scores.shape))}]}}'


def _labels(manifest: Manifest, count: int) -> list[str]:
    labels = manifest.labels
    return labels if labels is not None and len(labels) == count else [str(index) for index in range(count)]


def decode(
    verb: str, fields: Mapping[str, Any], signature: SignatureSpec, raw_inputs: RawInputs | None
) -> dict[str, Tensor]:
    """Turn the examples of a request's JSON into the inputs of a signature.

    Args:
        verb: "classify" or "regress".
        fields: the request's JSON.
        signature: that it asks for.
        raw_inputs: what prepares the features; None where they are the model's own values.

    Raises:
        RequestError: they are missing, malformed, or do not fit the inputs.
    """
    if "examples" not in fields:
        raise TensorError(f"When method is {verb}, key 'examples' is expected and was not found")
    examples, context = fields["examples"], fields.get("context", {})
    if type(examples) is not list:
        raise TensorError("Expecting 'examples' value to be an list/array")
    if not examples:
        raise TensorError("'examples' value is an empty array")
    if type(context) is not dict or not all(type(example) is dict for example in examples):
        raise TensorError("Example must be JSON object: expected one with the features by name")
    names = [spec.name for spec in signature.inputs] if raw_inputs is None else list(raw_inputs.fields)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for index, example in enumerate(examples):
        for name, column in columns.items():
            if name not in example and name not in context:
                raise TensorError(f"Missing feature: {name} in example {index}, and in 'context'")
            column.append(example[name] if name in example else context[name])
    if raw_inputs is not None:
        return raw_inputs.prepare({name: _feature_values(columns[name], raw_inputs.fields[name]) for name in names})
    return {spec.name: _pack_feature(columns[spec.name], spec) for spec in signature.inputs}


def _feature_values(column: list[Any], field: Field) -> list[Any]:
    """A feature of one value is it, or a list of it alone, as in a tf.Example."""
    if field.type == "tensor" and field.shape:
        return column
    return [row[0] if type(row) is list and len(row) == 1 else row for row in column]


def _pack_feature(column: list[Any], spec: TensorSpec) -> Tensor:
    """A feature is a value or a flat list, as in a tf.Example; nested lists of the tensor's shape are accepted too."""
    if not spec.batched:
        raise RequestError(f"input {spec.name!r} has no batch dimension: use :predict with 'inputs'")
    if spec.dtype.kind == "int":
        column = [_as_integers(value) for value in column]
    shape = (len(column), *spec.shape[1:])
    num_values = spec.row_values
    if len(shape) > 2 and all(type(row) is list and not any(type(value) is list for value in row) for row in column):
        tensor = pack(column, spec, (len(column), num_values))
        tensor.shape = shape
        return tensor
    if len(shape) == 1:
        column = [row[0] if type(row) is list and len(row) == 1 else row for row in column]
    elif num_values == 1:
        column = [row if type(row) is list else [row] for row in column]
    return pack(column, spec, shape)


def _as_integers(value: Any) -> Any:
    """A tf.Example has no booleans: TensorFlow Serving puts them into its int64 list."""
    if type(value) is list:
        return [_as_integers(item) for item in value]
    return int(value) if type(value) is bool else value
