"""Batch sizes: only those that were proven, the fastest of them, and never a wrong row."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from litelambda_serving.litert import CompiledModel
from litelambda_serving.scoring.columns import column_of
from litelambda_serving.scoring.running import batching
from litelambda_serving.scoring.running.batching import BatchRunner
from litelambda_serving.tensor import DTYPES, TensorSpec
from support.golden_store import golden
from support.scoring_files import expected, make_rows

SIZES = (1, 2, 3, 8, 32)


class Recorder:
    """A model that notes the sizes it is run at; each run takes as long as `seconds` says, by a clock of its own."""

    def __init__(self, model, seconds=lambda batch: 0.0005):
        self.signatures = model.signatures
        self.sizes = []
        self.now = 0.0
        self.seconds = seconds
        self._model = model

    def runner(self, key, batch):
        return RecordingRunner(self, self._model.runner(key, batch))

    def clock(self):
        return self.now


class RecordingRunner:
    def __init__(self, recorder, runner):
        self.ins, self.outs = runner.ins, runner.outs
        self._recorder, self._runner = recorder, runner

    def run(self):
        self._recorder.sizes.append(self._runner.batch)
        self._recorder.now += self._recorder.seconds(self._runner.batch)
        self._runner.run()


@pytest.fixture
def model():
    with CompiledModel(golden("tiny_int8")) as compiled:
        yield compiled


def run(runner, rows):
    (data,) = runner.run([column_of(rows.tobytes())], len(rows))
    return np.frombuffer(data, np.float32).reshape(len(rows), 3)


@pytest.mark.parametrize("counts", [[1], [5, 1, 3], [31, 33], [1000, 7, 250], [64] * 10])
def test_any_numbers_of_rows(model, counts):
    """However many rows come at a time, each has the prediction it has alone, and only proven sizes were run."""
    recorder = Recorder(model)
    runner = BatchRunner(recorder, "predict", SIZES)
    for seed, count in enumerate(counts):
        rows = make_rows(count, seed=seed)
        np.testing.assert_array_equal(run(runner, rows), expected(rows))
    assert set(recorder.sizes) <= set(SIZES)


def make_runner(monkeypatch, recorder):
    monkeypatch.setattr(batching, "thread_time", recorder.clock)
    return BatchRunner(recorder, "predict", SIZES)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (lambda batch: 0.0004, 32),  # what matters is the call
        (lambda batch: 0.004 * batch, 1),  # what matters are the rows: batches gain nothing
        (lambda batch: 0.002 * batch if batch <= 8 else 0.004 * batch, 1),  # too large for the cache
        (lambda batch: 0.005 + (0.0001 if batch <= 8 else 0.002) * batch, 8),
    ],
)
def test_the_fastest_size_is_found(monkeypatch, model, seconds, best):
    """The size in use is the one whose rows took the least time, the smallest of those that are as good."""
    runner = make_runner(monkeypatch, Recorder(model, seconds))
    for seed in range(3):
        run(runner, make_rows(200, seed=seed))
    assert runner.best == best


def test_the_trials_end(monkeypatch, model):
    """Once every size was timed, all rows run in the one that was fastest."""
    recorder = Recorder(model, lambda batch: 0.001 + 0.0005 * batch)
    runner = make_runner(monkeypatch, recorder)
    run(runner, make_rows(500))
    recorder.sizes.clear()
    run(runner, make_rows(320, seed=2))
    assert recorder.sizes == [32] * 10


def test_a_single_slow_run_ends_no_trials(monkeypatch, model):
    """One run that took far too long says nothing about its size, nor about larger ones."""
    recorder = Recorder(model)
    slow = iter([1.0, 50.0])
    recorder.seconds = lambda batch: 0.0004 * (next(slow, 1.0) if batch == 8 else 1.0)
    runner = make_runner(monkeypatch, recorder)
    run(runner, make_rows(1000))
    assert runner.best == 32


def test_a_model_that_must_not_be_resized(model):
    """Where nothing but single rows was proven, rows are run one by one."""
    recorder = Recorder(model)
    runner = BatchRunner(recorder, "predict", (1,))
    rows = make_rows(100)
    np.testing.assert_array_equal(run(runner, rows), expected(rows))
    assert set(recorder.sizes) == {1}


def test_outputs_without_rows_are_never_batched(model):
    """A model whose output has no batch dimension is run row by row, whatever its manifest lists."""
    recorder = Recorder(model)
    signature = recorder.signatures["predict"]
    fixed = TensorSpec("probabilities", DTYPES["float32"], (1, 3))
    recorder.signatures = {"predict": type(signature)("predict", 0, signature.inputs, (fixed,), {})}
    runner = BatchRunner(recorder, "predict", SIZES)
    run(runner, make_rows(50))
    assert set(recorder.sizes) == {1}


def test_a_rest_is_filled_up_where_that_is_cheaper(monkeypatch, model):
    """A few rows left over run as part of a batch of zeros, if single runs and two resizes would take longer."""
    recorder = Recorder(model)
    runner = make_runner(monkeypatch, recorder)
    run(runner, make_rows(500))
    assert runner.best == 32
    recorder.sizes.clear()
    rows = make_rows(32 + 20, seed=1)
    np.testing.assert_array_equal(run(runner, rows), expected(rows))
    assert recorder.sizes == [32, 32]


def test_blas_starts_no_threads_of_its_own():
    """A long dot product, as the look for NaN takes, leaves the process with the threads that it had."""
    code = (
        "import os, litelambda_serving.scoring, numpy as np; rows = np.ones(1_000_000, np.float32); rows.dot(rows);"
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc: its malloc cannot be told")
def test_freed_memory_is_kept():
    """What one chunk took is there for the next: its pages are not zeroed anew each time."""
    code = (
        "import resource, litelambda_serving.scoring, numpy as np\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): np.ones(2_000_000, np.uint8)\n"
        "before = faults()\n"
        "for _ in range(50): np.ones(2_000_000, np.uint8)\n"
        "print(faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 500  # of 24,000
