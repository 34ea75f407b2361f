"""`litelambda import`: publish a model that was not built here, verified as a build's is.

litelambda import model.tflite --name fruit --labels labels.txt
litelambda import model.keras --name fruit --representative rows.npy
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.errors import ConversionError, DataError, UsageError
from litelambda.import_sources import KERAS_SUFFIXES, Rows, random_rows, read_model
from litelambda.memory import shortages_explained
from litelambda.progress import Reporter
from litelambda.stages.interpreter import Reference, to_codes
from litelambda.stages.publish import REPORT_NAME, Description, Published, publish
from litelambda.stages.quantize import Quantized
from litelambda.stages.verify import Verified, verify
from litelambda.store import open_publishing_store
from serving.artifact import ARTIFACT_NAME
from serving.manifest import is_valid_name

_VERIFIED_ROWS = 32
_COMPARED_ROWS = 256


@dataclass(frozen=True)
class ImportResult:
    """What was imported and published.

    Attributes:
        published: name, version, place and digest.
        metrics: how far the quantized model is from the float one, where it was quantized.
        size_bytes: of the float flatbuffer, the artifact, and what is stored of it.
        batching: what was proven of running several rows at once.
        quantization: the scheme, the operators that compute in float, why, and what to change.
    """

    published: Published
    metrics: Mapping[str, Any]
    size_bytes: Mapping[str, int]
    batching: Mapping[str, Any]
    quantization: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda import --json` prints."""
        return {
            "model": self.published.model,
            "version": self.published.version,
            "url": self.published.url,
            "digest": self.published.digest,
            "metrics": dict(self.metrics),
            "size_bytes": dict(self.size_bytes),
            "published": True,
            "aliases": self.published.aliases,
            "float_ops": self.quantization["float_ops"],
            "note": self.quantization["note"],
            "batching": dict(self.batching),
        }

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        difference = self.metrics.get("max_abs_difference")
        compared = "" if difference is None else f", at most {difference:.4g} from the float model"
        return (
            f"{self.published.model} version {self.published.version} in {self.published.url}\n"
            f"{self.size_bytes['quantized']:,} bytes{compared}" + "".join(f"\n{note}" for note in self._notes())
        )

    def _notes(self) -> list[str]:
        notes = [self.quantization["note"]] if self.quantization["note"] else []
        if not self.batching["dynamic"]:
            notes.append(f"rows run one by one: {self.batching['reason']}")
        return notes


def import_model(
    path: Path,
    name: str,
    store_url: str,
    reporter: Reporter,
    representative: Path | None = None,
    labels: Path | None = None,
) -> ImportResult:
    """Convert where necessary, verify and publish a model.

    Args:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        name: the model's name in the store.
        store_url: `file:///…` or `s3://bucket/prefix`.
        reporter: told about every stage.
        representative: .npy or .npz with rows of data; with them the model is quantized to int8.
        labels: names of the classes: a JSON list, or a line each.

    Raises:
        UsageError: an argument is impossible.
        DataError: rows or labels do not fit the model.
        ConversionError: the model cannot be read or converted.
        VerificationError: it does not run in the runtime that ships as it must.
        MemoryShortageError: a stage needs more memory than there is.
        PublishError, StoreError: the store refused.
    """
    if not is_valid_name(name):
        raise UsageError(f"{name!r} is no model name: letters, digits, _ . and - make one")
    store = open_publishing_store(store_url)
    with reporter.stage("convert") as stage, shortages_explained("convert"):
        model, rows = read_model(path, representative)
        _check_shapes(model)
        names = _read_labels(labels, model) if labels is not None else None
        stage.summary = (
            f"{model.scheme}, {len(model.artifact):,} bytes, inputs {[t.name for t in model.signature.inputs]}"
        )
    with reporter.stage("verify") as stage, shortages_explained("verify"):
        verified = _verify(model, rows)
        metrics = _compare(model, rows) if rows is not None else {"float": {}, "quantized": {}}
        stage.summary = f"{verified.num_rows} rows bit for bit"
    with reporter.stage("publish") as stage, shortages_explained("publish"):
        description = Description(
            signature=model.signature,
            batching=verified.batching,
            quantization=model.to_json(),
            labels=names,
            preprocessing={},
            metrics=metrics,
            size_bytes={"float": len(model.float_artifact), "quantized": len(model.artifact)},
            recipe={"imported": _source(path)},
        )
        files = {ARTIFACT_NAME: model.artifact, **_keras_file(path), REPORT_NAME: _report(description)}
        published = publish(store, name, ["latest"], files, description)
        stage.summary = f"version {published.version} in {published.url}"
    stored = {**description.size_bytes, "stored": len(model.artifact)}
    return ImportResult(published, metrics, stored, verified.batching, description.quantization)


