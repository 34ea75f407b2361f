"""Converts a model of `litelambda bench conversion` through the build's own stages, and measures it."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import count_float_operators
from litelambda.artifact.latency import measure_latency_us
from litelambda.artifact.reference import Reference, to_codes
from litelambda.bench.conversion.cases import all_cases
from litelambda.common.errors import ConversionError, VerificationError
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.evaluation.build_comparison import ask_source
from litelambda.evaluation.quantization_loss import measure_loss
from litelambda.evaluation.representative_rows import halves
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize

_OTHER_SCHEMES = ("dynamic", "float32")
_Rows = Mapping[str, NDArray[Any]]


def convert_case(name: str, image_size: int | None, memory_bytes: int) -> dict[str, Any]:
    """Convert a case to int8 and measure it.

    Args:
        name: of the case.
        image_size: the most pixels per side of an architecture's images, or None.
        memory_bytes: for this process, and for each that it starts.

    Returns:
        `parameters` and `seconds`; `error` where it fails, with `instead`, the scheme that works; else `float_ops` (a
        count by name), `size_bytes`, `difference`, `latency_us` and `batching`.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    case = all_cases(image_size)[name]
    keras = load_keras()
    keras.backend.clear_session()  # layers are named as in a process of their own
    keras.utils.set_random_seed(0)
    model = case.make(keras)
    rows = case.rows(model)
    _settle_batch_norms(keras, model, rows)
    used, held_out = halves(rows)
    calibration, others = ({name: values[chosen] for name, values in rows.items()} for chosen in (used, held_out))
    started = time.perf_counter()
    try:
        outcome = _measure(model, quantize(model, calibration, Quantize()), others)
    except (ConversionError, VerificationError) as error:
        outcome = {"error": str(error), "instead": _instead(model, rows)}
    return {"parameters": model.count_params(), **outcome, "seconds": round(time.perf_counter() - started, 1)}


def _settle_batch_norms(keras: Any, model: Any, rows: _Rows) -> None:
    """Give the batch norms these rows' statistics: else the values in a deep random network die out or explode."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    for layer in norms:
        layer.momentum = 0.0
    values = [rows[tensor.name] for tensor in model.inputs]
    model(values[0] if len(values) == 1 else values, training=True)


def _measure(model: Any, quantized: Quantized, rows: _Rows) -> dict[str, Any]:
    inputs = {tensor.name: to_codes(rows[tensor.name], tensor) for tensor in quantized.signature.inputs}
    return {
        "float_ops": count_float_operators(quantized.artifact),
        "note": quantized.note,
        "size_bytes": {"float": len(quantized.float_artifact), "int8": len(quantized.artifact)},
        "difference": _compare(model, quantized, rows),
        "batching": verify(quantized.artifact, inputs).batching,
        "latency_us": {
            "float": round(measure_latency_us(quantized.float_artifact), 1),
            "int8": round(measure_latency_us(quantized.artifact), 1),
        },
    }


def _compare(model: Any, quantized: Quantized, rows: _Rows) -> dict[str, float]:
    """The largest differences from Keras' own predictions, as shares of the output's range.

    The float flatbuffer's on made rows and the given ones; the int8 one's on those given, which did not calibrate it.
    """
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        asked = ask_source(model, rows, Path(scratch))
        in_float = asked.check(Reference(quantized.in_float).run_each(asked.runs.inputs))
    given = [index for index, kind in enumerate(asked.runs.kinds) if kind == "representative"]
    found = Reference(quantized.artifact).run_each(asked.runs.take(given).inputs)
    loss = measure_loss({name: values[given] for name, values in asked.answers.outputs.items()}, found)
    return {"float": in_float, "int8": loss.max_difference}


def _instead(model: Any, rows: _Rows) -> str | None:
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
