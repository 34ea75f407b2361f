"""The baseline that drift is measured from: the manifest's `drift`, from rows that the model was not trained on.

A fifth of the rows says where the bins are, the others are counted: bins that were cut at the quantiles of the rows
that they count would have the same number of them in each, which is not a sample to compare another with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import FlatbufferSignature, FlatbufferTensor
from litelambda.common.arrays import Arrays
from litelambda.evaluation.drift_limits import find_limits
from litelambda_serving.drift import figure_of, row_reader
from litelambda_serving.drift.statistic import MIN_ROWS
from litelambda_serving.tensor import DTYPES, Tensor, TensorSpec

_MAX_FEATURES = 30  # of an input; a table with more columns has them evenly spaced
_MAX_VALUES = 16  # of a row without names, each of which is a feature
_MAX_TENSORS = 4  # of outputs
_BINS = 10
_ROWS_PER_BIN = 20
_CATEGORIES = 19  # the most frequent, and one bin for all others
_EVERY = 5  # row says where the bins are

Feature = dict[str, Any]


def make_baseline(
    signature: FlatbufferSignature,
    inputs: Arrays,
    outputs: Arrays,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    assets: Mapping[str, bytes] | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The manifest's `drift`; empty where there are too few rows to count, or nothing to count in them.

    Args:
        signature: of the artifact.
        inputs: rows by input, in the artifact's own dtypes.
        outputs: what it answers to them, likewise.
        preprocessing: the manifest's.
        assets: contents of the files that it names.
        labels: names of the classes.
    """
    found = _Candidates(preprocessing or {}, assets or {}, labels)
    tensors = {each.name: each for each in (*signature.inputs, *signature.outputs)}
    features = [each for tensor in signature.inputs if _has_rows(tensor) for each in found.of_input(tensor)]
    answers = [tensor for tensor in signature.outputs if _has_rows(tensor)][:_MAX_TENSORS]
    names_items = any(_is_number_of_names(tensor) for tensor in answers)
    for tensor in answers:
        kinds = found.of_output(tensor, is_only=len(answers) == 1)
        features += [each for each in kinds if not (names_items and each["statistic"] == "class")]
    rows = {**inputs, **outputs}
    count = min(len(values) for values in rows.values()) if rows else 0
    counted = np.arange(count) % _EVERY > 0
    if not features or counted.sum() < MIN_ROWS:
        return {}
    bins = []
    for feature in features:
        others = [each for each in features if each["tensor"] == feature["tensor"]]
        figures = _figures(feature, others, tensors[feature["tensor"]], rows[feature["tensor"]][:count])
        feature.update(_cut(feature, figures[~counted], int(counted.sum())))
        bins.append(_bins_of(feature, figures[counted]))
    sizes = [_num_bins(feature) for feature in features]
    for feature, found_bins, size in zip(features, bins, sizes, strict=True):
        feature["counts"] = np.bincount(found_bins, minlength=size).tolist()
    limits = find_limits(np.stack(bins, axis=1), sizes)
    return {"rows": int(counted.sum()), "features": features, "limits": limits}


class _Candidates:
    """What can be counted of a tensor."""

    def __init__(
        self, preprocessing: Mapping[str, Any], assets: Mapping[str, bytes], labels: Sequence[str] | None
    ) -> None:
        self._preprocessing = preprocessing
        self._assets = assets
        self._labels = labels

    def of_input(self, tensor: FlatbufferTensor) -> list[Feature]:
        document = self._preprocessing.get(tensor.name, {})
        kind, width = document.get("kind"), math.prod(tensor.shape[1:])
        if tensor.dtype == "string":
            return [_feature(f"{tensor.name}: bytes", tensor, "bytes")]
        if kind == "table":
            return self._columns(tensor, document)
        if kind == "text":
            return self._tokens(tensor, document)
        if kind == "image" or width > _MAX_VALUES:
            name = document.get("field", tensor.name)
            return [_feature(f"{name}: {figure}", tensor, figure) for figure in ("mean", "deviation")]
        return [_feature(_place_name(tensor, at, width), tensor, "value", at=at) for at in range(width)]

    def of_output(self, tensor: FlatbufferTensor, *, is_only: bool) -> list[Feature]:
        """The prediction, and how sure the model is of it."""
        prefix, width = "" if is_only else f"{tensor.name}: ", math.prod(tensor.shape[1:])
        if tensor.dtype == "string":
            return [_feature(f"{tensor.name}: bytes", tensor, "bytes")]
        if width == 1 and np.dtype(tensor.dtype).kind == "f":
            return [_feature(f"{prefix}prediction", tensor, "value", at=0)]
        if _is_number_of_names(tensor):
            return [_feature(f"{prefix}prediction", tensor, "index", at=0)]
        names = {"labels": list(self._labels)} if self._labels and len(self._labels) == width else {}
        if width == 1:
            return [_feature(f"{prefix}prediction", tensor, "value", at=0)]
        return [
            _feature(f"{prefix}prediction", tensor, "class", **names),
            _feature(f"{prefix}confidence", tensor, "highest"),
        ]

    def _columns(self, tensor: FlatbufferTensor, document: Mapping[str, Any]) -> list[Feature]:
        features, at = [], 0
        zero = tensor.quantization[1] if tensor.quantization else 0
        for column in document["columns"]:
            if column["type"] == "number":
                unit = {key: column[key] for key in ("scale", "offset") if key in column}
                features.append(_feature(column["name"], tensor, "value", at=at, **unit))
                at += 1
                continue
            vocabulary = column.get("vocabulary") or json.loads(self._assets[column["vocabulary_file"]])
            width = len(vocabulary) + (column.get("unknown") == "other")
            if column.get("encoding") == "index":
                features.append(_feature(column["name"], tensor, "index", at=at, labels=vocabulary))
                at += 1
            else:
                more = {"width": width, "labels": vocabulary} | ({"zero": zero} if zero else {})
                features.append(_feature(column["name"], tensor, "category", at=at, **more))
                at += width
        chosen = np.linspace(0, len(features) - 1, min(len(features), _MAX_FEATURES)).round().astype(int)
        return [features[place] for place in chosen]

    def _tokens(self, tensor: FlatbufferTensor, document: Mapping[str, Any]) -> list[Feature]:
        if document.get("emits", "ids") != "ids":
            return []
        name, padding = document["field"], document["padding"]
        features = [_feature(f"{name}: tokens", tensor, "length", padding=padding)]
        token = unknown_token(json.loads(self._assets[document["tokenizer"]]))
        if token is not None:
            features.append(
                _feature(f"{name}: share of unknown tokens", tensor, "unknown", padding=padding, token=token)
            )
        return [*features, _feature(f"{name}: mean token", tensor, "mean")]


