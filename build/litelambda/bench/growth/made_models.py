"""Int8 models of any size, made by hand from TFLite's schema: no training, no converter, no data."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from litelambda.artifact.flatbuffer import SIGNATURE, read_signatures
from litelambda.bench.subject import Subject
from litelambda_serving.aliases import ALIASES_NAME
from litelambda_serving.artifact import ARTIFACT_NAME, MANIFEST_NAME
from litelambda_serving.manifest import Manifest

INPUTS = 784
"""Values of a row: a picture of MNIST."""

_CLASSES = 10
_WIDE, _NARROW = 4096, 1024  # layers of a usual width; the narrow ones where a wide one would be most of the model
_NARROW_BELOW_BYTES = 20_000_000
_IDENTIFIER = b"TFL3"
_SCALE = 1 / 128
_VERSION = 1


def make_flatbuffer(size_bytes: int) -> bytes:
    """A chain of dense int8 layers whose weights have about `size_bytes`; float32 rows of 784 values in, 10 out.

    >>> round(len(make_flatbuffer(100_000)) / 100_000, 1)
    1.0
    """
    widths = [INPUTS, *_hidden_widths(size_bytes), _CLASSES]
    model = _Model()
    given = model.tensor("x", schema.TensorType.FLOAT32, INPUTS)
    last = model.apply("QUANTIZE", [given], model.tensor("codes", schema.TensorType.INT8, INPUTS))
    random = np.random.default_rng(1)
    for index, (before, after) in enumerate(pairwise(widths)):
        weights = random.integers(-127, 128, (after, before), np.int8)
        scale = 1.75 * _SCALE / math.sqrt(before)  # keeps the layers' answers as large as what they are given
        parameters = [
            model.constant(f"weights_{index}", schema.TensorType.INT8, weights, scale),
            model.constant(f"bias_{index}", schema.TensorType.INT32, np.zeros(after, np.int32), _SCALE * scale),
        ]
        result = model.tensor(f"dense_{index}", schema.TensorType.INT8, after)
        last = model.apply("FULLY_CONNECTED", [last, *parameters], result)
    answer = model.apply("DEQUANTIZE", [last], model.tensor("y", schema.TensorType.FLOAT32, _CLASSES))
    return model.pack(given, answer)


def make_subject(name: str, flatbuffer: bytes) -> Subject:
    """A published version of a flatbuffer, as a store has it."""
    signatures = {each.key: each.to_json() for each in read_signatures(flatbuffer)}
    fields = {
        "format_version": 1,
        "model": name,
        "version": _VERSION,
        "artifact": ARTIFACT_NAME,
        "files": {ARTIFACT_NAME: {"sha256": hashlib.sha256(flatbuffer).hexdigest(), "size_bytes": len(flatbuffer)}},
        "default_signature": SIGNATURE,
        "signatures": signatures,
        "batching": {"dynamic": True, "verified_sizes": [1]},
        "labels": None,
    }
    documents = make_documents(name, fields)
    manifest = documents[f"{name}/{_VERSION}/{MANIFEST_NAME}"]
    key = f"{name}/{_VERSION}/{ARTIFACT_NAME}"
    digest = hashlib.sha256(manifest).hexdigest()
    return Subject(Manifest.from_json(manifest), digest, key, {**documents, key: flatbuffer})


def make_documents(name: str, fields: dict[str, Any]) -> dict[str, bytes]:
    """A model's aliases and the manifest of its only version, by key."""
    manifest = json.dumps({**fields, "model": name}).encode()
    pin = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "artifact": fields["artifact"]}
    aliases = json.dumps({"latest": _VERSION, "versions": {str(_VERSION): pin}}).encode()
    return {f"{name}/{ALIASES_NAME}": aliases, f"{name}/{_VERSION}/{MANIFEST_NAME}": manifest}


def _hidden_widths(size_bytes: int) -> list[int]:
    width = _NARROW if size_bytes < _NARROW_BELOW_BYTES else _WIDE
    edges = INPUTS + _CLASSES
    layers = round((size_bytes - edges * width) / width**2)
    return [width] * (layers + 1) if layers > 0 else [max(1, size_bytes // edges)]


class _Model:
    """A graph under construction: each step adds to it and answers with an index."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._buffers = [schema.BufferT()]
        self._codes: list[int] = []

    def tensor(self, name: str, kind: int, width: int) -> int:
        """An activation of (batch, width)."""
        scale = _SCALE if kind == schema.TensorType.INT8 else None
        return self._add(name, kind, [1, width], 0, scale, [-1, width])

    def constant(self, name: str, kind: int, values: np.ndarray[Any, Any], scale: float) -> int:
        """Weights or a bias."""
        buffer = schema.BufferT()
        buffer.data = values.reshape(-1).view(np.uint8)
        self._buffers.append(buffer)
        return self._add(name, kind, list(values.shape), len(self._buffers) - 1, scale)

    def apply(self, operator: str, inputs: list[int], output: int) -> int:
        """An operator; answers with its output."""
        code = getattr(schema.BuiltinOperator, operator)
        if code not in self._codes:
            self._codes.append(code)
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs, node.outputs = self._codes.index(code), inputs, [output]
        if operator == "FULLY_CONNECTED":
            node.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            node.builtinOptions = schema.FullyConnectedOptionsT()
        self._graph.operators.append(node)
        return output

    def pack(self, given: int, answer: int) -> bytes:
        """The flatbuffer of a model that takes `given` and answers with `answer`."""
        self._graph.inputs, self._graph.outputs = [given], [answer]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [self._graph], self._buffers
        model.operatorCodes = []
        for code in self._codes:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, code, 4 if code == 9 else 1
            model.operatorCodes.append(made)
        entry = schema.SignatureDefT()
        entry.signatureKey = SIGNATURE
        entry.inputs, entry.outputs = [_named("x", given)], [_named("y", answer)]
        model.signatureDefs = [entry]
        return _finish(model)

    def _add(
        self,
        name: str,
        kind: int,
        shape: list[int],
        buffer: int,
        scale: float | None,
        open_shape: list[int] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, shape, buffer
        tensor.shapeSignature = open_shape
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def _named(name: str, tensor: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, tensor
    return made


def _finish(model: Any) -> bytes:
    import flatbuffers

    weights = sum(np.size(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(weights + 64 * 1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())
