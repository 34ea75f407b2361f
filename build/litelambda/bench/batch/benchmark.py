"""`litelambda bench batch`: rows a second of one core through the batch engine, beside the bare runtime.

    litelambda bench batch --model mnist_mlp --rows 409600

Each kind has a process of its own, on one core's worth of work. They take turns, a fraction of a second each (A B C A B
C …), so that a machine that is slow for a while is slow for all. A rate is rows by CPU time of the whole process, the
median of all turns; a ratio is the median of those of each turn.

"raw" is the least that scoring a .npy takes with a copy of each row: read from the file straight to where the runtime
reads them, at its best batch size, and nothing kept; "memory" the same with rows that are in memory already; "usual"
what people write: of JSON Lines a loop of json.loads, numpy and the Interpreter, of a .npy one of mapped batches and
the Interpreter, whose outputs are saved.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.bench.batch.child import take_turn
from litelambda.bench.report import describe_machine, ratio, show_table
from litelambda.bench.subject import Subject, load_subject
from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import BenchError, UsageError
from litelambda.common.progress import open_reporter

_SEED = 20261123
_JSONL_SHARE = 16  # a JSON row takes so much longer that fewer do
_TEN = 10
_MIN_TURNS = 3  # of each process
_TIMEOUT_S = 900
_ENVIRON = {"OPENBLAS_NUM_THREADS": "1"}

_Kind = tuple[str, str]
"""What is done, and with which file."""

_Turns = dict[_Kind, list[dict[str, Any]]]
"""What each turn took."""


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench batch --help` says what each means."""

    model: str
    store: str
    rows: int
    runs: int
    seconds: float


