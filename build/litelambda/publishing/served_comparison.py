"""The versions that a build would replace, evaluated on the build's own test rows.

A build that is worse than the version that an alias points at now is refused, with the numbers of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from litelambda.artifact.reference import Reference
from litelambda.common.errors import GateError, VerificationError
from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import Columns, prepared_rows
from litelambda.data.scaling import Preprocessing
from litelambda.data.stored_rows import Indices, Rows, StoredRows
from litelambda.evaluation.evaluate import Evaluated, Metrics, measure, run_rows
from litelambda.evaluation.gate import check_loss
from litelambda.keras_tools.finite_checks import count_not_finite
from litelambda.recipe.sections import Gate, Publish
from litelambda.store.artifact_store import Store
from litelambda.store.reading import open_reader
from litelambda_serving.artifact import Artifact, fetch_artifact
from litelambda_serving.preprocessing import open_preprocessor
from litelambda_serving.tensor import TensorSpec

_OVERRIDE = "--accept-worse publishes it all the same. "


@dataclass(frozen=True)
class Served:
    """How a build compares with a version that is served now.

    Attributes:
        version: its number.
        aliases: the aliases that point at it, of those that the build would move.
        metrics: of that version on the build's test rows; None where it does not take such rows.
        reason: why metrics are missing; "" where they are not.
    """

    version: int
    aliases: list[str]
    metrics: Metrics | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the report and `build --json`."""
        return asdict(self)

    def describe(self) -> str:
        """The comparison in a sentence."""
        subject = f"version {self.version} ({', '.join(self.aliases)})"
        if self.metrics is None:
            return f"not compared with {subject}: {self.reason}"
        return f"{subject}: {', '.join(f'{name} {value:.4g}' for name, value in self.metrics.items())}"


def check_served(
    store: Store,
    publish: Publish,
    gate: Gate,
    data: Dataset,
    evaluated: Evaluated,
    from_logits: bool,
    progress: ReportProgress,
) -> list[Served]:
    """Compare a build with the versions that its aliases point at now.

    Args:
        store: where the build is to be published.
        publish: the recipe's section: name and aliases.
        gate: the recipe's section: how much worse it may be.
        data: from the data stage.
        evaluated: the build's own figures.
        from_logits: whether outputs are logits, of a version that does not say: an imported one.
        progress: called with the share that is done and a text.

    Returns:
        Each version that is served, with its figures, or the reason that it has none; empty for the first version.

    Raises:
        GateError: the build is worse than one of them by more than the gate allows, or one cannot be run.
        ServingError: the store cannot be read, or what it holds is damaged.
    """
    found = []
    for version, aliases in _targets(store, publish).items():
        artifact = fetch_artifact(open_reader(store.url), publish.name, str(version))
        served = _compare(artifact, aliases, data, from_logits, progress)
        found.append(served)
        if served.metrics is not None:
            names = (f"version {version}, which {' and '.join(aliases)} now serves", "this build")
            check_loss(gate, served.metrics, evaluated.quantized_metrics, names, _OVERRIDE)
    return found


def _targets(store: Store, publish: Publish) -> dict[int, list[str]]:
    """The versions that the recipe's aliases point at, each with its aliases."""
    targets = store.read_aliases(publish.name)
    found: dict[int, list[str]] = {}
    for alias in publish.aliases:
        if alias in targets:
            found.setdefault(targets[alias], []).append(alias)
    return found


def _compare(
    artifact: Artifact, aliases: list[str], data: Dataset, from_logits: bool, progress: ReportProgress
) -> Served:
    version, fields = artifact.manifest.version, artifact.manifest.fields
    reason = _misfit(artifact, data)
    if reason:
        return Served(version, aliases, None, reason)
    try:
        reference = Reference(bytes(artifact.model), artifact.manifest.default_signature)
        outputs = run_rows(reference, _rows_for(artifact, reference.inputs[0].name, data), progress)
    except VerificationError as error:
        raise GateError(
            f"version {version}, which {' and '.join(aliases)} now serves, cannot be compared with: {error}. "
            f"{_OVERRIDE}Nothing was published"
        ) from error
    if bad := count_not_finite(outputs):
        return Served(version, aliases, None, f"it answers {bad:,} of the test rows with NaN or infinity")
    from_logits = fields["recipe"].get("train", {}).get("from_logits", from_logits)
    return Served(version, aliases, measure(outputs, data, from_logits))


