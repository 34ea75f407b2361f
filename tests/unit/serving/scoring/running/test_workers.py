"""Workers of the engine: threads, and processes that are started where they pay; how they end, and when they do not."""

from __future__ import annotations

import sys
import threading
from concurrent import futures
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from litelambda_serving.scoring.errors import WorkerError
from litelambda_serving.scoring.formats.base import Chunk
from litelambda_serving.scoring.running import engine, workers
from support.scoring_files import as_jsonl, expected, job_of, make_rows, make_store, processes_at_once, read_jsonl


@pytest.fixture
def models(tmp_path):
    return make_store(tmp_path / "store")


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.npy"])
def test_workers_keep_the_order(models, tmp_path, monkeypatch, processes, name):
    """Several workers, threads or processes, give the bytes that one gives, bad rows included."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 3000)
    monkeypatch.setattr("litelambda_serving.scoring.formats.npy.CHUNK_BYTES", 1000)
    if processes:
        processes_at_once(monkeypatch)
    rows = make_rows(2000)
    if name == "rows.npy":
        np.save(tmp_path / name, rows)
    else:
        (tmp_path / name).write_bytes(as_jsonl(rows).replace(b"]\n[", b"]\nbad\n[", 3))
    outputs = []
    for count in (1, 3):
        output = tmp_path / f"out{count}.jsonl"
        summary = engine.run_job(job_of(tmp_path / name, output), models, workers=count).summary
        assert summary["rows_out"] == 2000
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]
    found = np.array([line["prediction"] for line in read_jsonl(outputs[0])], np.float32)
    np.testing.assert_array_equal(found, expected(rows))


def test_a_worker_process_that_dies(models, tmp_path, monkeypatch):
    """A killed worker fails the run with its status; no half-written output stays behind."""
    processes_at_once(monkeypatch)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    original = workers._Child.score

    def dying(child, chunk):
        child._process.kill()
        child._process.wait()
        return original(child, chunk)

    with patch.object(workers._Child, "score", dying), pytest.raises(WorkerError, match="-9"):
        engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models, workers=2)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_worker_process_that_cannot_be_started(models, tmp_path, monkeypatch):
    """It is said what the system said; nothing is left half written."""
    processes_at_once(monkeypatch)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    with pytest.raises(WorkerError, match=r"cannot start a worker process: .*No such file"):
        engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models, workers=2)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    ("field", "error"), [("artifact", TypeError), ("decoder", AttributeError)], ids=["start", "chunk"]
)
def test_an_error_in_a_worker_process_is_the_engines_own(models, tmp_path, monkeypatch, field, error):
    """What goes wrong in another process, while it starts or with a chunk, is raised here as itself."""
    processes_at_once(monkeypatch)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    original = workers._Child.__init__

    def broken(child, recipe):
        original(child, replace(recipe, **{field: None}))

    with patch.object(workers._Child, "__init__", broken), pytest.raises(error):
        engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models, workers=2)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_processes_are_started_only_where_they_pay(models, tmp_path, monkeypatch):
    """What one worker is done with in a moment is left to it."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(1000)))
    with patch.object(workers._Child, "__init__", side_effect=AssertionError("started")) as started:
        engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.jsonl"), models, workers=2)
    assert not started.called


@pytest.mark.parametrize(("bytes_a_second", "starts"), [(1_000_000, True), (100_000_000, False)])
def test_whether_processes_pay_is_foreseen(monkeypatch, bytes_a_second, starts):
    """The time that the rest takes is told from what was done after the first chunk."""
    clock = [100.0]
    monkeypatch.setattr(workers, "monotonic", lambda: clock[0])
    with patch.object(workers, "_Child") as child:
        pool = workers.Workers(None, 2, processes=True)
        for done in (1_000_000, 1_100_000, 11_000_000):
            pool.note(done, 50_000_000)
            clock[0] += 10_000_000 / bytes_a_second
        pool.close()
    assert child.called is starts


def test_one_worker_goes_on_until_the_others_are_ready(models, tmp_path, monkeypatch):
    """However long processes take to start, no chunk waits for them; they are ended with the rest."""
    monkeypatch.setattr(workers, "_JUDGED_SECONDS", 0.0)
    monkeypatch.setattr(workers, "_WORTH_SECONDS", 0.0)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 1000)
    rows = make_rows(1000)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    may_start, started = threading.Event(), []
    original, close = workers._Child.__init__, workers.Workers.close

    def slow(child, recipe):
        assert may_start.wait(60)
        original(child, recipe)
        started.append(child)

    def close_late(pool):
        may_start.set()
        futures.wait(pool._starting)
        close(pool)

    monkeypatch.setattr(workers._Child, "__init__", slow)
    monkeypatch.setattr(workers.Workers, "close", close_late)
    engine.run_job(job_of(tmp_path / "rows.jsonl", tmp_path / "out.npy"), models, workers=2)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(rows))
    assert [child._process.returncode for child in started] == [0, 0]


def test_chunks_travel_to_other_processes():
    """A chunk is all that crosses the pipe: its payload comes out as it went in."""
    import pickle

    chunk = Chunk(b"data", 3, {"offset": 4}, 4)
    copy = pickle.loads(pickle.dumps(chunk))
    assert (copy.payload, copy.first, copy.position) == (b"data", 3, {"offset": 4})
