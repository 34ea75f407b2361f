"""`litelambda bench batch`: rows a second of one core through the batch engine, beside the bare runtime.

    litelambda bench batch --model mnist_mlp --rows 204800

Each kind has a process of its own, on one core's worth of work. They take turns, a fraction of a second each (A B C A B
C …), so that a machine that is slow for a while is slow for all. A rate is rows by CPU time of the whole process, and
the fastest of all turns counts: what others do on the machine only ever adds time.

"raw" is the least that scoring a .npy takes: rows read from the file straight to where the runtime reads them, at its
best batch size, and nothing kept; "memory" the same with rows that are in memory already; "usual" what people write: of
JSON Lines a loop of json.loads, numpy and the Interpreter, of a .npy one of mapped batches and the Interpreter, whose
outputs are saved.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np

from litelambda.bench.machine import describe_machine
from litelambda.bench.report import Progress
from litelambda.bench.subject import Subject, load_subject
from litelambda.bench.summary import ratio
from litelambda.errors import BenchError, UsageError

_SEED = 20261123
_JSONL_SHARE = 16  # a JSON row takes so much longer that fewer do
_TEN = 10
_TURNS = 16  # of each process
_TIMEOUT_S = 900
_CLOSE_S = 10


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `cases` by name with `rows_per_s`, `raw_rows_per_s`, `usual_rows_per_s`, the `ratio` to raw (for JSON Lines: to
        usual) and `peak_rss_mb`; `scaling`, how time and memory of a file ten times as large compare; and what was
        measured.

    Raises:
        BenchError: The model is not in the store, or a run failed.
        UsageError: A flag has an impossible value.
    """
    if args.rows < _TEN * _JSONL_SHARE or args.runs < 1:
        raise UsageError(f"bench batch takes --rows >= {_TEN * _JSONL_SHARE} and --runs >= 1")
    subject = load_subject(args.store, args.model)
    if len(subject.inputs) != 1:
        raise BenchError(f"{args.model} has {len(subject.inputs)} inputs: bench batch measures models with one")
    with tempfile.TemporaryDirectory(prefix="litelambda-bench-") as scratch:
        files = _make_files(Path(scratch), subject, args.rows)
        kinds = [
            *[("score", name) for name in files],
            *[("raw", name) for name in files if name.endswith("_10x")],
            ("memory", "npy_10x"),
            ("usual", "npy_10x"),
            ("usual", "jsonl"),  # as slow a row in a small file as in a large one
        ]
        measured: dict[tuple[str, str], list[dict[str, Any]]] = {kind: [] for kind in kinds}
        with Progress("batch turns", len(kinds) * args.runs * _TURNS) as progress:
            for _run in range(args.runs):
                with ExitStack() as stack:
                    children = {
                        (kind, name): stack.enter_context(_Child(kind, files[name], args)) for kind, name in kinds
                    }
                    for _turn in range(_TURNS):
                        for (kind, name), child in children.items():
                            progress.step(f"{kind} {name}")
                            measured[kind, name].append(child.measure())
    return {
        "cases": {name: _case(name, measured) for name in files if not name.endswith("_10x")},
        "scaling": {name: _scaling(name, measured) for name in files if not name.endswith("_10x")},
        "rows": args.rows,
        "runs": args.runs,
        "notes": [],
        "model": subject.describe(),
        "machine": describe_machine(),
    }


def _make_files(folder: Path, subject: Subject, rows: int) -> dict[str, Path]:
    """The inputs: pixels as floats, the same on every run."""
    spec = subject.inputs[0]
    shape = spec.shape[1:]
    chooser = np.random.default_rng(_SEED)
    pixels = chooser.integers(0, 256, (min(rows, 4096), *shape), np.uint8)
    values = pixels.astype(np.float32) / np.float32(255) if spec.dtype.kind == "float" else pixels
    values = values.astype(spec.dtype.name)
    lines = [json.dumps(_rounded(row)).encode() + b"\n" for row in values.tolist()]
    files = {}
    for factor, suffix in ((1, ""), (_TEN, "_10x")):
        count = rows // _TEN * factor
        files[f"npy{suffix}"] = _write_npy(folder / f"npy{suffix}.npy", values, count)
        path = files[f"jsonl{suffix}"] = folder / f"jsonl{suffix}.jsonl"
        order = random.Random(_SEED)  # noqa: S311 only has to be repeatable
        with path.open("wb") as file:
            file.writelines(order.choice(lines) for _row in range(count // _JSONL_SHARE))
    return files


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 7) if isinstance(value, float) else value


def _write_npy(path: Path, values: np.ndarray[Any, np.dtype[Any]], count: int) -> Path:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=(count, *values.shape[1:]))
    for start in range(0, count, len(values)):
        array[start : start + len(values)] = values[: min(len(values), count - start)]
    array.flush()
    return path


class _Child:
    """A process that does one kind of work, once whenever it is told to; ready, and idle, once it is made."""

    def __init__(self, kind: str, path: Path, args: argparse.Namespace) -> None:
        self._name = f"{kind} of {path.name}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        command = [sys.executable, "-m", "litelambda.bench.batch_child", kind, str(path), args.store, args.model]
        one_core = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, env=one_core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._turns, self._answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def measure(self) -> dict[str, Any]:
        """What one turn took.

        Raises:
            BenchError: it failed.
        """
        with suppress(OSError):  # where it is dead: told below, with what it said at its end
            self._turns.write("\n")
            self._turns.flush()
        return self._read()

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._turns.close()
        self._answers.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        watchdog = threading.Timer(_TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            line = self._answers.readline()
        finally:
            watchdog.cancel()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")
            raise BenchError(f"{self._name} failed:\n{said[-2000:]}")
        result: dict[str, Any] = json.loads(line)
        return result


def _median(results: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(result[key] for result in results))


def _rate(results: list[dict[str, Any]]) -> float:
    return float(results[0]["rows"] / min(result["cpu_s"] for result in results))


def _case(name: str, measured: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    large = f"{name}_10x"
    ours, raw = (_rate(measured[kind, large]) for kind in ("score", "raw"))
    usual = _rate(measured.get(("usual", large)) or measured["usual", name])
    fastest = min(measured["score", large], key=lambda result: result["cpu_s"])
    case = {
        "rows_per_s": round(ours),
        "raw_rows_per_s": round(raw),
        "usual_rows_per_s": round(usual),
        "ratio": ratio(ours, usual if name == "jsonl" else raw),
        "ratio_to_raw": ratio(ours, raw),
        "ratio_to_usual": ratio(ours, usual),
        "peak_rss_mb": round(_median(measured["score", large], "peak_rss_mb"), 1),
        "batch_size": fastest["batch_size"],
        "rows": fastest["rows"],
        "wall_s": round(_median(measured["score", large], "wall_s"), 3),
    }
    if ("memory", large) in measured:
        memory = _rate(measured["memory", large])
        case["memory_rows_per_s"], case["ratio_to_memory"] = round(memory), ratio(ours, memory)
    return case


def _scaling(name: str, measured: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    small, large = measured["score", name], measured["score", f"{name}_10x"]
    cpu = [min(result["cpu_s"] for result in results) for results in (small, large)]
    memory = [_median(results, "peak_rss_mb") for results in (small, large)]
    return {
        "rows": [results[0]["rows"] for results in (small, large)],
        "cpu_s": [round(each, 4) for each in cpu],
        "peak_rss_mb": [round(each, 1) for each in memory],
        "time_ratio": ratio(cpu[1], cpu[0]),
        "rss_ratio": ratio(memory[1], memory[0]),
    }
