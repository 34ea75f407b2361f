"""Starts the converter's processes of a benchmark as forks of one that has TensorFlow already: half the time of a case.

It must be made while this process has done nothing with TensorFlow, whose threads do not survive a fork.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from litelambda.conversion import converter


class ForkingLauncher:
    """In place of `stages.converter_process.ConverterProcess`: each fork starts without what the one before it left."""

    def __init__(self) -> None:
        jobs, self._jobs = os.pipe()
        self._statuses, statuses = os.pipe()
        if os.fork() == 0:
            os.close(self._jobs)  # so that the pipe ends with the process that holds the other side
            _serve(jobs, statuses)

    def __call__(self, jobs: Path) -> subprocess.CompletedProcess[str]:
        """Run the conversions that a file lists."""
        os.write(self._jobs, f"{jobs}\n".encode())
        status = int(os.read(self._statuses, 16))
        return subprocess.CompletedProcess([str(jobs)], os.waitstatus_to_exitcode(status), "", "")


def _serve(jobs: int, statuses: int) -> None:
    with os.fdopen(jobs) as lines:
        for line in lines:
            child = os.fork()
            if child == 0:
                _convert(Path(line.strip()))
            os.write(statuses, str(os.waitpid(child, 0)[1]).encode())
    os._exit(0)


def _convert(jobs: Path) -> None:
    try:
        returncode = converter.run_jobs(jobs)
    except BaseException as error:  # noqa: BLE001 - a fork must never go on as its parent
        print(error, file=sys.stderr)
        returncode = 1
    os._exit(returncode)
