"""The ASGI application under uvicorn, over real HTTP. That its answers are the handler's, each protocol's tests say."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import uvicorn

from litelambda.commands.serve import serve
from litelambda_serving.asgi import Application, SharingLoop
from litelambda_serving.errors import BusyError
from litelambda_serving.http import MAX_BODY_BYTES, Response, StreamedResponse
from litelambda_serving.router import error_response
from litelambda_serving.turns import Turns
from support.golden_store import golden, publish
from support.handler_client import load_module
from support.handler_client import send as invoke
from support.ports import answers, free_port
from support.server import running, send
from support.waiting import wait_until


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"))
    for name in ("half_plus_two", "two_by_two", "shapley"):
        publish(root, name)
    return root


@pytest.fixture(scope="module")
def module(store):
    return load_module(store, "tiny", LOG_LEVEL="ERROR")


@pytest.fixture(scope="module")
def port(module):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONCURRENCY", "4")
        with running(Application(module)) as port:
            yield port


class Fake:
    """A composition root whose predictions end when they are told to."""

    after_response = None
    only_computes = True

    def __init__(self):
        self.release = threading.Event()
        self.began = threading.Semaphore(0)
        self.asked = []

        self.threads = []

    def run_concurrently(self, copies):
        pass

    def num_changes(self):
        return 0

    def respond(self, _method, path, *_request):
        self.asked.append(path)
        self.threads.append(threading.current_thread().name.partition("_")[0])
        if path == "/stream":
            return StreamedResponse(200, self.parts(), content_type="application/x-ndjson")
        if path == "/broken":
            return StreamedResponse(200, (1 // index and b"part" for index in (1, 0)))
        if path.startswith("/v1/models/"):
            self.began.release()
            self.release.wait(10)
        return Response(200, path)

    def parts(self):
        yield b"first\n"
        self.release.wait(10)
        yield b"second\n"

    def refuse(self, error, request_id):
        return error_response(error, request_id)


@pytest.fixture
def fake(monkeypatch):
    """A fake in a server with one thread for each model, one more, and room for two requests that wait."""
    monkeypatch.setenv("CONCURRENCY", "1")
    monkeypatch.setenv("QUEUE_LIMIT", "2")
    fake = Fake()
    yield fake
    fake.release.set()


def requests_of(name, count):
    chance = random.Random(name)
    row_of = {
        "tiny": lambda: [chance.random() for _ in range(4)],
        "half_plus_two": lambda: chance.uniform(-9, 9),
        "two_by_two": lambda: {"a": [chance.uniform(-9, 9) for _ in range(3)], "b": chance.randrange(9)},
    }
    return [{"instances": [row_of[name]() for _ in range(1 + index % 9)]} for index in range(count)]


def test_concurrent_answers_are_the_isolated_ones(module, port):
    """Many clients at once, of models of several kinds in batches of several sizes, get what each would get alone."""
    asked = [
        (f"/v1/models/{name}:predict", json.dumps(body))
        for index in range(20)
        for name in ("tiny", "half_plus_two", "two_by_two")
        for body in [requests_of(name, 20)[index]]
    ]
    alone = [invoke(module.handler, "POST", path, body).body for path, body in asked]

    def ask(start):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        order = asked[start:] + asked[:start]
        answers = []
        for path, body in order:
            connection.request("POST", path, body)
            answers.append(connection.getresponse().read())
        connection.close()
        return answers[len(asked) - start :] + answers[: len(asked) - start]

    with ThreadPoolExecutor(8) as clients:
        for answers in clients.map(ask, range(0, 56, 7)):
            assert answers == alone
    (tiny,) = json.loads(send(port, "GET", "/v2/models/tiny/stats")[2])["model_stats"]
    assert tiny["inference_count"] == 9 * sum(1 + index % 9 for index in range(20))
    assert tiny["inference_stats"]["fail"]["count"] == 0


@pytest.mark.usefixtures("port")
def test_each_model_runs_on_copies_of_its_own(module):
    """As many runs of a model at once as requests of it: none waits for another's lock."""
    (servable,) = [each for each in module._repository.loaded() if each.manifest.model == "tiny"]
    assert len(servable._model._more) == 3


