"""Builds the models of a search's candidates, each from the model of the candidate that it extends.

A candidate's model does not depend on what was tried before: every step begins with the seed. With a folder to keep
weights in, nothing is trained twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litelambda.common.progress import ReportProgress
from litelambda.compression.compress import compress
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.layers import Array, kernels, read
from litelambda.recipe.compression import Compress
from litelambda.search.candidates import Candidate
from litelambda.search.state import SearchState
from litelambda.training.fit import seed_everything


@dataclass(frozen=True)
class BuiltCandidate:
    """A candidate's model.

    Attributes:
        model: the Keras model.
        figures: per step what it did, for this candidate and all that it extends.
    """

    model: Any
    figures: dict[str, Any]


class CandidateBuilder:
    """Builds models and keeps them: a candidate is built once.

    Args:
        model: the trained model that all candidates begin with.
        context: what the steps train on, with the trained model's answers where it is the teacher.
        state: what an earlier search kept.
    """

    def __init__(self, model: Any, context: TrainingContext, state: SearchState) -> None:
        self._model, self._context, self._state = model, context, state
        self._built: dict[str, BuiltCandidate] = {}

    def build(self, candidate: Candidate, progress: ReportProgress) -> BuiltCandidate:
        """Build a candidate's model, and first the models of all that it extends.

        Raises:
            TrainError: a step does not fit the model, or training failed.
        """
        known = self._built.get(candidate.name)
        if known is not None:
            return known
        parent = self.build(candidate.parent, progress) if candidate.parent else BuiltCandidate(self._model, {})
        built = self._restore(candidate, parent) or self._train(candidate, parent, progress)
        self._built[candidate.name] = built
        return built

    def is_trained(self, candidate: Candidate) -> bool:
        """Whether there is nothing left to train."""
        return candidate.name in self._built or self._state.has_weights(candidate)

    def forget(self, candidate: Candidate) -> None:
        """Free a model that no other candidate extends."""
        self._built.pop(candidate.name, None)

    def _train(self, candidate: Candidate, parent: BuiltCandidate, progress: ReportProgress) -> BuiltCandidate:
        context = self._context_of(candidate, parent)
        seed_everything(context.train.seed)
        done = compress(candidate.steps, parent.model, context, progress)
        self._state.save_weights(candidate, done.model.get_weights(), done.figures)
        return BuiltCandidate(done.model, {**parent.figures, **done.figures})

    def _restore(self, candidate: Candidate, parent: BuiltCandidate) -> BuiltCandidate | None:
        """A model of an earlier search: its shape from the steps without training, its weights from the folder."""
        found = self._state.load_weights(candidate)
        if found is None:
            return None
        weights, figures = found
        seed_everything(self._context.train.seed)
        model = compress(_without_training(candidate.steps), parent.model, self._context, lambda *_: None).model
        model = copy_model(model) if model is parent.model else model
        model.set_weights(weights)
        return BuiltCandidate(model, {**parent.figures, **figures})

    def _context_of(self, candidate: Candidate, parent: BuiltCandidate) -> TrainingContext:
        """The candidate's share of the rows, and masks that keep the zeros of earlier pruning."""
        context = self._context.sample(candidate.rows)
        pruning = next((each.steps.pruning for each in reversed(candidate.lineage) if each.steps.pruning), None)
        if pruning is not None and candidate.steps.pruning is None:
            exclude = {*pruning.exclude, *candidate.steps.exclude}
            context.masks.update(_nonzero(parent.model, exclude))
        return context


def _nonzero(model: Any, exclude: set[str]) -> Mapping[str, Array]:
    return {name: read(layer.kernel) != 0 for name, layer in kernels(model).items() if name not in exclude}


def _without_training(steps: Compress) -> Compress:
    changes = {
        name: getattr(steps, name).model_copy(update={"epochs": 0})
        for name in ("structured", "low_rank")
        if getattr(steps, name) is not None
    }
    return steps.model_copy(update={**changes, "pruning": None, "clustering": None, "quantization_aware": None})