def run(options: Options) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `cases` by name with `rows_per_s`, `raw_rows_per_s`, `usual_rows_per_s`, the `ratio` to raw (for JSON Lines: to
        usual) and `peak_rss_mb`; `scaling`, how time and memory of a file ten times as large compare; and what was
        measured.

    Raises:
        BenchError: the model is not in the store, or a run failed.
        UsageError: a flag has an impossible value.
    """
    if options.rows < _TEN * _JSONL_SHARE or options.runs < 1 or not 0 < options.seconds < math.inf:
        raise UsageError(f"bench batch takes --rows >= {_TEN * _JSONL_SHARE}, --runs >= 1 and --seconds > 0")
    subject = load_subject(options.store, options.model)
    if len(subject.inputs) != 1:
        raise BenchError(f"{options.model} has {len(subject.inputs)} inputs: bench batch measures models with one")
    with tempfile.TemporaryDirectory(prefix="litelambda-bench-") as scratch:
        files = _make_files(Path(scratch), subject, options.rows)
        turns = _take_turns(files, options)
    return {
        "cases": {name: _case(name, turns) for name in ("npy", "jsonl")},
        "scaling": {name: _scaling(name, turns) for name in ("npy", "jsonl")},
        "rows": options.rows,
        "runs": options.runs,
        "turns": len(turns[_KINDS[0]]),
        "notes": [],
        "model": subject.describe(),
        "machine": describe_machine(),
    }


_KINDS: list[_Kind] = [
    ("score", "npy_10x"),
    ("raw", "npy_10x"),
    ("memory", "npy_10x"),
    ("usual", "npy_10x"),
    ("score", "npy"),
    ("score", "jsonl_10x"),
    ("score", "jsonl"),
    ("usual", "jsonl"),  # as slow a row in a small file as in a large one
]


def _take_turns(files: dict[str, Path], options: Options) -> _Turns:
    turns: _Turns = {kind: [] for kind in _KINDS}
    with open_reporter(terminal_only=True, animated=False).stage("batch runs") as stage:
        for run_index in range(options.runs):
            with ExitStack() as at_end:
                children = {kind: at_end.enter_context(_child()) for kind in _KINDS}
                ends = time.monotonic() + options.seconds
                turn = 0
                while turn < _MIN_TURNS or time.monotonic() < ends:
                    for kind in _KINDS:
                        stage.progress(run_index / options.runs, f"turn {turn + 1}: {' '.join(kind)}")
                        turns[kind].append(_turn(children[kind], kind[0], files[kind[1]], options))
                    turn += 1
    return turns


def _make_files(folder: Path, subject: Subject, rows: int) -> dict[str, Path]:
    """The inputs: pixels as floats, the same on every run."""
    spec = subject.inputs[0]
    shape = spec.shape[1:]
    chooser = np.random.default_rng(_SEED)
    pixels = chooser.integers(0, 256, (min(rows, 4096), *shape))
    values = np.round(pixels / 255, 7) if spec.dtype.kind == "float" else pixels
    lines = [json.dumps(row).encode() + b"\n" for row in values.tolist()]
    files = {}
    for factor, suffix in ((1, ""), (_TEN, "_10x")):
        count = rows // _TEN * factor
        files[f"npy{suffix}"] = _write_npy(folder / f"npy{suffix}.npy", values.astype(spec.dtype.name), count)
        path = files[f"jsonl{suffix}"] = folder / f"jsonl{suffix}.jsonl"
        path.write_bytes(b"".join(lines[index] for index in chooser.integers(0, len(lines), count // _JSONL_SHARE)))
    return files


def _write_npy(path: Path, values: np.ndarray[Any, np.dtype[Any]], count: int) -> Path:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=(count, *values.shape[1:]))
    for start in range(0, count, len(values)):
        array[start : start + len(values)] = values[: min(len(values), count - start)]
    array.flush()
    return path


def _child() -> ChildProcess:
    return ChildProcess(_ENVIRON, _TIMEOUT_S, confined=False)  # the store may be S3's emulator


def _turn(child: ChildProcess, kind: str, path: Path, options: Options) -> dict[str, Any]:
    """The figures of one turn.

    Raises:
        BenchError: it failed.
    """
    try:
        return child.call(take_turn, kind, path, options.store, options.model)
    except (TimeoutError, ChildCrashError) as error:
        raise BenchError(f"{kind} of {path.name} failed: {error}") from error


def _rate(result: dict[str, Any]) -> float:
    return float(result["rows"] / result["cpu_s"])


def _median(turns: _Turns, kind: _Kind, key: str) -> float:
    return float(statistics.median(result[key] for result in turns[kind]))


def _median_rate(turns: _Turns, kind: _Kind) -> int:
    return round(statistics.median(map(_rate, turns[kind])))


def _ratio(turns: _Turns, ours: _Kind, theirs: _Kind) -> float:
    """How many times as fast ours is, turn by turn."""
    pairs = zip(turns[ours], turns[theirs], strict=True)
    return round(statistics.median(_rate(our) / _rate(their) for our, their in pairs), 3)


def _case(name: str, turns: _Turns) -> dict[str, Any]:
    ours, raw, memory = ("score", f"{name}_10x"), ("raw", "npy_10x"), ("memory", "npy_10x")
    usual = ("usual", "npy_10x") if name == "npy" else ("usual", "jsonl")
    return {
        "rows_per_s": _median_rate(turns, ours),
        "raw_rows_per_s": _median_rate(turns, raw),
        "memory_rows_per_s": _median_rate(turns, memory),
        "usual_rows_per_s": _median_rate(turns, usual),
        "ratio": _ratio(turns, ours, usual if name == "jsonl" else raw),
        "ratio_to_raw": _ratio(turns, ours, raw),
        "ratio_to_memory": _ratio(turns, ours, memory),
        "ratio_to_usual": _ratio(turns, ours, usual),
        "peak_rss_mb": round(_median(turns, ours, "peak_rss_mb"), 1),
        "batch_size": statistics.mode(result["batch_size"] for result in turns[ours]),
        "rows": turns[ours][0]["rows"],
        "wall_s": round(_median(turns, ours, "wall_s"), 3),
    }


def _scaling(name: str, turns: _Turns) -> dict[str, Any]:
    kinds = [("score", name), ("score", f"{name}_10x")]
    cpu = [_median(turns, kind, "cpu_s") for kind in kinds]
    memory = [_median(turns, kind, "peak_rss_mb") for kind in kinds]
    return {
        "rows": [turns[kind][0]["rows"] for kind in kinds],
        "cpu_s": [round(each, 4) for each in cpu],
        "peak_rss_mb": [round(each, 1) for each in memory],
        "time_ratio": ratio(cpu[1], cpu[0]),
        "rss_ratio": ratio(memory[1], memory[0]),
    }


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench batch`."""
    rows = [
        (
            name,
            f"{case['rows_per_s']:,}",
            f"{case['ratio_to_raw']:.2f}",
            f"{case['ratio_to_usual']:.2f}",
            f"{case['batch_size']}",
            f"{case['peak_rss_mb']:.0f}",
            f"{result['scaling'][name]['time_ratio']:.1f}",
            f"{result['scaling'][name]['rss_ratio']:.2f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = (
        "case",
        "rows/s",
        "x raw",
        "x usual",
        "batch",
        "peak MB",
        "10 x rows: time",
        "memory",
    )
    notes = ["rows per second of CPU time, the median of all turns; raw keeps nothing, usual is what people write"]
    show_table(headings, rows, result, notes)
