"""One kind of work of `litelambda bench batch`, in a process of its own that is kept for every turn of its kind.

Before the first one, a short run pays for imports and compilation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.bench.report import peak_rss_mb
from litelambda.bench.subject import Subject, load_subject
from litelambda_serving.litert import CompiledModel
from litelambda_serving.scoring.columns import row_bytes

Work = Callable[[int | None], tuple[int, int]]
"""Does so many rows, or all; returns how many, and the batch size."""

_WARM_UP_ROWS = 4096
_TRIAL_ROWS = 8_192  # of fewer, the wrong size may win, and flatter the engine
_TRIAL_ROUNDS = 3


_PREPARED: list[Work] = []  # the one that this process is for


def take_turn(kind: str, path: Path, store: str, model: str) -> dict[str, Any]:
    """Do the work of a kind with a file; its figures."""
    if not _PREPARED:
        subject = load_subject(store, model)
        usual = _usual_lines if path.suffix == ".jsonl" else _usual_array
        prepare = {"score": _score, "raw": _raw, "memory": _memory, "usual": usual}[kind]
        _PREPARED.append(prepare(subject, path, store, model))
        _empty(_outputs(path))
        _PREPARED[0](_WARM_UP_ROWS)
    _empty(_outputs(path))
    wall, cpu = time.perf_counter(), time.process_time()
    rows, batch_size = _PREPARED[0](None)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"rows": rows, "cpu_s": cpu, "wall_s": wall, "batch_size": batch_size, "peak_rss_mb": peak_rss_mb()}


def _outputs(path: Path) -> Path:
    return path.with_name(f"outputs-of-{path.name}")


def _empty(folder: Path) -> None:
    """Make a folder without anything in it: writing over a file would cost the time to free the old one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _score(subject: Subject, path: Path, store: str, model: str) -> Work:
    """The engine, as `litelambda score` and the batch function call it, with one worker."""
    from litelambda_serving.objects import to_url
    from litelambda_serving.scoring.job import Job
    from litelambda_serving.scoring.models import ModelSource
    from litelambda_serving.scoring.running.engine import run_job

    models = ModelSource(store)
    output_format = path.suffix[1:]
    reference = f"{model}:{subject.manifest.version}"

    def work(limit: int | None) -> tuple[int, int]:
        span = None
        if limit is not None:
            span = (0, limit) if output_format == "npy" else (0, limit * 512)
        output = _outputs(path) / path.name
        job = Job(
            to_url(str(path)),
            to_url(str(output)),
            model=reference,
            output_format=output_format,
            span=span,
            prepared=True,
        )
        summary = run_job(job, models).summary or {}
        if summary["rows_bad"]:
            raise SystemExit(f"{summary['rows_bad']} rows of the benchmark's own file are bad")
        return summary["rows_in"], summary["batch_size"]

    return work


def _raw(subject: Subject, path: Path, store: str, model: str) -> Work:  # noqa: ARG001 - one signature for all
    """The runtime alone, to which rows go straight from the file."""
    width, key = row_bytes(subject.inputs[0]), subject.manifest.default_signature
    compiled = CompiledModel(subject.artifact)
    descriptor = os.open(path, os.O_RDONLY)
    total, header = divmod(path.stat().st_size, width)

    def run(size: int, limit: int) -> int:
        rows = limit // size * size
        runner = compiled.runner(key, size)
        targets = runner.ins.views
        for start in range(0, rows, size):
            os.preadv(descriptor, targets, header + start * width)
            runner.run()
        return rows

    return _at_the_fastest_size(subject, total, run)


def _memory(subject: Subject, path: Path, store: str, model: str) -> Work:  # noqa: ARG001 - one signature for all
    """The runtime alone, on rows that are in memory already."""
    width, key = row_bytes(subject.inputs[0]), subject.manifest.default_signature
    compiled = CompiledModel(subject.artifact)
    view = np.load(path).reshape(-1).view(np.uint8).data

    def run(size: int, limit: int) -> int:
        rows = limit // size * size
        runner = compiled.runner(key, size)
        (target,) = runner.ins.views
        for start in range(0, rows, size):
            target[:] = view[start * width : (start + size) * width]
            runner.run()
        return rows

    return _at_the_fastest_size(subject, len(view) // width, run)


def _at_the_fastest_size(subject: Subject, total: int, run: Callable[[int, int], int]) -> Work:
    """Work with batches of one size: of those that the engine may choose, the one that is fastest on the first rows.

    Args:
        subject: names the sizes.
        total: rows there are.
        run: does a number of rows, whole batches only, in batches of a size; returns how many it did.
    """
    rows = min(_TRIAL_ROWS, total)
    seconds = dict.fromkeys((size for size in subject.manifest.batch_sizes if size <= rows), math.inf)
    for _round in range(_TRIAL_ROUNDS):
        for size in seconds:
            run(size, size)  # pays for the resize
            cpu = time.process_time()
            done = run(size, rows)
            seconds[size] = min(seconds[size], (time.process_time() - cpu) / done)
    fastest = min(seconds, key=lambda size: seconds[size])

    def work(limit: int | None) -> tuple[int, int]:
        return run(fastest, min(total, limit or total)), fastest

    return work


def _usual_lines(subject: Subject, path: Path, store: str, model: str) -> Work:  # noqa: ARG001 - see _raw
    """What people write: a line, json.loads, numpy, the Interpreter, json.dumps."""
    run = _interpreter(subject, 1)
    output = _outputs(path) / path.name

    def work(limit: int | None) -> tuple[int, int]:
        rows = 0
        with path.open() as lines, output.open("w") as out:
            for line in lines:
                row = np.array(json.loads(line), subject.inputs[0].dtype.name)[np.newaxis]
                out.write(json.dumps({"prediction": run(row)[0].tolist()}) + "\n")
                rows += 1
                if rows == limit:
                    break
        return rows, 1

    return work


def _usual_array(subject: Subject, path: Path, store: str, model: str) -> Work:  # noqa: ARG001 - see _raw
    """What people write: a mapped array, the Interpreter at the best batch size, numpy.save; whole batches alone."""
    total = len(np.load(path, mmap_mode="r"))
    output = _outputs(path) / path.name
    interpreters: dict[int, Callable[[Any], Any]] = {}

    def run(size: int, limit: int) -> int:
        if size not in interpreters:
            interpreters[size] = _interpreter(subject, size)
        predict, rows = interpreters[size], limit // size * size
        array = np.load(path, mmap_mode="r")  # again: mapping its pages is part of the work
        np.save(output, np.concatenate([predict(array[start : start + size]) for start in range(0, rows, size)]))
        return rows

    return _at_the_fastest_size(subject, total, run)


def _interpreter(subject: Subject, size: int) -> Callable[[Any], Any]:
    """LiteRT's own Python API, for a fixed number of rows at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=subject.artifact, num_threads=1)
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if size > 1:
        interpreter.resize_tensor_input(given["index"], [size, *given["shape"][1:]])
    interpreter.allocate_tensors()

    def run(rows: Any) -> Any:
        interpreter.set_tensor(given["index"], rows)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return run
