"""Asking a deployed model from Python: the standard library, and botocore's signer where an API wants signatures."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import Any, NamedTuple

from litelambda.common.errors import LitelambdaError, UsageError

__all__ = ["Client", "Reply", "ServiceError"]

_AWS_HOST = re.compile(r"https://([a-z0-9-]+)\.(execute-api|lambda-url)\.([a-z0-9-]+)\.[a-z0-9.-]+")
_SERVICES = {"execute-api": "execute-api", "lambda-url": "lambda"}
"""By the word in a host's name, the service that requests are signed for."""


class ServiceError(LitelambdaError):
    """A service refused a request, or did not answer.

    Attributes:
        status: of HTTP; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Reply(NamedTuple):
    """What a service answered.

    Attributes:
        status: of HTTP.
        body: bytes.
        headers: by name, in any case.
    """

    status: int
    body: bytes
    headers: Message

    def read_object(self) -> dict[str, Any] | None:
        """The body as a JSON object; None if it is not one."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


class Client:
    """A service that answers for models, on AWS or anywhere else.

    Requests to API Gateway and to Function URLs are signed (Signature Version 4) with the credentials of this machine's
    AWS profile; where it has none they are sent as they are. `AWS_ENDPOINT_URL`, the address of an emulator, is asked
    instead of API Gateway.

    Example:
        >>> client = Client("http://localhost:8080/v1/models/fruit")
        >>> client.url, client.model
        ('http://localhost:8080', 'fruit')

    Example::

        from litelambda import Client

        print(Client(stack="litelambda").predict([[0.9, 0.1, 0.2, 0.5]], model="fruit"))
    """

    def __init__(
        self,
        url: str = "",
        *,
        stack: str = "",
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        """Find the service; nothing is asked of it yet.

        Args:
            url: its address, or a model's: `https://host/v1/models/NAME`.
            stack: instead, the name of a deployed stack; its key is sent where its API wants one.
            headers: sent with each request, such as a token: `{"Authorization": "Bearer …"}`.
            timeout_seconds: for an answer.

        Raises:
            UsageError: neither or both were given, it is not a URL, or the stack does not exist.
        """
        if bool(url) == bool(stack):
            raise UsageError("give the URL of a service, or the name of a stack: one of the two")
        self._headers = dict(headers or {})
        self._timeout_seconds = timeout_seconds
        model = ""
        if stack:
            from litelambda.stacks.access import address_of

            url, model, more = address_of(stack)
            self._headers = {**more, **self._headers}
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not the URL of a service: expected http:// or https://")
        self.url, _, path = url.rstrip("/").partition("/v1/models/")
        self.model = path.removesuffix(":predict") or model

    def predict(self, rows: Sequence[Any], *, model: str = "", **more: Any) -> list[Any]:
        """Ask for the predictions of rows.

        Args:
            rows: values as the model reads them: lists, arrays, dictionaries by column, texts; pictures as bytes.
            model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; "" for the one of the URL or of the stack.
            more: further members of the request, such as `top_k=3`.

        Returns:
            A prediction for each row.

        Raises:
            UsageError: it is not known which model is meant.
            ServiceError: the service refused, or did not answer.
        """
        answer = self.ask({"instances": list(rows), **more}, model)
        return list(answer["predictions"] if "predictions" in answer else answer["outputs"])

    def ask(self, body: Mapping[str, Any], model: str = "") -> dict[str, Any]:
        """Send a whole `:predict` request; see `predict`.

        Args:
            body: as TensorFlow Serving's REST API has it.
            model: see `predict`.

        Returns:
            The answer as it is.

        Raises:
            UsageError, ServiceError: see `predict`.
        """
        path = f"/v1/models/{self.path_of(model)}:predict"
        reply = self.send(path, json.dumps(body, default=_plain).encode())
        if reply.status == 200 and (answer := reply.read_object()) is not None:
            return answer
        raise self.refused(path, reply)

    def path_of(self, model: str = "") -> str:
        """The path of a model below `/v1/models/`.

        Args:
            model: see `predict`.

        Raises:
            UsageError: it is not known which model is meant.
        """
        if not (name := model or self.model):
            raise UsageError("name the model: the URL and the stack do not")
        return _path(name)

    def send(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a POST, signed where the address is one of AWS; see `Client`.

        Args:
            path: below the service's address.
            body: as it is sent.
            headers: sent with it; without a content type it is JSON.

        Returns:
            The answer, of any status.

        Raises:
            ServiceError: there was none.
        """
        url, sent = self.url + path, {"content-type": "application/json"}
        sent |= {name.lower(): value for name, value in {**self._headers, **(headers or {})}.items()}
        if found := _AWS_HOST.match(url):
            url = _of_emulator(url, found) or url
            if "authorization" not in sent:
                sent |= _signed(url, body, sent["content-type"], _SERVICES[found[2]], found[3])
        request = urllib.request.Request(url, body, sent)  # noqa: S310 - http(s): checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_seconds) as response:  # noqa: S310 - as above
                return Reply(response.status, response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), error.headers)
        except OSError as error:
            raise ServiceError(f"{url} cannot be asked: {getattr(error, 'reason', error)}") from error

    def refused(self, path: str, reply: Reply) -> ServiceError:
        """The error that says what a service answered instead of what it was asked for."""
        answer = reply.read_object() or {}
        said = answer.get("error") or answer.get("message") or reply.body.decode("utf-8", "replace")[:300]
        message = f"{self.url}{path} answered {reply.status}: {said}"
        if reply.status in {401, 403} and not _AWS_HOST.match(self.url) and not self._headers:
            message += " (the request was not signed, as its host is not one of AWS: name the stack instead)"
        return ServiceError(message, reply.status)


def _path(reference: str) -> str:
    """The path of a model's version below `/v1/models/`.

    >>> _path("fruit"), _path("fruit@stable"), _path("fruit:3")
    ('fruit', 'fruit/labels/stable', 'fruit/versions/3')
    """
    for mark, kind in (("@", "labels"), (":", "versions")):
        name, found, which = reference.partition(mark)
        if found:
            return f"{name}/{kind}/{which}"
    return reference


def _of_emulator(url: str, found: re.Match[str]) -> str:
    """Where an emulator of AWS has an API, in the form that LocalStack began; "" without one."""
    emulator = os.environ.get("AWS_ENDPOINT_URL", "") if found[2] == "execute-api" else ""
    return f"{emulator}/_aws/execute-api/{found[1]}{url[found.end() :]}" if emulator else ""


def _signed(url: str, body: bytes, content_type: str, service: str, region: str) -> dict[str, str]:
    """The headers of a signature; none where this machine has no credentials."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    from litelambda.common.aws import aws_session, refusals_explained

    with refusals_explained("the AWS credentials cannot be read"):
        credentials = aws_session().get_credentials()
        if credentials is None:
            return {}
        request = AWSRequest("POST", url, {"content-type": content_type}, body)
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def _plain(value: Any) -> Any:
    """What JSON has for a value that it does not know: an array's lists, a picture's base64."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(value).decode()}
    if hasattr(value, "tolist"):
        return value.tolist()
    raise UsageError(
        f"a row has a {type(value).__name__}, which JSON does not have: give lists, numbers, texts or bytes"
    )
