"""What a function keeps of its requests, and writes when their callers have been answered.

Loaded where CAPTURE_STORE is set. The lean bootstrap calls `after_response` between an answer and the wait for the next
request, when no caller waits and nothing is frozen yet. Under the stock client there is no such moment: there the next
request starts a thread, which Lambda may freeze with the process and which then continues.
"""

from __future__ import annotations

from litelambda_serving.background import Background
from litelambda_serving.capture import Capture, CaptureSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda_serving.http import Request, Response
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models import ModelRepository

__all__ = ["Recorder"]


class Recorder:
    """Keeps and writes what the function's environment asks for."""

    def __init__(self, environment: Mapping[str, str], repository: ModelRepository) -> None:
        """Read the settings.

        Raises:
            SettingsError: one of them is impossible.
        """
        self._repository = repository
        self._capture = Capture(
            CaptureSettings(environment),
            self._find_manifest,
            repository.warn,
            has_custom_code=repository.custom_code is not None,
        )
        self._is_called_after = False
        self._writing: Background | None = None

    def answered(self, request: Request, response: Response, request_id: str) -> None:
        """Keep what is wanted of a request that has just been answered; write nothing."""
        self._capture.add(request, response, request_id)

    def after_response(self) -> None:
        """Write what is due: the caller has the answer."""
        self._is_called_after = True
        if self._capture.is_due:
            self._capture.write(self._capture.take())

    def before_request(self) -> None:
        """Start to write what is due, where nothing calls `after_response`."""
        if not self._is_called_after and self._capture.is_due:
            self._writing = Background(self._capture.write, self._capture.take())

    def _find_manifest(self, name: str, version: int) -> Manifest | None:
        loaded = (servable.manifest for servable in self._repository.loaded())
        return next((each for each in loaded if (each.model, each.version) == (name, version)), None)
