"""The build: data -> train -> compress -> quantize -> evaluate -> verify -> explain -> publish, timed and reported.

It only composes: what a stage does is the stage's, what it made goes to the next as a dataclass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from litelambda.artifact.reference import to_codes
from litelambda.artifact.stored_form import Stored, store_form
from litelambda.commands.build_report import describe_failures, describe_origin, describe_ranks, describe_steps
from litelambda.commands.explain import explain_build
from litelambda.commands.explained_examples import with_explanations
from litelambda.commands.results import BuildResult
from litelambda.common.errors import TrainError
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.memory_errors import shortages_explained
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda.common.progress import Reporter, ReportProgress, Stage
from litelambda.common.wording import counted
from litelambda.compression.compress import Compressed, compress
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.conversion.quantize import quantize
from litelambda.data.dataset import load_data
from litelambda.data.digests import digest_files
from litelambda.data.interactions import ITEMS_FILE, load_interactions
from litelambda.evaluation.build_comparison import check_build
from litelambda.evaluation.drift_rows import baseline_of_test_rows
from litelambda.evaluation.evaluate import evaluate, evaluate_float
from litelambda.evaluation.gate import check_floor, check_gate, hints
from litelambda.evaluation.recommendation import check_scores, evaluate_recommender, popularity_metrics, recommend
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import choose_backend
from litelambda.publishing.encryption import open_encryption
from litelambda.publishing.publish import REPORT_NAME, Description, Published, publish, save_keras
from litelambda.publishing.report import HTML_NAME, make_html
from litelambda.publishing.served_comparison import Served, check_served
from litelambda.recipe.load import Recipe
from litelambda.recipe.models import TwoTowerModel
from litelambda.recipe.sections import InteractionsData
from litelambda.search.search import search
from litelambda.store.artifact_store import Store
from litelambda.store.signing import Signer
from litelambda.training.target_units import in_own_units
from litelambda.training.train import train
from litelambda.training.two_tower import ITEMS, train_two_tower, with_int8_tables
from litelambda_serving.artifact import ARTIFACT_NAME

__all__ = ["BuildResult", "build", "train_with_others"]

_VERIFIED_ROWS = 256
_COMPARED_ROWS = 32


def build(
    recipe: Recipe,
    store: str | Path = DEFAULT_STORE,
    reporter: Reporter | None = None,
    *,
    accept_worse: bool = False,
    signer: Signer | None = None,
) -> BuildResult:
    """Run every stage of a recipe and publish the artifact.

    Args:
        recipe: from `load_recipe`.
        store: a folder, or `s3://bucket/prefix`.
        reporter: told about every stage.
        accept_worse: do not compare with the versions that the recipe's aliases point at now.
        signer: signs the version, see `litelambda.store.signing.open_signer`; None leaves it unsigned.

    Returns:
        The version that was published, its figures and what was measured on the way.

    Raises:
        LitelambdaError: a stage failed; nothing was published unless the message says so.
        ServingError: the store's URL is wrong, or the store refused.

    Example::

        from litelambda import build, load_recipe

        result = build(load_recipe("recipe.toml"), "models")
        print(result.published.url, result.metrics["quantized"])
    """
    with interrupts_noted():
        kind = _RecommenderBuild if isinstance(recipe.data, InteractionsData) else _Build
        return kind(recipe, reporter or Reporter(), signer).run(store_url(store), accept_worse=accept_worse)


def train_with_others(recipe: Recipe, reporter: Reporter | None = None) -> None:
    """Train with the other hosts that TF_CONFIG names, the first of which continues with the build.

    Raises:
        LitelambdaError: the data cannot be read, or training failed, here or on another host.
    """
    with interrupts_noted():
        _Build(recipe, reporter or Reporter()).train(is_chief=False)


class _Build:
    """A build under way: every stage is a method, what it made is kept for the later ones."""

    def __init__(self, recipe: Recipe, reporter: Reporter, signer: Signer | None = None) -> None:
        backend = choose_backend(recipe.train.backend)  # spelt out: a manifest does not leave it to the environment
        self.recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"backend": backend})})
        self.from_logits = recipe.train.from_logits
        self.seconds: dict[str, float] = {}
        self._reporter = reporter
        self._signer = signer
        self._encryption = open_encryption(recipe)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        with self._reporter.stage(name) as current, shortages_explained(name):
            yield current
        self.seconds[name] = current.seconds

    def run(self, url: str, *, accept_worse: bool) -> BuildResult:
        self.store = Store(url)
        self.train()
        self.compress()
        self.quantize()
        self.evaluate(accept_worse=accept_worse)
        self.verify()
        self.explain()
        datasets = digest_files(self.recipe.resolve(self.recipe.data.path))
        description = replace(self.describe(), datasets=datasets)
        with self.stage("publish") as current:
            stored = store_form(self.quantized.artifact, self.recipe.publish)
            published = self.publish(description, stored)
            current.summary = f"version {published.version} in {published.url}"
        return BuildResult(
            published=published,
            metrics=description.metrics,
            size_bytes={**description.size_bytes, "stored": len(stored.content)},
            float_operators=self.quantized.float_operators,
            note=self.quantized.note,
            batching=self.verified.batching,
            explain=self.explained.document,
            served=self.served,
            hints=hints(self.data, self.evaluated.confusion),
            seconds=self.seconds,
        )

    def train(self, *, is_chief: bool = True) -> None:
        with self.stage("data") as current:
            self.data = load_data(self.recipe.data, self.recipe.folder)
            current.summary = self.data.describe()
        with self.stage("train") as current:
            recipe = self.recipe
            self.trained = train(recipe.model, recipe.train, self.data, recipe.folder, current.progress)
            if is_chief:
                self.answers = evaluate_float(self.trained.model, self.data, self.from_logits)
                check_floor(self.recipe.gate, self.answers, self.data)
            parameters = counted(self.trained.model.count_params(), "parameter")
            current.summary = f"{parameters}, {counted(self.trained.num_epochs, 'epoch')}"

    def compress(self) -> None:
        with self.stage("compress") as current:
            self.compressed = self.compress_or_search(current.progress)
            model = self.compressed.model
            self.input_name = model.inputs[0].name
            is_same = model is self.trained.model
            self.changed = self.answers if is_same else evaluate_float(model, self.data, self.from_logits)
            if self.data.target_scaling is not None:
                in_own_units(model, self.data.target_scaling)
            current.summary = ", ".join(self.compressed.figures) or "nothing to do"

    def compress_or_search(self, progress: ReportProgress) -> Compressed:
        recipe, model = self.recipe, self.trained.model
        settings = recipe.compress
        if settings.auto is not None:
            return search(recipe, model, self.data, progress)
        int4 = recipe.quantize.int4
        context = TrainingContext.with_teacher(recipe.train, self.data, settings.distillation, model, int4)
        return compress(settings, model, context, progress)

    def quantize(self) -> None:
        recipe = self.recipe
        with self.stage("quantize") as current:
            scheme = self.compressed.scheme or recipe.quantize.scheme
            settings = recipe.quantize.model_copy(update={"scheme": scheme})
            rows = self.data.representative(recipe.quantize.representative_samples, recipe.train.seed)
            representative = {self.input_name: rows}
            self.quantized = quantize(self.compressed.model, representative, settings, self.trained.model)
            current.summary = f"{scheme}, {len(self.quantized.artifact):,} bytes"

    def evaluate(self, *, accept_worse: bool) -> None:
        recipe, data = self.recipe, self.data
        with self.stage("evaluate") as current:
            rows = {self.input_name: data.test.x[:_COMPARED_ROWS]}
            self.compared = check_build(self.compressed.model, self.quantized.in_float, rows)
            answers = (self.answers, self.changed)
            self.evaluated = evaluate(data, *answers, self.quantized, self.from_logits, current.progress)
            check_gate(recipe.gate, self.evaluated)
            self.served = [] if accept_worse else self.compare_served(current.progress)
            current.summary = self.evaluated.describe()

    def compare_served(self, progress: ReportProgress) -> list[Served]:
        sections = (self.recipe.publish, self.recipe.gate)
        return check_served(self.store, *sections, self.data, self.evaluated, self.from_logits, progress)

    def verify(self) -> None:
        with self.stage("verify") as current:
            (tensor,) = self.quantized.signature.inputs
            codes = to_codes(self.data.test.x[:_VERIFIED_ROWS], tensor)
            self.verified = verify(self.quantized.artifact, {tensor.name: codes})
            rows = "rows in batches" if self.verified.batching["dynamic"] else "rows one by one"
            current.summary = f"{counted(self.verified.num_rows, 'row')} bit for bit; {rows}"

    def explain(self) -> None:
        with self.stage("explain") as current:
            self.explained = explain_build(self.recipe, self.compressed.model, self.data, self.quantized)
            current.summary = self.explained.summary

    def describe(self) -> Description:
        (tensor,), artifact, seed = self.quantized.signature.inputs, self.quantized.artifact, self.recipe.train.seed
        preprocessing = self.data.preprocessing and {tensor.name: self.data.preprocessing.to_json()}
        return Description(
            signature=self.verified.signature,
            batching=self.verified.batching,
            warm_up=self.verified.warm_up,
            quantization=self.quantized.to_json(),
            labels=self.data.labels,
            task=self.recipe.data.task,
            preprocessing=preprocessing or {},
            assets=self.data.preprocessing.assets if self.data.preprocessing else {},
            metrics=self.evaluated.to_json() | self.compared,
            size_bytes={"float": len(self.quantized.float_artifact), "quantized": len(artifact)},
            recipe=self.recipe.to_json(),
            explain=self.explained.document,
            drift=baseline_of_test_rows(self.verified.signature, self.data, self.evaluated.outputs, artifact, seed),
        )

    def publish(self, description: Description, stored: Stored) -> Published:
        settings = self.recipe.publish
        version = self.store.next_version(settings.name)
        served = {ARTIFACT_NAME: self.quantized.artifact, **self.explained.files}
        report = with_explanations(self.report(description, stored, version), self.data, description, served)
        files = {
            **served,
            **save_keras(self.compressed.model),
            REPORT_NAME: json.dumps(report, indent=1, ensure_ascii=False).encode(),
            HTML_NAME: make_html(report),
        }
        place = (self.store, settings.name, settings.aliases)
        keys: dict[str, Any] = {"signer": self._signer, "encryption": self._encryption}
        return publish(*place, files, description, stored, version=version, **keys)

    def report(self, description: Description, stored: Stored, version: int) -> dict[str, Any]:
        """The version's report: everything that was measured during the build."""
        return {
            **describe_origin(self.recipe, self.data, self.quantized.artifact, version),
            **describe_steps(self.trained, self.compressed, self.quantized),
            "recipe": description.recipe,
            "quantization": description.quantization,
            "batching": description.batching,
            "metrics": description.metrics,
            **self.failures(),
            "explanations": self.explained.checked,
            "labels": description.labels,
            "size_bytes": {**description.size_bytes, "stored": len(stored.content)},
            "stored": {"encoding": stored.encoding, "ready_ms": stored.ready_ms},
            "seconds": self.seconds,
            "served": [each.to_json() for each in self.served],
        }

    def failures(self) -> dict[str, Any]:
        return describe_failures(self.recipe, self.data, self.answers, self.evaluated)


