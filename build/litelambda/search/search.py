"""Search: `compress.auto` tries compressions within a budget and takes the cheapest that is still as good.

Three rounds. How to quantize: int8, unless the shipped runtime shows another scheme to be clearly better. Which shape:
every one is sketched with short training on some of the rows, and those that promise most go on. How far: these are
pruned step by step and put on ever coarser grids, until nothing passes any more. What nearly does is trained longer.

Judged on validation rows only: the test rows are for the gate. What is tried next depends on the seed and on what was
found before, never on the clock, which can only end the search; times decide only where they count and differ clearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from typing import Any

import numpy as np

from litelambda.common.errors import ConversionError, GateError, TrainError, VerificationError
from litelambda.compression.compress import Compressed
from litelambda.data.dataset import Dataset
from litelambda.recipe.compression import Auto
from litelambda.recipe.sections import Recipe
from litelambda.search.acceptance import Judge, Tried
from litelambda.search.budget import Budget, OutOfBudgetError
from litelambda.search.candidate_builder import Growing, Grown
from litelambda.search.candidate_metrics import Measuring
from litelambda.search.candidates import BITS, DENSER, FIRST_SPARSITY, SPARSER, Candidate, Scheme, Space
from litelambda.search.state import State
from litelambda.training.fitting import Progress
from litelambda.training.train import Trained

_FINALISTS = 2
_GENERATIONS = 3
_SAME_COST = 1.05  # two schemes whose costs differ by less cost the same
_FASTER = 0.75  # share of the other's time, to be called faster


def search(recipe: Recipe, trained: Trained, data: Dataset, progress: Progress) -> Compressed:
    """Find the compression that `compress.auto` asks for.

    Raises:
        TrainError: there are no validation rows.
        ConversionError: the model cannot even be converted to a float flatbuffer.
        GateError: nothing within the budget was good enough; the message has the best that was found.
    """
    if recipe.compress.auto is None or data.validation is None:
        raise TrainError("compress.auto judges on validation rows: set data.validation_split")
    return _Search(recipe, recipe.compress.auto, trained, data, progress).result()


class _Search:
    def __init__(self, recipe: Recipe, auto: Auto, trained: Trained, data: Dataset, progress: Progress) -> None:
        self._auto, self._progress = auto, progress
        self._state = State(recipe, auto, trained)
        self._growing = Growing(recipe, trained, data, self._state)
        self._measuring = Measuring(recipe, trained, data)
        self._judge = Judge(auto, self._measuring.num_rows, len(data.test))
        self._budget = Budget(auto)
        self._space = Space(trained.model, auto, recipe.compress, recipe.train, len(data.train))
        self._raw_edges = recipe.quantize.io != "float32"
        self._tried: dict[str, Tried] = {}
        self._floating: Tried | None = None
        self._best: Candidate | None = None

    def result(self) -> Compressed:
        """Run the rounds; the winner's model was made on the way."""
        out_of_budget = False
        try:
            start = self._choose_scheme()
            if self._judge.counts("stored") and start.scheme != "float32":
                self._search_weights(start)
            else:
                self._search_shapes(start)
        except OutOfBudgetError:
            out_of_budget = True
        best = self._best
        if best is None or not self._tried[best.name].passes:
            raise GateError(self._describe_failure())
        grown = self._growing.grow(best, lambda _, text: self._say(best, text))
        report = self._report(best, out_of_budget=out_of_budget)
        return Compressed(grown.model, {**grown.figures, "auto": report}, best.scheme)

    def _choose_scheme(self) -> Candidate:
        """Int8, or what is clearly cheaper, or as cheap and clearly faster, or alone within the gate."""
        self._floating = floating = self._try(self._space.plain("float32"))
        if floating.problem:
            raise ConversionError(floating.problem)
        chosen = self._space.plain("int8")
        best = self._try(chosen)
        others: tuple[Scheme, ...] = () if self._raw_edges else ("dynamic", "float32")  # integers at edges: int8 alone
        for candidate in map(self._space.plain, others):
            tried = self._try(candidate)
            cheaper = tried.cost < best.cost / _SAME_COST
            faster = tried.cost <= best.cost * _SAME_COST and tried.latency < _FASTER * best.latency
            alone = candidate.scheme != "float32" and not best.passes
            if tried.passes and (cheaper or faster or alone):
                chosen, best = candidate, tried
        if best.problem:
            raise ConversionError(f"compress.auto: the model cannot be quantized: {best.problem}")
        self._best = chosen
        return chosen

    def _search_weights(self, start: Candidate) -> None:
        """Sketch every shape, and take the most promising as far as they go."""
        sketches = {shape: self._try(self._space.sketch(shape)) for shape in (start, *self._space.shapes(start))}
        finalists = [
            shape if shape is start else self._space.trained(shape, to_be_continued=True)
            for shape in self._most_promising(sketches)
        ]
        first = [self._space.pruned(shape, FIRST_SPARSITY) for shape in finalists]
        passed = [pruned for pruned in first if self._put_on_grids(pruned)]
        for pruned in passed:
            self._prune_on(pruned)
        if not passed:
            any(self._put_on_grids(self._space.pruned(shape, less)) for less in DENSER for shape in finalists)

    def _prune_on(self, pruned: Candidate) -> None:
        """More zeros, until nothing passes."""
        for sparsity in SPARSER:
            pruned = self._space.pruned(pruned, sparsity)
            if not self._put_on_grids(pruned):
                return

    def _put_on_grids(self, pruned: Candidate) -> bool:
        """Try ever fewer bits, while something passes; whether anything did."""
        try:
            model = self._grow(pruned).model
        except TrainError as error:  # a step that does not fit this model is no failure of the search
            self._tried[pruned.name] = Tried(pruned.name, pruned.scheme, problem=str(error))
            return False
        grids = (self._space.grid(pruned, bits, model) for bits in BITS)
        return len(list(takewhile(self._try_grid, grids))) > 0

    def _try_grid(self, grid: Candidate) -> bool:
        """Whether a grid is good enough, or becomes so by more training where little is missing."""
        tried = self._try(grid, keep=True)
        passes = tried.passes
        if not passes and self._judge.nearly_passes(tried):
            passes = self._try(self._space.longer(grid)).passes
        if grid is not self._best:
            self._growing.forget(grid)
        return passes

    def _search_shapes(self, start: Candidate) -> None:
        """Where only the shape counts: sketch changes of the best so far, train the most promising, and again."""
        for _ in range(_GENERATIONS):
            sketches = {shape: self._try(shape) for shape in self._space.shapes(start)}
            for shape in self._most_promising(sketches):
                self._try(self._space.trained(shape, to_be_continued=False))
            if self._best is None or self._best is start:
                return
            start = self._best

    def _most_promising(self, sketches: dict[Candidate, Tried]) -> list[Candidate]:
        return sorted(sketches, key=lambda shape: self._judge.promise(sketches[shape]))[:_FINALISTS]

    def _try(self, candidate: Candidate, *, keep: bool = False) -> Tried:
        """Make and measure a candidate, unless it was tried before, here or in an earlier search.

        Args:
            candidate: which.
            keep: its model, whatever came of it: another may grow out of it.
        """
        known = self._tried.get(candidate.name)
        if known is not None:
            return known
        self._budget.check_candidates(len(self._tried))
        tried = self._state.load(candidate) or self._run(candidate)
        tried = replace(tried, cost=self._judge.cost(tried, self._floating or tried), passes=self._judge.passes(tried))
        self._tried[candidate.name] = tried
        if candidate.scheme == "float32" and candidate.after is None:
            return tried  # what all others are compared with
        if self._best is None or self._judge.is_better(tried, self._tried[self._best.name]):
            self._best = candidate
        elif not keep:
            self._growing.forget(candidate)
        return tried

    def _run(self, candidate: Candidate) -> Tried:
        try:
            model = self._grow(candidate).model
            self._say(candidate, "measuring")
            with self._budget.measuring():
                tried = self._measuring.measure(candidate, model)
        except (
            TrainError,
            ConversionError,
            VerificationError,
        ) as error:  # a step that does not fit does not fail the search
            tried = Tried(candidate.name, candidate.scheme, problem=str(error))
        self._state.save(candidate, tried)
        return tried

    def _grow(self, candidate: Candidate) -> Grown:
        """Make a candidate's model, if the time that is left will do."""
        missing = [each for each in candidate.lineage if not self._growing.is_made(each)]
        with self._budget.training(sum(each.passes_over_data for each in missing)):
            return self._growing.grow(candidate, lambda _, text: self._say(candidate, text))

    def _say(self, candidate: Candidate, text: str) -> None:
        self._progress(
            self._budget.spent_share(len(self._tried)),
            f"{candidate.name}: {text} ({len(self._tried)} tried, {self._budget.minutes_left:.0f} min left)",
        )

    def _report(self, chosen: Candidate, *, out_of_budget: bool) -> dict[str, Any]:
        return {
            "chosen": chosen.name,
            "minimise": self._auto.minimise,
            "max_accuracy_drop": self._auto.max_accuracy_drop,
            "confidence": self._auto.confidence,
            "validation_rows": self._measuring.num_rows,
            "out_of_budget": out_of_budget,
            "tried": [asdict(tried) | {"cost": _finite(tried.cost)} for tried in self._tried.values()],
            "pareto": [tried.name for tried in self._judge.pareto(list(self._tried.values()))],
        }

    def _describe_failure(self) -> str:
        assert self._floating is not None  # noqa: S101 - for the type checker: the float model is tried first
        others: Sequence[Tried] = [each for each in self._tried.values() if each.name != "float32" and not each.problem]
        best = max(others, key=lambda each: each.accuracy, default=None)
        found = "there is none that could be made"
        if best is not None:
            found = (
                f"the best was {best.name!r} with {best.accuracy:.4f}, uncertain by {self._judge.margin(best):.4f}, "
                f"and {best.stored:,} bytes stored"
            )
        return (
            f"compress.auto found nothing within max_accuracy_drop = {self._auto.max_accuracy_drop} of the float "
            f"model's {self._floating.accuracy:.4f} on {self._measuring.num_rows:,} validation rows, with a confidence "
            f"of {self._auto.confidence:.0%}, in {len(self._tried)} candidates; {found}. Nothing was published"
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
