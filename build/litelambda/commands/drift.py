"""Whether what a version is asked and answers has drifted: counts of a function's log, a capture, or recent rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from litelambda.commands.asked_model import StoredModel
from litelambda.commands.captures import read_capture, read_lines
from litelambda.commands.replay import own_path
from litelambda.commands.row_files import read_instances
from litelambda.common.errors import DataError
from litelambda.common.paths import DEFAULT_STORE
from litelambda.common.wording import counted
from litelambda_serving.drift import DriftCounter
from litelambda_serving.drift.statistic import MIN_ROWS, judge, limit

__all__ = ["DriftResult", "Feature", "drift"]

Counts = list[list[int]]

_ROW_FILES = (".csv", ".parquet", ".npy")


@dataclass(frozen=True)
class Feature:
    """One feature of a window and of the baseline.

    Attributes:
        name: of the feature.
        deviation: how far it is from the baseline, in standard deviations of no drift.
        bins: what each bin holds.
        counts: rows of the window by bin.
        baseline: rows of the baseline by bin.
    """

    name: str
    deviation: float
    bins: list[str]
    counts: list[int]
    baseline: list[int]

    def largest_move(self) -> str:
        """The bin whose share has changed most, in a phrase."""
        rows, expected = sum(self.counts), sum(self.baseline)
        moves = [
            (abs(here / rows - there / expected), place)
            for place, (here, there) in enumerate(zip(self.counts, self.baseline, strict=True))
        ]
        place = max(moves)[1]
        return f"{self.bins[place]}: {self.baseline[place] / expected:.1%} -> {self.counts[place] / rows:.1%}"


@dataclass(frozen=True)
class DriftResult:
    """A window, judged.

    Attributes:
        model: its name.
        version: that the baseline is of.
        rows: of the window.
        windows: that were added up to it, where they come from a log.
        refused: rows or requests that the version does not take, which are not in it.
        score: from 1 on the window has drifted: one undrifted window in a hundred does.
        limit: the deviation that this is.
        features: the one that has moved most first.
    """

    model: str
    version: int
    rows: int
    windows: int
    refused: int
    score: float
    limit: float
    features: list[Feature]

    @property
    def has_drifted(self) -> bool:
        """The verdict."""
        return self.score >= 1

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda drift --json` prints."""
        return {**vars(self), "features": [vars(feature) for feature in self.features], "drifted": self.has_drifted}

    def describe(self) -> str:
        """The same for a person: the features, and the verdict."""
        lines = [
            f"{feature.name:30} {feature.deviation:8.2f}{' *' if feature.deviation >= self.limit else '  '} "
            f"{feature.largest_move()}"
            for feature in self.features
        ]
        verdict = "drifted" if self.has_drifted else "not drifted"
        refused = f", {self.refused:,} refused" if self.refused else ""
        lines.append(
            f"{self.model} version {self.version}: {verdict}, {counted(self.rows, 'row')}{refused}: "
            f"{self.score:.2f} times the limit {self.limit:.2f}, which 1 % of undrifted windows exceed"
        )
        return "\n".join(lines)


