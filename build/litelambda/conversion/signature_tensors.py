"""The edges of a flatbuffer: its inputs under their own names, and every output in a tensor of its own.

TensorFlow takes only some names for the inputs of a SavedModel, so others are converted under a name that it takes. And
its converter lets outputs share a tensor, with an input too: what is an input is never computed, and who reads it back
gets whatever lies there.
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
    """The names that inputs have in a SavedModel: their own where TensorFlow takes these, else `input_0`, …."""
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
    """What a SavedModel does not say.

    Attributes:
        inputs: the inputs' own names, by those that it has for them.
        layers: of the model that it was made of.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    layers: Sequence[str] = ()


def write_names(saved_model: Path, names: Names) -> None:
    """Note them beside the SavedModel's own files."""
    (saved_model / _NAMES_FILE).write_text(json.dumps(asdict(names)))


def read_names(saved_model: Path) -> Names:
    """Those that were noted; none for a SavedModel from elsewhere."""
    noted = saved_model / _NAMES_FILE
    return Names(**json.loads(noted.read_text())) if noted.exists() else Names()


def with_own_edges(artifact: bytes, names: Mapping[str, str]) -> bytes:
    """Give a flatbuffer's inputs their own names, and outputs that share a tensor one each, a copy.

    Args:
        artifact: the flatbuffer; it is returned as it is where there is nothing to do.
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
    """Append a copy for every output of a signature whose tensor is an input or another output; whether there was any.

    An output that is computed once keeps its tensor.
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
    """Append a RESHAPE to the same shape; the index of the tensor that it makes."""
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
