"""Fit: the order of rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from litelambda.recipe import load_recipe
from litelambda.stages.fitting import row_batches


def test_rows_come_in_another_order_every_epoch(tiny_recipe: Path) -> None:
    """Each epoch sees every row once, in an order of its own that the seed repeats."""
    settings = load_recipe(tiny_recipe).train
    rows = np.arange(100, dtype=np.float32)
    batches = row_batches(rows, rows, settings)
    first, second = (np.concatenate([x.numpy() for x, _ in batches]) for _ in range(2))
    assert sorted(first) == sorted(second) == rows.tolist()
    assert not np.array_equal(first, second)
    again = np.concatenate([x.numpy() for x, _ in row_batches(rows, rows, settings)])
    assert np.array_equal(first, again)
