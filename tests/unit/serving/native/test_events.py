"""An event's body, cut out of its JSON in C: what `json` reads there, as the bytes that the body stands for."""

from __future__ import annotations

import json
import platform
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litelambda_serving import http, native
from litelambda_serving.http import read_event, request_from_event
from litelambda_serving.json_codec import loads
from litelambda_serving.lean_runtime import _load_handler
from litelambda_serving.native import loads_event

EVENT = Path(__file__).parents[3] / "events" / "http_api_v2_predict.json"
OTHERS = st.dictionaries(st.sampled_from(["path", "b\\ody", 'x"body', "ä", "headers"]), st.text() | st.none())
PIECES = st.sampled_from(["0.25, ", '"a"', "\\", "\n", "\x1f", "é", "\ud83d", "\ude00", "\U0001f600", "\x7f", "A" * 40])

pytestmark = pytest.mark.skipif(native._library is None, reason=f"nothing is compiled for {platform.machine()} here")


def as_text(event: Any) -> Any:
    """An event with its body as `json` has it."""
    if isinstance(event, dict) and isinstance(event.get("body"), bytearray):
        return event | {"body": event["body"].decode("utf-8", "surrogatepass")}
    return event


def outcome(read: Any, payload: bytes) -> Any:
    try:
        return as_text(read(payload))
    except (ValueError, RecursionError) as error:
        return type(error), str(error)


def joined(text: str) -> str:
    """What `json` makes of surrogates that are written as escapes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@given(OTHERS, st.lists(PIECES | st.text()).map("".join), OTHERS, st.booleans(), st.sampled_from([None, 1]))
@example({}, "", {}, False, None)
def test_events_mean_what_they_mean_to_json(
    before: Any, body: str, after: Any, is_ascii: bool, indent: int | None
) -> None:
    """Any body, wherever it stands, escaped or raw."""
    event = {**before, "body": body, "nested": {"body": [1, "body"]}, **after}
    payload = json.dumps(event, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    assert outcome(loads_event, payload) == outcome(loads, payload)
    if is_ascii:
        assert isinstance(loads_event(payload)["body"], bytearray)
        assert as_text(loads_event(payload))["body"] == joined(body)


@pytest.mark.parametrize(
    "payload",
    [
        *(b'{"body": "a", "body": "b"}', b'{"body": "a", "body": 1}', b'{"body": 1, "body": "a"}', b'["body", "a"]'),
        *(b'{"a": {"body": "b"}}', b'{"a": "body", "b": "\\"body\\":\\"c\\""}', b'"body": "a"', b'["body": "a"]'),
        *(b'{"body": "a"', b'{"body": "a', b'{"body": "\\', b'{"body": "\\u12', b'{"body": "\\x"}', b'{"body": "\t"}'),
        *(
            b'{"b\\u006fdy": "a"}',
            b'{"body" : "a"}',
            b'{"body": "a"}}',
            b'{"body": "a",}',
            b'\xef\xbb\xbf{"body": "a"}',
        ),
        *(b'{"body": "\xff"}', b'{"a": "\xff", "body": "a"}', b'{"body": "\\ud83d\\ud83d\\ude00\\u0041\\uD83D"}'),
        *(b'{"body": null}', b'{"body"}', b'{"body":}', b'{"body"', b"{}", b"", b"[" * 100000, b'{"body": "\0"}'),
    ],
)
def test_odd_events(payload: bytes) -> None:
    """Twice the same key, escaped keys, what is cut short or not JSON: the same event, or the same error."""
    assert outcome(loads_event, payload) == outcome(loads, payload)


def test_damaged_events() -> None:
    """Any byte may be another one: the same event, or the same error."""
    rng = random.Random(0)
    whole = json.dumps({"a": [1, {"b": "c"}], "body": '{"x": [0.5, "\\ud83d\\ude00é"]}', "c": "d\n"}).encode()
    for _ in range(5000):
        payload = bytearray(whole)
        for _ in range(rng.randint(1, 2)):
            payload[rng.randrange(len(payload))] = rng.choice(b'"\\{}[],:u0dD\n\x00\xe9a')
        assert outcome(loads_event, bytes(payload)) == outcome(loads, bytes(payload)), payload


@pytest.mark.parametrize("is_base64", [False, True])
def test_a_large_body_is_the_same_request(is_base64: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are those of the text that the stock runtime client hands over."""
    body = "QUJD" * 10_000 if is_base64 else '{"ä": "\\n"}' + "[1.5]" * 5000
    event = json.loads(EVENT.read_text()) | {"body": body, "isBase64Encoded": is_base64}
    payload = json.dumps(event).encode()
    read = read_event(payload)
    assert isinstance(read["body"], bytearray)
    expected = request_from_event(event)
    assert bytes(request_from_event(read).body) == bytes(expected.body)
    assert len(bytes(expected.body)) == (30_000 if is_base64 else len(body.encode()))
    monkeypatch.setattr(http, "_LARGE_EVENT_BYTES", len(payload) + 1)
    assert read_event(payload) == event
    monkeypatch.undo()
    monkeypatch.setattr(native, "_library", None)
    assert read_event(payload) == event


def test_the_lean_bootstrap_reads_events_as_a_handler_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what its module has for it; as `json` does where it has nothing."""
    monkeypatch.setitem(sys.modules, "wants", SimpleNamespace(handler=print, read_event=read_event))
    monkeypatch.setitem(sys.modules, "plain", SimpleNamespace(handler=print))
    assert _load_handler("wants.handler") == (print, None, read_event)
    assert _load_handler("plain.handler") == (print, None, loads)
