"""The metrics of a candidate as it would ship: converted, run on the validation rows, timed, stored."""

from __future__ import annotations

from typing import Any

from litelambda.artifact.latency import measure_latency_us
from litelambda.artifact.reference import Reference
from litelambda.artifact.stored_form import stored_size
from litelambda.conversion.quantize import quantize
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Split
from litelambda.evaluation.evaluate import predicted_classes, run_rows
from litelambda.recipe.sections import Quantize
from litelambda.recipe.training import Train
from litelambda.search.acceptance import TrialResult
from litelambda.search.candidates import Candidate
from litelambda.training.input_pipeline import predict


class CandidateEvaluator:
    """Measures models on the validation rows, and against the float model on the same rows.

    Args:
        model: the float model.
        data: whose training rows calibrate.
        validation: the rows to run.
        train: the recipe's section, for its loss and seed.
        settings: the recipe's `quantize`; each candidate has its own scheme.
    """

    def __init__(self, model: Any, data: Dataset, validation: Split, train: Train, settings: Quantize) -> None:
        self._validation, self._train, self._settings = validation, train, settings
        self._representative = data.representative(settings.representative_samples, train.seed)
        self._float_right = self._right(predict(model, validation.x))

    def measure(self, candidate: Candidate, model: Any) -> TrialResult:
        """Quantize a candidate's model and measure it.

        Raises:
            ConversionError: the model cannot be converted.
            VerificationError: the shipped runtime cannot run it.
        """
        settings = self._settings.model_copy(update={"scheme": candidate.scheme})
        artifact = quantize(model, {model.inputs[0].name: self._representative}, settings).artifact
        right = self._right(run_rows(Reference(artifact), self._validation.x))
        return TrialResult(
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
        return predicted_classes(outputs, self._train.from_logits) == self._validation.y
