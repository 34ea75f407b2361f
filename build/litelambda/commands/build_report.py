"""What a build measured, gathered for its report.json."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.artifact.latency import measure_latency_us
from litelambda.compression.layer_table import describe_layers
from litelambda.data.digests import digest_files
from litelambda.evaluation.error_analysis import analyze, recall_by_rank
from litelambda.evaluation.examples import typical_examples, worst_examples
from litelambda.evaluation.gate import hints
from litelambda.publishing.publish import tool_versions

if TYPE_CHECKING:
    from litelambda.compression.compress import Compressed
    from litelambda.conversion.quantize import Quantized
    from litelambda.data.dataset import Dataset
    from litelambda.evaluation.evaluate import Evaluated, FloatAnswers
    from litelambda.recipe.load import Recipe
    from litelambda.training.train import Trained

_TYPICAL = 3
_ENCRYPTED = (
    "Test rows are not shown: the version is encrypted, and its report is not. The row numbers are in its report.json."
)


def describe_steps(trained: Trained, compressed: Compressed, quantized: Quantized) -> dict[str, Any]:
    """How it was trained, compressed and quantized, by layer, and how fast it is before and after."""
    return {
        "train": {"epochs": trained.num_epochs, "history": trained.history},
        "compress": compressed.figures,
        "layers": describe_layers(compressed.model, compressed.figures, quantized.scheme, quantized.weight_bits),
        "latency_us": {
            "float": measure_latency_us(quantized.float_artifact),
            "quantized": measure_latency_us(quantized.artifact),
        },
    }


def describe_failures(recipe: Recipe, data: Dataset, trained: FloatAnswers, evaluated: Evaluated) -> dict[str, Any]:
    """Where the artifact fails on the test rows, with the rows that it answers worst."""
    from_logits = recipe.train.from_logits
    count = recipe.publish.report_examples
    examples = worst_examples(data, evaluated.outputs, from_logits, count)
    found: dict[str, Any] = {
        "confusion": evaluated.confusion,
        "analysis": analyze(data, trained, evaluated, from_logits),
        "examples": examples,
        "typical": typical_examples(data, evaluated.outputs, from_logits, min(_TYPICAL, count)),
        "hints": hints(data, evaluated.confusion),
    }
    if recipe.publish.encrypt:
        numbers = [each["row"] for each in examples]
        found |= {"examples": [], "typical": [], "examples_left_out": _ENCRYPTED, "worst_rows": numbers}
    return found


def describe_ranks(evaluated: Evaluated, data: Dataset) -> dict[str, Any]:
    """The same of a recommender."""
    return {"confusion": None, "analysis": {"ranks": recall_by_rank(evaluated.outputs, data.test.y)}, "examples": []}


def describe_origin(recipe: Recipe, data: Dataset, artifact: bytes, version: int) -> dict[str, Any]:
    """Which version it is, and what it was made from."""
    rows = {"training": len(data.train), "validation": len(data.validation) if data.validation else 0}
    return {
        "version": version,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "artifact_sha256": hashlib.sha256(artifact).hexdigest(),
        "data": {"files": digest_files(recipe.resolve(recipe.data.path)), "rows": {**rows, "test": len(data.test)}},
        "tools": tool_versions(),
        "machine": {"processor": processor(), "system": platform.platform()},
    }


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
