"""Search: `compress.auto` tries compressions within a budget and takes the best that is still as good.

Judged on validation rows only: the test split is for the gate. Sizes and accuracies repeat with the seed; times are the
machine's. What was tried is kept in the recipe's `compress.auto.state`, so that a search that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from litelambda.compress_sections import Auto, Compress
from litelambda.errors import ConversionError, GateError, TrainError
from litelambda.sections import Recipe
from litelambda.stages import candidates
from litelambda.stages.candidates import Candidate
from litelambda.stages.compress import Compressed, apply_steps
from litelambda.stages.data import Dataset
from litelambda.stages.fitting import Progress, seed_everything
from litelambda.stages.interpreter import Reference
from litelambda.stages.latency import measure_latency_us
from litelambda.stages.quantize import quantize
from litelambda.stages.storing import stored_size
from litelambda.stages.train import Trained
from litelambda.stages.trials import State, Tried, pareto

_BATCH = 64


def search(recipe: Recipe, trained: Trained, data: Dataset, progress: Progress) -> Compressed:
    """Find the compression that `compress.auto` asks for.

    Raises:
        TrainError: there are no validation rows.
        GateError: nothing within the budget was good enough; the message has the best that was found.
    """
    if recipe.compress.auto is None or data.validation is None:
        raise TrainError("compress.auto judges on validation rows: set data.validation_split")
    run = _Search(recipe, recipe.compress.auto, trained, data, progress)
    return run.result()


class _Search:
    def __init__(self, recipe: Recipe, auto: Auto, trained: Trained, data: Dataset, progress: Progress) -> None:
        self._recipe, self._auto, self._trained, self._data = recipe, auto, trained, data
        self._progress = progress
        self._deadline = time.monotonic() + 60 * auto.budget_minutes
        self._state = State(recipe, auto, trained)
        self._tried: dict[str, Tried] = {}
        self._candidates: dict[str, Candidate] = {}
        self._out_of_budget = False
        self._float: Tried | None = None

    def result(self) -> Compressed:
        """Run the rounds and make the winner once more."""
        base = Compress(exclude=self._recipe.compress.exclude, distillation=self._recipe.compress.distillation)
        floating = self._try(Candidate("float32", base, "float32"))
        if floating.problem:
            raise ConversionError(floating.problem)
        self._float = floating
        self._tried[floating.name] = self._judge(floating)
        best = self._round(candidates.plain(base, raw_edges=self._recipe.quantize.io != "float32"), None)
        norms = any(type(layer).__name__ == "BatchNormalization" for layer in self._trained.model.layers)
        best = self._round(candidates.shapes(best, self._auto, has_norms=norms), best)
        best = self._round(candidates.weights(best, self._auto), best)
        chosen = self._tried[best.name]
        if not self._passes(chosen):
            raise GateError(self._describe_failure())
        self._progress(1.0, f"making {best.name} again")
        compressed = self._apply(best)
        return Compressed(compressed.model, {**compressed.figures, "auto": self._report(chosen)}, best.scheme)

    def _round(self, round_: Iterator[Candidate], best: Candidate | None) -> Candidate:
        """Try a round's candidates; the best so far, by the gate first and the cost then."""
        for candidate in round_:
            if best is not None and candidate.name not in self._tried and self._spent():
                self._out_of_budget = True
                return best
            tried = self._tried.get(candidate.name) or self._judge(self._try(candidate))
            self._tried[candidate.name], self._candidates[candidate.name] = tried, candidate
            if best is None or self._rank(tried) < self._rank(self._tried[best.name]):
                best = candidate
        if best is None:
            raise TrainError("compress.auto: there is nothing to try")
        return best

    def _spent(self) -> bool:
        return time.monotonic() > self._deadline or len(self._tried) >= self._auto.max_candidates

    def _passes(self, tried: Tried) -> bool:
        floating = self._float
        drop = floating.accuracy - tried.accuracy if floating else 0.0
        return not tried.problem and drop <= self._auto.max_accuracy_drop

    def _rank(self, tried: Tried) -> tuple[bool, float]:
        """Smaller is better: what passes the gate by its cost, what does not by its accuracy."""
        passes = self._passes(tried)
        return not passes, tried.cost if passes else -tried.accuracy

    def _try(self, candidate: Candidate) -> Tried:
        known = self._state.load(candidate)
        if known is not None:
            return known
        done = len(self._tried) / self._auto.max_candidates
        left = max(0.0, self._deadline - time.monotonic())
        self._progress(done, f"{candidate.name} ({left / 60:.0f} min left)")
        try:
            tried = self._measure(candidate, self._apply(candidate))
        except (
            TrainError,
            ConversionError,
        ) as error:  # a step that does not fit this model is no failure of the search
            tried = Tried(candidate.name, candidate.scheme, problem=str(error))
        self._state.save(candidate, tried)
        return tried

    def _apply(self, candidate: Candidate) -> Compressed:
        seed_everything(self._recipe.train.seed)
        return apply_steps(self._recipe, candidate.settings, self._trained, self._data, lambda *_: None)

    def _measure(self, candidate: Candidate, compressed: Compressed) -> Tried:
        settings = self._recipe.quantize.model_copy(update={"scheme": candidate.scheme})
        rows = self._data.representative(settings.representative_samples, self._recipe.train.seed)
        artifact = quantize(compressed.model, {compressed.model.inputs[0].name: rows}, settings).artifact
        return Tried(
            candidate.name,
            candidate.scheme,
            self._accuracy(artifact),
            stored_size(artifact),
            len(artifact),
            measure_latency_us(artifact),
        )

    def _accuracy(self, artifact: bytes) -> float:
        from litelambda.stages.evaluate import predicted_classes

        split = self._data.validation
        assert split is not None  # noqa: S101 - for the type checker: `search` refuses data without validation rows
        reference = Reference(artifact)
        rows = {reference.inputs[0].name: split.x}
        outputs = reference.run_real(rows, reference.safe_batch(rows, min(_BATCH, len(split))))
        classes = predicted_classes(outputs[reference.outputs[0].name], self._recipe.train.from_logits)
        return float(np.mean(classes == split.y))

    def _judge(self, tried: Tried) -> Tried:
        """Add the cost, which is relative to the float model."""
        if tried.problem or self._float is None:
            return tried
        shares = self._auto.minimise if isinstance(self._auto.minimise, Mapping) else {self._auto.minimise: 1.0}
        total = sum(shares.values()) or 1.0
        cost = sum(share * getattr(tried, name) / getattr(self._float, name) for name, share in shares.items()) / total
        return Tried(**{**asdict(tried), "cost": cost})

    def _report(self, chosen: Tried) -> dict[str, Any]:
        return {
            "chosen": chosen.name,
            "minimise": self._auto.minimise,
            "out_of_budget": self._out_of_budget,
            "tried": [asdict(tried) | {"cost": _finite(tried.cost)} for tried in self._tried.values()],
            "pareto": [tried.name for tried in pareto(list(self._tried.values()))],
        }

    def _describe_failure(self) -> str:
        assert self._float is not None  # noqa: S101 - for the type checker: the float model is tried first
        best = max((each for each in self._tried.values() if each.name != "float32"), key=lambda each: each.accuracy)
        return (
            f"compress.auto found nothing within max_accuracy_drop = {self._auto.max_accuracy_drop} of the float "
            f"model's {self._float.accuracy:.4f} on the validation rows in {len(self._tried)} candidates; the best was "
            f"{best.name!r} with {best.accuracy:.4f} and {best.stored:,} bytes stored. Nothing was published"
        )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
