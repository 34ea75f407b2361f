"""The gate: only a model that is better than a constant, and an artifact that is close to it, are published.

Every comparison is written so that NaN fails it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from litelambda.common.errors import GateError
from litelambda.data.dataset import Dataset
from litelambda.evaluation.evaluate import Evaluated, FloatAnswers, Metrics, trivial_metrics
from litelambda.evaluation.recommendation import Recommended
from litelambda.recipe.sections import Gate

_NOTHING = "Nothing was published"
_FELL = {"accuracy": "accuracy fell by", "recall": "recall fell by"}
_MANY_CLASSES = 0.5  # classes per training row: with two rows per class and fewer, the labels are probably numbers


def check_floor(gate: Gate, answers: FloatAnswers | Recommended, data: Dataset, trivial: Metrics | None = None) -> None:
    """Refuse a trained model that is no better than a constant answer, unless the recipe allows it.

    Args:
        gate: the recipe's `gate` section.
        answers: the model's, to the test split.
        data: from the data stage.
        trivial: the figures of the constant answer; by default those of `trivial_metrics`.

    Raises:
        GateError: it is not better; the message has the numbers, and a likely reason.
    """
    trivial = trivial_metrics(data) if trivial is None else trivial
    if gate.allow_trivial or is_better(answers.metrics, trivial):
        return
    hinted = "".join(f". {hint}" for hint in hints(data, answers.confusion))
    raise GateError(f"{_describe_trivial('trained model', answers.metrics, trivial)}{hinted}. {_NOTHING}")


def check_gate(gate: Gate, evaluated: Evaluated) -> None:
    """Let the artifact pass, or not.

    Raises:
        GateError: it lost more than the gate allows, differs too much from the model that it was converted from, or is
            no better than a constant answer; the message has the numbers.
    """
    check_loss(gate, evaluated.float_metrics, evaluated.quantized_metrics, ("float", "quantized"))
    if not evaluated.difference <= gate.max_difference:
        raise GateError(
            f"one in a hundred test rows is answered with a difference of {evaluated.difference:.3g} of the range of "
            f"the float model's outputs, or more; gate.max_difference allows {gate.max_difference:g}. Set another "
            f"quantize.scheme, or raise quantize.representative_samples. {_NOTHING}"
        )
    if not gate.allow_trivial and not is_better(evaluated.quantized_metrics, evaluated.trivial_metrics):
        figures = _describe_trivial("artifact", evaluated.quantized_metrics, evaluated.trivial_metrics)
        raise GateError(f"{figures}. {_NOTHING}")


def check_loss(gate: Gate, before: Metrics, after: Metrics, names: tuple[str, str], remedy: str = "") -> None:
    """Refuse figures that are worse than others by more than the gate allows.

    Args:
        gate: the recipe's `gate` section.
        before: the figures to compare with.
        after: the figures to check.
        names: of the two models, for the message.
        remedy: another way out, for the message.

    Raises:
        GateError: they are worse; the message has the numbers.
    """
    first, second = names
    if share := _share_of(before):
        drop = before[share] - after[share]
        if not drop <= gate.max_accuracy_drop:
            raise GateError(
                f"{_FELL[share]} {drop:.4f}, from {before[share]:.4f} ({first}) to {after[share]:.4f} "
                f"({second}); gate.max_accuracy_drop allows {gate.max_accuracy_drop}. {remedy}{_NOTHING}"
            )
    elif not after["mse"] <= before["mse"] * (1 + gate.max_mse_increase):
        increase = after["mse"] / before["mse"] - 1 if before["mse"] else float("inf")
        raise GateError(
            f"the mean squared error rose by {increase:.1%}, from {before['mse']:.6g} ({first}) to {after['mse']:.6g} "
            f"({second}); gate.max_mse_increase allows {gate.max_mse_increase:.1%}. {remedy}{_NOTHING}"
        )


def is_better(metrics: Metrics, than: Metrics) -> bool:
    """Whether accuracy is higher, or the mean squared error lower.

    >>> is_better({"accuracy": 0.9}, than={"accuracy": 0.1}), is_better({"mse": 2.0}, than={"mse": 1.0})
    (True, False)
    """
    if share := _share_of(metrics):
        return metrics[share] > than[share]
    return metrics["mse"] < than["mse"]


def hints(data: Dataset, confusion: Sequence[Sequence[int]] | None) -> list[str]:
    """Likely mistakes in the classes of a data set.

    Args:
        data: from the data stage.
        confusion: see `confusion_matrix`.
    """
    if data.labels is None or confusion is None:
        return []
    if len(data.labels) >= _MANY_CLASSES * len(data.train):
        return [
            f"There are {len(data.labels):,} classes in {len(data.train):,} training rows, such as {data.labels[0]!r} "
            f"and {data.labels[-1]!r}: is data.task = 'regression' meant?"
        ]
    there, found = np.sum(confusion, axis=1), np.sum(confusion, axis=0)
    missing = np.flatnonzero((there > 0) & (found == 0))
    if not len(missing):
        return []
    names = ", ".join(repr(data.labels[number]) for number in missing[:5])
    return [
        f"Never predicted: {names}{', …' if len(missing) > 5 else ''}, the class of {int(there[missing].sum()):,} of "
        f"{len(data.test):,} test rows; set train.class_weights = 'balanced', or train longer"
    ]


def _share_of(metrics: Metrics) -> str:
    """The figure that is a share of right answers; "" where there is none."""
    return next((name for name in _FELL if name in metrics), "")


def _describe_trivial(subject: str, metrics: Metrics, trivial: Metrics) -> str:
    if "recall" in metrics:
        answer, name = "the most popular items", "recall"
    elif "accuracy" in metrics:
        answer, name = "the most frequent class", "accuracy"
    else:
        answer, name = "the mean", "mse"
    return (
        f"the {subject} is no better than to answer every row with {answer}: {name} {metrics[name]:.6g}, against "
        f"{trivial[name]:.6g}; gate.allow_trivial = true lets it pass"
    )
