"""Workers on every core: threads for formats whose work is done without the interpreter's lock, processes for others.

A process is a plain child with a pipe. concurrent.futures' pool needs semaphores, which Lambda lacks; it also runs the
caller's `__main__` again, and is slower: 500 MB of JSON Lines (784 values per row, a small MLP) on two busy cores took
18.3 s and 6.4 s of CPU time with its two processes, 12.2 s and 6.0 s with two of these, 16.4 s and 3.9 s in one process
(medians of six runs each, in turns). Memory that is shared instead of a pipe saved 7 % more, in 60 lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from litelambda_serving.scoring.errors import WorkerError
from litelambda_serving.scoring.running.processor import Processor

if TYPE_CHECKING:
    from litelambda_serving.scoring.formats.base import Chunk
    from litelambda_serving.scoring.running.processor import Scored, WorkerSpec

    class _Worker(Protocol):
        def score(self, chunk: Chunk) -> Scored: ...

        def close(self) -> None: ...


__all__ = ["Workers", "available_cores"]

_CLOSE_SECONDS = 5
# A process takes some 0.3 s of a core to start, and two on two cores are 1.5 times as fast as one.
_WORTH_SECONDS = 1.5
_JUDGED_SECONDS = 0.1  # what one worker must have been watched for


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Scores chunks side by side.

    Processes are started only once the rest of the input would take one worker long, and that one, in this process,
    continues until they are ready: no input is done later for having them. A single worker scores at once what it is
    handed, while others read ahead and write the results.

    Args:
        spec: what a worker needs to know.
        count: how many.
        processes: whether each is a process of its own.
    """

    def __init__(self, spec: WorkerSpec, count: int, *, processes: bool) -> None:
        self._spec = spec
        self._most = count
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._made: list[_Worker] = []
        self._may_start = processes and count > 1
        self._starting: list[Future[_Child]] = []
        self._watched: tuple[float, int] | None = None  # since when, and how much was done then
        self._is_alone = processes or count == 1
        self._executor = None if self._is_alone else self._threads()

    @property
    def count(self) -> int:
        """How many work side by side now."""
        return 1 if self._is_alone else self._most

    def submit(self, chunk: Chunk) -> Future[Scored]:
        """Hand a chunk to the next worker that is free.

        Raises:
            WorkerError: a process did not start.
        """
        if self._starting and all(future.done() for future in self._starting):
            self._hand_over()
        if self._executor is not None and not self._is_alone:
            return self._executor.submit(self._score, chunk)
        scored: Future[Scored] = Future()
        scored.set_result(self._score(chunk))
        return scored

    def note(self, done: int, total: int) -> None:
        """Learn how many bytes of the input are done, of how many: whether to start processes."""
        if not self._may_start:
            return
        now = monotonic()
        if self._watched is None:  # the first chunk is slower: it searches for a batch size
            self._watched = now, done
            return
        seconds, size = now - self._watched[0], done - self._watched[1]
        if seconds >= _JUDGED_SECONDS and size > 0 and (total - done) * seconds / size >= _WORTH_SECONDS:
            self._may_start = False
            self._executor = self._threads()
            self._starting = [self._executor.submit(_Child, self._spec) for _ in range(self._most)]

    def close(self) -> None:
        """Wait for the chunks that are being worked on, drop the others, and end the workers."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
        started = [each for each in self._starting if not each.cancelled() and each.exception() is None]
        for worker in (*self._made, *(each.result() for each in started)):
            worker.close()
        self._made, self._starting = [], []

    def _hand_over(self) -> None:
        """Leave what is to come to the processes. The worker here is dropped: they need the memory."""
        children = [future.result() for future in self._starting]
        self._made, self._starting = [*children], []
        self._idle = SimpleQueue()
        for child in children:
            self._idle.put(child)
        self._is_alone = False

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._most, thread_name_prefix="score")

    def _score(self, chunk: Chunk) -> Scored:
        worker: _Worker
        try:
            worker = self._idle.get_nowait()
        except Empty:
            worker = Processor(self._spec)
            self._made.append(worker)
        try:
            return worker.score(chunk)
        finally:
            self._idle.put(worker)


class _Child:
    """A worker in a process of its own."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Start it, and wait until it is ready.

        Raises:
            WorkerError: it cannot be started, or died.
        """
        self._connection, theirs = Pipe()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                    [sys.executable, "-m", "litelambda_serving.scoring.running.workers", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
                    stdin=subprocess.DEVNULL,
                    stdout=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,  # what own code prints
                    start_new_session=True,  # Ctrl-C is the parent's to handle: it hangs up
                )
        except OSError as error:
            self._connection.close()
            raise WorkerError(f"cannot start a worker process: {error}") from error
        try:
            self._ask(spec)
        except BaseException:
            self.close()
            raise

    def score(self, chunk: Chunk) -> Scored:
        """See `Processor.score`.

        Raises:
            WorkerError: the process died.
        """
        scored: Scored = self._ask(chunk)
        return scored

    def _ask(self, question: object) -> Any:
        try:
            self._connection.send(question)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            with suppress(subprocess.TimeoutExpired):  # it hung up: how it ends is known in a moment
                self._process.wait(_CLOSE_SECONDS)
            raise WorkerError(f"a worker process died (exit status {self._process.poll()})") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """Hang up, and wait for its end."""
        self._connection.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(connection: Connection) -> None:
    """The child's side: what a worker needs to know, then chunks, each answered, until the other side hangs up."""
    processor: Processor | None = None
    answer: Scored | Exception | None
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            question = connection.recv()
            try:
                if processor is None:
                    processor, answer = Processor(question), None
                else:
                    answer = processor.score(question)
                    answer.output = bytes(answer.output)  # a view of memory cannot be sent
            except Exception as error:  # noqa: BLE001 - raised again on the other side
                answer = error
            connection.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
