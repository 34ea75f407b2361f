"""What peers that cannot live beside the toolchain need: environments of their own, and the model as ONNX.

Each environment is `.venv-bench-NAME` in the current directory, made on first use from `requirements/bench-NAME.txt`
with its hashes, and again when the lock has changed. The ONNX model is the same quantized graph, converted by tf2onnx;
that takes seconds, so it is kept in `.bench/` by the flatbuffer's digest.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import uv

from litelambda.bench.emulator.environment import library_path
from litelambda.common.errors import BenchError
from litelambda.common.interpreters import find_interpreter
from litelambda.common.paths import REQUIREMENTS

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The running interpreter's version."""

CACHE = Path.cwd() / ".bench"
_OPSET = "17"


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


def convert_to_onnx(flatbuffer: bytes) -> bytes:
    """Convert a flatbuffer with one input and one output.

    Raises:
        BenchError: tf2onnx is not available, or does not know an operator.
    """
    kept = CACHE / "onnx" / f"{hashlib.sha256(flatbuffer).hexdigest()}.onnx"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            _convert(flatbuffer, Path(scratch)).replace(kept)
    return kept.read_bytes()


def _convert(flatbuffer: bytes, folder: Path) -> Path:
    source, target = folder / "model.tflite", folder / "model.onnx"
    source.write_bytes(flatbuffer)
    packages = make_peer_environment("tf2onnx").parents[1] / "lib" / f"python{HERE}" / "site-packages"
    # tf2onnx imports TensorFlow: the toolchain's own, later on the path.
    path = os.pathsep.join([str(packages), library_path()])
    command = [sys.executable, "-m", "tf2onnx.convert", "--tflite", str(source), "--output", str(target)]
    done = subprocess.run(  # noqa: S603 - fixed
        [*command, "--opset", _OPSET],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not target.is_file():
        raise BenchError(f"tf2onnx cannot convert the model: {done.stderr.strip()[-500:]}")
    return target
