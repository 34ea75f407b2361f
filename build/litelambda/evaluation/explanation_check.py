"""Whether a model's explanations say what it goes by: its own integrated gradients, held to two tests.

Curves: the answer falls fast when what is said to be important goes, and rises fast when it comes. Randomization:
another model of the same architecture is explained in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.conversion.gradient_export import questions
from litelambda.conversion.gradient_graph import PathGradients
from litelambda.conversion.gradients import Samples
from litelambda.evaluation.faithfulness import deletion_and_insertion, rank_correlation, with_shuffled_weights
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.keras_tools.dtype_policies import in_float32
from litelambda.keras_tools.graph import call

Array = NDArray[Any]

_POINTS = 32  # of the path; what they leave out does not change an order


@dataclass(frozen=True)
class _Row:
    """A row, what it is compared with, and the output that is explained, as `PathGradients.specs` has them."""

    values: Array
    baseline: Array
    span: Array
    target: Array


def check_explanations(model: Any, samples: Samples, seed: int = 0) -> dict[str, Any]:
    """Explain some rows by integrated gradients, of their largest output, and check the explanations.

    Args:
        model: a Keras model with one input, on TensorFlow.
        samples: the rows, and what they are compared with.
        seed: of the random order and of the shuffled weights.

    Returns:
        The curves, those of a random order, and the mean `shuffled_correlation` of ranks between the explanations of
        the model and of a copy whose weights are shuffled.

    Raises:
        ConversionError: the model has no gradients.
        TrainError: it cannot be copied.
    """
    with in_float32(model):
        paths = PathGradients(model)
        rows = [_Row(*each) for each in questions(model, paths, samples)]
        found = _attributions(paths, rows)
        predict = _explained_output(model, rows)
    copy = with_shuffled_weights(model, seed)
    with in_float32(copy):
        others = _attributions(PathGradients(copy), rows)
    values, baselines = (np.concatenate([getattr(row, name) for row in rows]) for name in ("values", "baseline"))
    curves = deletion_and_insertion(predict, values, baselines, found)
    noise = np.random.default_rng(seed).random(found.shape)
    random = deletion_and_insertion(predict, values, baselines, noise)
    # Where a row is as its baseline, nothing is attributed by any model: such places would look like agreement.
    differs = values != baselines
    compared = zip(found, others, differs, strict=True)
    correlations = [rank_correlation(one[at], other[at]) for one, other, at in compared if at.any()]
    return {
        "rows": len(rows),
        "shares": curves.shares,
        "curves": {"deletion": curves.deletion, "insertion": curves.insertion},
        "areas": {"deletion": curves.deletion_area, "insertion": curves.insertion_area},
        "random_curves": {"deletion": random.deletion, "insertion": random.insertion},
        "random_areas": {"deletion": random.deletion_area, "insertion": random.insertion_area},
        "shuffled_correlation": float(np.mean(correlations)) if correlations else 1.0,
    }


def _attributions(paths: PathGradients, rows: list[_Row]) -> Array:
    explain = load_tensorflow().function(paths.over(_POINTS), input_signature=paths.specs(), autograph=False)
    found = [explain(row.values, row.baseline, row.span, row.target)["attributions_0"].numpy() for row in rows]
    return np.concatenate(found)


def _explained_output(model: Any, rows: list[_Row]) -> Callable[[Array], Array]:
    targets = np.concatenate([row.target for row in rows])

    def predict(values: Array) -> Array:
        outputs = [each.numpy() for each in call(model, [values]) if each.dtype.is_floating]
        flat = np.concatenate([each.reshape(len(values), -1) for each in outputs], axis=1)
        explained: Array = (flat * targets).sum(axis=1)
        return explained

    return predict
