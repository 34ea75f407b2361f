"""What quantization may cost: ranges of outputs, of one unit and of several."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.common.errors import GateError
from litelambda.evaluation.quantization_loss import MAX_DIFFERENCE, check_loss, measure_loss

NOISE = np.random.default_rng(0)


def test_a_value_that_is_lost_beside_a_large_one_is_seen():
    """A price and a probability in one vector: a step of int8 is 1,569 for both, so the probability is always 0."""
    prices, shares = NOISE.uniform(0, 4e5, (64, 1, 1)), NOISE.uniform(0, 1, (64, 1, 1))
    expected = {"y": np.concatenate([prices, shares], axis=2)}
    found = {"y": np.round(expected["y"] / (4e5 / 255)) * (4e5 / 255)}
    loss = measure_loss(expected, found)
    assert loss.max_difference == pytest.approx(shares.max() / shares.max())
    with pytest.raises(GateError, match="off by"):
        check_loss(loss, MAX_DIFFERENCE)


@pytest.mark.parametrize(
    "expected",
    [
        NOISE.dirichlet([9, 1, 0.01], (64, 1)),  # probabilities share a range, a rare class's too
        NOISE.normal(0, 3, (64, 1, 10)),  # logits
        NOISE.normal(0, 1, (64, 1, 384)) * np.where(np.arange(384) == 7, 1e-4, 1.0),  # an embedding with a dead value
    ],
    ids=["probabilities", "logits", "embedding"],
)
def test_values_of_one_unit_share_a_range(expected):
    """What int8 does to them is within a step of the whole vector's range."""
    size = max(expected.max(), 0) - min(expected.min(), 0)
    found = np.round(expected / (size / 255)) * (size / 255)
    loss = measure_loss({"y": expected}, {"y": found})
    assert loss.max_difference <= 0.5 / 255 + 1e-9
    check_loss(loss, MAX_DIFFERENCE)
