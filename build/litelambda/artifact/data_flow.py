"""Data flow through a graph: the index values that its inputs may have, and outputs that are constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SAME_VALUES = frozenset({"CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE"})
_NOT_REPEATED = ("RANDOM", "MULTINOMIAL", "VAR_HANDLE", "READ_VARIABLE")
_LOOKUPS = {"GATHER": (0, 1), "EMBEDDING_LOOKUP": (1, 0)}
"""By operator, which of its inputs are the table and the row numbers."""

Limits = tuple[int, int]


class DataFlow:
    """One graph of a flatbuffer.

    Args:
        model: the flatbuffer's objects.
        graph: one of its subgraphs.
        names: of the operators, by their code's index.
    """

    def __init__(self, model: Any, graph: Any, names: Sequence[str]) -> None:
        self._model, self._graph, self._names = model, graph, names
        self._operators = list(graph.operators or [])
        self._makers = {int(made): operator for operator in self._operators for made in operator.outputs}

    def is_constant(self, tensor: int) -> bool:
        """Whether a tensor has the same values whatever the graph's inputs are."""
        open_ends, seen = [tensor], set[int]()
        while open_ends:
            index = open_ends.pop()
            if index < 0 or index in seen or self._data(index) is not None:
                continue
            seen.add(index)
            maker = self._makers.get(index)
            if maker is None or self._name(maker).startswith(_NOT_REPEATED):
                return False
            open_ends += map(int, maker.inputs)
        return True

    def limits(self) -> Mapping[int, Limits]:
        """By input tensor, the range of indices that are valid in every table that the graph looks up with it."""
        found: dict[int, Limits] = {}
        for operator in self._operators:
            for index, (low, high) in self._needed(operator):
                before = found.get(index, (low, high))
                found[index] = max(low, before[0]), min(high, before[1])
        return found

    def _needed(self, operator: Any) -> list[tuple[int, Limits]]:
        """The range that one operator needs, by input tensor."""
        name = self._name(operator)
        if name in _LOOKUPS:
            table, numbers = (int(operator.inputs[place]) for place in _LOOKUPS[name])
            axis = operator.builtinOptions.axis if name == "GATHER" else 0
            size = self._size(table, axis)
            source, added = self._origin(numbers)
            # Negative numbers count rows from the end, as in Keras: the size is added to them.
            return [(source, (-added, size - 1))] if source >= 0 and size > 0 and added in (0, size) else []
        if name == "FLOOR_MOD" and self._data(int(operator.inputs[1])) is None:
            # The smallest integer modulo -1 overflows, which x86 answers with a fault that ends the process.
            sources = (self._origin(int(index))[0] for index in operator.inputs[:1])
            return [(source, self._but_smallest(source)) for source in sources if source >= 0 and self._bits(source)]
        return []

    def _origin(self, tensor: int) -> tuple[int, int]:
        """The graph input that a tensor is a copy of, what is added to negative values; (-1, 0) for others."""
        maker = self._makers.get(tensor)
        if maker is None:
            return (tensor, 0) if tensor in {int(index) for index in self._graph.inputs} else (-1, 0)
        name = self._name(maker)
        if name in _SAME_VALUES:
            return self._origin(int(maker.inputs[0]))
        if name in ("SELECT", "SELECT_V2"):
            condition, raised, plain = (int(index) for index in maker.inputs)
            test, addition = self._makers.get(condition), self._makers.get(raised)
            source, added = self._origin(plain)
            if test is None or addition is None or added or self._name(test) != "LESS" or self._name(addition) != "ADD":
                return -1, 0
            zero, offset = self._number(int(test.inputs[1])), self._number(int(addition.inputs[1]))
            parts = {self._origin(int(each.inputs[0])) for each in (test, addition)}
            if zero == 0 and offset is not None and parts == {(source, 0)}:
                return source, offset
        return -1, 0

    def _but_smallest(self, tensor: int) -> Limits:
        largest = 2 ** (self._bits(tensor) - 1) - 1
        return -largest, largest

    def _bits(self, tensor: int) -> int:
        """Bits of a signed integer tensor whose smallest value cannot be negated; 0 for any other."""
        from ai_edge_litert.schema_py_generated import TensorType

        return {TensorType.INT32: 32, TensorType.INT64: 64}.get(self._graph.tensors[tensor].type, 0)

    def _size(self, tensor: int, axis: int) -> int:
        shape = self._graph.tensors[tensor].shape
        signature = self._graph.tensors[tensor].shapeSignature
        shape = signature if signature is not None and len(signature) else shape
        return int(shape[axis]) if shape is not None and -len(shape) <= axis < len(shape) else 0

    def _number(self, tensor: int) -> int | None:
        """The only value of a constant integer tensor."""
        data = self._data(tensor)
        return None if data is None or len(data) not in (4, 8) else int.from_bytes(bytes(data), "little", signed=True)

    def _data(self, tensor: int) -> Any:
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return data if data is not None and np.size(data) else None

    def _name(self, operator: Any) -> str:
        return str(self._names[operator.opcodeIndex])
