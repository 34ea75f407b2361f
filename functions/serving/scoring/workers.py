"""Workers on every core: threads for formats whose work is done without the interpreter's lock, processes for others.

A process is a plain child with a pipe: multiprocessing's queues and pools need the shared memory that Lambda lacks. The
bytes of a chunk go through a file that both have mapped: through a pipe, they would take as long as parsing them.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, BinaryIO, Protocol

from serving.scoring.errors import WorkerError
from serving.scoring.processor import Processor

if TYPE_CHECKING:
    from serving.scoring.formats.base import Chunk
    from serving.scoring.processor import Recipe, Scored

    class _Worker(Protocol):
        def score(self, chunk: Chunk) -> Scored: ...

        def close(self) -> None: ...


__all__ = ["Workers", "available_cores"]

_CLOSE_SECONDS = 5
_SHARED_BYTES = 2 * 1024 * 1024  # a chunk of text has half of it, unless its last line is longer


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Scores chunks side by side; a single worker scores them at once, while others read ahead and write behind it.

    Args:
        recipe: what a worker needs to know.
        count: how many.
        processes: whether each is a process of its own.
    """

    def __init__(self, recipe: Recipe, count: int, *, processes: bool) -> None:
        self._recipe = recipe
        self._processes = processes
        self._local = threading.local()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        alone = count == 1 and not processes
        self._executor = None if alone else ThreadPoolExecutor(count, thread_name_prefix="score")
        self.count = count

    def submit(self, chunk: Chunk) -> Future[Scored]:
        """Hand a chunk to the next worker that is free."""
        if self._executor is not None:
            return self._executor.submit(self._score, chunk)
        scored: Future[Scored] = Future()
        scored.set_result(self._score(chunk))
        return scored

    def close(self) -> None:
        """Wait for the chunks that are being worked on, drop the others, and end the workers."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def _score(self, chunk: Chunk) -> Scored:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = _Child(self._recipe) if self._processes else Processor(self._recipe)
            self._local.worker = worker
            with self._lock:
                self._workers.append(worker)
        return worker.score(chunk)


class _Child:
    """A worker in a process of its own."""

    def __init__(self, recipe: Recipe) -> None:
        self._connection, theirs = Pipe()
        with theirs, _memory() as memory:
            self._shared = mmap.mmap(memory.fileno(), _SHARED_BYTES)
            descriptors = [theirs.fileno(), memory.fileno()]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [sys.executable, "-m", "serving.scoring.workers", *map(str, descriptors)],
                pass_fds=descriptors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to handle: it hangs up
            )
        try:
            self._connection.send(recipe)
        except OSError as error:
            raise WorkerError("a worker process died before it began") from error

    def score(self, chunk: Chunk) -> Scored:
        shared_bytes = 0
        if isinstance(chunk.payload, bytes) and len(chunk.payload) <= _SHARED_BYTES:
            shared_bytes = len(chunk.payload)
            self._shared[:shared_bytes] = chunk.payload
            chunk = replace(chunk, payload=b"")
        try:
            self._connection.send((chunk, shared_bytes))
            answer: Scored | BaseException = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"a worker process died (exit status {self._process.poll()})") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self._connection.close()
        self._shared.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _memory() -> BinaryIO:
    """A file of zeros that is in memory, or has no name."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = open(os.memfd_create("chunk"), "r+b")  # noqa: SIM115 - the caller's to close
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - likewise
    file.truncate(_SHARED_BYTES)
    return file


def _serve(connection: Connection, shared: mmap.mmap) -> None:
    """The child's side: chunks in, what became of them out, until the other side hangs up."""
    try:
        processor = Processor(connection.recv())
        while True:
            chunk, shared_bytes = connection.recv()
            if shared_bytes:
                chunk.payload = shared[:shared_bytes]
            try:
                scored = processor.score(chunk)
                scored.output = bytes(scored.output)  # a view of memory cannot be sent
                answer: Scored | Exception = scored
            except Exception as error:  # noqa: BLE001 - raised again on the other side
                answer = error
            connection.send(answer)
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), mmap.mmap(int(sys.argv[2]), 0, access=mmap.ACCESS_READ))
