"""Reads a .tflite flatbuffer without running it: its signatures, and which of its operators compute in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.data_flow import DataFlow

SIGNATURE = "predict"
"""The entry point of what is converted here; not "serve": a SavedModel endpoint of that name silently drops others."""
UNNAMED_SIGNATURE = "<placeholder signature>"
"""What LiteRT calls the only entry point of a model that names none."""

_EDGE_OPERATORS = {"QUANTIZE", "DEQUANTIZE"}
_SPLIT_OPERATORS = {"SPLIT", "SPLIT_V", "UNPACK"}


@dataclass(frozen=True)
class FlatbufferTensor:
    """One input or output of a signature.

    Attributes:
        name: as the signature calls it.
        dtype: numpy's name of the element type.
        shape: sizes, -1 for a batch dimension.
        quantization: (scale, zero_point) where the tensor is quantized as a whole.
        limits: of an input, the smallest and the largest index, where the graph looks rows up with it.
        same_as: of an output, the name of an earlier one that is the same tensor.
        constant: of an output, whether it is the same for every input.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: tuple[float, int] | None
    limits: tuple[int, int] | None = None
    same_as: str = ""
    constant: bool = False

    def to_json(self) -> dict[str, Any]:
        """The tensor as the manifest describes it."""
        scheme = self.quantization and {"scale": self.quantization[0], "zero_point": self.quantization[1]}
        fields: dict[str, Any] = {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "quantization": scheme,
        }
        if self.limits:
            fields["range"] = list(self.limits)
        if self.same_as:
            fields["same_as"] = self.same_as
        return {**fields, "constant": True} if self.constant else fields