def test_memory_is_for_models_first_and_for_copies_then(store):
    """Copies are made while there is room, and go before a model would have to."""
    module = load_module(store, "tiny", LOG_LEVEL="ERROR", MODEL_MEMORY_MB="2")
    module.run_concurrently(8)
    repository = module._repository
    (tiny,) = repository.loaded()
    assert 0 < len(tiny._model._more) < 7
    assert sum(each.memory_bytes for each in repository.loaded()) <= 2 << 20
    predicted = invoke(module.handler, "POST", "/v1/models/half_plus_two:predict", {"instances": [1.0]}).json()
    assert predicted == {"predictions": [2.5]}
    assert [each.manifest.model for each in repository.loaded()] == ["half_plus_two", "tiny"]
    assert sum(each.memory_bytes for each in repository.loaded()) <= 2 << 20
    assert tiny._model._more == []
    answer = invoke(module.handler, "POST", "/v1/models/tiny:predict", {"instances": [[0.1, 0.2, 0.3, 0.4]]})
    assert answer.status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_while_it_comes(port, chunked):
    """Its sender reads a 413, whether it has said the length or not; its connection is closed."""
    body = iter([b" " * 1_000_000] * 7) if chunked else b" " * (MAX_BODY_BYTES + 1)
    status, headers, answer = send(port, "POST", "/v1/models/tiny:predict", body)
    assert (status, headers["connection"]) == (413, "close")
    assert "the request body exceeds 6291456 bytes" in json.loads(answer)["error"]


def test_a_body_in_chunks_is_read_whole(port):
    """A client that does not know the length yet is answered like any other."""
    pieces = iter([b'{"instances"', b": [1.0]}"])
    assert send(port, "POST", "/v1/models/half_plus_two:predict", pieces)[2] == b'{"predictions":[2.5]}'


def test_head_and_options(port):
    """HEAD has the length of what GET has; OPTIONS has no body and no length."""
    whole = send(port, "GET", "/v2/models/tiny")[2]
    status, headers, body = send(port, "HEAD", "/v2/models/tiny")
    assert (status, headers["content-length"], body) == (200, str(len(whole)), b"")
    status, headers, body = send(port, "OPTIONS", "/v1/models/tiny:predict")
    assert (status, headers["allow"], body) == (204, "POST, OPTIONS", b"")


def test_further_requests_are_refused_at_once(fake):
    """Beyond the limit of those that wait, a client is told when to come back; probes are answered all the time."""
    application = Application(fake)
    with running(application) as port, ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(send, port, "POST", "/v1/models/a:predict") for _ in range(3)]
        wait_until(lambda: application._service._turns._num_waiting == 2)
        status, headers, body = send(port, "POST", "/v1/models/a:predict")
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body) == {"error": "2 requests are waiting: try again"}
        assert [send(port, "GET", path)[0] for path in ("/", "/healthz", "/v2/health/ready")] == [200] * 3
        fake.release.set()
        assert [each.result()[0] for each in waiting] == [200] * 3


def test_a_model_leaves_a_thread_to_the_others(fake):
    """However many requests there are for a slow model, one for another does not wait behind them."""
    with running(Application(fake)) as port, ThreadPoolExecutor(8) as clients:
        slow = clients.submit(send, port, "POST", "/v1/models/slow:predict")
        fake.began.acquire()
        assert send(port, "GET", "/v2/models/fast")[0] == 200
        fake.release.set()
        assert slow.result()[0] == 200


def test_short_requests_stay_in_the_loops_thread(fake, monkeypatch):
    """Once one was measured, others like it change no thread, unless they might wait for a copy of their model."""
    monkeypatch.setenv("CONCURRENCY", "2")
    with running(Application(fake)) as port, ThreadPoolExecutor(8) as clients:
        fake.release.set()
        for _ in range(3):
            send(port, "POST", "/v1/models/a:predict", b"{}")
        fake.release.clear()
        slow = clients.submit(send, port, "POST", "/v1/models/a:explain", b"{}")
        wait_until(lambda: fake.asked[-1] == "/v1/models/a:explain")
        fast = clients.submit(send, port, "POST", "/v1/models/a:predict", b"{}")
        wait_until(lambda: len(fake.asked) == 5)
        fake.release.set()
        assert (slow.result()[0], fast.result()[0]) == (200, 200)
        send(port, "POST", "/v1/models/a:predict", b"{}")
    in_loop = fake.threads[1]
    assert not in_loop.startswith("predict")
    assert fake.threads == ["predict", in_loop, in_loop, "predict", "predict", in_loop]


def test_a_request_has_a_time(fake, monkeypatch):
    """What runs for too long is answered with 504, what waits for too long with 503; neither stops the server."""
    monkeypatch.setenv("REQUEST_SECONDS", "1")
    with running(Application(fake)) as port, ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(send, port, "POST", "/v1/models/a:predict") for _ in range(2)]
        assert sorted(each.result()[0] for each in answers) == [503, 504]
        fake.release.set()
        assert send(port, "POST", "/v1/models/a:predict")[0] == 200


