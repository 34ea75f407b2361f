"""The search of `compress.auto`: it tries compressions within a budget and takes the cheapest that is as good.

1. Scheme: int8, unless the shipped runtime shows another scheme to be clearly better.
2. Shape: every shape is sketched with brief training on some of the rows, and the most promising are trained.
3. Weights: these are pruned step by step and put on ever coarser grids until no candidate passes. Candidates that
   nearly pass are trained longer.

Only validation rows are used: the test rows are for the gate. What is tried next depends on the seed and on earlier
results, never on the clock, which can only end the search; latency decides only where it counts and differs clearly.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import takewhile
from typing import Any

import numpy as np

from litelambda.common.errors import ConversionError, GateError, TrainError, VerificationError
from litelambda.common.progress import ReportProgress
from litelambda.compression.compress import Compressed
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Split
from litelambda.recipe.compression import Auto
from litelambda.recipe.sections import Recipe
from litelambda.search.acceptance import Acceptance, TrialResult
from litelambda.search.budget import Budget, OutOfBudgetError
from litelambda.search.candidate_builder import BuiltCandidate, CandidateBuilder
from litelambda.search.candidate_metrics import CandidateEvaluator
from litelambda.search.candidates import BITS, DENSER, FIRST_SPARSITY, SPARSER, Candidate, Scheme, SearchSpace
from litelambda.search.state import SearchState

# Bounds of the effort, chosen to stay within the default budget of 10 minutes and 40 candidates, not measured:
_FINALISTS = 2  # shapes that are trained after the sketches
_GENERATIONS = 3  # changes of shape on top of one another
# Differences that count. MobileNetV3-Small takes 0.39 ms in float32 and 0.78 ms in int8, MobileNetV2 7.6 and 3.6 ms:
# where a scheme matters, it matters by far more than these.
_SAME_COST = 1.05
_FASTER = 0.75  # of the other latency


def search(recipe: Recipe, model: Any, data: Dataset, progress: ReportProgress) -> Compressed:
    """Find the compression that `compress.auto` asks for.

    Args:
        recipe: the whole recipe: the search crosses its sections, and its key in the state folder is made of them.
        model: the trained float model.
        data: from the data stage, with validation rows.
        progress: called with the spent share of the budget and what is being done.

    Raises:
        TrainError: there are no validation rows.
        ConversionError: the model cannot be converted.
        GateError: no candidate within the budget was good enough; the message names the best one.
    """
    if recipe.compress.auto is None or data.validation is None:
        raise TrainError("compress.auto needs validation rows: set data.validation_split")
    return _Search(recipe, recipe.compress.auto, model, data, data.validation, progress).result()


class _Search:
    def __init__(
        self, recipe: Recipe, auto: Auto, model: Any, data: Dataset, validation: Split, progress: ReportProgress
    ) -> None:
        self._auto, self._progress, self._num_rows = auto, progress, len(validation)
        self._space = SearchSpace(model, auto, recipe.compress, recipe.train, len(data.train))
        context = TrainingContext.with_teacher(
            recipe.train, data, self._space.distillation, model, recipe.quantize.int4
        )
        self._state = SearchState(recipe, auto, model)
        self._builder = CandidateBuilder(model, context, self._state)
        self._evaluator = CandidateEvaluator(model, data, validation, recipe.train, recipe.quantize)
        self._acceptance = Acceptance(auto, len(validation), len(data.test))
        self._budget = Budget(auto)
        self._raw_edges = recipe.quantize.io != "float32"
        self._results: dict[str, TrialResult] = {}
        self._float: TrialResult | None = None
        self._best: Candidate | None = None

    def result(self) -> Compressed:
        """Run the search; the winner's model was built on the way."""
        out_of_budget = False
        try:
            start = self._choose_scheme()
            if self._acceptance.counts("stored") and start.scheme != "float32":
                self._search_weights(start)
            else:
                self._search_shapes(start)
        except OutOfBudgetError:
            out_of_budget = True
        best = self._best
        if best is None or not self._results[best.name].passes:
            raise GateError(self._describe_failure())
        built = self._builder.build(best, lambda _, text: self._say(best, text))
        report = self._report(best, out_of_budget=out_of_budget)
        return Compressed(built.model, {**built.figures, "auto": report}, best.scheme)

    def _choose_scheme(self) -> Candidate:
        """Choose int8, unless another scheme is clearly cheaper, as cheap and clearly faster, or alone good enough."""
        self._float = in_float = self._try(self._space.plain("float32"))
        if in_float.problem:
            raise ConversionError(in_float.problem)
        chosen = self._space.plain("int8")
        best = self._try(chosen)
        # Only int8 can have integer inputs and outputs.
        others: tuple[Scheme, ...] = () if self._raw_edges else ("dynamic", "float32")
        for candidate in map(self._space.plain, others):
            result = self._try(candidate)
            cheaper = result.cost < best.cost / _SAME_COST
            faster = result.cost <= best.cost * _SAME_COST and result.latency < _FASTER * best.latency
            alone = candidate.scheme != "float32" and not best.passes
            if result.passes and (cheaper or faster or alone):
                chosen, best = candidate, result
        if best.problem:
            raise ConversionError(f"compress.auto: the model cannot be quantized: {best.problem}")
        self._best = chosen
        return chosen

    def _search_weights(self, start: Candidate) -> None:
        """Sketch every shape, then prune the most promising ones and put them on grids as far as they pass."""
        sketches = {shape: self._try(self._space.sketch(shape)) for shape in (start, *self._space.shapes(start))}
        finalists = [
            shape if shape is start else self._space.trained(shape, to_be_continued=True)
            for shape in self._most_promising(sketches)
        ]
        first = [self._space.pruned(shape, FIRST_SPARSITY) for shape in finalists]
        passed = [pruned for pruned in first if self._put_on_grids(pruned)]
        for pruned in passed:
            self._prune_further(pruned)
        if not passed:
            any(self._put_on_grids(self._space.pruned(shape, less)) for less in DENSER for shape in finalists)

    def _prune_further(self, pruned: Candidate) -> None:
        """Add zeros until no candidate passes."""
        for sparsity in SPARSER:
            pruned = self._space.pruned(pruned, sparsity)
            if not self._put_on_grids(pruned):
                return

    def _put_on_grids(self, pruned: Candidate) -> bool:
        """Try fewer and fewer bits while a candidate passes; whether any did."""
        try:
            model = self._build(pruned).model
        except TrainError as error:  # a step that does not fit this model does not fail the search
            self._results[pruned.name] = TrialResult(pruned.name, pruned.scheme, problem=str(error))
            return False
        grids = (self._space.grid(pruned, bits, model) for bits in BITS)
        return len(list(takewhile(self._try_grid, grids))) > 0

    def _try_grid(self, grid: Candidate) -> bool:
        """Whether a grid is good enough, if need be after training it longer."""
        result = self._try(grid, keep=True)
        passes = result.passes
        if not passes and self._acceptance.nearly_passes(result):
            passes = self._try(self._space.longer(grid)).passes
        if grid is not self._best:
            self._builder.forget(grid)
        return passes

    def _search_shapes(self, start: Candidate) -> None:
        """Where only the shape counts: sketch changes of the best so far, train the most promising ones, and repeat."""
        for _ in range(_GENERATIONS):
            sketches = {shape: self._try(shape) for shape in self._space.shapes(start)}
            for shape in self._most_promising(sketches):
                self._try(self._space.trained(shape, to_be_continued=False))
            if self._best is None or self._best is start:
                return
            start = self._best

    def _most_promising(self, sketches: dict[Candidate, TrialResult]) -> list[Candidate]:
        return sorted(sketches, key=lambda shape: self._acceptance.promise(sketches[shape]))[:_FINALISTS]

    def _try(self, candidate: Candidate, *, keep: bool = False) -> TrialResult:
        """Build and measure a candidate, unless it was tried before, here or in an earlier search.

        Args:
            candidate: the candidate.
            keep: keep its model in any case, since another candidate may extend it.
        """
        known = self._results.get(candidate.name)
        if known is not None:
            return known
        self._budget.check_candidates(len(self._results))
        result = self._state.load(candidate) or self._run(candidate)
        result = replace(
            result, cost=self._acceptance.cost(result, self._float or result), passes=self._acceptance.passes(result)
        )
        self._results[candidate.name] = result
        if candidate.scheme == "float32" and candidate.parent is None:
            return result  # all others are compared with it
        if self._best is None or self._acceptance.is_better(result, self._results[self._best.name]):
            self._best = candidate
        elif not keep:
            self._builder.forget(candidate)
        return result

    def _run(self, candidate: Candidate) -> TrialResult:
        try:
            model = self._build(candidate).model
            self._say(candidate, "measuring")
            with self._budget.measuring():
                result = self._evaluator.measure(candidate, model)
        except (
            TrainError,
            ConversionError,
            VerificationError,
        ) as error:  # a step that does not fit does not fail the search
            result = TrialResult(candidate.name, candidate.scheme, problem=str(error))
        self._state.save(candidate, result)
        return result

    def _build(self, candidate: Candidate) -> BuiltCandidate:
        """Build a candidate's model, if the time that is left is enough."""
        missing = [each for each in candidate.lineage if not self._builder.is_trained(each)]
        with self._budget.training(sum(each.passes_over_data for each in missing)):
            return self._builder.build(candidate, lambda _, text: self._say(candidate, text))

    def _say(self, candidate: Candidate, text: str) -> None:
        self._progress(
            self._budget.spent_share(len(self._results)),
            f"{candidate.name}: {text} ({len(self._results)} tried, {self._budget.minutes_left:.0f} min left)",
        )

    def _report(self, chosen: Candidate, *, out_of_budget: bool) -> dict[str, Any]:
        return {
            "chosen": chosen.name,
            "minimize": self._auto.minimize,
            "max_accuracy_drop": self._auto.max_accuracy_drop,
            "confidence": self._auto.confidence,
            "validation_rows": self._num_rows,
            "out_of_budget": out_of_budget,
            "tried": [asdict(each) | {"cost": _finite(each.cost)} for each in self._results.values()],
            "pareto": [each.name for each in self._acceptance.pareto(list(self._results.values()))],
        }

    def _describe_failure(self) -> str:
        assert self._float is not None  # noqa: S101 - for the type checker: the float model is result first
        others = [each for each in self._results.values() if each.name != "float32" and not each.problem]
        best = max(others, key=lambda each: each.accuracy, default=None)
        found = "no candidate could be built"
        if best is not None:
            found = (
                f"the best was {best.name!r} with {best.accuracy:.4f}, uncertain by "
                f"{self._acceptance.margin(best):.4f}, and {best.stored:,} bytes stored"
            )
        return (
            f"compress.auto found no candidate within max_accuracy_drop = {self._auto.max_accuracy_drop} of the float "
            f"model's {self._float.accuracy:.4f} on {self._num_rows:,} validation rows, with a confidence "
            f"of {self._auto.confidence:.0%}, in {len(self._results)} candidates; {found}. Nothing was published"
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
