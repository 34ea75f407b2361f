"""The versions that a build would replace, evaluated on the build's own test rows.

A build that is worse than the version that an alias points at now is refused, with the numbers of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from litelambda.artifact.reference import Reference
from litelambda.common.errors import GateError, VerificationError
from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset, Preprocessing
from litelambda.data.stored_rows import Rows, StoredRows
from litelambda.evaluation.evaluate import Evaluated, Metrics, measure, run_rows
from litelambda.evaluation.gate import check_loss
from litelambda.keras_tools.finite_checks import count_not_finite
from litelambda.recipe.sections import Gate, Publish
from litelambda.store.artifact_store import Store
from litelambda_serving.artifact import Artifact, fetch_artifact
from litelambda_serving.store import open_store

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
        artifact = fetch_artifact(open_store(store.url), publish.name, str(version))
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
        outputs = run_rows(reference, _rows_for(fields, reference.inputs[0].name, data), progress)
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
    if taken.dtype.kind not in ("int", "float") or list(taken.shape[1:]) != list(data.input_shape):
        return f"it takes rows of {list(taken.shape[1:])} {taken.dtype}, the test rows have {list(data.input_shape)}"
    if manifest.labels != data.labels:
        return f"its labels are {_short(manifest.labels)}, those of the data are {_short(data.labels)}"
    if list(given.shape[1:]) not in ([data.num_outputs], [1] if data.num_outputs == 2 and data.labels else []):
        return f"it answers with {list(given.shape[1:])} values per row, the data has {data.num_outputs}"
    return ""


def _rows_for(fields: Mapping[str, Any], name: str, data: Dataset) -> Rows:
    """The test rows, preprocessed as that version expects."""
    theirs = (fields.get("preprocessing") or {}).get(name)
    if theirs == (data.preprocessing and data.preprocessing.to_json()):
        return data.test.x
    undo = data.preprocessing.undo if data.preprocessing else np.asarray
    apply = Preprocessing(theirs["scale"], theirs["offset"]).apply if theirs else np.asarray
    rows = data.test.x if isinstance(data.test.x, StoredRows) else StoredRows.of(data.test.x[:])
    return rows.map(lambda part: apply(undo(part)).astype(np.float32), np.float32)


def _short(labels: list[str] | None) -> str:
    if labels is None:
        return "none"
    return ", ".join(labels[:5]) + (", …" if len(labels) > 5 else "")
