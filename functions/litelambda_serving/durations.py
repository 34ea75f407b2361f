"""How long requests have taken, which says how the next ones like them are run. Knows paths, not what they ask for."""

from __future__ import annotations

from math import inf
from time import thread_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from litelambda_serving.http import Response

__all__ = ["Durations"]

_SHORT_SECONDS = 0.001  # two threads that hand requests and the GIL to each other take as long for it
_IN_THREAD = 0.5  # of the CPU time there is the request's own: threads wake each other to ask for the GIL
_SMALL_BYTES = 64 * 1024
_WEIGHT = 0.125  # of the newest in an average
_MAX_PATHS = 10_000  # callers can write the same one in many ways


class Durations:
    """Average times of requests on the processor, by path, as long as the same models are in memory."""

    def __init__(self, predict: ModuleType) -> None:
        """Know nothing yet.

        Args:
            predict: the composition root, which answers the requests.
        """
        self._predict = predict
        self._num_changes = -1
        self._seconds: dict[str, float] = {}

    def is_short(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a prediction takes less than handing it to another thread would.

        What has not been measured is not: the first request may load its model, a packed body may be a large one.
        """
        if self._num_changes != self._predict.num_changes():
            self._num_changes = self._predict.num_changes()
            self._seconds = {}
        return (
            self._seconds.get(path, inf) <= _SHORT_SECONDS
            and len(body) <= _SMALL_BYTES
            and method == "POST"
            and "content-encoding" not in headers
            and self._predict.only_computes
        )

    def measure(self, path: str, respond: Callable[[], Response], *, inline: bool) -> Response:
        """Respond, and note how much of the processor's time that took.

        Args:
            path: of the request.
            respond: makes the response.
            inline: whether in the event loop's thread.
        """
        began = thread_time()  # a clock would count what else the machine does
        response = respond()
        if response.status == 200:
            seconds = (thread_time() - began) * (1 if inline else _IN_THREAD)
            if len(self._seconds) >= _MAX_PATHS:
                self._seconds = {}
            average = self._seconds.get(path, seconds)
            self._seconds[path] = average + (seconds - average) * _WEIGHT
        return response
