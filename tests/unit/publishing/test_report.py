"""The report's figures and words, from made-up measurements."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from litelambda.publishing.report import charts, make_html
from litelambda.publishing.report.figures import confidence_interval, overfitting
from litelambda.publishing.report.verdict import judge

HOSTILE = "</style><script>alert(1)</script><img src=x onerror='alert(2)'>"
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
    "metrics": {
        "float": {"accuracy": 0.9},
        "quantized": {"accuracy": 0.89},
        "trivial": {"accuracy": 0.5},
        "num_examples": 1000,
    },
    "analysis": {
        "classes": [
            {"support": 50, "predicted": 45, "precision": 40 / 45, "recall": 0.8, "f1": 80 / 95},
            {"support": 50, "predicted": 55, "precision": 45 / 55, "recall": 0.9, "f1": 90 / 105},
        ],
        "calibration": {"quantized": {"ece": 0.02, "bins": [{"count": 100, "confidence": 0.9, "right": 0.85}]}},
        "coverage": [{"threshold": 0.9, "answered": 0.7, "right": 0.99}],
        "thresholds": [
            {
                "label": 1,
                "default": {"threshold": 0.5, "precision": 0.8, "recall": 0.9, "f1": 0.85},
                "best_f1": {"threshold": 0.412, "precision": 0.8, "recall": 0.95, "f1": 0.87},
                "at_recall": [{"at_least": 0.9, "threshold": 0.3, "precision": 0.7, "recall": 0.9, "f1": 0.8}],
            }
        ],
    },
    "examples": [
        {"row": 7, "true": 0, "answer": 1, "wrong": True, "confidence": 0.99, "shows": {"text": HOSTILE}},
    ],
    "version": 3,
    "created": "2026-01-02T03:04:05Z",
    "artifact_sha256": "ab" * 32,
    "data": {"files": [{"file": "rows.csv", "sha256": "cd" * 32, "size_bytes": 9}], "rows": {"training": 5}},
    "tools": {"keras": "3.15.0"},
    "confusion": [[40, 10], [5, 45]],
    "labels": ["no", "yes"],
    "size_bytes": {"float": 4000, "quantized": 1000, "stored": 400},
    "latency_us": {"float": 3.0, "quantized": 2.0},
    "seconds": {"train": 1.5},
}


def test_the_page_has_every_section() -> None:
    """The verdict, failures, calibration, costs, layers, what the search chose, and where it comes from."""
    page = make_html(REPORT).decode()
    assert page.count("<svg") == 4
    for text in (
        "&lt;digits&gt; version 3",
        "built 2026-01-02T03:04:05Z",
        "Good enough by its gate; 1 point needs a look.",
        "89.00\N{NO-BREAK SPACE}%",
        "answering with the most frequent class for every row has 50.00\N{NO-BREAK SPACE}%",
        "10.0 times smaller",
        "Weakest class: &#x27;no&#x27;, of which 80.0\N{NO-BREAK SPACE}% of 50 are found",
        '<th scope="row">no</th><td>50</td><td>45</td><td>88.9\N{NO-BREAK SPACE}%</td>',
        "is <b>no</b>, answer <b>yes</b> (99.0\N{NO-BREAK SPACE}% sure)",
        "0.412",
        "64\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}32",
        "80.0%",
        "784x32",
        "<li>dense_1, by low rank, pruning: too few; by clustering: named</li>",
        "<li>norm_1, by pruning: no kernel</li>",
        "no kernel",
        "chosen",
        "dropout 0.2",
        "<td>2.0 µs</td>",
        "ab" * 32,
        "cd" * 32,
        "3.15.0",
    ):
        assert text in page, text
    assert ">rank</th>" not in page
    assert page == make_html(REPORT).decode()


class _Page(HTMLParser):
    """What a browser would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def test_labels_rows_and_names_are_text() -> None:
    """Markup in a label, a text, a column, a value, a layer or the recipe is shown, not run."""
    hostile = json.loads(json.dumps(REPORT).replace("dense_1", HOSTILE).replace("rows.csv", HOSTILE))
    why = {"method": HOSTILE, "baseline": HOSTILE, "completeness_error": 0.0, "drawn": {"bars": [[HOSTILE, 0.5]]}}
    fields = {"row": 1, "true": 1, "answer": 0, "wrong": True, "shows": {"fields": {HOSTILE: HOSTILE}}}
    fields["explanation"] = why
    hostile["examples"][0]["explanation"] = {**why, "drawn": {"marks": [[0, 8, 1.0], [10, 30, -0.5], [20, 900, 1.0]]}}
    hostile |= {"labels": [HOSTILE, "yes"], "hints": [HOSTILE], "compress": {}, "train": {"history": {}}}
    for examples in (hostile["examples"], [fields]):
        read = _Page(make_html({**hostile, "examples": examples}).decode())
        assert not {"script", "iframe", "img"} & read.tags
        assert not [name for name, _ in read.attributes if name.startswith("on")]


