"""The batch function on moto: a bucket, a queue with a dead-letter queue, and the real handler in this process.

Trouble is made where the client's requests leave: `Stack.fault` is asked before each request to S3.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import unquote

import boto3
from aws_lambda_powertools import Metrics
from botocore.awsrequest import AWSResponse
from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend

from litelambda_serving import objects
from support.mocked_aws import mock_aws
from support.scoring_files import Context, make_store
from support.sqs_poller import REGION, Queues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    Fault = Callable[[str, str], int | None]

BUCKET = "data"
CUT_SHORT = -1
"""A fault: the whole Content-Length, and half of the body."""

_ERRORS = {503: "SlowDown", 500: "InternalError", 403: "AccessDenied"}


class Stack:
    """What a deployed stack has.

    Attributes:
        s3: a client.
        queues: the queue and its dead-letter queue.
        handler: `score.handler`.
        fault: asked with the operation's name and the key; answers None, a status, or `CUT_SHORT`.
        calls: operations and keys of all requests to S3 that the function made.
    """

    def __init__(self, s3: Any, queues: Queues, handler: Any) -> None:
        self.s3 = s3
        self.queues = queues
        self.handler = handler
        self.fault: Fault = lambda _operation, _key: None
        self.calls: list[tuple[str, str]] = []

    def invoke(self, event: dict[str, Any], seconds: float = 900.0) -> Any:
        """Invoke the function."""
        return self.handler.handler(event, Context(seconds))

    def put(self, key: str, data: bytes) -> str:
        """Upload an object; return its ETag."""
        return str(self.s3.put_object(Bucket=BUCKET, Key=key, Body=data)["ETag"]).strip('"')

    def get(self, key: str) -> bytes:
        """An object's bytes."""
        return bytes(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def list(self, prefix: str = "") -> list[str]:
        """All keys below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def outputs(self, ending: str = ".jsonl") -> dict[str, str]:
        """The predictions by the key of their input."""
        reports = (".errors.jsonl",)
        found = [key for key in self.list("predictions/") if key.endswith(ending) and not key.endswith(reports)]
        return {key.removeprefix("predictions/").removesuffix(ending)[:-33]: key for key in found}

    def watch(self, client: Any) -> None:
        """Ask `fault` before each request of a client."""
        client.meta.events.register("before-call.s3", self._note)
        client.meta.events.register("before-send.s3", self._interfere)

    def _note(self, params: dict[str, Any], context: dict[str, Any], model: Any, **_: Any) -> None:
        context["operation"] = (model.name, unquote(params["url_path"].removeprefix(f"/{BUCKET}")).lstrip("/"))

    def _interfere(self, request: Any, **_: Any) -> AWSResponse | None:
        operation, key = request.context["operation"]
        self.calls.append((operation, key))
        status = self.fault(operation, key)
        if status is None:
            return None
        if status == CUT_SHORT:
            whole = self.s3.get_object(Bucket=BUCKET, Key=key)
            body = whole["Body"].read()
            headers = {
                "Content-Length": str(len(body)),
                "ETag": whole["ETag"],
                "Content-Range": f"bytes 0-{len(body)}/*",
            }
            return AWSResponse(request.url, 206, headers, _Raw(body[: len(body) // 2], len(body)))
        text = f"<Error><Code>{_ERRORS[status]}</Code><Message>as told</Message></Error>".encode()
        return AWSResponse(request.url, status, {"Content-Length": str(len(text))}, _Raw(text, len(text)))


class _Raw(io.BytesIO):
    """A body as urllib3 has it: what ends before its length is known to be cut."""

    def __init__(self, body: bytes, length: int) -> None:
        super().__init__(body)
        self._length = length

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self._length > len(self.getvalue()) and not data:
            from urllib3.exceptions import IncompleteRead, ProtocolError

            raise ProtocolError("cut", IncompleteRead(len(self.getvalue()), self._length))
        return data


def _answer_gone_uploads_as_s3_does(monkeypatch: Any) -> None:
    """An upload that was completed or aborted is 404 NoSuchUpload; moto has a KeyError for it."""

    def answering(original: Any) -> Any:
        def answer(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            except KeyError as error:
                raise NoSuchUpload(upload_id=str(error)) from error

        return answer

    for name in ("upload_part", "complete_multipart_upload"):
        monkeypatch.setattr(S3Backend, name, answering(getattr(S3Backend, name)))


@contextmanager
def imported_score() -> Iterator[ModuleType]:
    """The batch handler, imported as INIT does: it reads the environment, and Powertools knows of no earlier one."""
    metrics = Metrics(namespace="litelambda", service="score")
    metrics.clear_default_dimensions()
    metrics.clear_metrics()
    logger = logging.getLogger("score")
    before = {**vars(logger), "handlers": list(logger.handlers)}
    try:
        yield importlib.import_module("score")
    finally:
        sys.modules.pop("score", None)
        vars(logger).clear()
        vars(logger).update(before)
        logger.setLevel(logger.level)  # what was cached of the other level goes


@contextmanager
def score_stack(folder: Path, monkeypatch: Any, *, versioned: bool = False, **environment: str) -> Iterator[Stack]:
    """A stack whose model is `tiny_int8`."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "POWERTOOLS_METRICS_NAMESPACE": "litelambda",
        "MODEL_STORE": (folder / "store").as_uri(),
        "MODEL_NAME": "tiny_int8",
        "LOG_LEVEL": "ERROR",
        "METRICS_NAMESPACE": "",
        **environment,
    }.items():
        monkeypatch.setenv(name, value)
    _answer_gone_uploads_as_s3_does(monkeypatch)
    make_store(folder / "store")
    with ExitStack() as resources:
        resources.enter_context(mock_aws())
        resources.enter_context(patch.object(objects, "_s3", None))
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        if versioned:
            s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        queues = Queues(boto3.client("sqs"), "score")
        monkeypatch.setenv("SCORE_QUEUE_URL", queues.url)
        stack = Stack(s3, queues, resources.enter_context(imported_score()))
        stack.watch(objects.objects_for("s3://data/").client)  # type: ignore[attr-defined] # the S3 one
        yield stack
