"""The report's figures and words, from made-up measurements."""

from __future__ import annotations

import io
from typing import Any

import pytest

from litelambda.publishing import charts
from litelambda.publishing.report import confidence_interval, make_html, overfitting

REPORT: dict[str, Any] = {
    "recipe": {"publish": {"name": "<digits>"}, "train": {"early_stopping": {}}, "model": {"dropout": 0.2}},
    "train": {
        "history": {"accuracy": [0.8, 0.99], "val_accuracy": [0.8, 0.9], "loss": [1, 0.1], "val_loss": [0.6, 0.7]}
    },
    "layers": [
        {
            "layer": "dense_1",
            "type": "Dense",
            "shape": [784, 32],
            "bits": 8,
            "zeros": 0.8,
            "grid": 4,
            "codes": 15,
            "units": [64, 32],
            "left_out": {"low_rank": "too few", "pruning": "too few", "clustering": "named"},
        },
        {"layer": "norm_1", "type": "BatchNormalization", "left_out": {"pruning": "no kernel"}},
    ],
    "compress": {
        "auto": {
            "chosen": "int8 + 4 bits",
            "pareto": ["int8 + 4 bits", "int8"],
            "tried": [
                {"name": "int8", "problem": "", "accuracy": 0.9, "stored": 900, "raw": 1000, "latency": 2.0},
                {"name": "int8 + 4 bits", "problem": "", "accuracy": 0.89, "stored": 400, "raw": 1000, "latency": 2.0},
                {"name": "dynamic", "problem": "no kernel", "accuracy": 0, "stored": 0, "raw": 0, "latency": 0},
            ],
        },
    },
    "metrics": {"float": {"accuracy": 0.9}, "quantized": {"accuracy": 0.89}, "num_examples": 1000},
    "confusion": [[40, 10], [5, 45]],
    "labels": ["no", "yes"],
    "size_bytes": {"float": 4000, "quantized": 1000, "stored": 400},
    "latency_us": {"float": 3.0, "quantized": 2.0},
    "seconds": {"train": 1.5},
}


def test_the_page_has_every_section() -> None:
    """Figures, layers, what the search chose and why not, and names that are escaped."""
    page = make_html(REPORT).decode()
    assert page.count("<svg") == 5
    for text in (
        "&lt;digits&gt;",
        "1/10.0",
        "64\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}32",
        "80.0%",
        "784x32",
        "<li>dense_1, by low rank, pruning: too few; by clustering: named</li>",
        "<li>norm_1, by pruning: no kernel</li>",
        "no kernel",
        "chosen",
        "dropout 0.2",
        "2.0 µs",
    ):
        assert text in page
    assert "<th>rank</th>" not in page
    assert "<script" not in page
    assert page == make_html(REPORT).decode()


def test_a_report_of_a_regression_has_no_classes() -> None:
    """What was not measured is left out."""
    plain = {
        **REPORT,
        "compress": {},
        "layers": [],
        "confusion": None,
        "metrics": {"float": {"mse": 1.0}, "quantized": {"mse": 1.1}},
    }
    page = make_html({**plain, "train": {"history": {}}, "metrics": {**plain["metrics"], "num_examples": 5}}).decode()
    assert "Confusion" not in page
    assert "mse" in page


@pytest.mark.parametrize(("share", "count", "low", "high"), [(0.5, 100, 0.404, 0.596), (1.0, 50, 0.929, 1.0)])
def test_confidence_intervals_are_wilsons(share: float, count: int, low: float, high: float) -> None:
    """The interval holds near the ends too."""
    assert confidence_interval(share, count) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_overfitting_is_called_what_it_is() -> None:
    """The gap between the curves, the epoch of the lowest validation loss, and what to do."""
    assert "+9.00 points above validation" in overfitting(REPORT["train"]["history"])
    assert "epoch 1 of 2: over-fitted: try dropout" in overfitting(REPORT["train"]["history"])
    assert overfitting({"loss": [1.0]}) == "There were no validation rows to compare with."


def test_many_classes_leave_room_for_their_names() -> None:
    """At most twenty names on an axis; numbers in dark cells are light."""
    (axis,) = charts.confusion([[row == column for column in range(100)] for row in range(100)], ["name"] * 100).axes
    assert len(axis.get_xticks()) == len(axis.get_yticks()) == 20
    (axis,) = charts.confusion([[900, 1], [2, 800]], ["no", "yes"]).axes
    assert [text.get_color() for text in axis.texts] == ["white", "black", "black", "white"]


def test_sizes_are_written_in_full() -> None:
    """No powers of ten, and the legend outside of where the candidates are."""
    figure = charts.pareto(REPORT["compress"]["auto"])
    figure.savefig(io.BytesIO(), format="svg")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["200", "500", "1,000"]
    assert axis.get_legend() is None
    assert len(figure.legends) == 1
