"""What a served request says of itself: where its time went, what a cold start took, and which trace it belongs to."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.bench.contenders import LEAN
from litelambda.bench.emulator.environment import Environment, lambda_environ
from litelambda.bench.subject import predict_event
from litelambda.common.paths import FUNCTIONS, PROJECT
from litelambda_serving import models
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.litert import CompiledModel, find_library
from litelambda_serving.observability import METRICS
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.log_queries import asked, fields_of
from support.markdown import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
RAW = np.asarray(ROWS, np.float32).tobytes()
V1, V2 = "/v1/models/tiny:predict", "/v2/models/tiny/infer"
V2_INPUT = {"name": "x", "datatype": "FP32", "shape": [2, 4]}
V2_HEAD = json.dumps({"inputs": [{**V2_INPUT, "parameters": {"binary_data_size": len(RAW)}}]}).encode()
OCTETS = {"Content-Type": "application/octet-stream"}
BODIES: dict[str, tuple[str, Any, dict[str, str]]] = {
    "V1": (V1, {"instances": ROWS}, {}),
    "V1 raw": (V1, RAW, OCTETS),
    "V1 classify": ("/v1/models/tiny:classify", {"examples": [{"x": row} for row in ROWS]}, {}),
    "V2": (V2, {"inputs": [{**V2_INPUT, "data": ROWS}]}, {}),
    "V2 binary": (V2, V2_HEAD + RAW, {"Inference-Header-Content-Length": str(len(V2_HEAD))}),
    "V2 raw": (V2, RAW, OCTETS),
}
PARTS = ("DecodeLatency", "RunLatency", "EncodeLatency")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: the function's own, and one that a request loads."""
    root = tmp_path_factory.mktemp("store")
    for name in ("tiny", "other"):
        publish(root, name, data=golden("tiny_int8"), labels=["a", "b", "c"])
    return root


@pytest.fixture(scope="module")
def module(store: Path) -> Any:
    """The handler, warm."""
    module = load_module(store, "tiny")
    send(module.handler, "GET", "/")
    return module


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return function(*arguments, **named)

    return slow


