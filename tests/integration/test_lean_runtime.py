"""The stock runtime client and the lean bootstrap, held to the same behavior against a Runtime API on loopback."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pytest

from litelambda.bench.contenders import BUCKET, LEAN, PREFIX, Contender
from litelambda.bench.emulator.environment import Environment, lambda_environ
from litelambda.bench.emulator.runtime_api import FUNCTION_ARN, TRACE_ID, RuntimeApi
from litelambda.bench.subject import load_subject, predict_event
from litelambda.bench.workplace import Workplace
from litelambda.common.errors import BenchError
from litelambda.common.paths import FUNCTIONS, PROJECT
from litelambda_serving.lean_runtime import RuntimeClient
from litelambda_serving.lean_runtime.stream import Stream
from litelambda_serving.litert import find_library
from support.golden_store import golden, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Start = Callable[..., Environment]

HANDLERS = r"""
import os, sys, time

def echo(event, context):
    return event

def describe(event, context):
    known = {name: getattr(context, name) for name in (
        "aws_request_id", "invoked_function_arn", "function_name", "function_version", "memory_limit_in_mb",
        "log_group_name", "log_stream_name", "tenant_id")}
    client = context.client_context
    return {
        **known,
        "remaining": context.get_remaining_time_in_millis(),
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "client": client and [client.custom, client.env, client.client and client.client.installation_id],
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "stock": "awslambdaric" in sys.modules,
        "cwd": os.getcwd(),
    }

def grow(event, context):
    return "x" * event["size"]

def fail(event, context):
    if event.get("good"):
        return "well"
    raise ValueError("no such luck")

def leave(event, context):
    sys.exit(event["code"])

def unserializable(event, context):
    return {"socket": object()} if event else "well"

def talk(event, context):
    print("one line")
    print("another: grün")
    print("no end yet", end="")
    sys.stderr.write("an error line\n")
    return None

def sleep(event, context):
    time.sleep(60)

def stream(event, context):
    assert context.streams
    for part in event["parts"]:
        if part is None:
            raise ValueError("no such luck")
        time.sleep(0.05)
        yield part.encode()

class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("no message today")

def misbehave(event, context):
    how = event.get("how")
    if how == "lone surrogate":
        print("printed \ud800")
        raise ValueError("alone \ud800")
    if how == "unreadable message":
        raise Unreadable
    if how == "two lines for a name":
        raise type("Odd\r\nX-Injected: yes", (Exception,), {})("odd")
    if how == "a name that is not ASCII":
        raise type("Grün", (Exception,), {})("odd")
    if how == "closed":
        sys.stdout.close()
        raise ValueError("closed")
    if how == "closed descriptor":
        os.close(1)
        raise ValueError("descriptor")
    if how == "no stream":
        sys.stdout = None
        raise ValueError("none")
    if how == "closed, and well":
        sys.stdout.close()
    if how == "half a line":
        sys.stderr.write("half a line of errors")
    return "well"
