"""The loopback Runtime API, polled by the real runtime client and by raw sockets."""

from __future__ import annotations

import json
import socket
import sys
import threading

import pytest

from litelambda.bench.emulator.environment import Environment, lambda_environ
from litelambda.bench.emulator.runtime_api import FUNCTION_ARN, RuntimeApi
from litelambda.common.errors import BenchError

HANDLER = """
import os, time
def echo(event, context):
    print("an echo")
    return {
        "event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(), "trace": os.environ["_X_AMZN_TRACE_ID"],
        "name": context.function_name, "memory": context.memory_limit_in_mb, "cwd": os.getcwd(),
    }
def fail(event, context):
    raise ValueError("no such luck")
def large(event, context):
    return "x" * event["size"]
def leave(event, context):
    print("leaving", flush=True)
    os._exit(3)
def sleep(event, context):
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    """Start a handler of the module above in the real runtime client."""
    (tmp_path / "app.py").write_text(HANDLER)
    (tmp_path / "broken.py").write_text("raise RuntimeError('INIT went wrong')")

    def starter(handler):
        environ = lambda_environ(handler, tmp_path, {})
        return Environment([sys.executable, "-m", "awslambdaric", handler], tmp_path, environ, tmp_path / "log")

    return starter


def test_the_handler_sees_what_lambda_tells_it(start, tmp_path):
    """Event, request id, ARN, deadline, trace id, name, memory and working directory arrive."""
    with start("app.echo") as environment:
        invocation = environment.invoke({"n": 1, "text": "grün"})
    answer = invocation.json()
    assert answer["event"] == {"n": 1, "text": "grün"}
    assert answer["id"] == invocation.request_id
    assert answer["arn"] == FUNCTION_ARN
    assert 0 < answer["left"] <= 30_000
    assert answer["trace"].startswith("Root=1-")
    assert (answer["name"], answer["memory"], answer["cwd"]) == ("bench", "512", str(tmp_path.resolve()))


def test_one_environment_answers_many_events(start):
    """The process stays up between events; INIT and each invoke have a time, the process a size."""
    with start("app.echo") as environment:
        answers = [environment.invoke({"n": n}) for n in range(5)]
        assert environment.peak_rss_mb() > 1
        assert environment.log_tail().count("an echo") == 5
    assert [answer.json()["event"]["n"] for answer in answers] == list(range(5))
    assert environment.init_ms > 0
    assert all(answer.ms > 0 for answer in answers)


def test_a_failing_handler_is_an_error_of_that_invoke(start):
    """The error's type and message come through, and the environment lives on."""
    with start("app.fail") as environment:
        first, second = environment.invoke({}), environment.invoke({})
    assert first.result is None
    assert (first.error["errorType"], first.error["errorMessage"]) == ("ValueError", "no such luck")
    with pytest.raises(BenchError, match="ValueError: no such luck"):
        second.json()


def test_large_events_and_answers(start):
    """Megabytes travel both ways."""
    with start("app.large") as environment:
        answer = environment.invoke({"size": 5_000_000, "padding": "y" * 5_000_000}).json()
    assert answer == "x" * 5_000_000


def test_an_answer_beyond_lambdas_limit_is_an_error(start):
    """6,291,556 bytes are the most that an answer may have."""
    with start("app.large") as environment:
        assert environment.invoke({"size": 6_291_554}).result is not None
        error = environment.invoke({"size": 6_291_555}).error
    assert error["errorType"] == "Function.ResponseSizeTooLarge"


@pytest.mark.parametrize(
    ("handler", "message"),
    [("broken.handler", "INIT went wrong"), ("absent.handler", "Unable to import"), ("app.nothing", "missing")],
)
def test_a_failed_init_says_why(start, handler, message):
    """The message has the error that the runtime reported, and what the process printed."""
    with pytest.raises(BenchError, match=message) as caught:
        start(handler)
    assert "LAMBDA_WARNING" in str(caught.value)


