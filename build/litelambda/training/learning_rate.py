"""Schedules of the learning rate."""

from __future__ import annotations

from typing import Any, Literal

from litelambda.keras_tools.backend import load_keras

Schedule = Literal["constant", "cosine", "exponential", "step"]

_FINAL_SHARE = 0.01  # of the learning rate, at the end: as low as the `step` schedule ends


def learning_rate(rate: float, schedule: Schedule, num_steps: int, num_warmup_steps: int = 0) -> Any:
    """A number, or a Keras schedule.

    Args:
        rate: the highest learning rate.
        schedule: how it falls.
        num_steps: of the whole training, warm-up included.
        num_warmup_steps: steps over which it rises first.

    Example:
        >>> learning_rate(0.1, "constant", 100)
        0.1
        >>> rate = learning_rate(0.1, "constant", num_steps=100, num_warmup_steps=4)
        >>> [round(float(rate(step)), 3) for step in (0, 1, 3, 4, 99)]
        [0.025, 0.05, 0.1, 0.1, 0.1]
        >>> rate = learning_rate(0.1, "step", 100)
        >>> [round(float(rate(step)), 4) for step in (0, 60, 90)]
        [0.1, 0.01, 0.001]
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
    """The warm-up, then the schedule from its beginning.

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
