"""Functions of this package in a Python process of their own: what crashes or never ends there ends there alone.

A call travels as a pickle through a pipe, and so does its result, of which only data is read. A child that is kept for
later calls saves their imports: 5 s for TensorFlow. Whatever becomes of the parent, SIGKILL included, no child outlives
it. A child opens models from elsewhere: it is confined, see `confinement`, and what it answers is not trusted.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, ParamSpec, Self, TypeVar

from litelambda.common.confinement import confine
from litelambda.common.data_pickles import load_data
from litelambda.common.errors import LitelambdaError
from litelambda_serving.errors import ServingError

P = ParamSpec("P")
T = TypeVar("T")

_LARGE_BYTES = 1024**3
"""The most memory that a child may hold after a call to be kept: the rest of the build needs memory too."""


@functools.cache
def shared_folder() -> Path:
    """The folder that children may write to, and where their temporary files are. It goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="litelambda-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class ChildCrashError(Exception):
    """A child died in a call, was left by an exception that is not one of this project's, or answered with no data.

    Attributes:
        ended: how, as "SIGSEGV" or "exit code 1".
        stderr: what it wrote there, and on stdout, during the call.
        for_memory: it most likely ran out of memory: the kernel killed it, or its stderr says so.
    """

    def __init__(self, ended: str, stderr: str = "") -> None:
        self.ended, self.stderr = ended, stderr
        self.for_memory = ended == "SIGKILL" or "bad_alloc" in stderr or "MemoryError" in stderr
        super().__init__(self.last_line if ended.startswith("exit code") and self.last_line else ended)

    @property
    def last_line(self) -> str:
        """The last line that the child wrote: of an exception, its name and message."""
        return (self.stderr.strip().splitlines() or [""])[-1][:300]


class ChildProcess:
    """Calls functions in a child, which is started with the first call, and again after it died.

    An exception in the parent, such as Ctrl-C, kills the child and waits until it has ended. A context manager that
    closes it.

    Args:
        environ: variables that only the child has.
        timeout_s: how long a call may take, or None.
        confined: whether it is kept from the network, and from files outside `shared_folder`; see `confinement`.

    Example:
        >>> import math
        >>> with ChildProcess() as child:
        ...     child.call(math.gcd, 12, 18)
        6
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, timeout_s: float | None = None, *, confined: bool = True
    ) -> None:
        self._environ, self._timeout_s, self._confined = environ or {}, timeout_s, confined
        self._child: tuple[subprocess.Popen[bytes], Connection, IO[bytes]] | None = None

    def call(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Call a function in the child; where the child had other calls before and dies, again in a new one.

        Args:
            function: of a module, by whose name the child imports it.
            arguments: to pickle, as is the result, which is data alone: see `data_pickles`.
            keywords: as the arguments.

        Raises:
            ChildCrashError: the child died.
            TimeoutError: the call took too long; the child is gone.
            LitelambdaError, ServingError: as the function raised it.
        """
        was_kept = self._child is not None
        try:
            return self._call((function, arguments, keywords))
        except ChildCrashError:
            if not was_kept:
                raise
        return self._call((function, arguments, keywords))  # earlier calls may have caused it: a new child tells

    def _call(self, called: tuple[Callable[..., T], object, object]) -> T:
        child, pipe, stderr = self._child = self._child or self._start()
        stderr.seek(0)  # the child writes at the same position
        stderr.truncate()
        try:
            pipe.send(called)
            answer = load_data(pipe.recv_bytes()) if pipe.poll(self._timeout_s) else None
        except (EOFError, ConnectionError):
            returncode = child.wait()
            stderr.seek(0)
            said = stderr.read().decode(errors="replace")
            self.close()
            ended = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
            raise ChildCrashError(ended, said) from None
        except pickle.UnpicklingError as not_data:
            self.close()
            raise ChildCrashError(f"its answer is not read: {not_data}") from not_data
        except BaseException:
            self.close()
            raise
        if answer is None:
            self.close()
            raise TimeoutError(f"not done after {self._timeout_s:g} s")
        result, error, is_large = answer
        if is_large:
            self.close()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]  # what the function returned

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection, IO[bytes]]:
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        ours, theirs = Pipe()
        writable = [str(shared_folder())] if self._confined else []
        with theirs:
            child = subprocess.Popen(  # noqa: S603 - this module
                [sys.executable, "-m", __name__, str(theirs.fileno()), *writable],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "TMPDIR": str(shared_folder()), **self._environ},
            )
        atexit.register(self.close)
        return child, ours, stderr

    def close(self) -> None:
        """End the child, if there is one."""
        started, self._child = self._child, None
        if started is not None:
            child, pipe, stderr = started
            child.kill()
            child.communicate()
            pipe.close()
            stderr.close()
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def call_in_child(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Call a function in a process that has done nothing before, and does nothing after; see `ChildProcess.call`."""
    with ChildProcess() as child:
        return child.call(function, *arguments, **keywords)


def _serve(pipe: Connection, writable: Sequence[str]) -> None:
    """In the child: answer calls until the parent ends this process."""
    if writable:
        confine(map(Path, writable))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        function, arguments, keywords = pipe.recv()
        result, raised = None, None
        try:
            result = function(*arguments, **keywords)
        except (LitelambdaError, ServingError) as error:
            raised = error
        pipe.send((result, raised, _held_bytes() > _LARGE_BYTES))


def _end_with_parent() -> None:
    os.read(0, 1)  # unbuffered: a lock held on sys.stdin would abort the interpreter's shutdown
    os._exit(1)


def _held_bytes() -> int:
    """The memory that this process holds; the most that it ever held where the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2:])
