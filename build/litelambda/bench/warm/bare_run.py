"""The bare run: a model in the shipped runtime, in this process, with nothing around it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litelambda.bench.subject import Subject
from litelambda_serving.litert import CompiledModel


@contextmanager
def bare_run(subject: Subject, num_rows: int) -> Iterator[BareRun]:
    """Load a model and run it once."""
    with _quiet_stderr():
        model = CompiledModel(subject.artifact)
    with model:
        yield BareRun(model, subject, num_rows)


class BareRun:
    """Runs a fixed number of rows; one by one where batches are not proven safe."""

    def __init__(self, model: CompiledModel, subject: Subject, num_rows: int) -> None:
        self._model = model
        self._key = subject.manifest.default_signature
        self._at_once = num_rows if num_rows in subject.manifest.batch_sizes else 1
        self._times = num_rows // self._at_once
        self._inputs = [bytes(self._at_once * spec.row_bytes) for spec in subject.inputs]
        self.time_us()

    def time_us(self) -> float:
        """How long the rows take, once."""
        started = time.perf_counter()
        for _run in range(self._times):
            self._model.run(self._key, self._inputs, self._at_once)
        return (time.perf_counter() - started) * 1e6


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what native code prints out of the progress line."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
