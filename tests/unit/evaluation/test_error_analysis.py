"""Where an artifact fails: figures by class and range, and the rows that are shown."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from litelambda.data.scaling import Preprocessing
from litelambda.data.stored_rows import Split
from litelambda.evaluation.error_analysis import analyze, class_figures
from litelambda.evaluation.evaluate import Evaluated, FloatAnswers, measure
from litelambda.evaluation.examples import worst_examples


def dataset(x: Any, y: Any, labels: list[str] | None, **more: Any) -> Dataset:
    """A data set whose test rows are these."""
    split = Split(np.asarray(x, np.float32), np.asarray(y))
    return Dataset(split, None, split, labels, 3, more.pop("preprocessing", None), **more)


def analyzed(data: Dataset, outputs: Any) -> dict[str, Any]:
    """The analysis of an artifact that answers as its float model."""
    answers = np.asarray(outputs, np.float32)
    metrics = measure(answers, data, from_logits=False)
    evaluated = Evaluated(metrics, None, metrics, metrics, None, 0.0, 0.0, len(data.test), outputs=answers)
    return analyze(data, FloatAnswers(answers, metrics, None), evaluated, from_logits=False)


def test_figures_by_class_are_scikit_learns() -> None:
    """Precision, recall and F1 as `precision_recall_fscore_support`; a class without rows has no recall."""
    confusion = np.array([[2, 1, 0], [0, 2, 1], [1, 0, 3]])  # true 0001122221 against predicted 0101222021
    found = class_figures(confusion)
    for name in ("precision", "recall", "f1"):
        assert [each[name] for each in found] == pytest.approx([2 / 3, 2 / 3, 0.75])
    assert [each["support"] for each in found] == [3, 3, 4]
    assert class_figures(np.array([[3, 1], [0, 0]]))[1] == {
        "support": 0,
        "predicted": 1,
        "precision": 0.0,
        "recall": None,
        "f1": 0.0,
    }


def test_a_classifier_is_analyzed() -> None:
    """Classes, confusion and calibration; thresholds only where there are two classes."""
    data = dataset(np.zeros((4, 2)), np.array([0, 1, 1, 0]), ["a", "b"])
    found = analyzed(data, [[0.9], [0.8], [0.3], [0.2]])
    assert found["confusion"] == [[1, 1], [1, 1]]
    assert set(found["calibration"]) == {"float", "quantized"}
    assert found["thresholds"][0]["label"] == 1
    assert "best_f1" in found["thresholds"][0]
    three = analyzed(dataset(np.zeros((2, 2)), np.array([0, 2]), ["a", "b", "c"]), np.eye(3)[[0, 1]])
    assert "thresholds" not in three


def test_labels_are_analyzed_one_by_one() -> None:
    """Each label has figures and thresholds of its own."""
    data = dataset(np.zeros((3, 2)), np.array([[1, 0], [1, 1], [0, 1]], np.float32), ["red", "round"])
    found = analyzed(data, [[0.9, 0.6], [0.4, 0.9], [0.1, 0.7]])
    assert [(each["precision"], each["recall"]) for each in found["classes"]] == [(1.0, 0.5), (2 / 3, 1.0)]
    assert [each["best_f1"]["f1"] for each in found["thresholds"]] == [1.0, 1.0]


def test_a_regression_is_analyzed_as_scikit_learn_does() -> None:
    """R² and the mean absolute error are `r2_score` and `mean_absolute_error`; ranges hold the rows by target."""
    data = dataset(np.zeros((5, 1)), np.array([[1.0], [2.0], [3.0], [4.0], [10.0]]), None)
    (found,) = analyzed(data, [[1.5], [2.0], [2.0], [5.0], [9.0]])["regression"]
    assert found["r2"] == pytest.approx(0.935)
    assert found["mae"] == pytest.approx(0.7)
    assert [(each["from"], each["mae"], each["bias"]) for each in found["ranges"]] == [
        (1.0, 0.5, 0.5),
        (2.0, 0.0, 0.0),
        (3.0, 1.0, -1.0),
        (4.0, 1.0, 1.0),
        (10.0, 1.0, -1.0),
    ]
    assert found["points"][0] == [1.0, 1.5]


def test_the_surest_wrong_answers_come_first() -> None:
    """Then those that are right by a hair."""
    data = dataset(np.zeros((4, 2)), np.array([0, 0, 0, 0]), ["a", "b"])
    outputs = np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.6, 0.4]])
    found = worst_examples(data, outputs, from_logits=False, count=3)
    assert [(each["row"], each["answer"], each["wrong"]) for each in found] == [
        (2, 1, True),
        (1, 1, True),
        (3, 0, False),
    ]
    assert found[0]["confidence"] == 0.9
    assert found[0]["shows"] == {"fields": {"0": "0", "1": "0"}}
    assert worst_examples(data, outputs, from_logits=False, count=0) == []


def test_the_largest_errors_come_first() -> None:
    """Errors of several outputs are compared by the spread of their targets."""
    data = dataset(np.zeros((3, 1)), np.array([[0.0, 0.0], [1.0, 1000.0], [2.0, 2000.0]]), None)
    found = worst_examples(data, np.array([[0.0, 0.0], [2.0, 1000.0], [2.0, 2100.0]]), from_logits=False, count=2)
    assert [(each["row"], each["true"], each["answer"]) for each in found] == [
        (1, [1.0, 1000.0], [2.0, 1000.0]),
        (2, [2.0, 2000.0], [2.0, 2100.0]),
    ]


def picture_of(example: dict[str, Any]) -> Image.Image:
    """The picture that an example shows."""
    return Image.open(io.BytesIO(base64.b64decode(example["shows"]["picture"])))


@pytest.mark.parametrize("source_shape", [(8, 9), (8, 9, 1), (8, 9, 3)])
def test_rows_of_pixels_become_pictures(source_shape: tuple[int, ...]) -> None:
    """In the shape that the data set had before `reshape`, and in its own pixels."""
    pixels = np.arange(np.prod(source_shape)).reshape(source_shape) % 256
    form = Preprocessing(1 / 255, -0.5)
    x = form.apply(pixels.reshape(1, -1))
    data = dataset(x, np.array([0]), ["a", "b"], preprocessing=form, source_shape=source_shape)
    (found,) = worst_examples(data, np.array([[0.9, 0.1]]), from_logits=False, count=1)
    np.testing.assert_array_equal(np.asarray(picture_of(found)), pixels.squeeze())


def test_values_that_are_no_pixels_are_stretched() -> None:
    """From black to white; large pictures become small ones."""
    x = np.linspace(-3, 3, 200 * 300).reshape(1, 200, 300)
    data = dataset(x, np.array([0]), ["a", "b"], source_shape=(200, 300))
    (found,) = worst_examples(data, np.array([[0.9, 0.1]]), from_logits=False, count=1)
    picture = picture_of(found)
    assert max(picture.size) == 128
    low, high = picture.getextrema()
    assert low < 3
    assert high > 252


@pytest.mark.parametrize(
    ("kind", "columns", "shows"),
    [
        ("table", {"age": [None, 7], "city": ["x", "y" * 100]}, {"fields": {"age": "7", "city": "y" * 80 + "…"}}),
        ("text", {"text": ["", "word " * 100]}, {"text": ("word " * 100)[:400] + "…"}),
    ],
)
def test_raw_rows_are_shown_as_they_were(kind: str, columns: dict[str, list[Any]], shows: dict[str, Any]) -> None:
    """Columns by name, texts by their beginning."""
    form = RawForm({"kind": kind}, (2,))
    raw = {"raw_test": lambda rows: {name: [values[row] for row in rows] for name, values in columns.items()}}
    data = dataset(np.zeros((2, 2)), np.array([0, 0]), ["a", "b"], preprocessing=form, **raw)
    found = worst_examples(data, np.array([[0.9, 0.1], [0.1, 0.9]]), from_logits=False, count=2)
    assert [each["row"] for each in found] == [1, 0]
    assert found[0]["shows"] == shows
    assert kind == "text" or found[1]["shows"]["fields"]["age"] == "missing"