def test_explanations_are_drawn_beside_their_rows() -> None:
    """Words for the answer have one color, those against it the other; the legend says how they were made."""
    why = {"method": "leave_one_out", "baseline": "empty", "completeness_error": 0.25}
    text = {**REPORT["examples"][0], "shows": {"text": "good & bad film"}}
    text["explanation"] = {**why, "drawn": {"marks": [[0, 4, 1.0], [7, 10, -0.5]]}}
    plain = {**REPORT, "compress": {}, "train": {"history": {}}}
    page = make_html({**plain, "examples": [text]}).decode()
    assert re.search(r"var\(--warm\) 45%,transparent\)\">good</mark> &amp; <mark", page)
    assert re.search(r"var\(--accent\) 22%,transparent\)\">bad</mark> film", page)
    assert "leave one out, compared with: empty; what the sums leave out is at most 25.0 %" in page
    picture = {**text, "shows": {"picture": "AAAA"}, "explanation": {**why, "drawn": {"picture": "BBBB"}}}
    page = make_html({**plain, "examples": [picture], "typical": [picture]}).decode()
    assert page.count('src="data:image/png;base64,BBBB"') == 2
    assert "Test rows that are answered best" in page
    page = make_html({**plain, "explanations_left_out": "no time"}).decode()
    assert "The answers are not explained: no time." in page


def test_the_page_loads_nothing() -> None:
    """No address of another host, no script, and a policy that forbids both; it fits phones and both themes."""
    page = make_html(REPORT).decode()
    addresses = {address for address in re.findall(r"https?://[^\s\"'<)]+", page) if "www.w3.org" not in address}
    assert addresses == set()
    assert "default-src 'none'" in page
    assert {"script", "link", "iframe"}.isdisjoint(_Page(page).tags)
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in page
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_a_report_of_a_regression_has_no_classes() -> None:
    """What was not measured is left out."""
    plain = {
        **REPORT,
        "compress": {},
        "layers": [],
        "confusion": None,
        "labels": None,
        "train": {"history": {}},
        "metrics": {"float": {"mse": 1.0}, "quantized": {"mse": 1.1}, "num_examples": 5},
        "examples": [{"row": 2, "true": [1.5], "answer": [9.25], "wrong": True, "shows": {"fields": {"age": "7"}}}],
        "analysis": {
            "regression": [
                {
                    "r2": 0.8,
                    "bias": 0.1,
                    "mae": 0.5,
                    "quantiles": {"0.5": 0.4, "0.9": 0.9, "0.99": 1.2},
                    "ranges": [{"from": 0.0, "to": 2.0, "count": 5, "mae": 0.5, "bias": 0.1}],
                    "points": [[1.0, 1.5], [2.0, 1.75]],
                }
            ]
        },
    }
    page = make_html(plain).decode()
    assert "Confusion" not in page
    for text in ("mse", "R² is 0.8000", "0 to 2", '<th scope="row">2</th><td>1.5</td><td>9.25</td><td>7</td>'):
        assert text in page


@pytest.mark.parametrize(
    ("changed", "kind", "remark"),
    [
        ({"quantized": {"accuracy": 0.4}}, "bad", "answering with the most frequent class for every row has 50.00"),
        ({"quantized": {"accuracy": 0.51}}, "warn", "The difference may be chance"),
        ({"num_examples": 50}, "warn", "Only 50 test rows"),
    ],
)
def test_the_verdict_is_that_of_the_figures(changed: dict[str, Any], kind: str, remark: str) -> None:
    """No better than a constant is not good enough; what may be chance is said."""
    report = {**REPORT, "metrics": {**REPORT["metrics"], **changed}, "train": {"history": {}}}
    found, _sentence, remarks = judge(report)
    assert found == kind
    assert any(text.startswith("Accuracy") or each == "warn" for each, text in remarks)
    assert any(remark in text and each == kind for each, text in remarks)


def test_a_plain_success_is_called_good() -> None:
    """Without anything to look at, the verdict is that it is good enough."""
    kind, sentence, _remarks = judge({**REPORT, "train": {"history": {}}})
    assert (kind, sentence) == ("good", "Good enough: better than a constant answer, and it passed its gate.")


@pytest.mark.parametrize(("share", "count", "low", "high"), [(0.5, 100, 0.404, 0.596), (1.0, 50, 0.929, 1.0)])
def test_confidence_intervals_are_wilsons(share: float, count: int, low: float, high: float) -> None:
    """The interval holds near the ends too."""
    assert confidence_interval(share, count) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_overfitting_is_called_what_it_is() -> None:
    """The gap between the curves, the epoch of the lowest validation loss, and what to do."""
    assert "+9.00 points above validation" in overfitting(REPORT["train"]["history"])
    assert "epoch 1 of 2: over-fitted: try dropout" in overfitting(REPORT["train"]["history"])
    assert overfitting({"loss": [1.0]}) == "There were no validation rows to compare with."


def test_many_classes_are_shown_by_what_is_confused() -> None:
    """Beyond twenty classes the pairs that are most often confused, and the weakest classes first."""
    matrix = [[90 if row == column else 0 for column in range(100)] for row in range(100)]
    matrix[17][42] = 9
    classes = [{"support": 90, "predicted": 90, "precision": 1.0, "recall": 1.0, "f1": 1.0} for _ in matrix]
    classes[17] = {"support": 99, "predicted": 90, "precision": 1.0, "recall": 90 / 99, "f1": 0.95}
    labels = [f"class {number}" for number in range(100)]
    report = {**REPORT, "labels": labels, "confusion": matrix, "analysis": {"classes": classes}, "examples": []}
    report |= {"compress": {}, "train": {"history": {}}}
    page = make_html(report).decode()
    assert '<th scope="row">class 17</th><td>class 42</td><td>9</td>' in page
    assert page.index(">class 17<") < page.index(">class 0<")
    assert "70 more classes" in page
    assert len(page) < 100_000


def test_sizes_are_written_in_full() -> None:
    """No powers of ten, and the legend outside of where the candidates are."""
    figure = charts.pareto(REPORT["compress"]["auto"])
    figure.savefig(io.BytesIO(), format="svg")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["200", "500", "1,000"]
    assert axis.get_legend() is None
    assert len(figure.legends) == 1
