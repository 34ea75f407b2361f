"""The mean of the training rows as explanations' baseline: for vectors of numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.data.dataset import Dataset, Split
from litelambda.evaluation.baseline import baseline_of

ROWS = np.random.default_rng(3).normal(5.0, 2.0, (60, 6)).astype(np.float32)


def dataset(rows: np.ndarray) -> Dataset:
    split = Split(rows, np.zeros(len(rows), np.int32))
    return Dataset(split, None, split, ["a"], 1, None)


def test_a_vectors_baseline_is_numpys_mean():
    """Each value is the mean of its column, with six digits."""
    tensor = FlatbufferTensor("x", "float32", (-1, 6), None)
    (mean,) = baseline_of(dataset(ROWS), tensor, 0)["baseline"].values()
    np.testing.assert_allclose(mean, ROWS.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "tensor"),
    [
        (ROWS.reshape(60, 2, 3), FlatbufferTensor("x", "float32", (-1, 2, 3), None)),
        (ROWS, FlatbufferTensor("x", "int32", (-1, 6), None)),
        (ROWS, FlatbufferTensor("x", "float32", (-1, 6), None, limits=(0, 99))),
        (np.zeros((2, 2000), np.float32), FlatbufferTensor("x", "float32", (-1, 2000), None)),
    ],
    ids=["picture", "integers", "places", "long"],
)
def test_others_have_none(rows, tensor):
    """Pictures, whole numbers, places in a table, and rows whose mean a cold start would feel."""
    assert baseline_of(dataset(rows), tensor, 0) == {}
