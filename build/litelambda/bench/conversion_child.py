"""Converts one model of `litelambda bench conversion` through the build's own stages and writes down what came of it.

`run_case` runs in a process of its own, forked from one that has imported TensorFlow and done nothing with it: a model
that exhausts the memory or crashes TensorFlow ends that process and not the benchmark.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import count_float_operators
from litelambda.artifact.latency import measure_latency_us
from litelambda.artifact.reference import Reference, to_codes
from litelambda.bench.conversion_cases import Case, all_cases
from litelambda.bench.conversion_forks import ForkingLauncher
from litelambda.common.errors import ConversionError, VerificationError
from litelambda.conversion import converter
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize

_OTHER_SCHEMES = ("dynamic", "float32")


def convert_case(case: Case) -> dict[str, Any]:
    """Convert a case to int8 and measure it.

    Returns:
        `parameters`, `seconds` and `peak_mb`; `error` where it fails, with `instead`, the scheme that works; else
        `float_ops` (a count by name), `size_bytes`, `difference`, `latency_us` and `batching`.
    """
    keras = load_keras()
    keras.utils.set_random_seed(0)
    model = case.make(keras)
    rows = case.rows(model)
    _settle_batch_norms(keras, model, rows)
    started = time.perf_counter()
    try:
        outcome = _measure(quantize(model, rows, Quantize()), rows)
    except (ConversionError, VerificationError) as error:
        outcome = {"error": str(error), "instead": _instead(model, rows)}
    return {
        "parameters": model.count_params(),
        **outcome,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": _peak_mb(),
    }


def _settle_batch_norms(keras: Any, model: Any, rows: Mapping[str, NDArray[Any]]) -> None:
    """Give the batch norms these rows' statistics: else the values in a deep random network die out or explode."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    for layer in norms:
        layer.momentum = 0.0
    values = [rows[tensor.name] for tensor in model.inputs]
    model(values[0] if len(values) == 1 else values, training=True)


def _measure(quantized: Quantized, rows: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    inputs = {tensor.name: to_codes(rows[tensor.name], tensor) for tensor in quantized.signature.inputs}
    return {
        "float_ops": count_float_operators(quantized.artifact),
        "note": quantized.note,
        "size_bytes": {"float": len(quantized.float_artifact), "int8": len(quantized.artifact)},
        "difference": _compare(quantized, rows),
        "batching": verify(quantized.artifact, inputs).batching,
        "latency_us": {
            "float": round(measure_latency_us(quantized.float_artifact), 1),
            "int8": round(measure_latency_us(quantized.artifact), 1),
        },
    }


def _compare(quantized: Quantized, rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The largest difference between the float and the int8 model, as it is and as a share of the output's range."""
    before, after = (
        Reference(artifact).run_real(rows, 1) for artifact in (quantized.float_artifact, quantized.artifact)
    )
    differences = [(float(np.abs(before[name] - after[name]).max()), float(np.ptp(before[name]))) for name in before]
    largest, extent = max(differences, key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    return {"max_abs": largest, "of_range": largest / extent if extent else 0.0}


def _instead(model: Any, rows: Mapping[str, NDArray[Any]]) -> str | None:
    """The first of the other schemes in which the model converts and runs."""
    for scheme in _OTHER_SCHEMES:
        try:
            quantized = quantize(model, rows, Quantize.model_validate({"scheme": scheme}))
            inputs = {tensor.name: to_codes(rows[tensor.name], tensor) for tensor in quantized.signature.inputs}
            verify(quantized.artifact, inputs)
        except (ConversionError, VerificationError):
            continue
        return scheme
    return None


def _peak_mb() -> int:
    """The most memory that this process, or any of those it waited for, held."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak / (1024 if sys.platform == "linux" else 1024 * 1024))


def _exit_with(parent: Any) -> None:
    parent.join()
    os.killpg(0, signal.SIGKILL)


def run_case(name: str, memory_gb: float, folder: Path) -> None:
    """Convert a case within a limit of memory, in the process that was made for it.

    Args:
        name: the case.
        memory_gb: what this process, and each that it starts, may have.
        folder: takes `result.json`, and `stderr`, which native code writes to as well.
    """
    os.setpgid(0, 0)  # a group of its own, to be killed with all that it started
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    limit = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    converter.launch = ForkingLauncher()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    (folder / "result.json").write_text(json.dumps(convert_case(all_cases()[name])))
