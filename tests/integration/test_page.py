"""`GET /` for a browser: who gets the page, how it travels, and what it may do there. `make test-page` opens it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re

import pytest

from litelambda_serving.page import Page, prefers_html
from support.golden_store import publish
from support.handler_client import EVENTS, Context, load_module, send

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER = {"Accept": CHROME, "Accept-Encoding": "gzip, deflate, br, zstd"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "half_plus_two")
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store, PAGE="on").handler


@pytest.mark.parametrize(
    ("accept", "is_html"),
    [
        (CHROME, True),
        ("text/html", True),
        ("TEXT/HTML;charset=utf-8", True),
        ("text/*", True),
        ("application/json;q=0.5, text/html;q=0.6", True),
        ("text/html;q=0.6, application/json;q=0.5,*/*;q=0.9", True),
        ("*/*;q=0.1, text/html;q=0.2", True),
        ("application/json;q=0, */*", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html;q=0", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=0.1, */*", False),
        ("text/html;level=1", False),
        ("text/html;q=high", False),
        ("text/html;q=1e3", False),
        ("text/html;q=²", False),
        (";;,,q=1,/", False),
    ],
)
def test_html_is_for_those_who_prefer_it(accept, is_html):
    """RFC 9110: the most specific range decides, its quality counts, and what is equal gets JSON, as ever."""
    assert prefers_html(accept) is is_html


def test_a_browser_gets_the_page_and_others_what_they_got(handler):
    """curl, health checks and clients get JSON from the same address, which caches are told."""
    page = send(handler, "GET", "/", headers=BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert gzip.decompress(page.body).startswith(b"<!doctype html>")
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = send(handler, "GET", "/", headers=headers)
        assert answer.json() == {"status": "alive"}
        assert answer.headers["vary"] == "Accept"
    assert send(handler, "POST", "/", headers=BROWSER).status == 400


def test_it_is_off_unless_the_owner_turns_it_on(store):
    """Without PAGE=on a browser gets JSON, and no answer has a header more."""
    answer = send(load_module(store).handler, "GET", "/", headers=BROWSER)
    assert answer.json() == {"status": "alive"}
    assert set(answer.headers) == {"content-type"}


def test_callers_without_a_right_get_it_where_it_is_open(store):
    """An access policy is for the page too, unless PAGE is open; what the page asks for stays refused."""
    policy = json.dumps({"rules": [{"callers": ["scope:predict"], "actions": ["metadata"], "models": ["*"]}]})
    for setting, status in (("on", 403), ("open", 200)):
        handler = load_module(store, PAGE=setting, ACCESS_POLICY=policy).handler
        assert send(handler, "GET", "/", headers=BROWSER).status == status
        assert send(handler, "HEAD", "/", headers=BROWSER).status == status
        assert send(handler, "GET", "/v1/models/half_plus_two").status == 403
        assert send(handler, "GET", "/healthz").status == 403


def test_it_travels_compressed_and_small(handler):
    """At most 60 kB, as base64 in the event; as text for a client that takes no gzip."""
    page = send(handler, "GET", "/", headers=BROWSER)
    assert page.headers["content-encoding"] == "gzip"
    assert len(page.body) <= 60_000
    plain = send(handler, "GET", "/", headers={"Accept": "text/html", "Accept-Encoding": "br"})
    assert "content-encoding" not in plain.headers
    assert plain.body == gzip.decompress(page.body)


def test_a_browser_that_has_it_gets_it_once(handler):
    """The ETag that it was sent with answers 304, without a body and with its policy; another one sends it again."""
    page = send(handler, "GET", "/", headers=BROWSER)
    for known in (page.headers["etag"], f'"other", W/{page.headers["etag"]}', "*"):
        again = send(handler, "GET", "/", headers={**BROWSER, "If-None-Match": known})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == page.headers["etag"]
        assert again.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert send(handler, "GET", "/", headers={**BROWSER, "If-None-Match": '"other"'}).status == 200
    plain = send(handler, "GET", "/", headers={"Accept": "text/html", "If-None-Match": page.headers["etag"]})
    assert plain.status == 200  # the other form is another document to a cache


def test_head_has_the_headers_alone(handler):
    """A HEAD request learns the page's length."""
    page, head = (send(handler, method, "/", headers=BROWSER) for method in ("GET", "HEAD"))
    assert head.body == b""
    assert int(head.headers.pop("content-length")) == len(page.body)
    for answer in (page, head):
        del answer.headers["server-timing"]
    assert head.headers == page.headers


def test_nothing_runs_but_what_was_sent(handler):
    """The policy names the digests of the page's one script and one style, its own service, and nothing else."""
    answer = send(handler, "GET", "/", headers={"Accept": "text/html"})
    html = answer.body.decode()
    policy = dict(each.strip().partition(" ")[::2] for each in answer.headers["content-security-policy"].split(";"))
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_it_asks_nothing_of_other_hosts():
    """The document names no other host, and no attribute of it runs a script or sets a style."""
    html = Page().html.decode()
    assert not re.findall(r"https?://|//[a-z]+\.", html.replace("on https and", ""))
    head, _, script = html.partition("<script")
    assert not re.search(r"<[^>]+\s(on\w+|style)=", head)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


@pytest.mark.parametrize(
    ("name", "form"),
    [("http_api_v2_root", "headers"), ("alb_health", "headers"), ("alb_multi_value_status", "multiValueHeaders")],
)
def test_every_sender_of_events_gets_it(handler, name, form):
    """API Gateway and load balancers alike: the body in base64, a 304 with its reason."""
    event = json.loads((EVENTS / f"{name}.json").read_text())
    headers = {each.lower(): value for each, value in BROWSER.items()}
    event.update({"rawPath": "/"} if "rawPath" in event else {"path": "/"})
    event[form] = headers if form == "headers" else {each: [value] for each, value in headers.items()}
    answer = handler(event, Context())
    assert gzip.decompress(base64.b64decode(answer["body"])).startswith(b"<!doctype html>")
    event[form]["if-none-match"] = "*" if form == "headers" else ["*"]
    answer = handler(event, Context())
    assert answer["statusCode"] == 304
    if name.startswith("alb"):
        assert answer["statusDescription"] == "304 Not Modified"


def test_answers_say_how_long_they_took(handler):
    """With the page on, every answer has the function's own time, in the header that browsers show."""
    for path in ("/healthz", "/v1/models/half_plus_two", "/v1/nothing"):
        timing = send(handler, "GET", path).headers["server-timing"]
        assert float(re.fullmatch(r"handler;dur=(\d+\.\d{3})", timing)[1]) < 10_000
