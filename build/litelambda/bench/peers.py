"""Environments of their own for peers that cannot live beside the toolchain, made on first use from hashed locks.

Each is a virtual environment `.venv-bench-NAME` in the current directory, from `requirements/bench-NAME.txt`, made
again when the lock has changed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import uv

from litelambda.common.errors import BenchError
from litelambda.common.interpreters import find_interpreter
from litelambda.common.paths import REQUIREMENTS

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The running interpreter's version."""


def make_peer_environment(name: str, version: str = HERE) -> Path:
    """Make the environment of a peer, or find it made.

    Args:
        name: which lock: `requirements/bench-NAME.txt`.
        version: of Python, such as "3.11".

    Returns:
        Its interpreter, `FOLDER/bin/python`.

    Raises:
        BenchError: this machine has no such interpreter, or the packages cannot be installed for it.
    """
    lock = REQUIREMENTS / f"bench-{name}.txt"
    folder = Path.cwd() / f".venv-bench-{name}"
    python = folder / "bin" / "python"
    stamp = folder / "made-from"
    made_from = f"{version} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == made_from:
        return python
    interpreter = find_interpreter(version)
    if interpreter is None:
        raise BenchError(f"{name} needs CPython {version}, which is not on this machine")
    if sys.stderr.isatty():
        print(f"making {folder.name} from the locked {lock.name}", file=sys.stderr)
    _uv(name, "venv", "--clear", "--python", str(interpreter.path), str(folder))
    _uv(
        name, "pip", "sync", "--compile-bytecode", "--require-hashes", "--only-binary", ":all:",
        "--python", str(python), str(lock),
    )  # fmt: skip
    stamp.write_text(made_from, encoding="utf-8")
    return python


def _uv(name: str, *arguments: str) -> None:
    command = [uv.find_uv_bin(), "--quiet", "--no-config", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    if done.returncode:
        raise BenchError(f"the environment of {name} cannot be made: {done.stderr.strip()}")
