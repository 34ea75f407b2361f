"""Where the tables of a SavedModel get their files: from its own assets, or from a name that its graph makes up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litelambda.common.errors import ConversionError

READS_TABLE = re.compile(r"^InitializeTableFromTextFile(V2)?$")
_FILE_INPUT = 1  # of these operators: the table, then the name of the file
_CALL = re.compile(r"^(Stateful)?PartitionedCall$")


def check_assets(path: Path, graph: Any) -> None:
    """Refuse assets outside the SavedModel.

    Args:
        path: the SavedModel's folder.
        graph: its MetaGraphDef.

    Raises:
        ConversionError: an asset's name leads out of the folder.
    """
    folder = (path / "assets").resolve()
    for each in graph.asset_file_def:
        if not (folder / each.filename).resolve().is_relative_to(folder):
            raise ConversionError(
                f"{path} names {each.filename!r} as its asset, which is outside its folder 'assets': it was not "
                "loaded, and nothing of it was run. Export it again with its files as assets"
            )


class TableFiles:
    """Follows the names of files backwards through a graph, until an asset or something else makes them.

    Args:
        graph: a MetaGraphDef.
        functions: those of its library, by name.
    """

    def __init__(self, graph: Any, functions: Mapping[str, Any]) -> None:
        self._graph, self._functions = graph, functions
        self._assets = {each.tensor_info.name.partition(":")[0] for each in graph.asset_file_def}
        scopes = {"": graph.graph_def.node, **{name: each.node_def for name, each in functions.items()}}
        self._nodes = {scope: {node.name: node for node in nodes} for scope, nodes in scopes.items()}

    def foreign(self) -> Iterator[str]:
        """The operators that read a file that is not an asset."""
        for scope, nodes in self._nodes.items():
            for node in nodes.values():
                if READS_TABLE.search(node.op) and not self._is_asset(scope, _input(node, _FILE_INPUT), set()):
                    yield node.op

    def _is_asset(self, scope: str, name: str, seen: set[tuple[str, str]]) -> bool:
        """Whether all that a node or an argument can be are assets; `seen` are those on the way to it."""
        if (scope, name) in seen:
            return True
        seen = seen | {(scope, name)}
        if not scope and name in self._assets:
            return True
        node = self._nodes[scope].get(name)
        if node is None:
            return bool(scope) and self._is_asset_argument(scope, name, seen)
        if node.op == "Identity":
            return self._is_asset(scope, _input(node, 0), seen)
        if node.op == "ReadVariableOp":
            variable = _input(node, 0)
            writers = [each for each in self._nodes[scope].values() if each.op == "AssignVariableOp"]
            written = [_input(each, 1) for each in writers if _input(each, 0) == variable]
            return bool(written) and all(self._is_asset(scope, each, seen) for each in written)
        return False

    def _is_asset_argument(self, function: str, name: str, seen: set[tuple[str, str]]) -> bool:
        """Whether a function gets an asset for an argument: from TensorFlow, and from all that call it."""
        arguments = [each.name for each in self._functions[function].signature.input_arg]
        if name not in arguments:
            return False
        index = arguments.index(name)
        if function in self._graph.object_graph_def.concrete_functions:
            captured = self._graph.object_graph_def.concrete_functions[function].bound_inputs
            place = index - (len(arguments) - len(captured))
            if place < 0 or self._graph.object_graph_def.nodes[captured[place]].WhichOneof("kind") != "asset":
                return False
        return all(
            is_call and self._is_asset(scope, _input(caller, index), seen)
            for scope, caller, is_call in self._callers(function)
        )

    def _callers(self, function: str) -> Iterator[tuple[str, Any, bool]]:
        """Nodes that call a function, where they are, and whether their inputs are its arguments."""
        for scope, nodes in self._nodes.items():
            for node in nodes.values():
                called = [each.name for value in node.attr.values() for each in (value.func, *value.list.func)]
                if node.op == function or function in called:
                    yield scope, node, node.op == function or bool(_CALL.search(node.op))


def _input(node: Any, index: int) -> str:
    """The node or argument that an input comes from; empty where a damaged graph has no such input."""
    return node.input[index].partition(":")[0] if index < len(node.input) else ""
