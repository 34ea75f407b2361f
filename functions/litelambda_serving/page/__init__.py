"""The page that a browser gets at `/`: HTML, CSS and scripts as one document. Loaded with the first request for `/`.

The files beside this module are put together once in an execution environment. The page asks nothing of other hosts,
and calls what every client calls: this module knows no model.
"""

from __future__ import annotations

import zlib
from binascii import a2b_hex, b2a_base64
from functools import cache
from os.path import dirname, join

from litelambda_serving.bodies.compression import accepted_encoding
from litelambda_serving.digest import hexdigest
from litelambda_serving.http import Response
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.http import Request

__all__ = ["Page", "answer", "prefers_html"]

_SCRIPTS = (
    "elements.js", "service.js", "pictures.js", "drawing.js", "fields.js", "answers.js", "explanations.js",
    "commands.js", "reference.js", "main.js",
)  # fmt: skip
"""One scope, in this order."""

_HEADERS = {
    "Cache-Control": "private, no-cache",  # kept, and asked for again by its ETag
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Page:
    """The document, put together.

    Attributes:
        html: UTF-8.
        compressed: the same, gzip.
        policy: its Content-Security-Policy: no script and no style runs but the two that are in it.
        etag: digest of the document, without quotes.
    """

    def __init__(self) -> None:
        style = _read("page.css")
        script = "".join(_read(name) for name in _SCRIPTS)
        html = _read("page.html").replace("{style}", style, 1).replace("{script}", script, 1)
        self.html = html.encode()
        compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self.compressed = compressor.compress(self.html) + compressor.flush()
        self.etag = hexdigest(self.html)[:32]
        # `blob:` and `data:` are the pictures that people choose or draw. No sink of HTML takes text: "trusted-types".
        self.policy = (
            f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; connect-src 'self'; "
            "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )


_page = cache(Page)


def answer(request: Request, *, is_open: bool = False) -> Response:
    """Answer `GET /`: with the page if the request prefers HTML, else as ever.

    Args:
        request: the request.
        is_open: whether it is answered whoever calls: nothing of what is served stands in the answer.

    Raises:
        AccessDeniedError: the caller may not know what is served.
    """
    if not is_open:
        request.allow("metadata")
    if not prefers_html(request.headers.get("accept", "")):
        return Response(200, dumps({"status": "alive"}), headers={"Vary": "Accept"}, route="live")
    page = _page()
    encoding = accepted_encoding(request.headers.get("accept-encoding", ""))
    compressed = encoding == "gzip"
    etag = f'"{page.etag}-gzip"' if compressed else f'"{page.etag}"'
    headers = {**_HEADERS, "Content-Security-Policy": page.policy, "ETag": etag}
    if _is_known(request.headers.get("if-none-match", ""), etag):
        return Response(304, "", content_type="text/html; charset=utf-8", headers=headers, route="page")
    if compressed:
        headers["Content-Encoding"] = encoding
    body = page.compressed if compressed else page.html.decode()
    return Response(200, body, content_type="text/html; charset=utf-8", headers=headers, route="page")


def prefers_html(accept: str) -> bool:
    """Whether an Accept header asks for HTML rather than JSON: its quality is higher (RFC 9110, 12.5.1).

    >>> prefers_html("text/html,application/xml;q=0.9,*/*;q=0.8"), prefers_html("*/*"), prefers_html("")
    (True, False, False)
    """
    ranges: dict[str, float] = {}
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        others = [each for each in parameters if each and not each.startswith(("q=", "charset="))]
        if kind and not others:  # one with another parameter, such as `level=1`, is for a page that is not here
            ranges[kind] = max(ranges.get(kind, 0.0), _quality(parameters))
    html, json = (
        next((ranges[kind] for kind in (f"{family}/{name}", f"{family}/*", "*/*") if kind in ranges), 0.0)
        for family, name in (("text", "html"), ("application", "json"))
    )
    return html > json


def _quality(parameters: list[str]) -> float:
    """The weight of a range: 1 without one, 0 where it is not a number from 0 to 1."""
    text = next((each[2:].strip() for each in parameters if each.startswith("q=")), "1")
    is_number = text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdecimal()
    quality = float(text) if is_number else 0.0
    return quality if quality <= 1 else 0.0


def _is_known(if_none_match: str, etag: str) -> bool:
    """Whether the client has this document: its ETag is listed, weak or not, or any is."""
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return etag in known or "*" in known


def _source(text: str) -> str:
    """What allows an inline script or style in a Content-Security-Policy."""
    return f"'sha256-{b2a_base64(a2b_hex(hexdigest(text.encode())), newline=False).decode()}'"


def _read(name: str) -> str:
    with open(join(dirname(__file__), name), encoding="utf-8") as file:
        return file.read()
