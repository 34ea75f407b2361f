"""moto on loopback behind a wire that breaks as asked: what a function's client sees is what a socket gives.

Two servers share moto's state: the test's own clients use one that behaves, the function the other.
"""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.parse import unquote

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from litelambda_serving import objects
from support.moto_server import MotoServer
from support.score_stack import BUCKET, Stack, imported_score
from support.scoring_files import make_store
from support.sqs_poller import REGION, Queues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes:
        status: of the answer, 0 for none at all: the connection is closed.
        code: S3's word for the error.
        is_done: whether the request is carried out before that.
        is_cut: whether the true answer's body stops half-way instead.
    """

    status: int = 0
    code: str = ""
    is_done: bool = False
    is_cut: bool = False


SLOW_DOWN = Fault(503, "SlowDown")
CONFLICT = Fault(409, "ConditionalRequestConflict")
LOST_ANSWER = Fault(500, "InternalError", is_done=True)
CLOSED = Fault()
CUT_BODY = Fault(is_cut=True)


class FaultyAws:
    """A server of moto's S3 and SQS; `fault` is asked before each request for an object.

    Attributes:
        url: its endpoint.
        fault: takes the operation's name and the path, bucket and key; answers None to behave.
        calls: operations and paths of all requests for objects.
    """

    def __init__(self) -> None:
        self.fault: Callable[[str, str], Fault | None] = lambda _operation, _path: None
        self.calls: list[tuple[str, str]] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = unquote(environ["RAW_URI"].partition("?")[0]).lstrip("/")
        if not path:
            return self._moto(environ, start_response)
        operation = _operation(environ)
        self.calls.append((operation, path))
        fault = self.fault(operation, path)
        if fault is None:
            return self._moto(environ, start_response)
        if fault.is_cut:
            body = b"".join(self._moto(environ, start_response))
            return [body[: len(body) // 2]]
        if fault.is_done:
            b"".join(self._moto(environ, lambda *_: lambda _: None))
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(length)
        if not fault.status:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        body = f"<Error><Code>{fault.code}</Code><Message>as asked</Message></Error>".encode()
        if environ["REQUEST_METHOD"] == "HEAD":
            body = b""
        start_response(f"{fault.status} Fault", [("Content-Length", str(len(body)))])
        return [body]


class _Quiet(WSGIRequestHandler):
    disable_nagle_algorithm = True  # a body behind its head would wait 40 ms

    def log(self, *_: Any, **__: Any) -> None:
        """Nothing: thousands of lines would hide a test's own."""


def _operation(environ: dict[str, Any]) -> str:
    """S3's name of what is asked for, of those that the function uses."""
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    if method == "POST":
        return "CompleteMultipartUpload" if "uploadId=" in query else "CreateMultipartUpload"
    if method == "PUT":
        return "UploadPart" if "partNumber=" in query else "PutObject"
    if method == "DELETE":
        return "AbortMultipartUpload" if "uploadId=" in query else "DeleteObject"
    if method == "GET":
        return "ListObjectsV2" if "list-type=" in query else "GetObject"
    return "HeadObject"


@contextmanager
def faulty_stack(folder: Path, monkeypatch: Any, **environment: str) -> Iterator[tuple[Stack, FaultyAws]]:
    """The batch function as deployed, with a versioned bucket and its queues, on a wire of its own."""
    with MotoServer() as moto:
        aws = FaultyAws()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": aws.url,
            "POWERTOOLS_METRICS_NAMESPACE": "litelambda",
            "MODEL_STORE": (folder / "store").as_uri(),
            "MODEL_NAME": "tiny_int8",
            "LOG_LEVEL": "INFO",
            "METRICS_NAMESPACE": "",
            **environment,
        }.items():
            monkeypatch.setenv(name, value)
        make_store(folder / "store")
        s3 = boto3.client("s3", endpoint_url=moto.url, config=Config(max_pool_connections=1))
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        queues = Queues(boto3.client("sqs", endpoint_url=moto.url), "score")
        monkeypatch.setenv("SCORE_QUEUE_URL", queues.url)
        try:
            with patch.object(objects, "_s3", None), imported_score() as handler:
                yield Stack(s3, queues, handler), aws
                client = objects.objects_for(f"s3://{BUCKET}/").client  # type: ignore[attr-defined] # the S3 one
                client.close()
        finally:
            aws.close()
