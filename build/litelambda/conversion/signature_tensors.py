"""The tensors of a signature: inputs under their own names, and every output in a tensor of its own.

TensorFlow accepts only some names for the inputs of a SavedModel, so others are converted under a name that it accepts.
And its converter lets outputs share a tensor, even with an input, which the runtime does not write: reading such an
output returns undefined values.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import read_signatures

_NAMES_FILE = "litelambda_names.json"
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = {"self"}  # by the function that a signature is called through


def safe_names(names: Sequence[str]) -> list[str]:
    """Names for inputs in a SavedModel: their own where TensorFlow accepts them, else `input_0`, ….

    >>> safe_names(["image", "class", "2nd"])
    ['image', 'input_1', 'input_2']
    """
    taken = {name.lower() for name in names}
    given: dict[str, None] = {}
    for index, name in enumerate(names):
        safe = name
        if not _is_safe(name) or any(name.lower() == other.lower() for other in given):
            safe = next(each for number in count(index) if (each := f"input_{number}") not in {*taken, *given})
        given[safe] = None
    return list(given)


def _is_safe(name: str) -> bool:
    return _SAFE.fullmatch(name) is not None and not keyword.iskeyword(name) and name not in _TAKEN


@dataclass(frozen=True)
class Names:
    """Names that a SavedModel does not keep.

    Attributes:
        inputs: the inputs' own names, by those in the SavedModel.
        layers: of the Keras model that it was made from.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    layers: Sequence[str] = ()


def write_names(saved_model: Path, names: Names) -> None:
    """Write them into the SavedModel's folder."""
    (saved_model / _NAMES_FILE).write_text(json.dumps(asdict(names)))


def read_names(saved_model: Path) -> Names:
    """Read what `write_names` wrote; empty for a SavedModel from elsewhere."""
    noted = saved_model / _NAMES_FILE
    return Names(**json.loads(noted.read_text())) if noted.exists() else Names()


def with_own_edges(artifact: bytes, names: Mapping[str, str]) -> bytes:
    """Give a flatbuffer's inputs their own names, and outputs that share a tensor a copy each.

    Args:
        artifact: the flatbuffer; returned unchanged where that is so already.
        names: inputs' own names by those in the flatbuffer.
    """
    renamed = any(names.get(tensor.name, tensor.name) != tensor.name for tensor in _inputs(artifact))
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))
    copied = [_copy_shared(model, definition) for definition in model.signatureDefs or []]
    if not renamed and not any(copied):
        return artifact
    for definition in model.signatureDefs:
        for entry in definition.inputs:
            entry.name = names.get(entry.name.decode(), entry.name.decode()).encode()
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _inputs(artifact: bytes) -> list[Any]:
    return [tensor for signature in read_signatures(artifact) for tensor in signature.inputs]


def _copy_shared(model: Any, definition: Any) -> bool:
    """Append a copy for every output whose tensor is an input or an earlier output.

    Returns:
        Whether there was one.
    """
    graph = model.subgraphs[definition.subgraphIndex]
    taken = {int(index) for index in graph.inputs}
    copied = False
    for entry in definition.outputs:
        if entry.tensorIndex in taken:
            entry.tensorIndex = _append_copy(model, graph, entry.tensorIndex)
            copied = True
        taken.add(int(entry.tensorIndex))
    if copied:
        graph.outputs = [entry.tensorIndex for entry in definition.outputs]
    return copied


def _append_copy(model: Any, graph: Any, source: int) -> int:
    """Append a RESHAPE to the same shape.

    Returns:
        The index of the tensor that it makes.
    """
    import copy

    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    original = graph.tensors[source]
    shape = original.shapeSignature if original.shapeSignature is not None else original.shape
    sizes = np.array([] if shape is None else shape, np.int32)
    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = np.frombuffer(sizes.tobytes(), np.uint8)
    shape_tensor = schema.TensorT()
    shape_tensor.name, shape_tensor.type = original.name + b"_shape", schema.TensorType.INT32
    shape_tensor.shape, shape_tensor.buffer = np.array([len(sizes)], np.int32), len(model.buffers) - 1
    model.buffers.append(schema.BufferT())
    target = copy.copy(original)
    target.name, target.buffer = f"{original.name.decode()}_copy{len(graph.tensors)}".encode(), len(model.buffers) - 1
    graph.tensors += [shape_tensor, target]
    operator = schema.OperatorT()
    operator.opcodeIndex = _reshape_code(model, schema)
    operator.inputs, operator.outputs = [source, len(graph.tensors) - 2], [len(graph.tensors) - 1]
    graph.operators = [*(graph.operators if graph.operators is not None else []), operator]
    return len(graph.tensors) - 1


def _reshape_code(model: Any, schema: Any) -> int:
    reshape = schema.BuiltinOperator.RESHAPE
    codes = model.operatorCodes = list(model.operatorCodes if model.operatorCodes is not None else [])
    for index, code in enumerate(codes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == reshape:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = reshape
    code.version = 1
    codes.append(code)
    return len(codes) - 1
