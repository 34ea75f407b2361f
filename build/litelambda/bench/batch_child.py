"""One measured run of `litelambda bench batch`, in a process of its own.

    python -m litelambda.bench.batch_child score|raw|memory|usual FILE STORE MODEL

Prints one JSON object. A short run before the measured one pays for imports, compilation and the trial of batch sizes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.bench.subject import Subject, load_subject
from serving.litert import CompiledModel
from serving.scoring.batching import BatchRunner, row_bytes

_WARM_UP_ROWS = 4096
_REPEATS = 3  # of which the fastest counts: whatever else runs on the machine only ever adds time


def main() -> None:
    """Measure what the command line says."""
    kind, path, store, model = sys.argv[1:]
    subject = load_subject(store, model)
    usual = _usual_lines if path.endswith(".jsonl") else _usual_array
    prepare = {"score": _score, "raw": _raw, "memory": _memory, "usual": usual}[kind]
    work = prepare(subject, Path(path), store, model)
    work(_WARM_UP_ROWS)
    best: dict[str, Any] = {}
    for _repeat in range(_REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        rows, batch_size = work(None)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if not best or cpu < best["cpu_s"]:
            best = {"rows": rows, "cpu_s": cpu, "wall_s": wall, "batch_size": batch_size}
    print(json.dumps({**best, "peak_rss_mb": _peak_rss_mb()}))


def _peak_rss_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would answer the parent's peak, where that was higher: it is inherited through fork.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def _score(subject: Subject, path: Path, store: str, model: str) -> Callable[[int | None], tuple[int, int]]:
    """The engine, as `litelambda score` and the batch function call it, with one worker."""
    from serving.scoring.engine import run_job
    from serving.scoring.job import Job
    from serving.scoring.models import ModelSource
    from serving.scoring.storage import to_url

    models = ModelSource(store)
    output_format = path.suffix[1:]
    reference = f"{model}:{subject.manifest.version}"

    def work(limit: int | None) -> tuple[int, int]:
        span = None
        if limit is not None:
            span = (0, limit) if output_format == "npy" else (0, limit * 512)
        output = path.with_name(f"out-{path.name}")
        job = Job(to_url(str(path)), to_url(str(output)), model=reference, output_format=output_format, span=span)
        summary = run_job(job, models, replace=True).summary or {}
        if summary["rows_bad"]:
            raise SystemExit(f"{summary['rows_bad']} rows of the benchmark's own file are bad")
        return summary["rows_in"], summary["batch_size"]

    return work


def _raw(subject: Subject, path: Path, store: str, model: str) -> Callable[[int | None], tuple[int, int]]:  # noqa: ARG001 - one signature for all
    """The runtime alone, at its best batch size; the rows of an array go from the file straight to it."""
    width = row_bytes(subject.inputs[0])
    compiled, key, size = _compiled(subject)
    file = path.open("rb", buffering=0)
    header = path.stat().st_size % width if path.suffix == ".npy" else 0
    zeros = bytes(size * width)

    def work(limit: int | None) -> tuple[int, int]:
        total = (path.stat().st_size - header) // width
        rows = min(total, limit or total) // size * size
        for start in range(0, rows, size):

            def fill(target: memoryview, offset: int = header + start * width) -> None:
                os.preadv(file.fileno(), [target], offset)

            compiled.run(key, [fill if header else zeros], size)
        return rows, size

    return work


def _memory(subject: Subject, path: Path, store: str, model: str) -> Callable[[int | None], tuple[int, int]]:  # noqa: ARG001 - one signature for all
    """The runtime alone, on rows that are in memory already."""
    width = row_bytes(subject.inputs[0])
    compiled, key, size = _compiled(subject)
    view = memoryview(np.load(path).tobytes())

    def work(limit: int | None) -> tuple[int, int]:
        total = len(view) // width
        rows = min(total, limit or total) // size * size
        for start in range(0, rows, size):
            compiled.run(key, [view[start * width : (start + size) * width]], size)
        return rows, size

    return work


def _compiled(subject: Subject) -> tuple[CompiledModel, str, int]:
    """The model, its signature, and the batch size that the engine's own trial chooses."""
    compiled = CompiledModel(subject.artifact)
    key = subject.manifest.default_signature
    trial = BatchRunner(compiled, key, subject.manifest.batch_sizes)
    rows = 16 * subject.manifest.batch_sizes[-1]
    trial.run([memoryview(bytes(rows * row_bytes(subject.inputs[0])))], rows)
    return compiled, key, trial.best or 1


def _usual_lines(subject: Subject, path: Path, store: str, model: str) -> Callable[[int | None], tuple[int, int]]:  # noqa: ARG001 - see _raw
    """What people write: a line, json.loads, numpy, the Interpreter, json.dumps."""
    run = _interpreter(subject, 1)
    output = path.with_name(f"usual-{path.name}")

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


def _usual_array(subject: Subject, path: Path, store: str, model: str) -> Callable[[int | None], tuple[int, int]]:  # noqa: ARG001 - see _raw
    """What people write: a mapped array, the Interpreter at the best batch size, numpy.save; whole batches alone."""
    compiled, _key, size = _compiled(subject)
    compiled.close()
    run = _interpreter(subject, size)
    output = path.with_name(f"usual-{path.name}")

    def work(limit: int | None) -> tuple[int, int]:
        array = np.load(path, mmap_mode="r")
        rows = min(len(array), limit or len(array)) // size * size
        np.save(output, np.concatenate([run(array[start : start + size]) for start in range(0, rows, size)]))
        return rows, size

    return work


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


if __name__ == "__main__":
    main()
