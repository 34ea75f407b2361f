"""Growing: the models of a search's candidates, each made out of that of the candidate before it.

A candidate comes out the same whatever was tried before it: every step begins with the seed. With a folder to keep
weights in, what was trained is not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from litelambda.compression.compress import go_on
from litelambda.compression.fine_tuning import Lessons, make_lessons
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.layers import Array, kernels, read
from litelambda.recipe.compression import Compress
from litelambda.recipe.sections import Recipe
from litelambda.search.candidates import Candidate
from litelambda.search.state import State
from litelambda.training.fitting import Progress, seed_everything
from litelambda.training.train import Trained


@dataclass(frozen=True)
class Grown:
    """A candidate's model.

    Attributes:
        model: the Keras model.
        figures: per step what it did, with those of all steps before.
    """

    model: Any
    figures: dict[str, Any]


class Growing:
    """Makes models, and keeps them: a candidate is made once.

    Args:
        recipe: with `compress.auto`.
        trained: what all candidates begin with, and what teaches them.
        data: to train on.
        state: what an earlier search kept.
    """

    def __init__(self, recipe: Recipe, trained: Trained, data: Dataset, state: State) -> None:
        self._recipe, self._trained, self._data, self._state = recipe, trained, data, state
        self._grown: dict[str, Grown] = {}
        self._lessons: Lessons | None = None

    def grow(self, candidate: Candidate, progress: Progress) -> Grown:
        """Make a candidate's model, and before it all that it grows out of.

        Raises:
            TrainError: a step does not fit the model, or training failed.
        """
        known = self._grown.get(candidate.name)
        if known is not None:
            return known
        parent = self.grow(candidate.after, progress) if candidate.after else Grown(self._trained.model, {})
        grown = self._restore(candidate, parent) or self._train(candidate, parent, progress)
        self._grown[candidate.name] = grown
        return grown

    def is_made(self, candidate: Candidate) -> bool:
        """Whether there is nothing left to train."""
        return candidate.name in self._grown or self._state.has_weights(candidate)

    def forget(self, candidate: Candidate) -> None:
        """Free a model that nothing grows out of."""
        self._grown.pop(candidate.name, None)

    def _train(self, candidate: Candidate, parent: Grown, progress: Progress) -> Grown:
        lessons = self._teach(candidate, parent)
        seed_everything(self._recipe.train.seed)
        made = go_on(candidate.steps, parent.model, lessons, progress)
        figures = {**parent.figures, **made.figures}
        self._state.save_weights(candidate, made.model.get_weights(), made.figures)
        return Grown(made.model, figures)

    def _restore(self, candidate: Candidate, parent: Grown) -> Grown | None:
        """What was trained earlier: its shape comes from the steps without training, its weights from the folder."""
        found = self._state.load_weights(candidate)
        if found is None:
            return None
        weights, figures = found
        seed_everything(self._recipe.train.seed)
        reshaping = _without_training(candidate.steps)
        lessons = Lessons(self._recipe.train, self._data)
        model = go_on(reshaping, parent.model, lessons, lambda *_: None).model
        model.set_weights(weights)
        return Grown(model, {**parent.figures, **figures})

    def _teach(self, candidate: Candidate, parent: Grown) -> Lessons:
        """Answers of the float model are asked for once; zeros of earlier pruning are kept."""
        if self._lessons is None:
            settings, teacher = candidate.steps.distillation, self._trained.model
            lessons = make_lessons(self._recipe.train, self._data, settings, teacher)
            self._lessons = replace(lessons, int4=self._recipe.quantize.int4)
        lessons = self._lessons.sample(candidate.rows)
        pruning = next((each.steps.pruning for each in reversed(candidate.lineage) if each.steps.pruning), None)
        if pruning is not None and candidate.steps.pruning is None:
            exclude = {*pruning.exclude, *candidate.steps.exclude}
            lessons.keep.update(_nonzero(parent.model, exclude))
        return lessons


def _nonzero(model: Any, exclude: set[str]) -> Mapping[str, Array]:
    return {name: read(layer.kernel) != 0 for name, layer in kernels(model).items() if name not in exclude}


def _without_training(steps: Compress) -> Compress:
    changes = {
        name: getattr(steps, name).model_copy(update={"epochs": 0})
        for name in ("structured", "low_rank")
        if getattr(steps, name) is not None
    }
    return steps.model_copy(update={**changes, "pruning": None, "clustering": None, "quantization_aware": None})