class _RecommenderBuild(_Build):
    """The build of a recommender: what differs from that of a model with one output."""

    def run(self, url: str, *, accept_worse: bool) -> BuildResult:
        if self.recipe.train.backend == "jax":  # a graph from JAX has an open batch, in which TOPK_V2 does not run
            raise TrainError("recommendations are trained on TensorFlow: set train.backend = 'tensorflow'")
        return super().run(url, accept_worse=accept_worse)

    def train(self, *, is_chief: bool = True) -> None:  # noqa: ARG002 - one host trains
        recipe = self.recipe
        with self.stage("data") as current:
            self.interactions = load_interactions(cast("InteractionsData", recipe.data), recipe.folder)
            self.data = self.interactions.users
            current.summary = self.interactions.describe()
        with self.stage("train") as current:
            model = cast("TwoTowerModel", recipe.model)
            self.trained = train_two_tower(model, recipe.train, self.interactions, current.progress)
            self.float_answers = recommend(self.trained.model, self.data)
            popular = popularity_metrics(self.data, self.float_answers.items.shape[1])
            check_floor(recipe.gate, self.float_answers, self.data, popular)
            parameters = counted(self.trained.model.count_params(), "parameter")
            current.summary = f"{parameters}, {counted(self.trained.num_epochs, 'epoch')}"

    def compress(self) -> None:
        with self.stage("compress") as current:
            model, section = self.trained.model, cast("TwoTowerModel", self.recipe.model)
            self.input_name = model.inputs[0].name
            is_dynamic = self.recipe.quantize.scheme == "dynamic"
            self.compressed = Compressed(with_int8_tables(model, section, self.interactions) if is_dynamic else model)
            self.compressed_answers = recommend(self.compressed.model, self.data) if is_dynamic else self.float_answers
            current.summary = "int8 embedding tables" if is_dynamic else "nothing to do"

    def evaluate(self, *, accept_worse: bool) -> None:
        with self.stage("evaluate") as current:
            rows = self.data.test.x[:_COMPARED_ROWS]
            self.compared = check_scores(self.compressed.model, self.quantized.in_float, rows)
            answers = (self.float_answers, self.compressed_answers)
            self.evaluated = evaluate_recommender(self.data, *answers, self.quantized, current.progress)
            check_gate(self.recipe.gate, self.evaluated)
            self.served = [] if accept_worse else self.compare_served(current.progress)
            current.summary = self.evaluated.describe()

    def failures(self) -> dict[str, Any]:
        return describe_ranks(self.evaluated, self.data)

    def describe(self) -> Description:
        names = json.dumps(self.interactions.item_names, ensure_ascii=False).encode()
        plain = super().describe()
        return replace(plain, assets={**plain.assets, ITEMS_FILE: names}, vocabularies={ITEMS: ITEMS_FILE})
