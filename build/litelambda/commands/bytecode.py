"""Bytecode in a bundle: an import then reads it and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from litelambda.commands.wheels import PYTHON_VERSION
from litelambda.common.errors import PackageError
from litelambda.common.interpreters import find_interpreter

__all__ = ["add_bytecode", "load_optimized"]

_TASK_ROOT = "/var/task"  # where Lambda puts the bundle: the path that tracebacks show


def add_bytecode(bundle: Path, handler: str, package: str) -> str | None:
    """Compile the sources of a bundle, if the interpreter that the bytecode is for is here.

    Args:
        bundle: what to compile.
        handler: a file in it that is compiled without docstrings, which INIT need not read.
        package: a folder in it that is compiled so too, and whose bytecode takes the place of its sources.

    Returns:
        The interpreter's version, None where there is none.

    Raises:
        PackageError: a source cannot be compiled.
    """
    interpreter = find_interpreter(PYTHON_VERSION)
    if interpreter is None:
        return None
    command = [
        *(str(interpreter.path), "-S", "-s", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(bundle), "-p", _TASK_ROOT),
    ]
    # Sets of constants are marshalled in hash order.
    environment = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")}
    in_place = ["-b", "-o", "2", str(bundle / package)]
    for compiled in (["-x", f"/{package}/", str(bundle)], ["-o", "2", str(bundle / handler)], in_place):
        done = subprocess.run([*command, *compiled], env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
        if done.returncode:
            raise PackageError(f"{interpreter.path} cannot compile the bundle:\n{(done.stdout + done.stderr).strip()}")
    load_optimized(bundle)
    for source in (bundle / package).rglob("*.py"):
        source.unlink()
    return interpreter.version


def load_optimized(folder: Path) -> None:
    """Give bytecode of optimization level 2 the name that an interpreter without the flag -OO loads."""
    for path in folder.rglob("*.opt-2.pyc"):
        path.replace(path.with_name(path.name.replace(".opt-2.", ".")))
