"""Where a model's bytes go, by the function's memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from litelambda_serving.errors import ModelTooLargeError
from litelambda_serving.store import memory
from litelambda_serving.store.memory import allocate, check_fits, needed_memory_mb

MB = 2**20


@pytest.fixture
def function_of(monkeypatch):
    return lambda megabytes: monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", str(megabytes))


def mapped_from_files() -> set[str]:
    return set(re.findall(r"/\S*litelambda-\S*", Path("/proc/self/maps").read_text()))


def test_memory_is_the_first_choice(function_of):
    """Where a model fits twice, no file is made."""
    function_of(512)
    before = mapped_from_files()
    buffer = allocate("m", 100 * MB)
    assert mapped_from_files() == before
    buffer[:5] = b"12345"
    assert len(buffer) == 100 * MB


@pytest.mark.parametrize("advice", [None, -1], ids=["a system that has no such advice", "a kernel that refuses it"])
def test_huge_pages_are_a_wish(function_of, monkeypatch, advice):
    """Where there are none, the memory is there all the same."""
    function_of(512)
    monkeypatch.setattr(memory, "_HUGE_PAGES", advice)
    buffer = allocate("m", 4 * MB)
    buffer[-5:] = b"12345"
    assert buffer[-5:] == b"12345"


def test_short_memory_maps_a_nameless_file(function_of, monkeypatch, tmp_path):
    """Where it fits once but not twice, the bytes are a file's that nobody can open."""
    monkeypatch.setattr(memory, "_EPHEMERAL_STORAGE", str(tmp_path))
    function_of(128)
    buffer = allocate("m", 60 * MB)
    assert list(tmp_path.iterdir()) == []
    assert any(str(tmp_path) in path for path in mapped_from_files())
    buffer[:5] = b"12345"
    assert buffer[:5] == b"12345"


def test_too_large_is_an_error_with_the_size_to_set(function_of):
    """The message names the memory size that would do, and that size does."""
    function_of(128)
    for refuse in (check_fits, allocate):
        with pytest.raises(ModelTooLargeError, match="too large for this function's 128 MB") as caught:
            refuse("m", 200 * MB)
        size = int(str(caught.value).rpartition(" ")[2])
        assert size == needed_memory_mb(200 * MB)
    function_of(size)
    check_fits("m", 200 * MB)


def test_a_full_disk_is_an_error_with_the_size_to_set(function_of, monkeypatch):
    """Where the file has no room either, the message names both settings."""
    monkeypatch.setattr(memory.os, "statvfs", lambda path: type("Full", (), {"f_bavail": 1, "f_frsize": 4096}))
    function_of(128)
    with pytest.raises(ModelTooLargeError, match="Set EphemeralStorage to at least 124 MB, or MemorySize"):
        allocate("m", 60 * MB)


def test_without_a_function_there_is_no_limit(monkeypatch):
    """On a developer's machine nothing is refused."""
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False)
    check_fits("m", 10**12)