@pytest.mark.parametrize("body", BODIES)
def test_the_latency_is_split(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    """Time spent before, in and after the runtime is counted there, and the parts add up to the whole."""
    path, content, headers = BODIES[body]
    monkeypatch.setattr(module, "request_from_event", slowed(module.request_from_event, 0.03))
    monkeypatch.setattr(CompiledModel, "run", slowed(CompiledModel.run, 0.01))  # once for each of the rows
    monkeypatch.setattr(module, "response_to_event", slowed(module.response_to_event, 0.01))
    capsys.readouterr()
    began = time.perf_counter()
    assert send(module.handler, "POST", path, content, headers).status == 200
    took_ms = (time.perf_counter() - began) * 1000
    (line,) = lines_of(capsys)
    assert all(line[name] >= least for name, least in zip(PARTS, (30, 20, 10), strict=True)), line
    assert sum(line[name] for name in PARTS) == pytest.approx(line["Latency"], abs=0.005)
    assert line["Latency"] < took_ms
    assert not {"InitLatency", "LoadLatency", "_aws"} & line.keys()


@pytest.mark.parametrize("path", ["/", "/v1/models/tiny", "/v1/models/absent:predict"])
def test_what_predicts_nothing_has_no_parts(module: Any, capsys: pytest.CaptureFixture[str], path: str) -> None:
    """Probes, metadata and refusals have their latency alone, and are not metrics."""
    send(module.handler, "POST" if path.endswith("predict") else "GET", path, {"instances": ROWS})
    (line,) = lines_of(capsys)
    assert "Latency" in line
    assert not {*PARTS, "_aws"} & line.keys()


def test_a_cold_start_is_in_the_first_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first request's line has INIT's spans, which fit into its time; the second's has not."""
    began = time.perf_counter()
    handler = load_module(store, "tiny").handler
    init_ms = (time.perf_counter() - began) * 1000
    for _ in range(2):
        send(handler, "POST", V1, {"instances": ROWS})
    first, second = lines_of(capsys)
    spans = first["init"]
    assert list(spans) == ["settings_and_store_ms", "runtime_ms", "waited_for_store_ms", "model_ms", "total_ms"]
    *parts, total_ms = spans.values()
    assert sum(parts) <= total_ms + 0.003  # each is rounded to a microsecond
    assert total_ms == first["InitLatency"] <= init_ms
    assert (first["Model"], first["Version"], first["cold_start"]) == ("tiny", "1", True)
    assert not {"init", "InitLatency"} & second.keys()


def test_a_snapshots_init_is_no_cold_start(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where Lambda restores a snapshot, the first request does not claim the INIT that the snapshot was taken after."""
    handler = load_module(store, "tiny").handler
    frozen = load_module(store, "tiny", AWS_LAMBDA_INITIALIZATION_TYPE="snap-start").handler
    for each in (handler, frozen):
        send(each, "GET", "/")
    plain, restored = lines_of(capsys)
    assert ("init" in plain, "init" in restored) == (True, False)
    assert restored["cold_start"] is True


def test_the_request_that_loads_a_model_says_what_that_took(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fetching and compiling are apart from decoding, in the line of the one request that waited for them."""
    monkeypatch.setattr(models, "fetch_artifact", slowed(fetch_artifact, 0.05))
    capsys.readouterr()
    for _ in range(2):
        send(module.handler, "POST", "/v1/models/other:predict", {"instances": ROWS})
    first, second = lines_of(capsys)
    assert first["load"]["store_ms"] >= 50
    assert first["load"]["store_ms"] + first["load"]["model_ms"] == pytest.approx(first["LoadLatency"], abs=0.003)
    assert sum(first[name] for name in (*PARTS, "LoadLatency")) == pytest.approx(first["Latency"], abs=0.006)
    assert (first["Model"], first["Version"]) == ("other", "1")
    assert not {"load", "LoadLatency"} & second.keys()


def test_a_shadow_does_not_count_as_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the shadow takes is a part of its own."""
    for version in (1, 2):
        publish(tmp_path, "tiny", version, golden("tiny_int8"))
    set_aliases(tmp_path, {"latest": 1, "shadow": {"latest": 2}}, "tiny")
    handler = load_module(tmp_path, "tiny").handler
    send(handler, "POST", V1, {"instances": ROWS})  # loads the shadow
    monkeypatch.setattr(CompiledModel, "run", slowed(CompiledModel.run, 0.02))
    capsys.readouterr()
    send(handler, "POST", V1, {"instances": ROWS})
    (line,) = lines_of(capsys)
    assert line["ShadowLatency"] >= 40
    assert line["RunLatency"] >= 40
    assert sum(line[name] for name in (*PARTS, "ShadowLatency")) == pytest.approx(line["Latency"], abs=0.006)
    assert {"ShadowRows", "ShadowDisagreements"} <= line.keys()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What listens where X-Ray's daemon does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{receiver.getsockname()[1]}")
        yield receiver


def received(daemon: socket.socket) -> dict[str, Any]:
    """The next document, sent as "Sending trace data to X-Ray" asks for: after a header and a line feed."""
    header, _, document = daemon.recv(65507).partition(b"\n")
    assert json.loads(header) == {"format": "json", "version": 1}
    loaded: dict[str, Any] = json.loads(document)
    return loaded


def check_subsegment(document: dict[str, Any], start: float, end: float) -> None:
    """What "AWS X-Ray segment documents" requires of each part, which lies within the one it belongs to."""
    assert re.fullmatch("[0-9a-f]{16}", document["id"])
    assert re.fullmatch(r"[\w .:/%&#=+\\@-]{1,200}", document["name"])
    assert start <= document["start_time"] <= document["end_time"] <= end
    for key, value in document.get("annotations", {}).items():
        assert re.fullmatch(r"\w{1,500}", key)
        assert isinstance(value, (str, int, float, bool))
    for part in document.get("subsegments", ()):
        check_subsegment(part, document["start_time"], document["end_time"])


SAMPLED = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=25:3d2f:0"


def test_xray_has_the_parts_of_a_request(
    store: Path, monkeypatch: pytest.MonkeyPatch, daemon: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sampled request is a subsegment of Lambda's, in the documented form."""
    handler = load_module(store, "tiny", TRACING="Active").handler
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    began = time.time()
    send(handler, "POST", "/v1/models/other:predict", {"instances": ROWS}, {"traceparent": TRACEPARENT})
    ended = time.time()
    document = received(daemon)
    check_subsegment(document, began - 0.001, ended + 0.001)
    assert (document["trace_id"], document["parent_id"]) == (SAMPLED[5:40], "53995c3f42cd8ad8")
    assert document["type"] == "subsegment"
    assert document["annotations"] == {
        "route": "predict",
        "model": "other",
        "version": "1",
        "status": 200,
        "cold_start": True,
        "w3c_trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    (line,) = lines_of(capsys)
    assert document["metadata"] == {"default": {"init": line["init"]}}
    decode, run, encode = document["subsegments"]
    (load,) = decode["subsegments"]
    took = {part["name"]: (part["end_time"] - part["start_time"]) * 1000 for part in (decode, load, run, encode)}
    assert took["load"] == pytest.approx(line["LoadLatency"], abs=0.01)
    assert took["run"] == pytest.approx(line["RunLatency"], abs=0.01)
    assert took["decode"] == pytest.approx(line["DecodeLatency"] + line["LoadLatency"], abs=0.01)


@pytest.mark.parametrize(("path", "flag"), [("/v1/models/absent:predict", "error"), ("/v1/models/tiny", "")])
def test_xray_knows_whose_fault_it_was(
    store: Path, monkeypatch: pytest.MonkeyPatch, daemon: socket.socket, path: str, flag: str
) -> None:
    """A refused request is an error of the client's in X-Ray's words, one that was answered is neither."""
    handler = load_module(store, "tiny", TRACING="Active").handler
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    send(handler, "POST" if flag else "GET", path, {})
    document = received(daemon)
    assert {"error", "fault", "throttle"} & document.keys() == ({flag} if flag else set())
    assert "subsegments" not in document


@pytest.mark.parametrize(
    ("tracing", "header"),
    [
        ("PassThrough", SAMPLED),
        ("Active", SAMPLED.replace("Sampled=1", "Sampled=0")),
        ("Active", SAMPLED.replace("Parent=53995c3f42cd8ad8;", "")),
        ("Active", ""),
    ],
)
def test_nothing_is_sent_unless_it_is_sampled(
    store: Path, monkeypatch: pytest.MonkeyPatch, daemon: socket.socket, tracing: str, header: str
) -> None:
    """Without active tracing, without the sampling decision, or without a segment to belong to, nothing leaves."""
    handler = load_module(store, "tiny", TRACING=tracing).handler
    for each in (header, SAMPLED):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", each)
        send(handler, "POST", V1, {"instances": ROWS})
    if tracing == "Active":
        assert "metadata" not in received(daemon)  # of the second request
    daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.recv(65507)


def test_a_daemon_that_is_not_there_fails_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace that cannot be sent is a warning, once, and requests are answered."""
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:0")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    handler = load_module(store, "tiny", TRACING="Active").handler
    for _ in range(2):
        assert send(handler, "POST", V1, {"instances": ROWS}).status == 200
    lines = lines_of(capsys)
    assert [line["message"][:40] for line in lines if line["level"] == "WARNING"] == [
        "X-Ray's daemon at 127.0.0.1:0 does not t"
    ]


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"


@pytest.mark.parametrize("runtime", ["stock", "lean"])
def test_both_clients_log_traces_and_parts(store: Path, tmp_path: Path, runtime: str) -> None:
    """Under the stock client as under the lean one a line has the request's trace, else X-Ray's, of its invocation."""
    package = tmp_path / "function"
    shutil.copytree(FUNCTIONS, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "lib").mkdir()
    (package / "lib" / "libLiteRt.so").symlink_to(find_library())
    stock = [sys.executable, "-m", "awslambdaric", "predict.handler"]
    command = stock if runtime == "stock" else [str(package / LEAN), *stock]
    settings = {"MODEL_STORE": store.as_uri(), "MODEL_NAME": "tiny"}
    environ = lambda_environ("predict.handler", package, settings)
    event = json.loads(predict_event("tiny", ROWS))
    traced = {**event, "headers": {**event["headers"], "traceparent": TRACEPARENT}}
    log = tmp_path / "log"
    with Environment(command, package, environ, log) as environment:
        for each, header in ((traced, XRAY), (event, XRAY), (event, None)):
            answer = environment.invoke(each, headers={"lambda-runtime-trace-id": header}).json()
            assert answer["statusCode"] == 200
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"request"' in line]
    names = ("trace_id", "span_id", "trace_flags")
    assert [[line.get(name) for name in names] for line in lines] == [
        ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "01"],
        ["5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8", "00"],
        [None, None, None],
    ]
    assert ["init" in line for line in lines] == [True, False, False]
    assert all(line["RunLatency"] > 0 for line in lines)


def test_the_queries_that_the_page_shows_find_something(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every field that docs/how-to/monitor.md asks for is in a first line with a trace, a refusal's, or is a metric."""
    queries = blocks_of(PROJECT / "docs" / "how-to" / "monitor.md", "")
    assert len(queries) == 4
    handler = load_module(store, "tiny").handler
    send(handler, "POST", V1, {"instances": ROWS}, {"traceparent": TRACEPARENT})
    send(handler, "GET", "/v1/models/absent")
    fields = set().union(*map(fields_of, lines_of(capsys)))
    for query in queries:
        assert asked(query) <= fields | METRICS.keys() | {"@timestamp"}, query
