"""A window against its baseline as one page, with a chart for each feature."""

from __future__ import annotations

from typing import Any

from litelambda.commands.drift import DriftResult, Feature
from litelambda.publishing.report import charts
from litelambda.publishing.report.page import document, paragraph, section, table

__all__ = ["make_page"]


def make_page(result: DriftResult) -> bytes:
    """The page.

    Args:
        result: of `litelambda.commands.drift.drift`.
    """
    verdict = "has drifted" if result.has_drifted else "has not drifted"
    title = f"{result.model} version {result.version} {verdict}"
    rows = [
        (
            feature.name,
            f"{feature.deviation:.2f}",
            "yes" if feature.deviation >= result.limit else "",
            feature.largest_move(),
        )
        for feature in result.features
    ]
    said = (
        f"{result.rows:,} rows against {sum(result.features[0].baseline):,} of the baseline. The largest deviation is "
        f"{result.score:.2f} times the limit {result.limit:.2f}, which one undrifted window in a hundred exceeds."
    )
    figures = [charts.svg(_chart(feature), feature.name, f"{feature.deviation:.2f}") for feature in result.features]
    body = paragraph(said) + table(("feature", "deviation", "drifted", "largest move"), rows)
    return document(title, section(title, body) + section("Features", *figures))


def _chart(feature: Feature) -> Any:
    rows, expected = sum(feature.counts), sum(feature.baseline)
    return charts.shares(
        feature.bins,
        {
            "baseline": [count / expected for count in feature.baseline],
            "window": [count / rows for count in feature.counts],
        },
    )
