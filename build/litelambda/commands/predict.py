"""One request to a model: of a store, through the handler that is deployed, or of a service at a URL."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.client import Client
from litelambda.commands.local_function import LambdaContext, load_handler
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.models import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PredictError", "check_code", "open_service", "predict"]


class PredictError(LitelambdaError):
    """The request was refused, or it failed."""


def predict(
    model: str,
    value: Any,
    *,
    store: str | Path = DEFAULT_STORE,
    code: str | Path | None = None,
    more: Mapping[str, Any] | None = None,
    service: Client | None = None,
) -> dict[str, Any]:
    """Ask a model for its prediction.

    Args:
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; "" for the one that the service's URL names.
        value: a row, or a whole body: an object with `instances` or `inputs`.
        store: where the model is: a folder, or `s3://bucket/prefix`.
        code: file with the function's own code, which runs before and after the model.
        more: further members of the body, such as `top_k`.
        service: asked instead of the store.

    Returns:
        The answer.

    Raises:
        UsageError: the model's name, the store or the file makes no sense.
        PredictError, ServiceError: the request was refused, or it failed.
        ServingError: the model or the code cannot be loaded.
    """
    is_body = isinstance(value, dict) and not value.keys().isdisjoint({"instances", "inputs"})
    body = {**(value if is_body else {"instances": [value]}), **(more or {})}
    check_code(code, service)
    if service is None:
        return _ask_store(model, json.dumps(body), store_url(store), code)
    return service.ask(body, model)


def check_code(code: str | Path | None, service: Client | None) -> None:
    """Refuse code for a service.

    Raises:
        UsageError: both are given.
    """
    if service is not None and code is not None:
        raise UsageError("--code is for a model of a store: a service has the code that it was packaged with")


def open_service(
    model: str, *, url: str = "", stack: str = "", headers: Mapping[str, str] | None = None
) -> tuple[Client | None, str]:
    """The service that a command names, None for a store, and the model in it.

    Args:
        model: its name, or its URL.
        url: address of a service.
        stack: name of a deployed stack.
        headers: sent to either.

    Raises:
        UsageError: the service is named twice, the stack does not exist, or a store would not take the headers.
    """
    is_url = model.startswith(("http://", "https://"))
    if sum(map(bool, (is_url, url, stack))) > 1:
        raise UsageError("name the service once: by the model's URL, by --url or by --stack")
    if is_url or url or stack:
        return Client(model if is_url else url, stack=stack, headers=headers), "" if is_url else model
    if headers:
        raise UsageError("--header is for a service: give --url or --stack too")
    return None, model


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
