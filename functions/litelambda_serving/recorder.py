"""What a function keeps of its requests, and writes when their callers have been answered.

Loaded where CAPTURE_STORE or DRIFT_WINDOW is set. The lean bootstrap calls `after_response` between an answer and the
wait for the next request, when no caller waits and nothing is frozen yet. Under the stock client there is no such
moment: there the next request starts a thread, which Lambda may freeze with the process and which then continues.
"""

from __future__ import annotations

import time

from litelambda_serving.background import Background
from litelambda_serving.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda_serving.capture import Capture
    from litelambda_serving.http import Request, Response
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models import ModelRepository
    from litelambda_serving.observability import Log
    from litelambda_serving.servable import Servable

__all__ = ["Recorder"]

_LEAST_WINDOW, _MOST_WINDOW = 50, 99_999
_HOUR_SECONDS = 3600
"""Age from which on a window is judged with fewer rows than it should have."""


class Recorder:
    """Keeps and writes what the function's environment asks for."""

    def __init__(self, environment: Mapping[str, str], repository: ModelRepository, log: Log) -> None:
        """Read the settings; from here on the repository's models count if that is wanted.

        Raises:
            SettingsError: one of them is impossible.
        """
        self._repository = repository
        self._log = log
        self._capture = self._open_capture(environment) if environment.get("CAPTURE_STORE") else None
        self._window = _window(environment.get("DRIFT_WINDOW") or "")
        repository.counts_drift = self._window > 0
        self._judged: dict[tuple[str, int], float] = {}
        self._is_called_after = False
        self._writing: Background | None = None

    def answered(self, request: Request, response: Response, request_id: str) -> None:
        """Keep what is wanted of a request that has just been answered; write nothing."""
        if self._capture is not None:
            self._capture.add(request, response, request_id)

    def after_response(self) -> None:
        """Write what is due: the caller has the answer."""
        self._is_called_after = True
        if self._capture is not None and self._capture.is_due:
            self._capture.write(self._capture.take())
        if self._window:
            self._judge_windows()

    def before_request(self) -> None:
        """Start to write what is due, where nothing calls `after_response`."""
        if self._is_called_after:
            return
        if self._capture is not None and self._capture.is_due:
            self._writing = Background(self._capture.write, self._capture.take())
        if self._window:
            self._judge_windows()

    def _judge_windows(self) -> None:
        """Compare the windows that are full, or old, with their baselines."""
        for servable in self._repository.loaded():
            counter = servable.drift
            if counter is None:
                continue
            key = servable.manifest.model, servable.manifest.version
            began = self._judged.setdefault(key, time.time())
            is_old = counter.rows >= _LEAST_WINDOW and time.time() - began >= _HOUR_SECONDS
            if counter.rows >= self._window or is_old:
                self._judged[key] = time.time()
                self._judge(servable)

    def _judge(self, servable: Servable) -> None:
        from litelambda_serving.drift.statistic import judge

        counter, manifest = servable.drift, servable.manifest
        if counter is None:
            return
        rows, counts = counter.rows, counter.take()
        score, deviations = judge(counter.document, counts)
        worst = counter.document["features"][deviations.index(max(deviations))]["name"]
        metrics = {"Drift": int(score >= 1)}
        fields = {"DriftScore": round(score, 3), "rows": rows, "feature": worst, "counts": counts}
        self._log.measured("drift", manifest.model, manifest.version, metrics, fields)

    def _open_capture(self, environment: Mapping[str, str]) -> Capture:
        from litelambda_serving.capture import Capture, CaptureSettings

        repository = self._repository
        return Capture(
            CaptureSettings(environment),
            self._find_manifest,
            repository.warn,
            has_custom_code=repository.custom_code is not None,
        )

    def _find_manifest(self, name: str, version: int) -> Manifest | None:
        loaded = (servable.manifest for servable in self._repository.loaded())
        return next((each for each in loaded if (each.model, each.version) == (name, version)), None)


def _window(value: str) -> int:
    if value and not (value.isdecimal() and _LEAST_WINDOW <= int(value) <= _MOST_WINDOW):
        raise SettingsError(f"DRIFT_WINDOW is {value!r}, expected a number from {_LEAST_WINDOW} to {_MOST_WINDOW}")
    return int(value or 0)
