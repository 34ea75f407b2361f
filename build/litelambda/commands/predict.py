"""One request to a model: of a store, through the handler that is deployed, or of a service at a URL."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.commands.local_function import LambdaContext, load_handler
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.models import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PredictError", "predict"]

_TIMEOUT_SECONDS = 60


class PredictError(LitelambdaError):
    """The request was refused, or it failed."""


def predict(
    model: str,
    value: Any,
    *,
    store: str | Path = DEFAULT_STORE,
    code: str | Path | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Ask a model for its prediction.

    Args:
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION` of a store, or the URL of a model, `http://host/v1/models/NAME`.
        value: a row, or a whole body: an object with `instances` or `inputs`.
        store: where the model is: a folder, or `s3://bucket/prefix`.
        code: file with the function's own code, which runs before and after the model.
        more: further members of the body, such as `top_k`.

    Returns:
        The answer.

    Raises:
        UsageError: the model's name, the store or the file makes no sense.
        PredictError: the request was refused, or it failed.
        ServingError: the model or the code cannot be loaded.
    """
    is_body = isinstance(value, dict) and not value.keys().isdisjoint({"instances", "inputs"})
    body = json.dumps({**(value if is_body else {"instances": [value]}), **(more or {})})
    if model.startswith(("http://", "https://")):
        if code is not None:
            raise UsageError("--code is for a model of a store: a service has the code that it was packaged with")
        return _ask_service(model, body)
    return _ask_store(model, body, store_url(store), code)


def _ask_store(model: str, body: str, url: str, code: str | Path | None) -> dict[str, Any]:
    try:
        name, version = parse_reference(model)
    except JobError as error:
        raise UsageError(str(error)) from error
    with _environment_kept(), contextlib.redirect_stdout(sys.stderr):  # what the function logs
        handler = load_handler(url, name, version=version, code=code)
        path = f"/v1/models/{name}:predict"
        context = {"http": {"method": "POST", "path": path}, "stage": "$default"}
        event = {"version": "2.0", "rawPath": path, "headers": {}, "requestContext": context, "body": body}
        answer = handler({**event, "isBase64Encoded": False}, LambdaContext())
    return _checked(answer["statusCode"], answer["body"])


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """The caller's environment has no part of the function's afterwards."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _ask_service(url: str, body: str) -> dict[str, Any]:
    address = url if url.endswith(":predict") else f"{url.rstrip('/')}:predict"
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})  # noqa: S310 - http(s)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
            return _checked(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return _checked(error.code, error.read().decode(errors="replace"))
    except OSError as error:
        raise PredictError(f"{address} cannot be asked: {error}") from error


def _checked(status: int, text: str) -> dict[str, Any]:
    """The answer of a request that worked.

    Raises:
        PredictError: it did not; the message has the service's.
    """
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        answer = {}
    if status == 200 and answer:
        return answer
    raise PredictError(f"{status}: {answer.get('error') or text[:500]}")
