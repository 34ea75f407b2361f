"""Schedules: what becomes of the learning rate from step to step."""

from __future__ import annotations

from typing import Any, Literal

from litelambda.keras_tools.backend import load_keras

Schedule = Literal["constant", "cosine", "exponential", "step"]

_FINAL_SHARE = 0.01  # of the learning rate, at the end of an exponential schedule


def learning_rate(rate: float, schedule: Schedule, num_steps: int, num_warmup_steps: int = 0) -> Any:
    """A number, or what Keras computes one with at every step.

    Args:
        rate: the largest.
        schedule: how it falls.
        num_steps: of the whole training.
        num_warmup_steps: so many of them at first, over which it rises.
    """
    falling = _falling(rate, schedule, max(1, num_steps - num_warmup_steps))
    return _rising(rate, falling, num_warmup_steps) if num_warmup_steps else falling


def _falling(rate: float, schedule: Schedule, num_steps: int) -> Any:
    if schedule == "constant":
        return rate
    schedules = load_keras().optimizers.schedules
    if schedule == "cosine":
        return schedules.CosineDecay(rate, num_steps)
    if schedule == "exponential":
        return schedules.ExponentialDecay(rate, num_steps, _FINAL_SHARE)
    return schedules.PiecewiseConstantDecay([num_steps // 2, num_steps * 3 // 4], [rate, rate / 10, rate / 100])


def _rising(rate: float, falling: Any, num_warmup_steps: int) -> Any:
    """The warm-up, then the schedule from its own beginning.

    Source: Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2, gradual warmup.
    """
    keras = load_keras()
    ops = keras.ops

    class Rising(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc, name-defined] # Keras has no types
        def __call__(self, step: Any) -> Any:
            done = ops.cast(step, "float32")
            later = falling(ops.maximum(done - num_warmup_steps, 0.0)) if callable(falling) else falling
            return ops.where(done < num_warmup_steps, rate * (done + 1.0) / num_warmup_steps, later)

    return Rising()
