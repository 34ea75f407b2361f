"""Keeping aliases current while requests run: a conditional read in a thread, new versions loaded before they show.

Lambda freezes a process between its requests, threads and connections included. A refresh therefore may take any time
by the clock, survives a connection that died meanwhile (it fails, is logged, and is begun again when the aliases are
next found too old), and is joined for a moment by the first request after a freeze, so that rare requests get there.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import time

from litelambda_serving.aliases import refetch_aliases
from litelambda_serving.errors import ServingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.aliases import Aliases
    from litelambda_serving.models import Family, ModelRepository

__all__ = ["Refresh", "refresh"]

_PATIENCE_SECONDS = 2.0
"""A refresh that began so long ago was cut off by a freeze: the request at hand waits for it."""

_LONGEST_WAIT_SECONDS = 0.5


def refresh(family: Family, repository: ModelRepository) -> None:
    """Begin to refresh a model's aliases, unless that is under way; never raises, hardly ever waits."""
    current = family.refresh
    if current is None or current.done:
        family.refresh = Refresh(family, repository)
    elif time() - current.started >= _PATIENCE_SECONDS:
        current.wait(_LONGEST_WAIT_SECONDS)


class Refresh:
    """One refresh of one model's aliases, in its own thread.

    Attributes:
        started: `time.time()` when it began.
        done: whether it ended, well or not.
    """

    __slots__ = ("_family", "_finished", "_repository", "done", "started")

    def __init__(self, family: Family, repository: ModelRepository) -> None:
        self._family = family
        self._repository = repository
        self._finished = allocate_lock()
        self._finished.acquire()
        self.started = time()
        self.done = False
        start_new_thread(self._run, ())

    def wait(self, seconds: float) -> None:
        """Wait for its end, but no longer than this."""
        if self._finished.acquire(timeout=seconds):
            self._finished.release()

    def _run(self) -> None:
        family, warn = self._family, self._repository.warn
        try:
            aliases = refetch_aliases(self._repository.store, family.name, family.aliases.tag)
            if aliases is not None:
                self._load(aliases)
                family.aliases = aliases  # one assignment: a request sees the old document or the new one
        except ServingError as error:
            warn(f"the aliases of {family.name} could not be refreshed, the old ones serve on: {error}")
        except Exception as error:  # noqa: BLE001 - a thread of its own has nobody else to tell
            warn(f"the aliases of {family.name} could not be refreshed: {type(error).__name__}: {error}")
        finally:
            family.broken = set()
            family.checked = time()
            self.done = True
            self._finished.release()

    def _load(self, aliases: Aliases) -> None:
        """Load what the aliases that are in use here will reach, so that no request waits for it.

        Raises:
            ServingError: the target of an alias cannot be loaded.
        """
        family, repository = self._family, self._repository
        for alias in family.aliases.targets:
            if not any(repository.is_loaded(family.name, number) for number in family.aliases.reachable(alias)):
                continue
            for number in aliases.reachable(alias):
                try:
                    repository.servable(family.name, number, aliases.pins.get(number, ("", "")))
                except ServingError as error:
                    if number == aliases.targets[alias]:
                        raise
                    repository.warn(f"version {number} of {family.name}, a canary or shadow, cannot be loaded: {error}")
