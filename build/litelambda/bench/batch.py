"""`litelambda bench batch`: rows a second of one core through the batch engine, beside the bare runtime.

    litelambda bench batch --model mnist_mlp --rows 204800

Everything runs one process at a time, in turn (A B C A B C …), on one core's worth of work: a rate is rows by CPU time
of the whole process, so that what other programs do to the clock on the wall changes little. "raw" is the least that
scoring a .npy takes: rows read from the file straight to where the runtime reads them, at its best batch size, and
nothing kept; "memory" the same with rows that are in memory already; "usual" what people write: of JSON Lines a loop of
json.loads, numpy and the Interpreter, of a .npy one of mapped batches and the Interpreter, whose outputs are saved.
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
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.bench.machine import describe_machine
from litelambda.bench.report import Progress
from litelambda.bench.subject import Subject, load_subject
from litelambda.bench.summary import ratio
from litelambda.errors import BenchError, UsageError

_SEED = 20261123
_JSONL_SHARE = 16  # a JSON row takes so much longer that fewer do
_TEN = 10
_TIMEOUT_S = 900


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
        turns = [
            *[("score", name) for name in files],
            *[("raw", name) for name in files if name.endswith("_10x")],
            ("memory", "npy_10x"),
            *[("usual", name) for name in files if name.endswith("_10x")],
        ]
        measured: dict[tuple[str, str], list[dict[str, Any]]] = {turn: [] for turn in turns}
        with Progress("batch runs", len(turns) * args.runs) as progress:
            for _round in range(args.runs):
                for kind, name in turns:
                    progress.step(f"{kind} {name}")
                    measured[kind, name].append(_measure(kind, files[name], args))
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


def _measure(kind: str, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "litelambda.bench.batch_child", kind, str(path), args.store, args.model]
    one_core = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own module
        command, env=one_core, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise BenchError(f"{kind} of {path.name} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _median(results: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(result[key] for result in results))


def _rate(results: list[dict[str, Any]]) -> float:
    return float(results[0]["rows"] / min(result["cpu_s"] for result in results))


def _case(name: str, measured: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    large = f"{name}_10x"
    ours, raw, usual = (_rate(measured[kind, large]) for kind in ("score", "raw", "usual"))
    case = {
        "rows_per_s": round(ours),
        "raw_rows_per_s": round(raw),
        "usual_rows_per_s": round(usual),
        "ratio": ratio(ours, usual if name == "jsonl" else raw),
        "ratio_to_raw": ratio(ours, raw),
        "ratio_to_usual": ratio(ours, usual),
        "peak_rss_mb": round(_median(measured["score", large], "peak_rss_mb"), 1),
        "batch_size": measured["score", large][0]["batch_size"],
        "rows": measured["score", large][0]["rows"],
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
