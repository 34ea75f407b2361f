"""`compress.auto`: what it tries and takes, that it repeats, resumes where it stopped, and gives up clearly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.artifact.latency import measure_latency_us
from litelambda.commands.build import build
from litelambda.common.errors import GateError, RecipeError, TrainError
from litelambda.common.progress import Reporter
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.recipe.compression import Auto, Compress
from litelambda.recipe.load import load_recipe
from litelambda.search import search as search_module
from litelambda.search.acceptance import Acceptance, TrialResult
from litelambda.search.budget import Budget, OutOfBudgetError
from litelambda.search.candidate_builder import BuiltCandidate, CandidateBuilder
from litelambda.search.candidate_metrics import CandidateEvaluator
from litelambda.search.candidates import Candidate, SearchSpace
from litelambda.search.search import search
from litelambda.search.state import SearchState
from litelambda.training.train import Trained
from support.training import load_rows, train_recipe


@pytest.fixture(scope="module")
def wide(module_tiny_recipe: Path) -> tuple[Path, Trained]:
    """The tiny recipe with a hidden layer worth compressing, trained."""
    path = module_tiny_recipe.with_name("wide.toml")
    path.write_text(module_tiny_recipe.read_text().replace("hidden = [8]", "hidden = [64, 64]"))
    recipe = load_recipe(path)
    return path, train_recipe(recipe)


def run(wide: tuple[Path, Trained], *more: str, **auto: Any) -> Any:
    path, trained = wide
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in auto.items())
    recipe = load_recipe(path, [f"compress.auto={{{table}}}", *more])
    return search(recipe, trained.model, load_rows(recipe), lambda *_: None)


Figures = dict[str, Any]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Candidate], Figures]], None]:
    """Replace training and measuring by a function from a candidate to its figures."""

    def use(figures: Callable[[Candidate], Figures]) -> None:
        def measure(_: object, candidate: Candidate, __: object) -> TrialResult:
            defaults = {"accuracy": 0.9, "stored": 1000, "raw": 1000, "latency": 10.0}
            return TrialResult(candidate.name, candidate.scheme, **{**defaults, **figures(candidate)})

        monkeypatch.setattr(CandidateEvaluator, "measure", measure)
        monkeypatch.setattr(CandidateBuilder, "build", lambda self, *_: BuiltCandidate(self._model, {}))

    return use


@pytest.mark.slow
def test_a_search_repeats_and_resumes(
    wide: tuple[Path, Trained], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same figures, Pareto set and weights from the seed alone, in one go or in two."""
    monkeypatch.setattr("litelambda.search.candidate_metrics.measure_latency_us", lambda artifact: len(artifact) / 100)
    monkeypatch.setattr(SearchSpace, "shapes", lambda self, parent: [])
    monkeypatch.setattr(search_module, "BITS", (4,))
    monkeypatch.setattr(search_module, "SPARSER", ())
    settings = {"max_accuracy_drop": 0.3, "epochs": 1}
    raw_edges = 'quantize.io="int8"'  # one scheme, which is all that this is about
    whole = run(wide, raw_edges, **settings)
    report = whole.figures["auto"]
    tried = {each["name"]: each for each in report["tried"]}
    assert list(tried) == ["float32", "int8", "int8, sketched", "int8, 80% zeros, 4 bits"]
    assert tried[report["chosen"]]["stored"] < tried["int8"]["stored"]
    assert report["chosen"] in report["pareto"]
    assert not report["out_of_budget"]

    state = {**settings, "state": str(tmp_path / "state")}
    assert run(wide, raw_edges, **state, max_candidates=3).figures["auto"]["out_of_budget"]
    resumed = run(wide, raw_edges, **state)
    assert resumed.figures == whole.figures
    again = zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in again)


