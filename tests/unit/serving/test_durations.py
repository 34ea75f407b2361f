"""Which requests are known to be short."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from litelambda_serving import durations
from litelambda_serving.durations import Durations
from litelambda_serving.http import Response

PATH = "/v1/models/a:predict"


@pytest.fixture
def root():
    """A composition root, of which a test says how often it has loaded or dropped a model."""
    made = SimpleNamespace(changes=0, only_computes=True)
    made.num_changes = lambda: made.changes
    return made


@pytest.fixture
def measure(root, monkeypatch):
    """Measure requests that take so many seconds each, then ask whether the next is short."""
    known, clock = Durations(root), [0.0]
    monkeypatch.setattr(durations, "thread_time", lambda: clock[0])

    def respond(seconds, status):
        clock[0] += seconds
        return Response(status, "")

    def measured(*seconds, inline=True, status=200, method="POST", headers=(), body=b"{}"):
        known.is_short("POST", PATH, {}, b"")  # as before each request
        for each in seconds:
            known.measure(PATH, partial(respond, each, status), inline=inline)
        return known.is_short(method, PATH, dict(headers), body)

    return measured


def test_what_was_measured_is_short_or_not(measure):
    """The average decides, in which the last ones weigh most; nothing is short before it was measured."""
    assert not measure()
    assert measure(0.0002)
    assert not measure(0.05)
    assert not measure(*[0.0002] * 10)
    assert measure(*[0.0002] * 30)
    assert not measure(*[0.002] * 10)


def test_in_a_thread_half_of_the_time_counts(measure):
    """There the other half is what it costs to share the GIL; a request of that time is long where all others wait."""
    assert measure(0.0018, inline=False)
    assert not measure(*[0.0018] * 30)


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "GET"},
        {"headers": [("content-encoding", "gzip")]},
        {"body": bytes(65537)},
    ],
)
def test_others_on_the_same_path_are_not(measure, request_):
    """Only a small prediction in plain bytes is like those that were measured."""
    assert measure(0.0002)
    assert not measure(**request_)


def test_errors_do_not_count(measure):
    """A refusal is fast, and says nothing of an answer."""
    assert not measure(0.0001, status=400)


def test_what_is_loaded_or_dropped_changes_it(measure, root):
    """The next request may have to load its model again."""
    assert measure(0.0002)
    root.changes += 1
    assert not measure()
    assert measure(0.0002)


def test_requests_that_wait_for_more_than_a_model_are_never_short(measure, root):
    """Custom code and bodies by reference may wait for anything."""
    root.only_computes = False
    assert not measure(0.0002)


def test_callers_cannot_fill_the_memory_with_paths(root, monkeypatch):
    """Beyond so many ways to write a path all are forgotten, and measured again."""
    monkeypatch.setattr(durations, "_MAX_PATHS", 2)
    known = Durations(root)
    known.is_short("POST", PATH, {}, b"")
    for path in (PATH, "/v1/models/%61:predict", "/v1/models/a:%70redict"):
        known.measure(path, partial(Response, 200, ""), inline=True)
    assert not known.is_short("POST", PATH, {}, b"")
    assert known.is_short("POST", "/v1/models/a:%70redict", {}, b"")