def _misfit(artifact: Artifact, data: Dataset) -> str:
    """Why a version cannot be asked about this build's test rows; "" where it can."""
    manifest = artifact.manifest
    signature = manifest.signatures[manifest.default_signature]
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return f"it has {len(signature.inputs)} inputs and {len(signature.outputs)} outputs"
    (taken,), (given,) = signature.inputs, signature.outputs
    if reason := _rows_misfit(artifact, taken, data):
        return reason
    if manifest.labels != data.labels:
        return f"its labels are {_short(manifest.labels)}, those of the data are {_short(data.labels)}"
    if list(given.shape[1:]) not in (
        [data.num_outputs],
        [1] if data.num_outputs == 2 and data.labels and not data.multi_label else [],
    ):
        return f"it answers with {list(given.shape[1:])} values per row, the data has {data.num_outputs}"
    return ""


def _rows_misfit(artifact: Artifact, taken: TensorSpec, data: Dataset) -> str:
    """Why the test rows cannot be prepared for a version's input; "" where they can."""
    document = artifact.manifest.preprocessing.get(taken.name)
    if data.raw_test is not None and document is not None:
        preprocessor = open_preprocessor(taken, document, artifact.assets)
        known = data.raw_test(np.arange(1)).keys()
        missing = ", ".join(repr(field.name) for field in preprocessor.fields if field.name not in known)
        return f"it is asked with {missing}, which the data does not have" if missing else ""
    if document is not None and document["kind"] != "numbers" and not _is_prepared_alike(artifact, taken.name, data):
        return f"its rows are prepared in another way ({document['kind']})"
    if taken.dtype.kind not in ("int", "float") or list(taken.shape[1:]) != list(data.input_shape):
        return f"it takes rows of {list(taken.shape[1:])} {taken.dtype}, the test rows have {list(data.input_shape)}"
    return ""


def _rows_for(artifact: Artifact, name: str, data: Dataset) -> Rows:
    """The test rows, prepared as that version expects."""
    manifest, ours = artifact.manifest, data.preprocessing
    theirs = manifest.preprocessing.get(name) or manifest.scaling.get(name)
    if _is_prepared_alike(artifact, name, data):
        return data.test.x
    if data.raw_test is not None and name in manifest.preprocessing:
        return _prepared_again(artifact, name, data.raw_test, len(data.test))
    undo = ours.undo if isinstance(ours, Preprocessing) else np.asarray
    apply = Preprocessing(theirs["scale"], theirs["offset"]).apply if theirs else np.asarray
    rows = data.test.x if isinstance(data.test.x, StoredRows) else StoredRows.of(data.test.x[:])
    return rows.map(lambda part: apply(undo(part)).astype(np.float32), np.float32)


def _is_prepared_alike(artifact: Artifact, name: str, data: Dataset) -> bool:
    theirs, ours = artifact.manifest.preprocessing.get(name), data.preprocessing
    if ours is None:
        return theirs is None and name not in artifact.manifest.scaling
    return theirs == ours.to_json() and artifact.assets == ours.assets


def _prepared_again(artifact: Artifact, name: str, raw_test: Callable[[Indices], Columns], num_rows: int) -> Rows:
    """The raw test rows through the preprocessing of that version."""
    manifest = artifact.manifest
    spec = next(each for each in manifest.signatures[manifest.default_signature].inputs if each.name == name)
    preprocessor = open_preprocessor(spec, manifest.preprocessing[name], artifact.assets)
    shape = (num_rows, *spec.shape[1:])
    return StoredRows(shape, spec.dtype.name, lambda wanted: prepared_rows(preprocessor, raw_test(wanted)))


def _short(labels: list[str] | None) -> str:
    if labels is None:
        return "none"
    return ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")
