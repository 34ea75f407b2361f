"""The benchmarked flatbuffer as ONNX, for the peer that runs ONNX: the same quantized graph, converted by tf2onnx.

The conversion takes seconds, so its result is kept in `.bench/` by the flatbuffer's digest.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from litelambda.bench.emulator.environment import library_path
from litelambda.bench.peers import HERE, make_peer_environment
from litelambda.common.errors import BenchError

CACHE = Path.cwd() / ".bench"
_OPSET = "17"


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
