"""Inputs, models and contexts for the tests of batch scoring."""

from __future__ import annotations

import json
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running import workers
from support import golden_store

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    Array = np.ndarray[Any, np.dtype[Any]]

MODEL = "tiny_int8"


class Context:
    """Lambda's context: so many seconds from now on."""

    def __init__(self, seconds: float = 900.0) -> None:
        self.aws_request_id = "request"
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function would be stopped."""
        return max(int((self._end - time.monotonic()) * 1000), 0)


def make_store(root: Path, name: str = MODEL, version: int = 1, **fields: Any) -> ModelSource:
    """A store with one golden model."""
    golden_store.publish(root, name, version, **fields)
    return ModelSource(root.as_uri())


def job_of(path: Path, output: Path, **options: Any) -> Job:
    """A job on local files, whose output's format is that of its name."""
    return Job(path.as_uri(), output.as_uri(), model=MODEL, output_format=output.suffix[1:], **options)


def expected(rows: Array, name: str = MODEL) -> Array:
    """What the reference Interpreter says of each row, run one by one."""
    interpreter = Interpreter(model_content=golden_store.golden(name))
    runner = interpreter.get_signature_runner()
    (given,), (made,) = runner.get_input_details(), runner.get_output_details()
    return np.concatenate([runner(**{given: row[None]})[made] for row in rows])


def processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have worker processes started after the second chunk, however little is left, and the third wait for them."""
    monkeypatch.setattr(workers, "_JUDGED_SECONDS", 0.0)
    monkeypatch.setattr(workers, "_WORTH_SECONDS", 0.0)
    note = workers.Workers.note

    def note_and_wait(self: workers.Workers, done: int, total: int) -> None:
        note(self, done, total)
        futures.wait(self._starting)

    monkeypatch.setattr(workers.Workers, "note", note_and_wait)


def make_rows(count: int, width: int = 4, seed: int = 0) -> Array:
    """Random float32 rows in [0, 1)."""
    return np.random.default_rng(seed).random((count, width), dtype=np.float32)


def as_jsonl(rows: Array, name: str = "", **extra: list[Any]) -> bytes:
    """Rows as JSON Lines: bare values, or objects with the input's name and what passes through."""
    if not name:
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows.tolist())
    columns = [dict(zip(extra, values, strict=True)) for values in zip(*extra.values(), strict=True)] or [{}] * len(
        rows
    )
    return b"".join(
        json.dumps({name: row, **columns[index]}).encode() + b"\n" for index, row in enumerate(rows.tolist())
    )


def read_jsonl(data: bytes) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in data.splitlines()]
