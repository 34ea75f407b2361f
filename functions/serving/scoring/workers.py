"""Workers on every core: threads for formats whose work is done without the interpreter's lock, processes for others.

A process is a plain child with a pipe: multiprocessing's queues and pools need the shared memory that Lambda lacks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Protocol

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
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [sys.executable, "-m", "serving.scoring.workers", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the parent's to handle: it hangs up
            )
        try:
            self._connection.send(recipe)
        except OSError as error:
            raise WorkerError("a worker process died before it began") from error

    def score(self, chunk: Chunk) -> Scored:
        try:
            self._connection.send(chunk)
            answer: Scored | BaseException = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"a worker process died (exit status {self._process.poll()})") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(connection: Connection) -> None:
    """The child's side: chunks in, what became of them out, until the other side hangs up."""
    try:
        processor = Processor(connection.recv())
        while True:
            chunk = connection.recv()
            try:
                scored = processor.score(chunk)
                scored.output = bytes(scored.output)  # a view of memory cannot be sent
                answer: Scored | Exception = scored
            except Exception as error:  # noqa: BLE001 - raised again on the other side
                answer = error
            connection.send(answer)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
