"""`litelambda bench load`: a server with many clients, beside peers with the same model, requests and clients.

    litelambda bench load --peers
    litelambda bench load --model fruit --model digits --clients 1,64 --requests 100000

Clients ask one request after the other, which shows what a server answers in a second at most; then requests arrive, a
share of that many in a second, which shows how long each waits: by chance (a Poisson process, as callers are that know
nothing of each other), then evenly spaced (as many load generators send them). Every answer must be the one that the
same request has got alone. What a request takes of the CPU hardly depends on what else the machine does.
"""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.bench.load.servers import Server, server_names, start
from litelambda.bench.report import describe_machine, show_table
from litelambda.bench.subject import Subject, load_subject, make_columns
from litelambda.common.errors import BenchError, UsageError
from litelambda.common.paths import store_url
from litelambda.common.progress import open_reporter
from litelambda_serving.inference_protocol.inputs import DATATYPES

_CLIENT = Path(__file__).parent / "client.py"
_ROWS_PER_MODEL = 8
_WARM_REQUESTS = 200
_READY_SECONDS = 60
_ARRIVALS = {False: "by chance", True: "even"}
_HEADINGS = ("server", "clients", "requests/s", "p50 ms", "p90 ms", "p99 ms", "p99 ÷ p50", "CPU ms/request", "errors")


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench load --help` says what each means."""

    models: tuple[str, ...]
    store: str
    clients: tuple[int, ...]
    share: float
    seconds: float
    requests: int | None
    cores: int | None
    peers: bool


def run(options: Options) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `servers` by name: a list of loads, each with `clients`, or `share` and whether it arrives `even`ly,
        `requests_per_s`, `p50_ms`, `p90_ms`, `p99_ms`, `p99_ms` by model, `cpu_ms` of a request, the clients' own
        `client_cpu_ms` and `errors` by kind; and what they were measured on.

    Raises:
        BenchError: a model is not in the store, or a server fails.
        UsageError: a flag has an impossible value.
    """
    machine = describe_machine()
    cores = options.cores or machine["cores"]
    if min(options.clients, default=0) < 1 or not 0 < options.share < 1 or options.seconds <= 0:
        raise UsageError("bench load takes --clients >= 1, --share between 0 and 1 and --seconds > 0")
    if not 1 <= cores <= machine["cores"]:
        raise UsageError(f"bench load takes --cores from 1 to {machine['cores']}, those of this machine")
    store = store_url(options.store)
    subjects = [load_subject(store, name) for name in options.models]
    cases = [case for subject in subjects for case in _cases(subject)]
    servers: dict[str, list[dict[str, Any]]] = {}
    notes = []
    names = server_names(with_peers=options.peers)
    with open_reporter(terminal_only=True, animated=False).stage("load") as stage:
        for index, name in enumerate(names):
            stage.progress(index / len(names), name)
            with ExitStack() as at_end:
                scratch = Path(at_end.enter_context(tempfile.TemporaryDirectory(prefix="litelambda-bench-")))
                try:
                    server = at_end.enter_context(start(name, store, subjects, cores, scratch))
                    servers[name] = _measure(server, cases, options)
                except BenchError as error:
                    if name.startswith("litelambda"):
                        raise
                    notes.append(f"{name} is left out: {error}")
    return {
        "servers": servers,
        "cores": cores,
        "notes": notes,
        "model": subjects[0].describe(),
        "models": [subject.describe() for subject in subjects],
        "machine": machine,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result for a person."""
    rows = []
    for name, loads in result["servers"].items():
        for load in loads:
            ratio = load["p99_ms"] / load["p50_ms"]
            who = f"{load['clients']}" if "clients" in load else f"{load['share']:.0%}, {_ARRIVALS[load['even']]}"
            errors = ", ".join(f"{count} {what}" for what, count in load["errors"].items()) or "none"
            figures = (load["p50_ms"], load["p90_ms"], load["p99_ms"], ratio, load["cpu_ms"])
            rows.append([name, who, f"{load['requests_per_s']:,.0f}", *(f"{each:.2f}" for each in figures), errors])
    title = ", ".join(model["name"] for model in result["models"]) + f": a row each, on {result['cores']} cores"
    show_table(
        _HEADINGS, rows, result, ["A share of the most arrives whether those before were answered or not."], title
    )


def _cases(subject: Subject) -> list[dict[str, Any]]:
    """Requests of one row each, in V2's JSON, which every server takes."""
    columns = make_columns(subject.inputs, _ROWS_PER_MODEL)
    name = subject.manifest.model
    cases = []
    for row in range(_ROWS_PER_MODEL):
        inputs = [
            {
                "name": spec.name,
                "shape": [1, *spec.shape[1:]],
                "datatype": DATATYPES[spec.dtype.name],
                "data": columns[spec.name][row : row + 1].ravel().tolist(),
            }
            for spec in subject.inputs
        ]
        body = json.dumps({"id": f"{row}", "inputs": inputs, "parameters": {"prepared": True}}).encode()
        cases.append(
            {
                "name": name,
                "path": f"/v2/models/{name}/infer",
                "headers": {"Content-Type": "application/json"},
                "body": base64.b64encode(body).decode(),
            }
        )
    return cases


def _measure(server: Server, cases: Sequence[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    alone = [{**case, "answer": base64.b64encode(_ask(server, case)).decode()} for case in cases]
    _load(server, cases, {"clients": min(8, max(options.clients)), "requests": _WARM_REQUESTS})
    loads = []
    for clients in options.clients:
        plan = {"clients": clients, "seconds": None if options.requests else options.seconds}
        loads.append({"clients": clients, **_load(server, alone, {**plan, "requests": options.requests})})
    rate = options.share * max(load["requests_per_s"] for load in loads)
    for even in _ARRIVALS:
        plan = {"clients": max(options.clients), "rate": rate, "even": even, "seconds": options.seconds}
        loads.append({"share": options.share, "even": even, **_load(server, alone, plan)})
    return loads


def _ask(server: Server, case: dict[str, Any]) -> bytes:
    """The answer of a request that has the server to itself, once it is ready."""
    url = f"http://127.0.0.1:{server.port}{case['path']}"
    ends = time.monotonic() + _READY_SECONDS
    while True:
        request = urllib.request.Request(url, base64.b64decode(case["body"]), case["headers"])
        try:
            with urllib.request.urlopen(request, timeout=_READY_SECONDS) as response:  # noqa: S310 - as above
                answer: bytes = response.read()
                return answer
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() >= ends:
                raise BenchError(f"a prediction fails: {error}") from error
            time.sleep(0.2)


def _load(server: Server, cases: Sequence[dict[str, Any]], plan: dict[str, Any]) -> dict[str, Any]:
    """Put a load on a server, from a process of its own."""
    document = json.dumps({"host": "127.0.0.1", "port": server.port, "cases": cases, **plan}).encode()
    before = server.cpu_seconds()
    done = subprocess.run([sys.executable, str(_CLIENT)], input=document, capture_output=True, check=False)  # noqa: S603 - fixed
    if done.returncode:
        raise BenchError(f"the clients failed: {done.stderr.decode(errors='replace')[-500:].strip()}")
    used = server.cpu_seconds() - before
    figures = json.loads(done.stdout)
    times = sorted(each for times in figures["times_ms"].values() for each in times)
    if len(times) < 2:
        raise BenchError(f"hardly any request was answered: {figures['errors']}")
    return {
        "requests": len(times),
        "requests_per_s": len(times) / figures["seconds"],
        **_percentiles(times),
        "by_model": {name: _percentiles(each) for name, each in figures["times_ms"].items() if len(each) > 1},
        "cpu_ms": used * 1000 / len(times),
        "client_cpu_ms": figures["cpu_seconds"] * 1000 / len(times),
        "errors": figures["errors"],
    }


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p90_ms": cuts[89], "p99_ms": cuts[98]}
