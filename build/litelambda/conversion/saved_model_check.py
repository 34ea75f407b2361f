"""Checks the graphs of a SavedModel before TensorFlow loads it, which would already run its initializers.

A SavedModel is a program. Two kinds of operators are refused: those that touch files, Python or the network, anywhere
in it; and those that keep state or draw random numbers, where the signature or an initializer depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from litelambda.common.errors import ConversionError, first_line
from litelambda.conversion.saved_model_assets import READS_TABLE, TableFiles, check_assets
from litelambda.keras_tools.backend import load_tensorflow

_OUTSIDE = re.compile(
    r"PyFunc|^ReadFile|^WriteFile|^MatchingFiles|Reader(V\d)?$|Reader(Read|Restore|Serialize)|^Print|^Debug|^Abort$"
    r"|^(Save|Restore)(Slices?|Dataset)|^Restore$|^Save$|^LoadDataset|Snapshot|FileCache|^CacheDataset|Summary(V\d)?$"
    r"|SummaryFileWriter|SummaryDbWriter|^ImportEvent|TextLine|TFRecord|FixedLengthRecord|LMDB|Sql|CSVDataset"
    r"|DataService|RemoteCall|Rpc|^_?(Host)?(Send|Recv)$|TensorRT|TRT|^Skipgram$|FixedUnigram|LoadAndRemapMatrix"
    r"|GenerateVocabRemapping|FileSystem|BigQuery|BigTable|Bigtable|^Gcs|Kafka|DecodeProto|EncodeProto|^Initialize\w*File"
)
_CHECKPOINT = re.compile(r"^(SaveV2|RestoreV2|MergeV2Checkpoints|ShardedFilename)$")
_SAVES = re.compile(r"^(SaveV2|MergeV2Checkpoints)$")
_ONLY_READS = re.compile(
    r"^(VarHandleOp|ReadVariableOp|Variable(V2)?|VarIsInitializedOp|ResourceGather(Nd)?|Placeholder\w*|NoOp|Assert"
    r"|(Stateful|Stateless)?PartitionedCall|If|While|Case|For|(Anonymous)?HashTable(V2)?|InitializeTable(V2)?"
    r"|LookupTable(Find|Size|Export|Import)V2|TensorList\w*|TensorArray\w*|EmptyTensorList|Stack\w*V2|XlaCallModule|Merge|Switch"
    r"|CheckNumerics(V2)?|CudnnRNN\w*|InitializeTableFromTextFile(V2)?)$"
)
_STATE = re.compile(
    r"^(Assign\w*|Resource(Scatter|Apply|Sparse|Strided|Count)\w*|Scatter(Add|Sub|Update|Mul|Div|Nd(Add|Sub|Update))"
    r"|LookupTable(Insert|Remove)V2|Mutable\w*|\w*Queue\w*|\w*Barrier\w*|\w*Random\w*|Multinomial|Rng\w*|\w*TruncatedNormal)$"
)
_DRAWS_FROM_SEED = re.compile(r"^Stateless")
_INIT = "__saved_model_init_op"
_HALVES = {19: "float16", 14: "bfloat16"}  # types.proto: DT_HALF, DT_BFLOAT16


def check_saved_model(path: Path) -> str:
    """Refuse a SavedModel whose operators touch files or run Python, or whose signature keeps state.

    Args:
        path: its folder.

    Returns:
        The least precise type that its signature computes in: float32, float16 or bfloat16.

    Raises:
        ConversionError: it is refused, or cannot be read; nothing of it has run.
    """
    load_tensorflow()
    from tensorflow.python.saved_model import loader_impl

    try:
        graph = loader_impl.parse_saved_model(str(path)).meta_graphs[0]
    except (OSError, IndexError, ValueError) as error:
        raise ConversionError(f"TensorFlow cannot load {path}: {first_line(error)}") from error
    check_assets(path, graph)
    functions = {each.signature.name: each for each in graph.graph_def.library.function}
    every = [*graph.graph_def.node, *(node for each in functions.values() for node in each.node_def)]
    outside = {node.op for node in every if _reaches_outside(node.op)}
    outside |= set(TableFiles(graph, functions).foreign())
    served = _reached(graph, functions, _signature_outputs(graph))
    reached = [*served, *_initializers(graph, functions)]
    outside |= {node.op for node in reached if _CHECKPOINT.search(node.op)}
    restored = _reached(graph, functions, [graph.saver_def.restore_op_name])
    outside |= {node.op for node in restored if _SAVES.search(node.op)}
    if outside:
        raise ConversionError(
            f"{path} has operators that touch files, run Python or reach outside the model "
            f"({', '.join(sorted(outside))}): it was not loaded, and nothing of it was run. Export it without them"
        )
    if kept := sorted({node.op for node in served if _keeps_state(node)}):
        raise ConversionError(
            f"the signature of {path} keeps state from one request to the next, or draws random numbers "
            f"({', '.join(kept)}), so equal requests would get different answers: export it with training=False, "
            "without variables that it changes"
        )
    types = {value.type for node in reached for value in node.attr.values()}
    return next((name for number, name in sorted(_HALVES.items()) if number in types), "float32")


def _reaches_outside(op: str) -> bool:
    return bool(_OUTSIDE.search(op)) and not READS_TABLE.search(op)


def _keeps_state(node: Any) -> bool:
    from tensorflow.python.framework import op_def_registry

    if _DRAWS_FROM_SEED.search(node.op) or _ONLY_READS.search(node.op):
        return False
    if _STATE.search(node.op):
        return True
    definition = op_def_registry.get(node.op)
    return definition is not None and definition.is_stateful


def _signature_outputs(graph: Any) -> list[str]:
    chosen = graph.signature_def.get("serving_default")
    found = [chosen] if chosen is not None else [each for key, each in graph.signature_def.items() if key != _INIT]
    return [tensor.name for each in found for tensor in each.outputs.values()]


def _initializers(graph: Any, functions: dict[str, Any]) -> Iterator[Any]:
    """The nodes that loading runs: functions that create and fill resources, and the main operator of TensorFlow 1."""
    names: list[str] = []
    for key in ("saved_model_main_op", "legacy_init_op", "table_initializer", "asset_filepaths"):
        names += graph.collection_def[key].node_list.value if key in graph.collection_def else []
    if _INIT in graph.signature_def:
        names += [tensor.name for tensor in graph.signature_def[_INIT].outputs.values()]
    yield from _reached(graph, functions, names)
    # Loading runs the initializers of objects; their functions may have any name.
    for name, each in functions.items():
        if name in graph.object_graph_def.concrete_functions or re.search(r"initializ|create_resource|creator", name):
            yield from _with_functions(each.node_def, functions, {name})


def _reached(graph: Any, functions: dict[str, Any], outputs: Iterable[str]) -> list[Any]:
    """The nodes that outputs depend on, those of the functions that they call included."""
    nodes = {node.name: node for node in graph.graph_def.node}
    waiting, seen, found = [_node_name(name) for name in outputs], set[str](), []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        found.append(nodes[name])
        waiting.extend(_node_name(each) for each in nodes[name].input)
    return list(_with_functions(found, functions, set()))


def _with_functions(nodes: Iterable[Any], functions: dict[str, Any], seen: set[str]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in functions and called.name not in seen:
                    seen.add(called.name)
                    yield from _with_functions(functions[called.name].node_def, functions, seen)


def _node_name(name: str) -> str:
    return name.lstrip("^").partition(":")[0]