def test_trained_candidates_come_back_from_the_folder(
    wide: tuple[Path, Trained], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Weights and figures of a factorized, pruned model are read again, not trained again."""
    path, trained = wide
    recipe = load_recipe(path, [f'compress.auto={{state = "{tmp_path}", epochs = 1}}'])
    data, auto = load_rows(recipe), recipe.compress.auto
    assert auto is not None
    space = SearchSpace(trained.model, auto, Compress(), recipe.train, len(data.train))
    sketch = space.sketch(space.shapes(space.plain("int8"))[1])

    def builder() -> CandidateBuilder:
        context = TrainingContext.with_teacher(recipe.train, data, space.distillation, trained.model, [])
        return CandidateBuilder(trained.model, context, SearchState(recipe, auto, trained.model))

    first = builder().build(sketch, lambda *_: None)
    monkeypatch.setattr(
        "litelambda.compression.fine_tuning.fit", lambda *_: pytest.fail("trained again") if _[2].epochs else {}
    )
    assert builder().is_trained(sketch)
    second = builder().build(sketch, lambda *_: None)
    assert [layer.name for layer in second.model.layers] == [layer.name for layer in first.model.layers]
    assert "dense_2_inner" in [layer.name for layer in second.model.layers]
    assert second.figures == json.loads(json.dumps(first.figures))
    assert all(map(np.array_equal, first.model.get_weights(), second.model.get_weights()))


def test_pruning_goes_on_while_something_passes(wide: tuple[Path, Trained], pretend: Any) -> None:
    """Sparser and coarser until the drop is too large; the smallest of those that pass is chosen."""

    def figures(candidate: Candidate) -> Figures:
        grid = candidate.steps.quantization_aware
        bits = min(grid.layer_bits.values(), default=grid.bits) if grid else 8
        too_much = candidate.sparsity > 0.9 or bits < 3
        return {"stored": round(1000 * (1 - candidate.sparsity / 2) * bits / 8), "lost": 20 if too_much else 0}

    pretend(figures)
    report = run(wide, max_accuracy_drop=0.1).figures["auto"]
    names = [each["name"] for each in report["tried"]]
    assert report["chosen"] == "int8, 87% zeros, 3 bits"
    assert "int8, 87% zeros, 2 bits" in names
    assert "int8, 91% zeros, 4 bits" in names
    assert "int8, 91% zeros, 3 bits" not in names
    assert "int8, 94% zeros, 4 bits" not in names


@pytest.mark.parametrize(("lost", "longer"), [(6, True), (30, False)])
def test_what_nearly_passes_is_trained_longer(
    wide: tuple[Path, Trained], pretend: Any, lost: int, longer: bool
) -> None:
    """A candidate that lacks little gets as much training again, and counts if that was enough; another does not."""

    def figures(candidate: Candidate) -> Figures:
        grid = candidate.steps.quantization_aware
        bits = min(grid.layer_bits.values(), default=8) if grid else 8
        again = candidate.name.endswith("longer")
        return {"stored": 100 * bits, "lost": lost if bits < 4 and not again else 0}

    pretend(figures)
    report = run(wide, max_accuracy_drop=0.1, confidence=0.5).figures["auto"]
    names = [each["name"] for each in report["tried"]]
    assert ("int8, 80% zeros, 3 bits, longer" in names) is longer
    assert ("int8, 80% zeros, 2 bits" in names) is longer
    assert report["chosen"].endswith("2 bits, longer" if longer else "4 bits")


def test_less_is_pruned_where_the_first_step_is_too_much(wide: tuple[Path, Trained], pretend: Any) -> None:
    """What does not pass at the first sparsity is tried denser, down to none at all."""

    def figures(candidate: Candidate) -> Figures:
        grid = candidate.steps.quantization_aware
        bits = min(grid.layer_bits.values(), default=8) if grid else 8
        return {"lost": 20 if candidate.sparsity else 0, "stored": 100 * bits}

    pretend(figures)
    report = run(wide, max_accuracy_drop=0.1).figures["auto"]
    assert report["chosen"] == "int8, 0% zeros, 2 bits"
    assert "int8, 60% zeros, 4 bits" in [each["name"] for each in report["tried"]]


def test_the_smaller_shape_is_trained(wide: tuple[Path, Trained], pretend: Any) -> None:
    """Of the shapes, those that promise the fewest bytes are trained, and the winner can be one of them."""

    def figures(candidate: Candidate) -> Figures:
        small = any(each.steps.low_rank for each in candidate.lineage)
        return {"stored": 300 if small else 600 if candidate.scheme != "float32" else 2000}

    pretend(figures)
    assert "rank 1/" in run(wide, max_accuracy_drop=0.1).figures["auto"]["chosen"]


@pytest.mark.parametrize(
    ("minimize", "int8_us", "float_us", "dynamic_us", "chosen"),
    [
        ("latency", 10.0, 5.0, 8.0, "float32"),
        ("latency", 10.0, 9.8, 9.9, "int8"),
        ("stored", 10.0, 5.0, 9.0, "int8"),
        ("stored", 10.0, 5.0, 6.0, "dynamic"),
    ],
)
def test_schemes_are_chosen_by_measurement(
    wide: tuple[Path, Trained],
    pretend: Any,
    minimize: str,
    int8_us: float,
    float_us: float,
    dynamic_us: float,
    chosen: str,
) -> None:
    """int8, unless another is clearly cheaper, or as cheap and clearly faster."""
    times = {"int8": int8_us, "float32": float_us, "dynamic": dynamic_us}
    pretend(lambda each: {"latency": times[each.scheme], "stored": 4000 if each.scheme == "float32" else 1000})
    assert run(wide, minimize=minimize, max_candidates=3, max_accuracy_drop=0.5).scheme == chosen


def test_shapes_are_combined_where_only_they_count(
    wide: tuple[Path, Trained], pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For raw bytes nothing is pruned; a change of shape is tried on top of the best one."""

    def figures(candidate: Candidate) -> Figures:
        changes = sum(bool(each.steps.low_rank or each.steps.structured) for each in candidate.lineage)
        accuracy = 0.9 if candidate.rows < 1 else 0.95
        return {"raw": 4000 if candidate.scheme == "float32" else 1000 - 100 * changes, "accuracy": accuracy}

    pretend(figures)
    monkeypatch.setattr("litelambda.search.candidates._SCREENING_ROWS", 100)
    report = run(wide, minimize="raw", max_accuracy_drop=0.1).figures["auto"]
    assert report["chosen"].count("trained") == 3
    assert not any("zeros" in each["name"] for each in report["tried"])


def test_a_gate_out_of_reach_publishes_nothing(wide: tuple[Path, Trained], pretend: Any, tmp_path: Path) -> None:
    """When nothing is good enough, the error has the best candidate's figures, and the store stays empty."""
    pretend(lambda each: {"accuracy": 0.5, "lost": 30, "stored": 900} if each.name != "float32" else {"stored": 4000})
    recipe = load_recipe(wide[0], ["train.epochs=1", "compress.auto={max_candidates = 4}"])
    with pytest.raises(GateError, match=r"in 4 candidates; the best was 'int8' with 0\.5000, .* 900 bytes") as refused:
        build(recipe, (tmp_path / "store").as_uri(), Reporter())
    assert refused.value.exit_code == 1
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_step_that_does_not_fit_ends_no_search(
    wide: tuple[Path, Trained], pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason is in the report, and the others are tried."""
    pretend(lambda each: {"stored": 4000 if each.scheme == "float32" else 1000})

    def build_none(self: Any, candidate: Candidate, _: object) -> BuiltCandidate:
        if candidate.parent is not None:
            raise TrainError("no layer is left")
        return BuiltCandidate(self._model, {})

    monkeypatch.setattr(CandidateBuilder, "build", build_none)
    report = run(wide, max_accuracy_drop=0.1).figures["auto"]
    assert report["chosen"] == "int8"
    assert "no layer is left" in {each["problem"] for each in report["tried"]}


def acceptance(num_rows: int = 1000, num_test_rows: int = 1000, **auto: Any) -> Acceptance:
    return Acceptance(Auto.model_validate(auto), num_rows, num_test_rows)


def test_the_margin_counts_the_rows_that_changed() -> None:
    """One standard error of a paired difference on both samples, times the quantile of the confidence."""
    tried = TrialResult("", "int8", lost=30, gained=20)
    assert acceptance().drop(tried) == pytest.approx(0.01)
    assert acceptance(confidence=0.95).margin(tried) == pytest.approx(
        1.64485 * (2 * (50 - 0.1)) ** 0.5 / 1000, rel=1e-4
    )
    assert acceptance(confidence=0.5).margin(tried) == 0
    assert acceptance().margin(TrialResult("", "int8")) == 0
    assert acceptance(max_accuracy_drop=0.01, confidence=0.5).passes(tried)
    assert not acceptance(max_accuracy_drop=0.02).passes(tried)


def test_small_differences_of_time_change_nothing() -> None:
    """Where time counts, the later candidate must be clearly cheaper; bytes are compared exactly."""
    first, second = (TrialResult("", "int8", cost=cost, raw=raw, passes=True) for cost, raw in ((1.0, 10), (0.97, 9)))
    assert acceptance(minimize="stored").is_better(second, first)
    assert not acceptance(minimize={"stored": 1.0, "latency": 1.0}).is_better(second, first)
    assert not acceptance(minimize="stored").is_better(TrialResult("", "int8", accuracy=1.0), first)
    assert acceptance(minimize="latency").is_better(replace(first, accuracy=0.9, cost=1.01), first)


def test_what_another_beats_is_not_in_the_pareto_set() -> None:
    """A candidate stays if no other is as good in all figures and better in one; times only where they count."""
    best = TrialResult("best", "int8", 0.9, 10, 100, 5.0)
    smaller = TrialResult("smaller", "int8", 0.8, 5, 100, 5.0)
    faster = TrialResult("faster", "int8", 0.8, 11, 100, 1.0)
    broken = TrialResult("broken", "int8", problem="does not convert")
    tried = [best, smaller, faster, broken]
    assert [each.name for each in acceptance(minimize="raw").pareto(tried)] == ["best", "smaller"]
    assert [each.name for each in acceptance(minimize="latency").pareto(tried)] == ["best", "smaller", "faster"]


def test_training_that_would_not_end_in_time_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a pass over the data takes is told from the one before."""
    now = [0.0]
    monkeypatch.setattr("litelambda.search.budget.time.monotonic", lambda: now[0])
    budget = Budget(Auto(budget_minutes=1.0, max_candidates=2))
    with budget.training(2):
        now[0] += 20
    with budget.training(3):
        now[0] += 30
    assert budget.minutes_left == pytest.approx(10 / 60)
    assert budget.spent_share(1) == pytest.approx(50 / 60)
    with pytest.raises(OutOfBudgetError), budget.training(2):
        pytest.fail("there are ten seconds left for twenty")
    with budget.training(0):
        pass
    budget.check_candidates(1)
    with pytest.raises(OutOfBudgetError):
        budget.check_candidates(2)


def test_latency_is_measured_in_the_shipped_runtime(tiny_tflite: bytes) -> None:
    """A tiny model takes more than nothing and less than a tenth of a second."""
    assert 0.1 < measure_latency_us(tiny_tflite) < 100_000


def test_auto_chooses_alone(tiny_recipe: Path) -> None:
    """Steps beside `auto` are a contradiction, named with the steps."""
    with pytest.raises(RecipeError, match=r"compress\.auto: chooses the steps itself; remove compress\.clustering"):
        load_recipe(tiny_recipe, ["compress.auto={}", "compress.clustering={}"])
