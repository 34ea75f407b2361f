"""A version of a model that requests are sent to: of a store, through the code that ships, or of a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from litelambda.commands.local_function import custom_code_path
from litelambda.common.errors import UsageError
from litelambda.common.paths import store_url
from litelambda.store.checks import check_store_exists, choices_named
from litelambda.store.reading import open_reader
from litelambda_serving.custom_code import CustomCode
from litelambda_serving.http import Request
from litelambda_serving.models import ModelRepository
from litelambda_serving.router import error_response, route
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.models import parse_reference
from litelambda_serving.servable import Servable

if TYPE_CHECKING:
    from litelambda.client import Client

__all__ = ["Answer", "AskedModel", "AskedService", "StoredModel"]

_NOT_LET_IN = {401, 403}


class Answer:
    """What a request was answered with.

    Attributes:
        status: HTTP status.
        body: bytes.
        length: of the JSON before V2's binary tensors; "" where all is JSON.
    """

    def __init__(self, status: int, body: bytes, length: str) -> None:
        self.status = status
        self.body = body
        self.length = length


class AskedModel(Protocol):
    """Answers requests."""

    def ask(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a POST below the model's own path: ":predict", "/infer"."""


class StoredModel:
    """A version in a store, in this process.

    Attributes:
        servable: the version, loaded.
    """

    servable: Servable

    def __init__(
        self, reference: str, store: str | Path, code: str | Path | None = None, *, counts_drift: bool = False
    ) -> None:
        """Load it.

        Args:
            reference: `NAME`, `NAME@ALIAS` or `NAME:VERSION`.
            store: a folder, or `s3://bucket/prefix`.
            code: file with the function's own code.
            counts_drift: whether it counts what it is asked.

        Raises:
            UsageError: the reference, the store or the file makes no sense.
            ServingError: the version cannot be loaded.
        """
        try:
            name, version = parse_reference(reference)
        except JobError as error:
            raise UsageError(str(error)) from error
        url = store_url(store)
        check_store_exists(url)
        self._repository = ModelRepository(open_reader(url), num_threads=1, refresh_seconds=86400)
        self._repository.counts_drift = counts_drift
        if code is not None:
            self._repository.custom_code = CustomCode(str(custom_code_path(code)))
        with choices_named(url, reference):
            is_number = version.isdecimal()
            found = self._repository.get(name, int(version) if is_number else None, "" if is_number else version)
            self.servable = self._repository.servable(name, found.manifest.version)

    def ask(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """See `AskedModel.ask`."""
        manifest = self.servable.manifest
        api = "v1" if path.startswith(":") else "v2"
        whole = f"/{api}/models/{manifest.model}/versions/{manifest.version}{path}"
        try:
            response = route(Request("POST", whole, headers, body), self._repository)
        except Exception as error:  # noqa: BLE001 - as the handler answers it
            response = error_response(error, "replay")
        answer = response.body.encode() if isinstance(response.body, str) else response.body
        return Answer(response.status, answer, response.headers.get("Inference-Header-Content-Length", ""))


class AskedService:
    """A model of a service."""

    def __init__(self, client: Client, model: str = "") -> None:
        """See which model is meant; nothing is asked yet.

        Args:
            client: asks the service.
            model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; "" for the one of the client's URL or stack.

        Raises:
            UsageError: it is not known which model is meant.
        """
        self._client, self._model = client, client.path_of(model)

    def ask(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """See `AskedModel.ask`.

        Raises:
            ServiceError: it does not answer, or it does not let the caller in: no other request would fare better.
        """
        if path.startswith(":"):
            place = f"/v1/models/{self._model}{path}"
        else:  # the Open Inference Protocol has an alias in a version's place
            place = f"/v2/models/{self._model.replace('/labels/', '/versions/', 1)}{path}"
        reply = self._client.send(place, body, headers)
        if reply.status in _NOT_LET_IN:
            raise self._client.refused(place, reply)
        return Answer(reply.status, reply.body, reply.headers.get("Inference-Header-Content-Length", ""))
