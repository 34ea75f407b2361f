"""Keeping aliases current while requests run: a conditional read in a thread, new versions loaded before they show.

Lambda freezes a process between its requests, threads and connections included. A refresh therefore may take any time
by the clock, survives a connection that died meanwhile (it fails, is logged, and starts again when the aliases are
next found too old), and is joined for a moment by the first request after a freeze, so that rare requests get there.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import time

from litelambda_serving.aliases import refetch_aliases
from litelambda_serving.errors import ServingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from litelambda_serving.aliases import Aliases, CachedAliases
    from litelambda_serving.store import Store

__all__ = ["Refresh"]

_PATIENCE_SECONDS = 2.0
"""A refresh that started so long ago was cut off by a freeze: the request at hand waits for it."""

_LONGEST_WAIT_SECONDS = 0.5


class Refresh:
    """One refresh of one model's aliases, in its own thread.

    Attributes:
        done: whether it ended, well or not.
    """

    __slots__ = ("_cached", "_finished", "_is_loaded", "_load", "_started", "_store", "_warn", "done")

    def __init__(
        self,
        cached: CachedAliases,
        store: Store,
        load: Callable[[str, int, tuple[str, str]], object],
        is_loaded: Callable[[str, int], bool],
        warn: Callable[[str], None],
    ) -> None:
        """Start it.

        Args:
            cached: what is refreshed.
            store: where the aliases are.
            load: loads a version, given the model, its number and its pin; see `ModelRepository.servable`.
            is_loaded: whether a version of a model is in memory.
            warn: called with what went wrong.
        """
        self._cached = cached
        self._store = store
        self._load = load
        self._is_loaded = is_loaded
        self._warn = warn
        self._finished = allocate_lock()
        self._finished.acquire()
        self._started = time()
        self.done = False
        start_new_thread(self._run, ())

    def wait_if_frozen(self) -> None:
        """Wait a moment for its end if it takes so long that a freeze must have cut it off."""
        now = time()
        if now - self._started < _PATIENCE_SECONDS:
            return
        self._started = now  # the next requests do not all wait for a slow store
        if self._finished.acquire(timeout=_LONGEST_WAIT_SECONDS):
            self._finished.release()

    def _run(self) -> None:
        cached = self._cached
        try:
            aliases = refetch_aliases(self._store, cached.model, cached.aliases.tag)
            if aliases is not None:
                self._load_reachable(aliases)
                cached.aliases = aliases  # one assignment: a request sees the old document or the new one
        except ServingError as error:
            self._warn(f"the aliases of {cached.model} could not be refreshed, the old ones remain in use: {error}")
        except Exception as error:  # noqa: BLE001 - it runs in a thread of its own, where it would be lost
            self._warn(f"the aliases of {cached.model} could not be refreshed: {type(error).__name__}: {error}")
        finally:
            cached.broken = set()
            cached.checked = time()
            self.done = True
            self._finished.release()

    def _load_reachable(self, aliases: Aliases) -> None:
        """Load what the aliases that are in use here will reach, so that no request waits for it.

        Raises:
            ServingError: the target of an alias cannot be loaded.
        """
        name, current = self._cached.model, self._cached.aliases
        for alias in current.targets:
            if not any(self._is_loaded(name, number) for number in current.reachable(alias)):
                continue
            for number in aliases.reachable(alias):
                try:
                    self._load(name, number, aliases.pins.get(number, ("", "")))
                except ServingError as error:
                    if number == aliases.targets[alias]:
                        raise
                    self._warn(f"version {number} of {name}, a canary or shadow, cannot be loaded: {error}")
