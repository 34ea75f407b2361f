"""The build: data -> train -> compress -> quantize -> evaluate -> verify -> publish, timed and reported.

It only composes: what a stage does is the stage's, what it made goes on to the next as a dataclass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from litelambda.artifact.latency import measure_latency_us
from litelambda.artifact.reference import to_codes
from litelambda.artifact.stored_form import Stored, store_form
from litelambda.common.memory_errors import shortages_explained
from litelambda.common.progress import Reporter, Stage
from litelambda.common.wording import counted
from litelambda.compression.compress import Compressed, compress
from litelambda.compression.layer_table import describe_layers
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.data.dataset import Dataset, load_data
from litelambda.evaluation.build_comparison import check_build
from litelambda.evaluation.evaluate import Evaluated, ask, evaluate
from litelambda.evaluation.gate import check_floor, check_gate, hints
from litelambda.evaluation.verify import Verified, verify
from litelambda.keras_tools.backend import Backend, choose_backend
from litelambda.publishing.publish import REPORT_NAME, Description, Published, publish, save_keras
from litelambda.publishing.report import HTML_NAME, make_html
from litelambda.publishing.served_comparison import Served, check_served
from litelambda.recipe.load import Recipe
from litelambda.search.search import search
from litelambda.store.artifact_store import open_publishing_store
from litelambda.training.target_units import in_own_units
from litelambda.training.train import Trained, train
from litelambda_serving.artifact import ARTIFACT_NAME

_VERIFIED_ROWS = 256
_COMPARED_ROWS = 32


@dataclass(frozen=True)
class BuildResult:
    """What a build made and published.

    Attributes:
        published: name, version, place and digest.
        metrics: figures of the float and the quantized model on the same test split.
        size_bytes: of the float flatbuffer, the artifact, and what is stored of it.
        seconds: how long each stage took.
        float_operators: operators of the artifact that compute in float.
        note: why they do and what to change, or None where none does.
        batching: what was proven of running several rows at once.
        served: how the versions compare that its aliases pointed at before.
        hints: what looks odd about the data or the model, and may not be meant.
    """

    published: Published
    metrics: Mapping[str, Any]
    size_bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    float_operators: list[str]
    note: str | None
    batching: Mapping[str, Any]
    served: list[Served]
    hints: list[str]

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda build --json` prints."""
        return {
            "model": self.published.model,
            "version": self.published.version,
            "url": self.published.url,
            "digest": self.published.digest,
            "metrics": dict(self.metrics),
            "size_bytes": dict(self.size_bytes),
            "published": True,
            "aliases": self.published.aliases,
            "float_ops": self.float_operators,
            "note": self.note,
            "batching": dict(self.batching),
            "served": [each.to_json() for each in self.served],
            "hints": self.hints,
            "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()},
        }

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        before, after = self.metrics["float"], self.metrics["quantized"]
        figures = ", ".join(f"{name} {before[name]:.4g} (float) {after[name]:.4g} (quantized)" for name in before)
        share = self.size_bytes["quantized"] / self.size_bytes["float"]
        aliases = ", ".join(self.published.aliases) or "no alias"
        notes = [*([self.note] if self.note else []), *(each.describe() for each in self.served), *self.hints]
        return (
            f"{self.published.model} version {self.published.version} ({aliases}) in {self.published.url}\n"
            f"{figures} on {counted(self.metrics['num_examples'], 'test row')}\n"
            f"{self.size_bytes['quantized']:,} bytes, {share:.1%} of the float model's {self.size_bytes['float']:,}; "
            f"{self.size_bytes['stored']:,} stored\n"
            + "".join(f"{note}\n" for note in notes)
            + f"built in {sum(self.seconds.values()):.1f} s"
        )