def _check_shapes(model: Quantized) -> None:
    for tensor in (*model.signature.inputs, *model.signature.outputs):
        if any(size < 0 for size in tensor.shape[1:]):
            raise ConversionError(
                f"{tensor.name!r} has the shape {list(tensor.shape)}: only the first, the batch, may be open. "
                "Fix the others' sizes before exporting the model"
            )


def _verify(model: Quantized, rows: Rows | None) -> Verified:
    return verify(model.artifact, _rows_to_verify(model, rows), model.signature.key)


def _rows_to_verify(model: Quantized, rows: Rows | None) -> Rows:
    if rows is None:
        return random_rows(model.signature.inputs, _VERIFIED_ROWS)
    return {t.name: to_codes(rows[t.name][:_VERIFIED_ROWS], t) for t in model.signature.inputs}


def _compare(model: Quantized, rows: Rows) -> dict[str, Any]:
    """How far the quantized model is from the float one on the representative rows."""
    some = {name: values[:_COMPARED_ROWS] for name, values in rows.items()}
    before, after = (
        Reference(artifact, model.signature.key).run_real(some, 1)
        for artifact in (model.float_artifact, model.artifact)
    )
    differences = [np.abs(before[name].astype(np.float64) - after[name].astype(np.float64)).max() for name in before]
    first = next(iter(before))
    agreement = None
    if before[first].ndim == 2 and before[first].shape[1] > 1:
        agreement = float(np.mean(before[first].argmax(axis=1) == after[first].argmax(axis=1)))
    return {
        "float": {},
        "quantized": {},
        "agreement": agreement,
        "max_abs_difference": float(max(differences)),
        "num_examples": len(next(iter(some.values()))),
    }


def _read_labels(path: Path, model: Quantized) -> list[str]:
    try:
        text = path.read_text()
        names = (
            json.loads(text) if text.lstrip().startswith("[") else [line for line in text.splitlines() if line.strip()]
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} holds no labels, neither a JSON list nor a line each: {error}") from error
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: every label must be a string")
    sizes = {tensor.shape[-1] for tensor in model.signature.outputs if tensor.shape}
    if len(names) not in sizes:
        raise DataError(f"{path} has {len(names)} labels, but the model's outputs have {sorted(sizes)} values a row")
    return names


def _source(path: Path) -> dict[str, str]:
    source = {"file": path.name}
    if path.is_file():
        source["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return source


def _keras_file(path: Path) -> dict[str, bytes]:
    """The model as it came, published beside the artifact made of it."""
    if path.suffix not in KERAS_SUFFIXES:
        return {}
    return {"model.keras" if path.suffix == ".keras" else "model.h5": path.read_bytes()}


def _report(description: Description) -> bytes:
    report = {
        "imported": description.recipe["imported"],
        "quantization": description.quantization,
        "batching": description.batching,
        "metrics": description.metrics,
        "size_bytes": description.size_bytes,
    }
    return json.dumps(report, indent=1, ensure_ascii=False).encode()