"""

BROKEN = {
    "raises": "raise RuntimeError('no model today')",
    "absent_import": "import surely_not_there",
    "bad_syntax": "def handler(event, context:\n    pass",
    "leaves": "import sys; sys.exit(7)",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with the handlers above and the lean bootstrap, at a path with a space in it."""
    folder = tmp_path_factory.mktemp("task") / "a package"
    folder.mkdir()
    (folder / "app.py").write_text(HANDLERS)
    for name, source in BROKEN.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "nested").mkdir()
    (folder / "nested" / "deep.py").write_text("def handler(event, context):\n    return 'deep'")
    shutil.copy(FUNCTIONS / LEAN, folder)
    shutil.copytree(
        FUNCTIONS / "litelambda_serving", folder / "litelambda_serving", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


@pytest.fixture(params=["stock", "lean"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    client: str = request.param
    return client


def command_of(runtime: str, tree: Path, handler: str) -> list[str]:
    """What the managed runtime would execute."""
    stock = [sys.executable, "-m", "awslambdaric", handler]
    return stock if runtime == "stock" else [str(tree / LEAN), *stock]


@pytest.fixture
def start(runtime: str, tree: Path, tmp_path: Path) -> Start:
    """Start a handler under a client."""

    def starter(handler: str, environment: Mapping[str, str] | None = None, *, keep_alive: bool = True) -> Environment:
        environ = lambda_environ(handler, tree, environment or {})
        log = tmp_path / "log"
        return Environment(command_of(runtime, tree, handler), tree, environ, log, keep_alive=keep_alive)

    return starter


@pytest.mark.parametrize(
    "event",
    [{}, [], None, "text", 0, -1.5, True, {"text": 'grün 漢 🙂 " \\ \n \u2028', "deep": [[{"a": [None, 1e300]}]]}],
    ids=str,
)
def test_an_event_comes_back_as_it_went(start: Start, event: object) -> None:
    """Every JSON value travels to the handler and back unchanged."""
    with start("app.echo") as environment:
        assert environment.invoke(event).json() == event


def test_a_context_says_where_and_for_whom(start: Start, tree: Path, runtime: str) -> None:
    """Request id, ARN, function, memory, log stream, deadline, trace id and working directory are Lambda's."""
    with start("app.describe") as environment:
        invocation = environment.invoke({}, timeout_s=20)
    known = invocation.json()
    assert known["aws_request_id"] == invocation.request_id
    assert known["invoked_function_arn"] == FUNCTION_ARN
    assert (known["function_name"], known["function_version"]) == ("bench", "$LATEST")
    assert known["memory_limit_in_mb"] == "512"
    assert known["log_group_name"] == "/aws/lambda/bench"
    assert known["log_stream_name"].startswith("2026/")
    assert 0 < known["remaining"] <= 20_000
    assert known["trace"] == TRACE_ID
    assert (known["client"], known["identity"], known["tenant_id"]) == (None, [None, None], None)
    assert known["cwd"] == str(tree)
    assert known["stock"] == (runtime == "stock")


def test_callers_are_known_by_what_they_sent(start: Start) -> None:
    """Client context and Cognito identity arrive as objects, of this invocation only."""
    client = {"client": {"installation_id": "i-1"}, "custom": {"tier": "gold"}, "env": {"locale": "de"}}
    identity = {"cognitoIdentityId": "eu-west-1:id", "cognitoIdentityPoolId": "eu-west-1:pool"}
    headers = {
        "lambda-runtime-client-context": json.dumps(client),
        "lambda-runtime-cognito-identity": json.dumps(identity),
        "lambda-runtime-aws-tenant-id": "tenant-1",
    }
    with start("app.describe") as environment:
        known = environment.invoke({}, headers=headers).json()
        partial = environment.invoke({}, headers={"lambda-runtime-client-context": '{"custom": {}}'}).json()
        nobody = environment.invoke({}).json()
    assert known["client"] == [{"tier": "gold"}, {"locale": "de"}, "i-1"]
    assert known["identity"] == ["eu-west-1:id", "eu-west-1:pool"]
    assert known["tenant_id"] == "tenant-1"
    assert (partial["client"], partial["identity"]) == ([{}, None, None], [None, None])
    assert (nobody["client"], nobody["identity"]) == (None, [None, None])


@pytest.mark.parametrize("header", ["lambda-runtime-client-context", "lambda-runtime-cognito-identity"])
def test_a_callers_header_that_is_no_json_fails_its_invocation(start: Start, header: str) -> None:
    """The error names what could not be read; the next invocation is answered."""
    with start("app.echo") as environment:
        error = environment.invoke({}, headers={header: "{"}).error
        assert environment.invoke("next").json() == "next"
    assert error is not None
    assert error["errorType"] == "Runtime.LambdaContextUnmarshalError"


def test_the_deadline_passes(start: Start) -> None:
    """Past its deadline a context has no time left, and never less than none."""
    with start("app.describe") as environment:
        past = str(int((time.time() - 5) * 1000))
        assert environment.invoke({}, headers={"lambda-runtime-deadline-ms": past}).json()["remaining"] == 0


def test_a_trace_id_is_of_its_invocation(start: Start) -> None:
    """The X-Ray header is in the environment while it holds, and gone with an invocation that has none."""
    with start("app.describe") as environment:
        traces = [
            environment.invoke({}, headers={"lambda-runtime-trace-id": trace}).json()["trace"]
            for trace in ("Root=1-a;Sampled=1", None, "Root=1-b;Sampled=0")
        ]
    assert traces == ["Root=1-a;Sampled=1", None, "Root=1-b;Sampled=0"]


@pytest.mark.parametrize("chunked", [False, True])
def test_megabytes_travel_both_ways(start: Start, chunked: bool) -> None:
    """Events and answers near Lambda's 6 MB limit arrive whole, in one piece or in chunks."""
    event = ["a" * 5_500_000, "ü" * 100_000, 7]
    with start("app.echo") as environment:
        assert environment.invoke(event, chunked=chunked).json() == event
        assert environment.invoke({"small": 1}, chunked=chunked).json() == {"small": 1}


def test_an_answer_beyond_the_limit_is_refused(start: Start) -> None:
    """6,291,556 bytes are the most that Lambda takes: one more is an error that names the limit."""
    with start("app.grow") as environment:
        assert environment.invoke({"size": 6_291_554}).result is not None
        error = environment.invoke({"size": 6_291_555}).error
    assert error is not None
    assert error["errorType"] == "Function.ResponseSizeTooLarge"


def test_the_lean_client_outlives_an_answer_beyond_the_limit(tree: Path, tmp_path: Path) -> None:
    """The API has reported the refusal; what follows is answered by the same process."""
    environ = lambda_environ("app.grow", tree, {})
    with Environment(command_of("lean", tree, "app.grow"), tree, environ, tmp_path / "log") as environment:
        environment.invoke({"size": 6_291_555})
        assert environment.invoke({"size": 3}).json() == "xxx"


def test_a_failing_handler_fails_its_invocation_alone(start: Start) -> None:
    """Type, message, request id and stack go to the caller and into one log event; the next event is answered."""
    with start("app.fail") as environment:
        failed = environment.invoke({})
        assert environment.invoke({"good": True}).json() == "well"
        log = environment.log_tail()
    error = failed.error
    assert error is not None
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such luck")
    assert error["requestId"] == failed.request_id
    (frame,) = error["stackTrace"]
    assert "app.py" in frame
    assert "in fail" in frame
    (event,) = [line for line in log.split("\n") if "[ERROR]" in line]
    first, second, third, *_ = event.split("\r")
    assert (first, second) == ("[ERROR] ValueError: no such luck", "Traceback (most recent call last):")
    assert third.startswith("\u00a0\u00a0File ")


@pytest.mark.parametrize(
    ("how", "error_type", "message"),
    [
        ("lone surrogate", "ValueError", "alone \ud800"),
        ("unreadable message", "Unreadable", "<exception str() failed>"),
        ("two lines for a name", "Odd\r\nX-Injected: yes", "odd"),
        ("a name that is not ASCII", "Grün", "odd"),
        ("closed", "ValueError", "closed"),
        ("closed descriptor", "ValueError", "descriptor"),
        ("no stream", "ValueError", "none"),
    ],
)
def test_whatever_failed_is_reported(tree: Path, tmp_path: Path, how: str, error_type: str, message: str) -> None:
    """A report that cannot be encoded, or not be logged where it should, is posted all the same; the client goes on."""
    environ = lambda_environ("app.misbehave", tree, {})
    with Environment(command_of("lean", tree, "app.misbehave"), tree, environ, tmp_path / "log") as environment:
        error = environment.invoke({"how": how}).error
        assert environment.invoke({}).json() == "well"
        log = environment.log_tail()
    assert error is not None
    assert (error["errorType"], error["errorMessage"]) == (error_type, message)
    assert "[ERROR]" in log
    assert message.encode("utf-8", "backslashreplace").decode() in log


def test_a_closed_stream_loses_no_answer(tree: Path, tmp_path: Path) -> None:
    """A handler that has closed its standard output has answered all the same."""
    environ = lambda_environ("app.misbehave", tree, {})
    with Environment(command_of("lean", tree, "app.misbehave"), tree, environ, tmp_path / "log") as environment:
        for _ in range(2):
            assert environment.invoke({"how": "closed, and well"}).json() == "well"


def test_errors_begun_are_in_the_log_when_the_answer_is(start: Start) -> None:
    """What stands on standard error without a line's end is not left for the next invocation."""
    with start("app.misbehave") as environment:
        environment.invoke({"how": "half a line"})
        assert "half a line of errors" in environment.log_tail()


class RecordingSocket:
    """A connection that takes what is sent and answers 202."""

    def __init__(self) -> None:
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, _size: int) -> bytes:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(("name", "value"), [("Odd\r\nX-Injected: yes", "Odd??X-Injected: yes"), ("Grün", "Gr?n")])
def test_a_class_name_is_no_header(name: str, value: str) -> None:
    """The type of an error travels in one header, whatever the class is called."""
    client, connection = RuntimeClient("127.0.0.1:9"), RecordingSocket()
    client._socket = connection  # type: ignore[assignment]
    client.fail("1", {"errorType": name})
    head, _, body = connection.sent.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert headers["Lambda-Runtime-Function-Error-Type"] == value
    assert "X-Injected" not in headers
    assert json.loads(body) == {"errorType": name}


def test_an_iterator_is_sent_part_by_part(tree: Path, tmp_path: Path) -> None:
    """The lean client sends what a handler yields in chunks, each when it is made, as Lambda's streaming asks."""
    environ = lambda_environ("app.stream", tree, {})
    with Environment(command_of("lean", tree, "app.stream"), tree, environ, tmp_path / "log") as environment:
        streamed = environment.invoke({"parts": ["one", "", "two " * 50_000]})
        empty = environment.invoke({"parts": []})
    assert streamed.headers["lambda-runtime-function-response-mode"] == "streaming"
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert streamed.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    assert streamed.headers["trailer"] == "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"
    (first_ms, first), (second_ms, second) = streamed.chunks
    assert (first, second) == (b"one", b"two " * 50_000)
    assert second_ms - first_ms > 50  # what is made in between
    assert (empty.result, empty.trailers, streamed.trailers) == (b"", {}, {})


def test_a_fault_in_a_stream_is_told_in_its_trailers(tree: Path, tmp_path: Path) -> None:
    """Before the first part it is the invocation's error; after it, the answer ends with trailers that say so."""
    environ = lambda_environ("app.stream", tree, {})
    with Environment(command_of("lean", tree, "app.stream"), tree, environ, tmp_path / "log") as environment:
        at_once = environment.invoke({"parts": [None]})
        later = environment.invoke({"parts": ["one", None, "two"]})
        assert environment.invoke({"parts": ["well"]}).result == b"well"
        log = environment.log_tail()
    assert at_once.error is not None
    assert at_once.error["errorMessage"] == "no such luck"
    assert (later.error, later.result) == (None, b"one")
    assert later.trailers["lambda-runtime-function-error-type"] == "ValueError"
    told = json.loads(base64.b64decode(later.trailers["lambda-runtime-function-error-body"]))
    assert told == {"errorType": "ValueError", "errorMessage": "no such luck", "requestId": later.request_id}
    assert log.count("[ERROR] ValueError: no such luck") == 2


@pytest.mark.parametrize(
    ("answer", "warning"),
    [
        (b"", "[WARNING] a streamed response was cut off: "),
        (b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nover", "answered 413 to a streamed response: b'over'"),
    ],
)
def test_an_api_that_takes_no_more_of_a_stream_is_no_end(
    capsys: pytest.CaptureFixture[str], answer: bytes, warning: str
) -> None:
    """A connection that ends in the middle of a stream, or a refusal, is logged; the iterator is closed."""
    closed = []

    def parts() -> Iterator[bytes]:
        try:
            for _ in range(1 if answer else 20):
                yield b"x" * 1_000_000
        finally:
            closed.append(True)

    def take_some() -> None:
        connection, _ = listener.accept()
        seen = b""  # the end may come in two pieces
        with connection:
            while not seen.endswith(b"\r\n0\r\n\r\n" if answer else b"x"):
                seen = (seen + connection.recv(100_000))[-16:]
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=take_some)
        server.start()
        Stream(parts()).send(RuntimeClient("{}:{}".format(*listener.getsockname())), "1")
        server.join()
    assert warning in capsys.readouterr().out
    assert closed == [True]


def test_errors_can_be_logged_as_json(start: Start) -> None:
    """With the JSON log format an error is one JSON document."""
    with start("app.fail", {"AWS_LAMBDA_LOG_FORMAT": "JSON"}) as environment:
        environment.invoke({})
        log = environment.log_tail()
    (event,) = [json.loads(line) for line in log.splitlines() if "no such luck" in line]
    assert (event["level"], event["errorType"], event["errorMessage"]) == ("ERROR", "ValueError", "no such luck")
    assert event["timestamp"].endswith("Z")


def test_what_is_no_json_cannot_be_answered(start: Start) -> None:
    """A result that JSON does not know is an error of that invocation, named as the runtime names it."""
    with start("app.unserializable") as environment:
        error = environment.invoke({"bad": True}).error
        assert environment.invoke({}).json() == "well"
    assert error is not None
    assert error["errorType"] == "Runtime.MarshalError"
    assert "object" in error["errorMessage"]


def test_an_event_that_is_no_json_is_an_error(start: Start) -> None:
    """The API hands on what it was given: a payload that cannot be read fails its invocation."""
    with start("app.echo") as environment:
        error = environment.invoke(b"{not json").error
        assert environment.invoke([1]).json() == [1]
    assert error is not None
    assert error["errorType"] == "Runtime.UnmarshalError"


@pytest.mark.parametrize("code", [0, 3])
def test_a_handler_that_exits_takes_its_environment_along(start: Start, code: int) -> None:
    """`sys.exit` ends the process, which the platform reports; no answer is invented."""
    with start("app.leave") as environment:
        with pytest.raises(BenchError, match="exited"):
            environment.invoke({"code": code})
        assert environment.process is not None
        assert environment.process.wait(5) == code


def test_prints_are_log_lines(start: Start) -> None:
    """What a handler prints is in the log when it has answered, line by line, in UTF-8, the last one unended."""
    with start("app.talk") as environment:
        environment.invoke({})
        lines = environment.log_tail().splitlines()
    assert "one line" in lines
    assert "another: grün" in lines
    assert any("no end yet" in line for line in lines)
    assert any("an error line" in line for line in lines)


def test_a_closed_connection_is_made_anew(start: Start) -> None:
    """An API that closes the kept connection without a word, as after a freeze, costs no event."""
    with start("app.echo", keep_alive=False) as environment:
        assert [environment.invoke({"n": n}).json() for n in range(4)] == [{"n": n} for n in range(4)]


def test_a_handler_may_be_in_a_folder(start: Start) -> None:
    """Slashes in a handler's name are packages."""
    with start("nested/deep.handler") as environment:
        assert environment.invoke({}).json() == "deep"


@pytest.mark.parametrize(
    ("handler", "error_type", "message"),
    [
        ("raises.handler", "RuntimeError", "no model today"),
        ("nowhere.handler", "Runtime.ImportModuleError", "Unable to import module 'nowhere': No module"),
        ("absent_import.handler", "Runtime.ImportModuleError", "No module named 'surely_not_there'"),
        ("bad_syntax.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'bad_syntax'"),
        ("app.nothing", "Runtime.HandlerNotFound", "Handler 'nothing' missing on module 'app'"),
        ("app", "Runtime.MalformedHandlerName", "Bad handler 'app'"),
    ],
)  # fmt: skip
def test_a_failed_init_is_reported_and_ends_the_process(
    runtime: str, tree: Path, tmp_path: Path, handler: str, error_type: str, message: str
) -> None:
    """Why a handler cannot be loaded is posted, logged as one event, and the exit code is 1."""
    error, code, log = fail_init(runtime, tree, tmp_path, handler)
    assert error is not None
    assert error["errorType"] == error_type
    assert message in error["errorMessage"]
    assert isinstance(error["stackTrace"], list)
    assert code == 1
    (event,) = [line for line in log.split("\n") if "[ERROR]" in line]
    assert event.startswith(f"[ERROR] {error_type}: ")
    assert message in event


def test_the_stack_of_a_failed_init_is_the_handlers(runtime: str, tree: Path, tmp_path: Path) -> None:
    """The frame that raised is the last one."""
    error, _code, _log = fail_init(runtime, tree, tmp_path, "raises.handler")
    assert error is not None
    assert "raises.py" in error["stackTrace"][-1]


def test_an_exit_during_init_is_the_handlers_own(runtime: str, tree: Path, tmp_path: Path) -> None:
    """`sys.exit` while loading ends the process with that code, which the platform reports."""
    error, code, _log = fail_init(runtime, tree, tmp_path, "leaves.handler")
    assert (error, code) == (None, 7)


def fail_init(runtime: str, tree: Path, folder: Path, handler: str) -> tuple[dict[str, Any] | None, int, str]:
    """Start a handler that does not come up; return the posted error, the exit code and the log."""
    log = folder / "log"
    with RuntimeApi(alive=lambda: process.poll() is None) as api, log.open("wb") as output:
        environ = {**lambda_environ(handler, tree, {}), "AWS_LAMBDA_RUNTIME_API": api.address}
        process = subprocess.Popen(
            command_of(runtime, tree, handler), cwd=tree, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        with pytest.raises(BenchError, match=r"INIT failed|exited"):
            api.wait_ready(30)
        code = process.wait(30)
    return api.init_error, code, log.read_text()


def test_a_dead_runtime_api_ends_the_process(runtime: str, tree: Path, tmp_path: Path) -> None:
    """Without a Runtime API there is nothing to do: the process ends with an error, not with a loop."""
    environ = {**lambda_environ("app.echo", tree, {}), "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}
    command = command_of(runtime, tree, "app.echo")
    done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Error" in done.stderr


def test_snap_start_has_the_stock_client(tree: Path, tmp_path: Path) -> None:
    """SnapStart's hooks are the stock client's: the wrapper steps aside for it."""
    environ = lambda_environ("app.describe", tree, {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"})
    command = command_of("lean", tree, "app.describe")
    with Environment(command, tree, environ, tmp_path / "log") as environment:
        assert environment.invoke({}).json()["stock"]


def test_a_read_only_package_runs(tree: Path, tmp_path: Path) -> None:
    """/var/task cannot be written to, and its path is taken as it is."""
    package = tmp_path / "read only"
    shutil.copytree(tree, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (package, *package.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)
    environ = lambda_environ("app.describe", package, {})
    command = command_of("lean", package, "app.describe")
    try:
        with Environment(command, package, environ, tmp_path / "log") as environment:
            assert not environment.invoke({}).json()["stock"]
    finally:
        for path in (package, *package.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)


# ---- INIT is spent as if it were money: what the deployed handler loads under the lean bootstrap, model included

PROBE = """
import sys

import predict

LOADED = sorted(sys.modules)


def handler(event, context):
    return LOADED if event is None else predict.handler(event, context)
"""

# Each of these is loaded in every cold start. One more needs a reason that is worth its milliseconds to every caller;
# what only some requests need is imported where they need it.
SERVING = {"litelambda_serving"} | {
    f"litelambda_serving.{name}"
    for name in (
        "aliases", "artifact", "background", "digest", "errors", "http", "json_codec", "lean_runtime", "litert",
        "manifest", "models", "observability", "router", "s3_store", "servable", "settings", "store", "tensor",
        "tfserving",
    )
}  # fmt: skip
OBSTORE = {"_obstore", "obstore._store", "obstore.exceptions"}  # one extension module, without its package
STANDARD = {
    "__future__", "_socket", "gc", "importlib", "importlib._bootstrap", "importlib._bootstrap_external",
    "importlib.machinery", "itertools", "math", "binascii", "_json", "struct", "_struct",
    "os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc",
    "ctypes", "ctypes._endian", "_ctypes", "types",
    "datetime", "_datetime",  # obstore's, for the times in its answers
}  # fmt: skip
STANDARD_OF = {
    (3, 11): {"_operator", "operator", "warnings", "_sha256"},
    (3, 12): {"warnings", "_sha2"},
    (3, 13): {"_sha2"},
}
# The stock client has imported all of these before a handler runs: half of its hello world.
EXPENSIVE = {"json", "re", "typing", "logging", "hashlib", "enum", "collections", "http", "socket", "threading", "ssl"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The handlers with a probe beside them, and the tiny model in an S3 on loopback."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"))
    package = tmp_path_factory.mktemp("package") / "function"
    shutil.copytree(FUNCTIONS, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "probe.py").write_text(PROBE)
    (package / "obstore").symlink_to(Path(obstore.__file__).parent)
    (package / "lib").mkdir()
    (package / "lib" / "libLiteRt.so").symlink_to(find_library())
    with Workplace(load_subject(root.as_uri(), "tiny"), package=package) as place:
        yield place


def test_init_loads_exactly_this(workplace: Workplace) -> None:
    """INIT with the model out of S3 loads these modules on top of the bare interpreter's, and no other."""
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split()  # fmt: skip
    settings = {"MODEL_STORE": f"s3://{BUCKET}/{PREFIX}", "MODEL_NAME": "tiny"}
    probe = Contender("probe", "the modules of INIT", "functions", "probe.handler", settings, LEAN)
    with workplace.start(probe) as environment:
        loaded = set(environment.invoke(None).json()) - set(bare) - {"predict", "probe"}
        answer = environment.invoke(predict_event("tiny", [[0.1, 0.2, 0.3, 0.4]])).json()
    assert answer["statusCode"] == 200
    ours = {name for name in loaded if name.partition(".")[0] == "litelambda_serving"}
    assert ours == SERVING
    assert loaded - ours - OBSTORE == STANDARD | STANDARD_OF[sys.version_info[:2]]
    assert not EXPENSIVE & loaded


@pytest.mark.parametrize("bootstrap", [LEAN, None], ids=["lean", "stock"])
def test_a_rest_apis_events_are_answered(workplace: Workplace, bootstrap: str | None) -> None:
    """Payload 1.0 with a base64 body and many-valued headers is answered as payload 2.0 is, under an access policy."""
    rule = {"callers": ["arn:aws:iam::123456789012:role/client"], "actions": ["predict"], "models": ["tiny"]}
    settings = {"MODEL_STORE": f"s3://{BUCKET}/{PREFIX}", "MODEL_NAME": "tiny"}
    settings |= {"ACCESS_POLICY": json.dumps({"rules": [rule]})}
    handler = Contender("rest", "a REST API", "functions", "predict.handler", settings, bootstrap)
    events = {path.stem: json.loads(path.read_text()) for path in (PROJECT / "tests" / "events").glob("*.json")}
    with workplace.start(handler) as environment:
        two = environment.invoke(events["http_api_v2_predict"]).json()
        one, text = (environment.invoke(events[f"rest_v1_predict{kind}"]).json() for kind in ("_base64", ""))
        body = (
            " " * 30_000 + events["rest_v1_predict"]["body"]
        )  # the lean bootstrap cuts large ones out of their events
        bodies = [{"body": body}, {"body": base64.b64encode(body.encode()).decode(), "isBase64Encoded": True}]
        large = [environment.invoke(events["rest_v1_predict"] | each).json() for each in bodies]
        unsigned = {**events["rest_v1_predict"], "requestContext": {"stage": "prod", "identity": {"userArn": None}}}
        refused = environment.invoke(unsigned).json()
    assert (two["statusCode"], json.loads(two["body"])) == (200, json.loads(one["body"]))
    assert [json.loads(each["body"]) for each in (text, *large)] == [json.loads(one["body"])] * 3
    assert one["headers"]["X-Model-Version"] == "1"
    assert refused["statusCode"] == 403
