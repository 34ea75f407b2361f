"""The bounds of a search: a number of candidates, which repeats exactly, and a time, which depends on the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from litelambda.recipe.compression import Auto


class OutOfBudgetError(Exception):
    """The budget is spent. Raised and caught inside the search, which ends with what it has found."""


class Budget:
    """What is left of a search's time and candidates.

    Training that would not end in time is not started: its duration is estimated from earlier training.

    Example:
        >>> budget = Budget(Auto(max_candidates=10))
        >>> budget.spent_share(num_tried=5)
        0.5
        >>> budget.check_candidates(num_tried=10)
        Traceback (most recent call last):
        litelambda.search.budget.OutOfBudgetError
    """

    def __init__(self, auto: Auto) -> None:
        self._seconds, self._max_candidates = 60 * auto.budget_minutes, auto.max_candidates
        self._started = time.monotonic()
        self._passes = self._pass_seconds = self._measuring_seconds = 0.0

    @property
    def minutes_left(self) -> float:
        """Time that is left, in minutes."""
        return max(0.0, self._seconds - self._spent) / 60

    def spent_share(self, num_tried: int) -> float:
        """The spent share of time or of candidates, whichever is larger."""
        return min(1.0, max(self._spent / self._seconds, num_tried / self._max_candidates))

    def check_candidates(self, num_tried: int) -> None:
        """Refuse a candidate beyond `max_candidates`.

        Raises:
            OutOfBudgetError: so many were tried.
        """
        if num_tried >= self._max_candidates:
            raise OutOfBudgetError

    @contextmanager
    def training(self, passes: float) -> Iterator[None]:
        """Time a block that trains.

        Args:
            passes: passes over all training rows; 0 where nothing is left to train.

        Raises:
            OutOfBudgetError: it would not end in time.
        """
        if passes and self._spent + passes * self._pass_seconds + self._measuring_seconds > self._seconds:
            raise OutOfBudgetError
        before = time.monotonic()
        yield
        if passes >= max(self._passes, 1e-9):  # the longest training predicts the next one best
            self._passes, self._pass_seconds = passes, (time.monotonic() - before) / passes

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Time a block that measures."""
        before = time.monotonic()
        yield
        self._measuring_seconds = time.monotonic() - before

    @property
    def _spent(self) -> float:
        return time.monotonic() - self._started
