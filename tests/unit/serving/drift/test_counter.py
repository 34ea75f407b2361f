"""What is counted of a row, by kind of value, against figures by hand and numpy's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from litelambda_serving.drift import DriftCounter
from litelambda_serving.manifest import SignatureSpec
from litelambda_serving.tensor import DTYPES, DYNAMIC, Tensor, TensorSpec


def counted(feature, values, dtype="float32"):
    """The counts after one request for each row of `values`."""
    feature = {"name": "it", "tensor": "x", **feature}
    num_bins = len(feature["edges"] if "edges" in feature else feature["indices"]) + 1
    document = {"features": [{**feature, "counts": [0] * num_bins}], "limits": [[50, 3.0]]}
    rows = [list(row) for row in values] if dtype == "string" else np.asarray(values, dtype)
    shape = (DYNAMIC, len(rows[0])) if dtype == "string" else (DYNAMIC, *rows.shape[1:])
    signature = SignatureSpec((TensorSpec("x", DTYPES[dtype], shape),), ())
    manifest = SimpleNamespace(
        fields={"drift": json.loads(json.dumps(document))}, signatures={"s": signature}, default_signature="s"
    )
    counter = DriftCounter(manifest)
    for row in rows:
        data = row if dtype == "string" else row.tobytes()
        for _ in range(counter.every):
            counter.count({"x": Tensor(DTYPES[dtype], (1, *shape[1:]), data)}, {}, 1)
    assert counter.rows == len(rows)
    (found,) = counter.take()
    return found


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        # a value that is an edge belongs to the bin that begins there
        ({"statistic": "value", "at": 1, "edges": [0.5, 1.5]}, [[9, 0.4], [9, 0.5], [9, 1.6], [9, 7]], [1, 1, 2]),
        ({"statistic": "value", "at": 0, "edges": [0.0]}, [[float("nan")], [-1.0]], [1, 1]),
        (
            {"statistic": "category", "at": 1, "width": 3, "indices": [0, 2]},
            [[7, 1, 0, 0], [7, 0, 0, 1], [7, 0, 1, 0], [7, 0, 0, 0]],
            [1, 1, 2],
        ),
        ({"statistic": "class", "indices": [0, 1]}, [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9]], [1, 1, 1]),
        ({"statistic": "highest", "edges": [0.5]}, [[0.4, 0.3], [0.1, 0.8]], [1, 1]),
        ({"statistic": "mean", "edges": [2.0]}, [[1, 2, 2], [1, 2, 4]], [1, 1]),
        ({"statistic": "deviation", "edges": [1.0]}, [[1, 1, 2], [1, 3, 5]], [1, 1]),
    ],
    ids=lambda value: value["statistic"] if isinstance(value, dict) else "",
)
def test_numbers(feature, values, expected):
    """Values, categories, classes and figures of a row end in the bin that they are in."""
    assert counted(feature, values) == expected


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_tokens(dtype):
    """Rows of tokens by their length without the padding, by their share of unknown ones, and by whole numbers."""
    rows = [[5, 6, 1, 0], [1, 1, 0, 0], [5, 6, 7, 8]]
    assert counted({"statistic": "length", "padding": 0, "edges": [2.5, 3.5]}, rows, dtype) == [1, 1, 1]
    unknown = {"statistic": "unknown", "padding": 0, "token": 1, "edges": [0.2, 0.5]}
    assert counted(unknown, rows, dtype) == [1, 1, 1]
    assert counted({"statistic": "index", "at": 0, "indices": [1, 9]}, rows, dtype) == [1, 0, 2]


def test_strings():
    """A string by its length in bytes."""
    assert counted({"statistic": "bytes", "edges": [1.5, 3.5]}, [[b"a"], [b"abc"], [b"abcd"]], "string") == [1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
def test_wide_rows_are_sampled(dtype):
    """Of a picture 64 values at most, evenly spaced, as numpy's strides take them; half floats are read whole."""
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 255, (40, 28, 28)).astype(dtype)
    step = 1 if dtype == "float16" else -(-784 // 64)
    means = pictures.reshape(40, -1)[:, ::step].astype(np.float64).mean(axis=1)
    edges = np.quantile(means, [0.25, 0.5, 0.75]).tolist()
    edges = [edge + 1e-6 for edge in edges]
    expected = np.histogram(means, [-np.inf, *edges, np.inf])[0].tolist()
    assert counted({"statistic": "mean", "edges": edges}, pictures, dtype) == expected


def test_a_thousand_classes_are_counted_of_some_requests():
    """Where reading a row takes long, one request in several is counted: the time for each stays small."""
    spec = TensorSpec("y", DTYPES["float32"], (DYNAMIC, 1000))
    feature = {"name": "it", "tensor": "y", "statistic": "class", "indices": [0], "counts": [0, 0]}
    manifest = SimpleNamespace(
        fields={"drift": {"features": [feature]}}, signatures={"s": SignatureSpec((), (spec,))}, default_signature="s"
    )
    counter = DriftCounter(manifest)
    assert counter.every == 8
    tensor = Tensor(spec.dtype, (1, 1000), bytes(4000))
    for _ in range(80):
        counter.count({}, {"y": tensor}, 1)
    assert counter.rows == 10
    assert counter.take() == [[10, 0]]