@dataclass(frozen=True)
class FlatbufferSignature:
    """A named entry point; inputs and outputs in the order of the flatbuffer."""

    key: str
    inputs: tuple[FlatbufferTensor, ...]
    outputs: tuple[FlatbufferTensor, ...]

    def to_json(self) -> dict[str, Any]:
        """The signature as the manifest describes it."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        return {side: [tensor.to_json() for tensor in tensors] for side, tensors in sides.items()}


def read_signatures(artifact: bytes | Path) -> tuple[FlatbufferSignature, ...]:
    """List the entry points of a flatbuffer; without any, its first graph under the name that the runtime gives it.

    >>> from litelambda.common.paths import PROJECT
    >>> (signature,) = read_signatures(PROJECT / "tests/golden/tiny_int8.tflite")
    >>> signature.key, [(tensor.name, tensor.dtype, tensor.shape) for tensor in signature.inputs]
    ('predict', [('x', 'float32', (-1, 4))])
    """
    model = parse(artifact)
    names = operator_names(model)
    signatures = []
    for definition in model.signatureDefs or []:
        graph = model.subgraphs[definition.subgraphIndex]
        sides = (_named(definition.inputs), _named(definition.outputs))
        signatures.append(_signature(definition.signatureKey.decode(), *sides, graph, DataFlow(model, graph, names)))
    if not signatures:
        graph = model.subgraphs[0]
        inputs, outputs = (
            [(graph.tensors[index].name.decode(), int(index)) for index in side]
            for side in (graph.inputs, graph.outputs)
        )
        signatures.append(_signature(UNNAMED_SIGNATURE, inputs, outputs, graph, DataFlow(model, graph, names)))
    return tuple(signatures)


def takes_sizes_at_run_time(artifact: bytes | Path) -> bool:
    """Whether a flatbuffer computes with its tensors' sizes, which are stale in LiteRT after a resize.

    With an open batch TOPK_V2 allocates its outputs while it runs, which LiteRT refuses.
    """
    return not {"SHAPE", "TOPK_V2"}.isdisjoint(operator_names(parse(artifact)))


def with_open_batch(signature: FlatbufferSignature) -> FlatbufferSignature:
    """Declare the batch of a model for exactly one row open: any number of rows can be run, one by one."""
    tensors = (*signature.inputs, *signature.outputs)
    if not all(tensor.shape and tensor.shape[0] == 1 for tensor in tensors):
        return signature
    inputs, outputs = (
        tuple(replace(tensor, shape=(-1, *tensor.shape[1:])) for tensor in side)
        for side in (signature.inputs, signature.outputs)
    )
    return replace(signature, inputs=inputs, outputs=outputs)


def float_operators(artifact: bytes | Path) -> list[str]:
    """Name the operators that compute in float: see `count_float_operators`."""
    return sorted(count_float_operators(artifact))


def count_float_operators(artifact: bytes | Path) -> dict[str, int]:
    """Count, by name, the operators that compute in float: float activations in or out, and no integer weights.

    The QUANTIZE and DEQUANTIZE at a quantized model's edges do not count.

    >>> from litelambda.common.paths import PROJECT
    >>> count_float_operators(PROJECT / "tests/golden/tiny_int8.tflite")
    {}
    """
    model = parse(artifact)
    names = operator_names(model)
    found: dict[str, int] = {}
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            name = names[operator.opcodeIndex]
            if name not in _EDGE_OPERATORS and _is_float(model, graph, operator):
                found[name] = found.get(name, 0) + 1
    return found


def scheme_of(artifact: bytes | Path) -> str:
    """The scheme by which a flatbuffer is quantized: int8, dynamic, float16, or float32 where it is not."""
    model, types = parse(artifact), _schema().TensorType
    found = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            scheme = tensor.quantization
            is_quantized = scheme is not None and scheme.scale is not None and len(scheme.scale) > 0
            data = model.buffers[tensor.buffer].data
            is_weight = data is not None and np.size(data) > 0
            if is_quantized and tensor.type in (types.INT8, types.UINT8, types.INT16, types.INT4):
                found.add("dynamic" if is_weight else "int8")
            elif is_weight and tensor.type == types.FLOAT16:
                found.add("float16")
    return next((each for each in ("int8", "dynamic", "float16") if each in found), "float32")


def count_half_read_float_splits(artifact: bytes | Path) -> int:
    """Count the operators that split a float tensor into several, some of which are never read."""
    model = parse(artifact)
    names = operator_names(model)
    found = 0
    for graph in model.subgraphs:
        operators = graph.operators or []
        read = {int(index) for operator in operators for index in operator.inputs} | {int(i) for i in graph.outputs}
        for operator in operators:
            if names[operator.opcodeIndex] in _SPLIT_OPERATORS and _is_float(model, graph, operator):
                found += not read.issuperset(operator.outputs)
    return found


def fully_connected(artifact: bytes | Path, weights: Mapping[str, NDArray[Any]]) -> dict[str, list[str]]:
    """Find operators by the weights that they multiply with: names do not survive a conversion, values do.

    Args:
        artifact: a float flatbuffer.
        weights: by any name, as (outputs, inputs).

    Returns:
        By the same names, the output tensors of the FULLY_CONNECTED operators with these weights; only those found.
    """
    model = parse(artifact)
    names = operator_names(model)
    wanted = {np.ascontiguousarray(values, np.float32).tobytes(): name for name, values in weights.items()}
    found: dict[str, list[str]] = {}
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if names[operator.opcodeIndex] == "FULLY_CONNECTED":
                data = model.buffers[graph.tensors[operator.inputs[1]].buffer].data
                name = None if data is None else wanted.get(np.asarray(data).tobytes())
                if name is not None:
                    found.setdefault(name, []).append(graph.tensors[operator.outputs[0]].name.decode())
    return found


def _is_float(model: Any, graph: Any, operator: Any) -> bool:
    schema = _schema()
    activations: set[int] = set()
    weights: set[int] = set()
    for index in (*operator.inputs, *operator.outputs):
        if index >= 0:
            tensor = graph.tensors[index]
            constant = model.buffers[tensor.buffer].data is not None
            (weights if constant else activations).add(tensor.type)
    integers = {schema.TensorType.INT4, schema.TensorType.INT8}
    return schema.TensorType.FLOAT32 in activations and not integers & weights


def _named(maps: Sequence[Any] | None) -> list[tuple[str, int]]:
    return [(entry.name.decode(), int(entry.tensorIndex)) for entry in maps or []]


def _signature(
    key: str, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]], graph: Any, all_: DataFlow
) -> FlatbufferSignature:
    limits = all_.limits()
    first: dict[int, str] = {}
    made = []
    for name, index in outputs:
        tensor = replace(_tensor(name, graph.tensors[index]), constant=all_.is_constant(index))
        made.append(replace(tensor, same_as=first[index]) if index in first else tensor)
        first.setdefault(index, name)
    given = [replace(_tensor(name, graph.tensors[index]), limits=limits.get(index)) for name, index in inputs]
    return FlatbufferSignature(key, tuple(given), tuple(made))


def _tensor(name: str, tensor: Any) -> FlatbufferTensor:
    signature_shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    shape = tuple(int(size) for size in (signature_shape if signature_shape is not None else ()))
    scheme = tensor.quantization
    quantization = None
    if scheme is not None and scheme.scale is not None and len(scheme.scale) == 1:
        quantization = (float(scheme.scale[0]), int(scheme.zeroPoint[0]))
    return FlatbufferTensor(name, enum_names("TensorType")[tensor.type].lower(), shape, quantization)


def operator_names(model: Any) -> list[str]:
    """The name of each operator code, in their order."""
    builtin = enum_names("BuiltinOperator")
    names = []
    for code in model.operatorCodes:
        if code.customCode:
            names.append(code.customCode.decode())
        else:
            names.append(builtin[max(code.builtinCode, code.deprecatedBuiltinCode)])
    return names


def enum_names(enum: str) -> dict[int, str]:
    """Names of the values of an enumeration of TFLite's schema."""
    return {value: name for name, value in vars(getattr(_schema(), enum)).items() if isinstance(value, int)}


def parse(artifact: bytes | Path) -> Any:
    """Parse a flatbuffer; weights are views, and of a file only the pages that are used are read."""
    content = np.memmap(artifact, np.uint8, "r") if isinstance(artifact, Path) else artifact
    model = _schema().ModelT.InitFromObj(_schema().Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # large models may keep their weights after the flatbuffer proper
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return model


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated
