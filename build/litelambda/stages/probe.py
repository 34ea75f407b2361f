"""Runs an artifact in the runtime that ships, in a process of its own, and writes down what came out.

    python -m litelambda.stages.probe JOB.json

is the child: if the runtime corrupts its memory, this process dies and not the build. The job names the model, its
signature, the input rows and the numbers of rows to run one after the other.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import VerificationError
from litelambda.processes import describe_exit, exit_with_parent, lacked_memory, run_child
from litelambda.stages.interpreter import tensor_bytes
from serving.errors import LiteRtError
from serving.litert import CompiledModel
from serving.strings import from_wire, to_wire

_REFUSED = 3


@dataclass(frozen=True)
class _Job:
    model: str
    signature: str
    input_names: list[str]
    inputs: str
    outputs: str
    sizes: list[int]
    strings: dict[str, list[int]]


def probe(
    artifact: bytes, signature: str, rows: Mapping[str, NDArray[Any]], sizes: Sequence[int], folder: Path
) -> dict[str, bytes]:
    """Run an artifact through `serving.litert` in a child process.

    Args:
        artifact: the flatbuffer.
        signature: its entry point.
        rows: rows per input, in the input's own dtype; run from the top, over and over where `sizes` need more.
        sizes: the number of rows of each run.
        folder: for the child's files.

    Returns:
        Per output the bytes of all runs, joined; see `tensor_bytes`.

    Raises:
        VerificationError: the runtime refused the model or a run, or crashed.
        MemoryError: there was too little memory for it, which says nothing of the model.
    """
    (folder / "model.tflite").write_bytes(artifact)
    # Arrays of objects would have to be pickled: strings travel as the bytes of a V2 tensor.
    strings = {name: list(values.shape) for name, values in rows.items() if values.dtype.kind == "O"}
    arrays = [
        np.frombuffer(tensor_bytes(values), np.uint8) if name in strings else values for name, values in rows.items()
    ]
    np.savez(folder / "inputs.npz", *arrays)
    job = _Job(
        str(folder / "model.tflite"),
        signature,
        list(rows),
        str(folder / "inputs.npz"),
        str(folder / "outputs.npz"),
        list(sizes),
        strings,
    )
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", "litelambda.stages.probe", str(folder / "job.json")]
    child = run_child(command)
    if child.returncode == _REFUSED:
        raise VerificationError(child.stdout.strip())
    if child.returncode:
        ended = f"({describe_exit(child.returncode)}) at runs of {list(sizes)} rows"
        if lacked_memory(child.returncode, child.stderr):
            raise MemoryError(f"the process of the runtime that ships was ended {ended}")
        raise VerificationError(f"the runtime crashed {ended}")
    with np.load(job.outputs) as outputs:
        return {name: outputs[f"arr_{index}"].tobytes() for index, name in enumerate(json.loads(child.stdout))}


def _main(job: _Job) -> None:
    with np.load(job.inputs) as arrays:
        rows = {name: arrays[f"arr_{index}"] for index, name in enumerate(job.input_names)}
    for name, shape in job.strings.items():
        flat = from_wire(memoryview(rows[name].tobytes()), name, math.prod(shape))
        rows[name] = np.array(flat, object).reshape(shape)
    try:
        model = CompiledModel(Path(job.model).read_bytes())
        signature = model.signatures[job.signature]
        collected: list[list[bytes]] = [[] for _ in signature.outputs]
        batched = any(spec.batched for spec in signature.inputs)
        start = 0
        for size in job.sizes:
            order = np.arange(start, start + size)
            inputs = [_input(np.take(rows[spec.name], order, axis=0, mode="wrap")) for spec in signature.inputs]
            for parts, output in zip(
                collected, model.run(job.signature, inputs, size if batched else None), strict=True
            ):
                parts.append(output if isinstance(output, bytes) else to_wire(output))
            start += size
        model.close()
    except LiteRtError as error:
        print(error)
        sys.exit(_REFUSED)
    np.savez(job.outputs, *(np.frombuffer(b"".join(parts), np.uint8) for parts in collected))
    print(json.dumps([spec.name for spec in signature.outputs]))


def _input(values: NDArray[Any]) -> Any:
    return values.ravel().tolist() if values.dtype.kind == "O" else values.tobytes()


if __name__ == "__main__":
    exit_with_parent()
    _main(_Job(**json.loads(Path(sys.argv[1]).read_text())))
