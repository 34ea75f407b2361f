"""A Google Cloud Storage and an Azure Blob Storage on loopback, as far as obstore asks them.

No emulator on PyPI or npm speaks the XML API, through which obstore reads and writes Google's. The fake follows
cloud.google.com/storage/docs/xml-api and learn.microsoft.com/rest/api/storageservices; `make test-stores` runs the same
tests against Azurite, Microsoft's own emulator. Signatures are not checked, tokens alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import re
import threading
from contextlib import contextmanager
from email.utils import formatdate
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from support.ports import is_listening
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Fault = Callable[[str, str], int | None]

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator of Azure: learn.microsoft.com/azure/storage/common/storage-use-azurite."""

TOKEN = "a-token"
BUCKET = "bucket"
LOST_ANSWER = -1
"""A fault: the request is done, and the connection closed without an answer."""

_PAGE = 3  # names in a page of a listing: so few that every listing has several


class _Cloud:
    """What both have: objects with a generation, in one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.blocks: dict[tuple[str, str], bytes] = {}
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.fault: Fault = lambda _method, _key: None
        self._generations = itertools.count(1_700_000_000_000_000)

    def store(self, key: str, data: bytes) -> int:
        self.objects[key] = data, next(self._generations)
        return self.objects[key][1]

    def page(self, query: dict[str, str]) -> tuple[list[str], list[str], str]:
        """Keys, folders and the next page's marker of a listing."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names = set()
        for key in self.objects:
            if key.startswith(prefix):
                head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                names.add(prefix + head + delimiter if found else key)
        start = query.get("continuation-token") or query.get("marker") or ""
        rest = sorted(name for name in names if name > start)
        shown, marker = rest[:_PAGE], rest[_PAGE - 1] if len(rest) > _PAGE else ""
        return [name for name in shown if name in self.objects], [n for n in shown if n not in self.objects], marker


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # a body behind its head would wait 40 ms
    protocol_version = "HTTP/1.1"
    cloud: _Cloud
    missing_bucket: str
    missing_key: str

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(url.path).lstrip("/").removeprefix(f"{ACCOUNT}/").partition("/")
        self.cloud.asked.append(f"{self.command} {key}")
        fault = self.cloud.fault(self.command, key)
        if fault and fault != LOST_ANSWER:
            return self._refuse(fault, "Fault")
        if refusal := self._unauthorized():
            return self._refuse(*refusal)
        if bucket != BUCKET:
            return self._refuse(404, self.missing_bucket)
        with self.cloud.lock:
            status, headers, answer = self._answer(key, query, body)
        if fault == LOST_ANSWER:
            self.close_connection = True
            return None
        return self._send(status, headers, answer)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815 - the names that http.server looks for

    def _answer(self, key: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if query.get("comp") == "batch":
            return self._delete_all(body.decode())
        if not key:
            return 200, {"Content-Type": "application/xml"}, self._listing(query).encode()
        if self.command == "PUT":
            return self._put(key, query, body)
        if key not in self.cloud.objects:
            return self._error(404, self.missing_key)
        if self.command == "DELETE":
            del self.cloud.objects[key]
            return 204, {}, b""
        return self._get(*self.cloud.objects[key])

    def _delete_all(self, batch: str) -> tuple[int, dict[str, str], bytes]:
        """Azure's Blob Batch, in which obstore deletes: one part per blob."""
        parts = ""
        for number, path in enumerate(re.findall(r"^DELETE (\S+)", batch, re.MULTILINE)):
            key = unquote(path).partition(f"/{BUCKET}/")[2]
            found = self.cloud.objects.pop(key, None)
            status = "202 Accepted" if found else "404 Not Found\r\nx-ms-error-code: BlobNotFound"
            head = f"Content-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\n"
            parts += f"--batch\r\n{head}\r\n"
        return 202, {"Content-Type": "multipart/mixed; boundary=batch"}, f"{parts}--batch--\r\n".encode()

    def _get(self, data: bytes, generation: int) -> tuple[int, dict[str, str], bytes]:
        headers = self._describe(data, generation)
        if self.headers.get("If-None-Match") == headers["ETag"]:
            return 304, headers, b""
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            return self._error(412, "PreconditionFailed")
        asked = self.headers.get("Range") or self.headers.get("x-ms-range")
        if not asked:
            return 200, headers, data
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return 206, headers, part

    def _unauthorized(self) -> tuple[int, str] | None:
        raise NotImplementedError

    def _listing(self, query: dict[str, str]) -> str:
        raise NotImplementedError

    def _put(self, key: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def _describe(self, data: bytes, generation: int) -> dict[str, str]:
        raise NotImplementedError

    def _error(self, status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()

    def _refuse(self, status: int, code: str) -> None:
        self._send(*self._error(status, code))

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Google(_Handler):
    missing_bucket, missing_key = "NoSuchBucket", "NoSuchKey"

    def _unauthorized(self) -> tuple[int, str] | None:
        given = self.headers.get("Authorization")
        return (
            None if given == f"Bearer {TOKEN}" else (403, "AccessDenied") if given else (401, "AuthenticationRequired")
        )

    def _describe(self, data: bytes, generation: int) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last-Modified": formatdate(usegmt=True),
            "x-goog-generation": str(generation),
        }

    def _put(self, key: str, _query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        expected = self.headers.get("x-goog-if-generation-match")
        _, current = self.cloud.objects.get(key, (b"", 0))
        if expected is not None and int(expected) != current:
            return self._error(412, "PreconditionFailed")
        return 200, self._describe(body, self.cloud.store(key, body)), b""

    def _listing(self, query: dict[str, str]) -> str:
        keys, folders, marker = self.cloud.page(query)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Generation>{generation}</Generation><Size>{len(data)}</Size>"
            f"<LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f'<ETag>"{hashlib.md5(data).hexdigest()}"</ETag></Contents>'
            for key in keys
            for data, generation in [self.cloud.objects[key]]
        )
        prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        more = f"<NextContinuationToken>{escape(marker)}</NextContinuationToken>" if marker else ""
        return f"<ListBucketResult>{contents}{prefixes}{more}</ListBucketResult>"


class _Azure(_Handler):
    missing_bucket, missing_key = "ContainerNotFound", "BlobNotFound"

    def _unauthorized(self) -> tuple[int, str] | None:
        given = self.headers.get("Authorization", "")
        if not given:
            return 401, "NoAuthenticationInformation"
        return None if given.startswith(f"SharedKey {ACCOUNT}:") else (403, "AuthenticationFailed")

    def _describe(self, _data: bytes, generation: int) -> dict[str, str]:
        return {"ETag": f'"0x{generation:X}"', "Last-Modified": formatdate(usegmt=True), "x-ms-blob-type": "BlockBlob"}

    def _put(self, key: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if query.get("comp") == "block":
            self.cloud.blocks[key, query["blockid"]] = body
            return 201, {}, b""
        current = self.cloud.objects.get(key)
        if self.headers.get("If-None-Match") == "*" and current:
            return self._error(409, "BlobAlreadyExists")
        expected = self.headers.get("If-Match")
        if expected and (current is None or expected != self._describe(*current)["ETag"]):
            return self._error(412, "ConditionNotMet")
        if query.get("comp") == "blocklist":
            names = [part.partition("<")[0] for part in body.decode().split(">") if "</" in part and part[0] != "<"]
            body = b"".join(self.cloud.blocks.pop((key, name)) for name in names)
        return 201, self._describe(body, self.cloud.store(key, body)), b""

    def _listing(self, query: dict[str, str]) -> str:
        keys, folders, marker = self.cloud.page(query)
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{formatdate(usegmt=True)}</Last-Modified>"
            f"<Content-Length>{len(data)}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
            f"<Etag>0x{generation:X}</Etag></Properties></Blob>"
            for key in keys
            for data, generation in [self.cloud.objects[key]]
        )
        prefixes = "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders)
        more = f"<NextMarker>{escape(marker)}</NextMarker>"
        return f"<EnumerationResults><Blobs>{blobs}{prefixes}</Blobs>{more}</EnumerationResults>"


@contextmanager
def fake_cloud(scheme: str) -> Iterator[tuple[str, _Cloud]]:
    """Run one, with an empty bucket or container named `BUCKET`.

    Args:
        scheme: "gs" or "az".

    Yields:
        Its endpoint, and what it holds and was asked.
    """
    cloud = _Cloud()
    handler: Any = type("Handler", ({"gs": _Google, "az": _Azure}[scheme],), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment_of(scheme: str, endpoint: str) -> dict[str, str]:
    """The variables with which a fake is found and asked."""
    if scheme == "gs":
        return {"GOOGLE_BASE_URL": endpoint, "GOOGLE_BEARER_TOKEN": TOKEN}
    return {
        "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{ACCOUNT}",
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
    }


@cache
def prepare_azurite(endpoint: str) -> None:
    """Wait for Azurite, and create the container there, which obstore cannot."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    signed = "PUT" + "\n" * 12 + f"{headers}\n/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    host = urlsplit(endpoint).netloc
    wait_until(lambda: is_listening(urlsplit(endpoint).port or 80))
    connection = HTTPConnection(host, timeout=60)
    connection.request(
        *("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", b""),
        {
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )
    status = connection.getresponse().status
    connection.close()
    assert status in (201, 409), status  # 409: it is there
