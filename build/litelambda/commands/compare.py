"""`litelambda compare`: two versions of a model on the same rows, through the code that is deployed.

Each version prepares the raw rows by its own preprocessing. Latency is measured in turns.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.artifact.latency import compare_latency_us
from litelambda.commands.compared_rows import ComparedRows, rows_of_file, rows_of_recipe
from litelambda.commands.score import score
from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda.common.progress import Reporter
from litelambda.evaluation.version_comparison import Address, Compared, Meaning, compare_answers
from litelambda.store.artifact_store import Store
from litelambda.store.checks import check_store_exists
from litelambda.store.reading import open_reader
from litelambda_serving.artifact import Artifact, fetch_artifact

__all__ = ["Comparison", "Side", "compare"]

_MOST_DIFFERENCES = 10


@dataclass(frozen=True)
class Side:
    """One of the two versions.

    Attributes:
        model: its name.
        version: its number.
        store: URL of its store.
        aliases: that point at it now.
        digest: SHA-256 of its manifest.
        created: when it was published.
        artifact_bytes: of the flatbuffer.
        stored_bytes: of what is stored of it.
        latency_us: `median` and `p90` of a run with one row.
        refused: rows that it could not answer.
    """

    model: str
    version: int
    store: str
    aliases: list[str]
    digest: str
    created: str
    artifact_bytes: int
    stored_bytes: int
    latency_us: Mapping[str, float]
    refused: int


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same rows.

    Attributes:
        sides: the first and the second version.
        rows: what the rows are.
        found: how their answers differ.
    """

    sides: tuple[Side, Side]
    rows: str
    found: Compared


def compare(
    first: str,
    second: str,
    *,
    data: str | Path | None = None,
    recipe: str | Path | None = None,
    target: str | None = None,
    store: str | Path = DEFAULT_STORE,
    reporter: Reporter | None = None,
) -> Comparison:
    """Answer the same rows with two versions, and compare the answers, the time and the size.

    Args:
        first: `NAME`, `NAME@ALIAS`, `NAME:VERSION` or `NAME/VERSION` in the store; or `STORE/NAME/VERSION` in another.
        second: the same.
        data: a file of rows that `score` reads.
        recipe: a recipe whose test rows are taken instead, with their targets.
        target: the field of `data` with the right answers; by default the column that the first version predicts.
        store: a folder, or `s3://bucket/prefix`.
        reporter: told about both versions.

    Raises:
        UsageError: the arguments contradict each other, or the model, alias or version does not exist.
        ServingError: a version or the rows cannot be read.
        ScoreError, JobError: the rows do not fit a version.

    Example::

        from litelambda.commands.compare import compare

        print(compare("fruit:3", "fruit:4", data="rows.csv", store="models").found.agreement)
    """
    if (data is None) == (recipe is None):
        raise UsageError("give the rows to compare on: --data FILE, or --recipe RECIPE.toml for its test rows")
    if recipe is not None and target is not None:
        raise UsageError("--target names a field of --data: the targets of a recipe's test rows are known")
    found = [locate(reference, store_url(store)) for reference in (first, second)]
    artifacts = [fetch_artifact(open_reader(each.url), name, str(version)) for each, name, version in found]
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        folder = Path(scratch)
        rows = rows_of_file(data, target, artifacts[0]) if data is not None else rows_of_recipe(str(recipe), folder)
        answers = [
            _answers(rows, f"{name}:{version}", each.url, folder / f"{place}.jsonl", reporter)
            for place, (each, name, version) in enumerate(found)
        ]
    meanings = [Meaning.of(artifact.manifest.fields) for artifact in artifacts]
    targets = {row: rows.read_target(line, meanings[0]) for row, line in answers[0].items()}
    predictions = [{row: line["prediction"] for row, line in each.items()} for each in answers]
    compared = compare_answers((predictions[0], predictions[1]), (meanings[0], meanings[1]), targets, _MOST_DIFFERENCES)
    if not compared.rows:
        raise UsageError(f"no row of {rows.name} could be answered by both versions")
    everything = {*predictions[0], *predictions[1]}
    latency = compare_latency_us([bytes(artifact.model) for artifact in artifacts])
    sides = [
        _side(*each, artifact, spent, len(everything) - len(answered))
        for each, artifact, spent, answered in zip(found, artifacts, latency, predictions, strict=True)
    ]
    return Comparison((sides[0], sides[1]), rows.name, compared)


def locate(reference: str, default: str) -> tuple[Store, str, int]:
    """The store, name and version that a reference means now.

    Args:
        reference: see `compare`.
        default: URL of the store of references that do not name one.

    Raises:
        UsageError: the store, model, alias or version does not exist.
    """
    head, slash, last = reference.rstrip("/").rpartition("/")
    if slash:
        place, _, name = head.rpartition("/")
        if not last.isdecimal() or not name:
            raise UsageError(f"{reference!r} does not end with a version: expected NAME/VERSION or STORE/NAME/VERSION")
        url, reference = store_url(place) if place else default, f"{name}:{last}"
    else:
        url = default
    check_store_exists(url)
    store = Store(url)
    name, version = store.resolve(reference)
    store.read_manifest(name, version)  # says which versions there are, where this one is not there
    return store, name, version


def _answers(
    rows: ComparedRows, reference: str, url: str, output: Path, reporter: Reporter | None
) -> dict[Address, dict[str, Any]]:
    """The lines that `score` writes, by the address of their row."""
    score(rows.source, output, model=reference, store=url, tolerate=1.0, reporter=reporter)
    return {_address(line): line for line in _lines(output)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _address(line: Mapping[str, Any]) -> Address:
    address: Address = next(line[name] for name in ("line", "row", "file") if name in line)
    return address


def _side(
    store: Store, name: str, version: int, artifact: Artifact, latency: Mapping[str, float], refused: int
) -> Side:
    manifest = artifact.manifest
    return Side(
        model=name,
        version=version,
        store=store.url,
        aliases=sorted(alias for alias, target in store.read_aliases(name).items() if target == version),
        digest=manifest.sha256,
        created=manifest.fields.get("created", ""),
        artifact_bytes=len(memoryview(artifact.model)),
        stored_bytes=manifest.files[manifest.artifact].size_bytes,
        latency_us=latency,
        refused=refused,
    )