def build(recipe: Recipe, store_url: str, reporter: Reporter, *, accept_worse: bool = False) -> BuildResult:
    """Run every stage of a recipe and publish what came of it.

    Args:
        recipe: from `load_recipe`.
        store_url: `file:///…` or `s3://bucket/prefix`.
        reporter: told about every stage.
        accept_worse: do not compare with the versions that the recipe's aliases point at now.

    Raises:
        LitelambdaError: a stage failed; nothing was published unless the message says so.
        ServingError: the store's URL is wrong, or the store refused.
    """
    recipe = on_backend(recipe, choose_backend(recipe.train.backend))
    store = open_publishing_store(store_url)
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[Stage]:
        with reporter.stage(name) as current, shortages_explained(name):
            yield current
        seconds[name] = current.seconds

    with stage("data") as current:
        data = load_data(recipe)
        current.summary = data.describe()
    with stage("train") as current:
        trained = train(recipe, data, current.progress)
        answers = ask(trained.model, recipe, data)
        check_floor(recipe, answers, data)
        current.summary = (
            f"{counted(trained.model.count_params(), 'parameter')}, {counted(trained.num_epochs, 'epoch')}"
        )
    with stage("compress") as current:
        step = compress if recipe.compress.auto is None else search
        compressed = step(recipe, trained, data, current.progress)
        changed = answers if compressed.model is trained.model else ask(compressed.model, recipe, data)
        if data.target_scaling is not None:
            in_own_units(compressed.model, data.target_scaling)
        current.summary = ", ".join(compressed.figures) or "nothing to do"
    with stage("quantize") as current:
        scheme = compressed.scheme or recipe.quantize.scheme
        settings = recipe.quantize.model_copy(update={"scheme": scheme})
        quantized = quantize(compressed.model, _representative(recipe, data, compressed), settings, trained.model)
        current.summary = f"{scheme}, {len(quantized.artifact):,} bytes"
    with stage("evaluate") as current:
        compared = check_build(compressed.model, quantized.in_float, _some_test_rows(data, compressed))
        evaluated = evaluate(recipe, data, answers, changed, quantized, current.progress)
        check_gate(recipe.gate, evaluated)
        served = [] if accept_worse else check_served(store, recipe, data, evaluated, current.progress)
        current.summary = _compare(evaluated)
    with stage("verify") as current:
        verified = verify(quantized.artifact, _raw_test_rows(data, quantized))
        rows = "rows in batches" if verified.batching["dynamic"] else "rows one by one"
        current.summary = f"{counted(verified.num_rows, 'row')} bit for bit; {rows}"
    with stage("publish") as current:
        description = _describe(recipe, data, quantized, evaluated.to_json() | compared, verified)
        stored = store_form(quantized.artifact, recipe.publish)
        report = _report(trained, compressed, evaluated, description, stored) | {"seconds": seconds}
        report["layers"] = describe_layers(
            compressed.model, compressed.figures, quantized.scheme, quantized.weight_bits
        )
        report["served"] = [each.to_json() for each in served]
        report["latency_us"] = {
            "float": measure_latency_us(quantized.float_artifact),
            "quantized": measure_latency_us(quantized.artifact),
        }
        files = {
            ARTIFACT_NAME: quantized.artifact,
            **save_keras(compressed.model),
            REPORT_NAME: json.dumps(report, indent=1, ensure_ascii=False).encode(),
            HTML_NAME: make_html(report),
        }
        published = publish(store, recipe.publish.name, recipe.publish.aliases, files, description, stored)
        current.summary = f"version {published.version} in {published.url}"
    return BuildResult(
        published,
        description.metrics,
        {**description.size_bytes, "stored": len(stored.content)},
        seconds,
        quantized.float_operators,
        quantized.note,
        verified.batching,
        served,
        hints(data, evaluated.confusion),
    )


def on_backend(recipe: Recipe, backend: Backend) -> Recipe:
    """The recipe with its backend spelt out: a manifest does not leave it to the environment."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"backend": backend})})


def take_part(recipe: Recipe, reporter: Reporter) -> None:
    """Train with the other hosts that TF_CONFIG names, the first of which goes on with the build.

    Raises:
        LitelambdaError: the data cannot be read, or training failed, here or on another host.
    """
    recipe = on_backend(recipe, choose_backend(recipe.train.backend))
    with reporter.stage("data") as current, shortages_explained("data"):
        data = load_data(recipe)
        current.summary = data.describe()
    with reporter.stage("train") as current, shortages_explained("train"):
        current.summary = counted(train(recipe, data, current.progress).num_epochs, "epoch")


def _representative(recipe: Recipe, data: Dataset, compressed: Compressed) -> dict[str, np.ndarray[Any, Any]]:
    rows = data.representative(recipe.quantize.representative_samples, recipe.train.seed)
    return {compressed.model.inputs[0].name: rows}


def _some_test_rows(data: Dataset, compressed: Compressed) -> dict[str, np.ndarray[Any, Any]]:
    return {compressed.model.inputs[0].name: data.test.x[:_COMPARED_ROWS]}


def _raw_test_rows(data: Dataset, quantized: Quantized) -> dict[str, np.ndarray[Any, Any]]:
    (tensor,) = quantized.signature.inputs
    return {tensor.name: to_codes(data.test.x[:_VERIFIED_ROWS], tensor)}


def _compare(evaluated: Evaluated) -> str:
    before, after = evaluated.float_metrics, evaluated.quantized_metrics
    return ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before)


def _describe(
    recipe: Recipe, data: Dataset, quantized: Quantized, metrics: Mapping[str, Any], verified: Verified
) -> Description:
    (tensor,) = quantized.signature.inputs
    preprocessing = data.preprocessing and {tensor.name: data.preprocessing.to_json()}
    return Description(
        signature=verified.signature,
        batching=verified.batching,
        warm_up=verified.warm_up,
        quantization=quantized.to_json(),
        labels=data.labels,
        preprocessing=preprocessing or {},
        metrics=metrics,
        size_bytes={"float": len(quantized.float_artifact), "quantized": len(quantized.artifact)},
        recipe=recipe.to_json(),
    )


def _report(
    trained: Trained, compressed: Compressed, evaluated: Evaluated, description: Description, stored: Stored
) -> dict[str, Any]:
    """Everything measured on the way, for who wants to know how a version came about."""
    return {
        "recipe": description.recipe,
        "train": {"epochs": trained.num_epochs, "history": trained.history},
        "compress": compressed.figures,
        "quantization": description.quantization,
        "batching": description.batching,
        "metrics": description.metrics,
        "confusion": evaluated.confusion,
        "labels": description.labels,
        "size_bytes": {**description.size_bytes, "stored": len(stored.content)},
        "stored": {"encoding": stored.encoding, "ready_ms": stored.ready_ms},
    }
