"""The time of one row in the runtime that ships."""

from __future__ import annotations

import pytest

from litelambda.artifact.latency import measure_latency_us
from litelambda.common.errors import VerificationError
from support.golden_store import golden


@pytest.mark.parametrize("name", ["division", "keyed_division", "tiny_int8"])
def test_a_model_is_timed_on_a_row_that_it_can_compute_with(name: str) -> None:
    """Zeros, or ones where an operator refuses zeros; strings too."""
    assert 0.1 < measure_latency_us(golden(name)) < 100_000


def test_a_model_that_the_runtime_refuses_has_no_latency() -> None:
    """The error has the runtime's reason."""
    with pytest.raises(VerificationError, match="the shipped runtime cannot run the artifact"):
        measure_latency_us(golden("unsupported_op"))