def drift(
    source: str | Path, model: str, *, store: str | Path = DEFAULT_STORE, code: str | Path | None = None
) -> DriftResult:
    """Compare a window with a version's baseline.

    Args:
        source: the log lines of a function, a capture, or recent rows in .csv, .parquet, .npy or JSON Lines: a file;
            of log lines and captures also a folder or an `s3://` URL.
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`.
        store: where it is: a folder, or `s3://bucket/prefix`.
        code: file with the function's own code, which rows go through.

    Raises:
        UsageError: the model's name or the store makes no sense.
        DataError: the version has no baseline, or there are too few rows.
        ServingError: the model or the code cannot be loaded.

    Example::

        from litelambda.commands.drift import drift

        result = drift("last-week.csv", "fruit@latest", store="models")
        print(result.has_drifted, result.features[0].name)
    """
    asked = StoredModel(model, store, code, counts_drift=True)
    manifest, counter = asked.servable.manifest, asked.servable.drift
    if counter is None:
        raise DataError(
            f"{manifest.model} version {manifest.version} has no baseline: build it again, or import it with "
            "--representative rows"
        )
    counter.every = 1
    windows, refused = 0, 0
    if str(source).lower().endswith(_ROW_FILES) and "://" not in str(source):
        refused = _ask_rows(asked, read_instances(Path(source), asked.servable.raw_inputs))
    elif _holds(source, '"captureData"'):
        refused = _ask_capture(asked, source)
    elif _holds(source, '"counts"'):
        windows = _add_windows(counter, manifest.model, manifest.version, source)
    else:
        refused = _ask_rows(asked, read_instances(Path(source), asked.servable.raw_inputs))
    return _judged(counter, manifest.model, manifest.version, windows, refused)


def _judged(counter: DriftCounter, model: str, version: int, windows: int, refused: int) -> DriftResult:
    rows, counts = counter.rows, counter.take()
    if rows < MIN_ROWS:
        raise DataError(f"{counted(rows, 'row')} of {model} version {version}: a window has {MIN_ROWS} at least")
    document = counter.document
    score, deviations = judge(document, counts)
    features = [
        Feature(each["name"], round(deviation, 4), bins_of(each), found, each["counts"])
        for each, deviation, found in zip(document["features"], deviations, counts, strict=True)
    ]
    features.sort(key=lambda feature: -feature.deviation)
    return DriftResult(
        model, version, rows, windows, refused, round(score, 4), limit(document["limits"], rows), features
    )


def bins_of(feature: Mapping[str, Any]) -> list[str]:
    """What each bin of a feature holds, in the unit that people know.

    >>> bins_of({"edges": [0.0, 1.0], "scale": 0.5, "offset": -1.0})
    ['below 2', '2 to 4', 'from 4']
    >>> bins_of({"indices": [0, 2], "labels": ["Bern", "Rome"]})
    ['Bern', 'Rome', 'others']
    """
    if "edges" not in feature:
        return [*map(str, feature.get("labels", feature["indices"])), "others"]
    scale, offset = feature.get("scale", 1.0), feature.get("offset", 0.0)
    edges = [f"{(edge - offset) / scale:.4g}" for edge in feature["edges"]]
    return [f"below {edges[0]}", *[f"{low} to {high}" for low, high in pairwise(edges)], f"from {edges[-1]}"]


def _holds(source: str | Path, text: str) -> bool:
    """Whether one of the first lines has a text; log lines of a window are among those of requests."""
    return any(text in line for _, line in read_lines(source))


def _add_windows(counter: DriftCounter, model: str, version: int, source: str | Path) -> int:
    """Add up the counts that a function logged of a version, and return in how many windows."""
    found = 0
    for place, line in read_lines(source):
        if '"counts"' not in line:
            continue
        try:
            fields = json.loads(line[line.index("{") :])
            if (fields.get("Model"), fields.get("Version")) == (model, str(version)):
                counter.add(fields["counts"])
                found += 1
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{place}: not the line of a window of {model} version {version}: {error}") from error
    return found


def _ask_capture(asked: StoredModel, source: str | Path) -> int:
    refused = 0
    for request in read_capture(source):
        headers = {"content-type": request.content_type}
        if request.length:
            headers["inference-header-content-length"] = request.length
        refused += asked.ask(own_path(request.path), headers, request.body).status != 200
    return refused


def _ask_rows(asked: StoredModel, instances: Iterable[Any]) -> int:
    refused = [
        asked.ask(":predict", {"content-type": "application/json"}, _body(each)).status != 200 for each in instances
    ]
    return sum(refused)


def _body(instance: Any) -> bytes:
    return json.dumps({"instances": [instance]}).encode()
