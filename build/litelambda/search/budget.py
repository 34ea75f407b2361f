"""The bounds of a search: how many candidates, which is the same every time, and how long, which is the machine's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from litelambda.recipe.compression import Auto


class OutOfBudgetError(Exception):
    """There is no room for another candidate; ends a search, never leaves it."""


class Budget:
    """What is left of a search's time and candidates.

    Training that would not end in time is not begun: how long it takes is told from what was trained before.
    """

    def __init__(self, auto: Auto) -> None:
        self._seconds, self._max_candidates = 60 * auto.budget_minutes, auto.max_candidates
        self._started = time.monotonic()
        self._passes = self._pass_seconds = self._measuring_seconds = 0.0

    @property
    def minutes_left(self) -> float:
        """0 when all is spent."""
        return max(0.0, self._seconds - self._spent) / 60

    def spent_share(self, num_tried: int) -> float:
        """Of time or candidates, whichever is nearer its end."""
        return min(1.0, max(self._spent / self._seconds, num_tried / self._max_candidates))

    def check_candidates(self, num_tried: int) -> None:
        """Refuse one more candidate than there may be.

        Raises:
            OutOfBudgetError: there were enough.
        """
        if num_tried >= self._max_candidates:
            raise OutOfBudgetError

    @contextmanager
    def training(self, passes: float) -> Iterator[None]:
        """Time a block that trains.

        Args:
            passes: how often it sees all training rows; 0 for what is made already.

        Raises:
            OutOfBudgetError: it would not end in time.
        """
        if passes and self._spent + passes * self._pass_seconds + self._measuring_seconds > self._seconds:
            raise OutOfBudgetError
        before = time.monotonic()
        yield
        if passes >= max(self._passes, 1e-9):  # the longest training says most of the next
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