def test_a_process_that_dies_is_noticed(start):
    """A handler that ends its process fails the invoke at once, with the log's end."""
    with start("app.leave") as environment, pytest.raises(BenchError, match=r"exited(.|\n)*leaving"):
        environment.invoke({})


def test_a_process_that_dies_in_init_is_noticed(tmp_path):
    """So does a command that never speaks to the Runtime API."""
    command = [sys.executable, "-c", "raise SystemExit('not today')"]
    with pytest.raises(BenchError, match=r"exited(.|\n)*not today"):
        Environment(command, tmp_path, {}, tmp_path / "log")


def test_a_handler_that_does_not_answer_in_time(start):
    """The invoke's timeout ends the wait; leaving the context kills the process."""
    with start("app.sleep") as environment, pytest.raises(BenchError, match="did not answer in time"):
        environment.invoke({}, timeout_s=0.3)


def test_nothing_of_the_callers_environment_is_inherited(start, monkeypatch):
    """A function sees Lambda's variables, not the shell's."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert not {"PYTHONWARNINGS", "AWS_PROFILE", "HOME"} & lambda_environ("a.b", __file__, {}).keys()


def talk(address, *requests):
    """Send raw requests, one connection, and collect the answers in a list that fills as they come."""
    host, port = address.split(":")
    answers = []

    def run():
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            for request in requests:
                sock.sendall(request(answers) if callable(request) else request)
                answers.append(sock.recv(65536))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_chunked_answer_is_put_together():
    """A runtime may send its response in chunks, with trailers."""

    def response(answers):
        headers = dict(line.split(": ", 1) for line in answers[-1].decode().split("\r\n")[1:] if ": " in line)
        path = f"/2018-06-01/runtime/invocation/{headers['lambda-runtime-aws-request-id']}/response"
        head = f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return head + b'4\r\n{"a"\r\n4;x=y\r\n: 1}\r\n0\r\nTrailer: t\r\n\r\n'

    with RuntimeApi() as api:
        thread, answers = talk(api.address, NEXT, response)
        assert api.invoke({}).json() == {"a": 1}
        thread.join(10)
    assert answers[-1].startswith(b"HTTP/1.1 202 ")


def test_an_unknown_request_id_is_refused():
    """An answer to an event that is not in flight gets 400 and does not count."""
    body = b"POST /2018-06-01/runtime/invocation/other/response HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    with RuntimeApi() as api:
        thread, answers = talk(api.address, body, NEXT)
        assert api.wait_ready(10) > 0
        assert answers[0].startswith(b"HTTP/1.1 400 ")
        api.close()
        thread.join(10)


def test_a_snapshot_runtime_is_let_through():
    """GET restore/next, which SnapStart's INIT ends with, is answered at once."""
    with RuntimeApi() as api:
        restore = b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\n\r\n"
        thread, answers = talk(api.address, restore, NEXT)
        api.wait_ready(10)
        assert answers[0].startswith(b"HTTP/1.1 200 ")
        api.close()
        thread.join(10)


def test_what_is_no_http_is_an_error():
    """Garbage from the runtime's side ends the wait with its first words."""
    with RuntimeApi() as api:
        thread, _answers = talk(api.address, b"hello\r\n\r\n")
        with pytest.raises(BenchError, match="not a request line: 'hello'"):
            api.wait_ready(10)
        api.close()
        thread.join(10)


def test_client_context_reaches_the_runtime():
    """A mobile SDK's client context is handed over as its header."""
    with RuntimeApi() as api:
        thread, answers = talk(api.address, NEXT)
        api.wait_ready(60)
        with pytest.raises(BenchError, match="did not answer in time"):
            api.invoke({}, timeout_s=0.3, headers={"lambda-runtime-client-context": json.dumps({"a": 1})})
        thread.join(10)
    assert b'lambda-runtime-client-context: {"a": 1}' in answers[0]