def test_a_streamed_answer_leaves_in_parts(fake):
    """A part is sent before the next one is made; what fails in between breaks the connection off."""
    with running(Application(fake)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/stream")
        response = connection.getresponse()
        assert (response.headers["content-type"], response.headers["transfer-encoding"]) == (
            "application/x-ndjson",
            "chunked",
        )
        assert response.readline() == b"first\n"
        fake.release.set()
        assert response.read() == b"second\n"
        connection.request("POST", "/broken")
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()
        connection.close()


def test_models_take_turns():
    """With many requests for one model and few for another, these do not wait for all of those."""

    async def order():
        turns, began = Turns(1, 1, 100), []

        async def ask(model):
            await turns.wait(model, time.monotonic() + 10)
            began.append(model)
            await asyncio.sleep(0)
            turns.end(model)

        await asyncio.gather(*map(ask, "aaaaaabb"))
        return "".join(began)

    assert asyncio.run(order()) == "aababaaa"


def test_requests_that_gave_up_are_passed_over():
    """A request whose client has waited for too long takes no turn."""

    async def wait():
        turns = Turns(1, 1, 100)
        await turns.wait("a", time.monotonic() + 10)
        late = asyncio.create_task(turns.wait("a", time.monotonic() + 0.01))
        patient = asyncio.create_task(turns.wait("a", time.monotonic() + 10))
        with pytest.raises(BusyError, match="waited for too long"):
            await late
        turns.end("a")
        await patient
        turns.end("a")
        assert (turns._free, turns._num_waiting, turns._running, turns._waiting) == (1, 0, {}, {})

    asyncio.run(wait())


@pytest.mark.parametrize("name", ["CONCURRENCY", "QUEUE_LIMIT", "REQUEST_SECONDS", "MODEL_STORE"])
def test_a_wrong_setting_ends_the_start(name, monkeypatch):
    """The server says which setting is wrong instead of starting."""
    monkeypatch.delenv("MODEL_STORE", raising=False)
    if name != "MODEL_STORE":
        monkeypatch.setenv(name, "many")
    sent = []

    async def start():
        async def receive():
            return {"type": "lifespan.startup"}

        async def send(message):
            sent.append(message)

        await Application()({"type": "lifespan"}, receive, send)

    asyncio.run(start())
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith(f"SettingsError: {name} is ")


SLOW_CODE = """
import time
from pathlib import Path

def preprocess(rows):
    (Path(__file__).parent / "begun").touch()
    while not (Path(__file__).parent / "end").exists():
        time.sleep(0.005)
    return rows
"""


def test_sigterm_lets_a_request_end(store, tmp_path):
    """`python -m litelambda_serving.asgi` serves on PORT; told to stop, it answers what it has begun, refuses more."""
    code = tmp_path / "code.py"
    code.write_text(SLOW_CODE)
    port = free_port()
    environment = {
        "MODEL_STORE": store.as_uri(), "MODEL_NAME": "half_plus_two", "CUSTOM_CODE": str(code), "PORT": str(port),
        "PATH": os.environ["PATH"],
    }  # fmt: skip
    command = [sys.executable, "-m", "litelambda_serving.asgi"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"))
            with (
                ThreadPoolExecutor(1) as client,
                closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as idle,
            ):
                answer = client.submit(send, port, "POST", "/v1/models/half_plus_two:predict", b'{"instances": [1.0]}')
                wait_until((tmp_path / "begun").exists)
                idle.request("GET", "/v2/health/ready")
                idle.getresponse().read()
                server.send_signal(signal.SIGTERM)
                assert idle.sock.recv(1) == b""  # closed: the server is about to end
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
                (tmp_path / "end").touch()
                assert answer.result()[2] == b'{"predictions":[2.5]}'
            assert server.wait(30) in (0, -signal.SIGTERM)
            assert '"status":200' in server.stdout.read()
        finally:
            server.kill()  # a failure here leaves no process to wait for


def test_processes_share_a_burst_of_connections():
    """Each accepts one at a time, between its other work: what waits is for whoever is idle first."""

    async def accept():
        made, steps = [], []

        def connected():
            made.append(1)
            return asyncio.Protocol()

        listener = socket.create_server(("127.0.0.1", 0))
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        async with await asyncio.get_running_loop().create_server(connected, sock=listener):
            while len(made) < 3:
                before = len(made)
                await asyncio.sleep(0)
                steps.append(len(made) - before)
            for client in clients:
                client.close()
        return steps

    with asyncio.Runner(loop_factory=SharingLoop) as runner:
        assert max(runner.run(accept())) == 1


def test_small_answers_are_sent_at_once(store, monkeypatch):
    """Nagle's algorithm is off on the connections of `litelambda serve`: a body never waits for its head's receipt."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    monkeypatch.setattr(uvicorn.Config, "bind_socket", lambda config: listener)
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda config: None)  # it would last
    accepted = []

    def accept_one(server, sockets):
        with socket.create_connection(sockets[0].getsockname()):
            connection, _ = sockets[0].accept()
            accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            connection.close()

    monkeypatch.setattr(uvicorn.Server, "run", accept_one)
    monkeypatch.setattr(os, "environ", {**os.environ})
    serve(store.as_uri(), host="127.0.0.1", port=0)
    listener.close()
    assert accepted
    assert accepted[0] != 0
