"""Files read without a copy: the right bytes, never behind somebody's back, and a copy wherever that cannot be."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scoring_files import expected, make_rows, make_store
from serving.scoring import engine, mapping
from serving.scoring.errors import InputReplacedError
from serving.scoring.files import FileObjects, OpenFile
from serving.scoring.formats import file_rows
from serving.scoring.job import Job
from serving.scoring.mapping import MappedBytes


def can_lease(folder) -> bool:
    """Whether the system gives leases on files here."""
    path = folder / "leased"
    path.write_bytes(b"1")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except (AttributeError, OSError):
        return False
    finally:
        os.close(descriptor)
    return True


@pytest.fixture
def _leases(tmp_path):
    if not can_lease(tmp_path):
        pytest.skip("no leases on files here: nothing is mapped")


@pytest.fixture
def file(tmp_path):
    """A file of 100,000 random bytes."""
    path = tmp_path / "data"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    return path


def opened(path) -> OpenFile:
    info = FileObjects().head(path.as_uri())
    assert info is not None
    return OpenFile(info)


def bytes_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


@pytest.mark.usefixtures("_leases")
def test_bytes_are_where_they_are_said_to_be(monkeypatch, file):
    """Through a window that moves on, and one that is too small, the bytes are those of the file, with none beyond."""
    monkeypatch.setattr(mapping, "_WINDOW_BYTES", 8192)
    monkeypatch.setattr(mapping, "_LARGE_PAGE_BYTES", 4096)
    data = file.read_bytes()
    chooser = np.random.default_rng(1)
    with MappedBytes(opened(file), 5000, 90_000) as mapped:
        starts = np.sort(chooser.integers(5000, 70_000, 200)).tolist()
        for start, size in zip(starts, chooser.integers(1, 19_000, 200).tolist(), strict=True):
            address = mapped.find(start, size, 128)
            assert address % 4096 == start % 4096
            assert bytes_at(address, size) == data[start : start + size]
        assert mapped.find(85_000, 8000, 128) == 0


@pytest.mark.usefixtures("_leases")
@pytest.mark.parametrize(("size", "found"), [(4096, False), (4096 - 127, False), (4096 - 128, True), (100, True)])
def test_what_is_read_beyond_is_memory_too(tmp_path, size, found):
    """Rows at the end of a file whose last page has no room behind them are not handed out."""
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 32)
    with MappedBytes(opened(path), 0, 4096 + size + 128) as mapped:
        address = mapped.find(4096, size, 128)
        assert bool(address) is found
        if found:
            assert bytes_at(address, size + 128) == path.read_bytes()[4096:].ljust(4096, b"\0")[: size + 128]


def test_nothing_is_mapped_while_somebody_writes(file):
    """A file that is open for writing can be cut at any time: there is no address in it."""
    with file.open("r+b"), MappedBytes(opened(file), 0, 100_000) as mapped:
        assert mapped.find(0, 1000, 128) == 0


def test_nothing_is_mapped_where_there_are_no_leases(monkeypatch, file):
    """A system that knows no leases, or refuses this one, has rows copied."""
    monkeypatch.delattr(fcntl, "F_SETLEASE", raising=False)
    with MappedBytes(opened(file), 0, 100_000) as mapped:
        assert mapped.find(0, 1000, 128) == 0


def test_a_file_of_another_version(file):
    """A file that was written after it was listed is refused."""
    stale = opened(file)
    file.write_bytes(b"other")
    with pytest.raises(InputReplacedError):
        MappedBytes(stale, 0, 100)
    assert stale.descriptor == -1, "left open"


CUT = (
    "import os, sys, time; before = time.monotonic(); os.truncate(sys.argv[1], 4096); print(time.monotonic() - before)"
)


@pytest.mark.usefixtures("_leases")
def test_who_cuts_the_file_waits_until_it_is_let_go(file):
    """Whoever cuts the file is held up while an address in it may be used, and no longer; the signal ends nobody."""
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    with MappedBytes(opened(file), 0, 100_000) as mapped:
        address = mapped.find(50_000, 1000, 128)
        cutter = subprocess.Popen([sys.executable, "-c", CUT, str(file)], stdout=subprocess.PIPE, text=True)
        while fcntl.fcntl(mapped._file.descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
            assert cutter.poll() is None, "cut, though it is leased"
            time.sleep(0.01)
        time.sleep(0.3)
        assert file.stat().st_size == 100_000
        assert len(bytes_at(address, 1000)) == 1000
        assert mapped.find(50_000, 1000, 128) == 0
        waited, _ = cutter.communicate(timeout=20)
        assert file.stat().st_size == 4096
        assert 0.3 <= float(waited) < 20


def make_job(monkeypatch, path, output) -> Job:
    """Batches that are mapped in spite of their size, after a first, small chunk, however slow the machine is."""
    monkeypatch.setattr(file_rows, "_CHUNK_SECONDS", 1e9)
    monkeypatch.setattr(file_rows, "_LEAST_MAPPED_BYTES", 0)
    monkeypatch.setattr("serving.scoring.formats.npy._FIRST_CHUNK_BYTES", 5000)
    return Job(path.as_uri(), output.as_uri(), model="tiny_int8", output_format="npy")


@pytest.mark.usefixtures("_leases")
def test_a_file_that_is_cut_while_it_is_scored(tmp_path, monkeypatch):
    """Cut when the model is about to read from it: the job ends with a clear error, nothing is written, nobody dies."""
    models = make_store(tmp_path / "store", batching={"dynamic": True, "verified_sizes": [1, 8]})
    path, output = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(path, make_rows(20_000))
    job = make_job(monkeypatch, path, output)
    find, cutters = MappedBytes.find, []

    def cut_at_first(self, start, size, beyond):
        address = find(self, start, size, beyond)
        if address and not cutters:
            cutters.append(subprocess.Popen([sys.executable, "-c", CUT, str(path)], stdout=subprocess.PIPE))
            time.sleep(1.0)
        return address

    monkeypatch.setattr(MappedBytes, "find", cut_at_first)
    with pytest.raises(InputReplacedError, match="became shorter while it was read"):
        engine.run_job(job, models)
    assert len(cutters) == 1, "nothing was mapped"
    cutters[0].communicate(timeout=20)
    assert [each.name for each in tmp_path.glob("out*")] == []


@pytest.mark.usefixtures("_leases")
@pytest.mark.parametrize(("chunk_seconds", "is_mapped"), [(0.0, False), (1e9, True)])
def test_slow_models_map_nothing(tmp_path, monkeypatch, chunk_seconds, is_mapped):
    """A lease that is held too long is taken away: while chunks are not known to be fast, rows are copied."""
    models = make_store(tmp_path / "store")
    path, output = tmp_path / "rows.npy", tmp_path / "out.npy"
    rows = make_rows(5000)
    np.save(path, rows)
    job = make_job(monkeypatch, path, output)
    monkeypatch.setattr(file_rows, "_CHUNK_SECONDS", chunk_seconds)
    found, find = [], MappedBytes.find
    monkeypatch.setattr(MappedBytes, "find", lambda self, *place: found.append(find(self, *place)) or found[-1])
    engine.run_job(job, models)
    assert any(found) is is_mapped
    np.testing.assert_array_equal(np.load(output), expected(rows))


@pytest.mark.usefixtures("_leases")
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("bad", [None, 0, 11_999, 19_999])
def test_rows_are_not_copied(tmp_path, monkeypatch, workers, bad):
    """One worker runs batches where they lie in the file, with the predictions of single rows, and finds NaN there."""
    monkeypatch.setattr(mapping, "_WINDOW_BYTES", 64 * 1024)
    monkeypatch.setattr(mapping, "_LARGE_PAGE_BYTES", 4096)
    monkeypatch.setattr("serving.scoring.formats.npy.CHUNK_BYTES", 50_000)
    models = make_store(tmp_path / "store", quantization={"scheme": "int8"})
    rows = make_rows(20_000)
    if bad is not None:
        rows[bad, 1] = np.nan
    path, output = tmp_path / "rows.npy", tmp_path / "out.npy"
    np.save(path, rows)
    reader, copied = OpenFile.reader, []

    def counting(self, target, base=0):
        read = reader(self, target, base)
        return lambda offset: (copied.append(len(target)), read(offset))

    monkeypatch.setattr(OpenFile, "reader", counting)
    job = make_job(monkeypatch, path, output)
    engine.run_job(job, models, workers=workers)  # trials of single rows leave others that are not aligned
    copied.clear()
    summary = engine.run_job(job, models, workers=workers, replace=True).summary
    assert summary is not None
    assert summary["rows_bad"] == (bad is not None)
    scored = np.load(output)
    good = np.arange(20_000) != bad
    np.testing.assert_array_equal(scored[good], expected(rows[good]))
    assert np.isnan(scored[~good]).all()
    if bad is None and workers == 1:
        assert sum(copied) < 0.05 * rows.nbytes, "more than what is left of a chunk, and the end of the file"
