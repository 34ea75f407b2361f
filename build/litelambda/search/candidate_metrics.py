"""Measuring: a candidate of a search as it would ship: converted, run on the validation rows, timed, stored."""

from __future__ import annotations

from typing import Any

from litelambda.artifact.latency import measure_latency_us
from litelambda.artifact.reference import Reference
from litelambda.artifact.stored_form import stored_size
from litelambda.common.errors import TrainError
from litelambda.conversion.quantize import quantize
from litelambda.data.dataset import Dataset
from litelambda.evaluation.evaluate import predicted_classes, run_rows
from litelambda.recipe.sections import Recipe
from litelambda.search.acceptance import Tried
from litelambda.search.candidates import Candidate
from litelambda.training.input_pipeline import predict
from litelambda.training.train import Trained


class Measuring:
    """Measures models on the validation rows, against the float model on the same rows.

    Raises:
        TrainError: there are none.
    """

    def __init__(self, recipe: Recipe, trained: Trained, data: Dataset) -> None:
        if data.validation is None:
            raise TrainError("compress.auto judges on validation rows: set data.validation_split")
        self._recipe, self._data, self._rows = recipe, data, data.validation
        self._float_right = self._right(predict(trained.model, self._rows.x))

    @property
    def num_rows(self) -> int:
        """How many validation rows there are."""
        return len(self._rows)

    def measure(self, candidate: Candidate, model: Any) -> Tried:
        """Quantize a candidate's model and see what it is worth.

        Raises:
            ConversionError: the model cannot be converted.
            VerificationError: the shipped runtime cannot run it.
        """
        settings = self._recipe.quantize.model_copy(update={"scheme": candidate.scheme})
        rows = self._data.representative(settings.representative_samples, self._recipe.train.seed)
        artifact = quantize(model, {model.inputs[0].name: rows}, settings).artifact
        right = self._right(run_rows(Reference(artifact), self._rows.x))
        return Tried(
            candidate.name,
            candidate.scheme,
            accuracy=float(right.mean()),
            stored=stored_size(artifact),
            raw=len(artifact),
            latency=measure_latency_us(artifact),
            lost=int((self._float_right & ~right).sum()),
            gained=int((~self._float_right & right).sum()),
        )

    def _right(self, outputs: Any) -> Any:
        return predicted_classes(outputs, self._recipe.train.from_logits) == self._rows.y
