"""The time of one row in the runtime that ships."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from litelambda.artifact import latency
from litelambda.artifact.latency import compare_latency_us, measure_latency_us
from litelambda.common.child_process import call_in_child
from litelambda.common.errors import VerificationError
from support.golden_store import golden


@pytest.mark.parametrize("name", ["division", "keyed_division", "tiny_int8"])
def test_a_model_is_timed_on_a_row_that_it_can_compute_with(name: str) -> None:
    """Zeros, or ones where an operator refuses zeros; strings too."""
    assert 0.1 < measure_latency_us(golden(name)) < 100_000


def test_the_fastest_of_several_processes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is measured in each; what one of them has against it, such as where its memory lies, does not count."""
    taken: list[float] = []

    def noted(function: Callable[[bytes], float], artifact: bytes) -> float:
        taken.append(call_in_child(function, artifact))
        return taken[-1]

    monkeypatch.setattr(latency, "PROCESSES", 3)
    monkeypatch.setattr(latency, "call_in_child", noted)
    assert measure_latency_us(golden("tiny_int8")) == min(taken)
    assert len(taken) == 3


def test_a_model_that_the_runtime_refuses_has_no_latency() -> None:
    """The error has the runtime's reason."""
    with pytest.raises(VerificationError, match="the shipped runtime cannot run the artifact"):
        measure_latency_us(golden("unsupported_op"))
    with pytest.raises(VerificationError, match="the shipped runtime cannot run the artifacts"):
        compare_latency_us([golden("tiny_int8"), golden("unsupported_op")])


def test_models_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One time for each, in their order: a model of many operations takes longer than one of few."""
    monkeypatch.setattr(latency, "PROCESSES", 1)
    small, large = compare_latency_us([golden("half_plus_two"), golden("mobilenet")])
    assert 0.1 < small["median"] < large["median"]
    assert small["median"] <= small["p90"]