def unknown_token(tokenizer: Mapping[str, Any]) -> int | None:
    """The number of the token that stands for unknown text, in a `tokenizer.json`; None where it has none.

    >>> unknown_token({"model": {"unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[UNK]": 1}}})
    1
    """
    model = tokenizer.get("model", {})
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    vocabulary = model.get("vocab")
    number = vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else None
    return None if number is None else int(number)


def _feature(name: str, tensor: FlatbufferTensor, statistic: str, **more: Any) -> Feature:
    return {"name": name, "tensor": tensor.name, "statistic": statistic, **more}


def _has_rows(tensor: FlatbufferTensor) -> bool:
    return len(tensor.shape) > 1 and tensor.shape[0] in (-1, 1) and math.prod(tensor.shape[1:]) > 0


def _is_number_of_names(tensor: FlatbufferTensor) -> bool:
    """Whether an output has numbers that stand for something: the best items, the best first."""
    return tensor.quantization is None and tensor.dtype != "string" and np.dtype(tensor.dtype).kind in "iu"


def _place_name(tensor: FlatbufferTensor, at: int, width: int) -> str:
    return tensor.name if width == 1 else f"{tensor.name}[{at}]"


def _figures(
    feature: Feature, features: Sequence[Feature], tensor: FlatbufferTensor, values: NDArray[Any]
) -> NDArray[Any]:
    """A feature of each row, by the function's own code but for plain values, which need none.

    Args:
        feature: one of `features`.
        features: all of the tensor, which are read together.
        tensor: of the artifact.
        values: its rows.
    """
    if feature["statistic"] in ("value", "index"):
        found: NDArray[Any] = values.reshape(len(values), -1)[:, feature["at"]]
        return found
    spec = TensorSpec(tensor.name, DTYPES[tensor.dtype], tensor.shape)
    data = values.ravel().tolist() if tensor.dtype == "string" else np.ascontiguousarray(values).tobytes()
    rows = Tensor(spec.dtype, values.shape, data)
    read, figure = row_reader(spec, features), figure_of(feature)
    return np.array([figure(read(rows, row)) for row in range(len(values))])


def _cut(feature: Feature, figures: NDArray[Any], num_counted: int) -> Feature:
    """Where the bins of a feature are: `edges`, or `indices`."""
    if feature["statistic"] in ("category", "class", "index"):
        numbers, counts = np.unique(figures, return_counts=True)
        indices = numbers[np.argsort(-counts, kind="stable")][:_CATEGORIES].tolist()
        if len(feature.get("labels", ())) <= _CATEGORIES:
            indices = list(range(len(feature["labels"]))) if "labels" in feature else indices
        indices = sorted(index for index in indices if index >= 0)
        names = {"labels": [feature["labels"][index] for index in indices]} if _knows(feature, indices) else {}
        return {"indices": indices, **names}
    return {"edges": _edges(figures.astype(np.float64), num_counted)}


def _knows(feature: Feature, indices: Sequence[int]) -> bool:
    return "labels" in feature and max(indices, default=0) < len(feature["labels"])


def _edges(values: NDArray[np.float64], num_counted: int) -> list[float]:
    """Bins of about equal numbers of rows, cut between values that occur; a constant has a bin to each side."""
    values = values[np.isfinite(values)]
    distinct = np.unique(values)
    if len(distinct) < 2:
        value = float(distinct[0]) if len(distinct) else 0.0
        return [value, math.nextafter(value, math.inf)]
    num_bins = int(np.clip(num_counted // _ROWS_PER_BIN, 2, _BINS))
    wanted = np.quantile(values, np.arange(1, num_bins) / num_bins, method="lower")
    places = np.minimum(np.searchsorted(distinct, wanted, side="right"), len(distinct) - 1)
    between = (distinct[places - 1] + distinct[places]) / 2
    return sorted({float(f"{edge:.7g}") for edge in between})


def _bins_of(feature: Feature, figures: NDArray[Any]) -> NDArray[np.intp]:
    """The bin of each row."""
    if "edges" in feature:
        return np.searchsorted(feature["edges"], figures.astype(np.float64), side="right")
    places = {index: place for place, index in enumerate(feature["indices"])}
    return np.array([places.get(int(figure), len(places)) for figure in figures], np.intp)


def _num_bins(feature: Feature) -> int:
    return len(feature["edges"] if "edges" in feature else feature["indices"]) + 1
