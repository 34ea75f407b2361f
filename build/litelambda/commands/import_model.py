"""`litelambda import`: publish a model that was not built here, verified as a build's is.

litelambda import model.tflite --name fruit --labels labels.txt
litelambda import model.keras --name fruit --representative rows.npy
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litelambda.commands.import_preprocessing import read_preprocessing
from litelambda.commands.import_sources import Allowed, Imported, read_model
from litelambda.common.errors import DataError, UsageError
from litelambda.common.memory_errors import shortages_explained
from litelambda.common.progress import Reporter
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda.publishing.publish import REPORT_NAME, Description, Published, publish
from litelambda.store.artifact_store import open_publishing_store
from litelambda_serving.artifact import ARTIFACT_NAME
from litelambda_serving.manifest import is_valid_name


@dataclass(frozen=True)
class ImportResult:
    """What was imported and published.

    Attributes:
        published: name, version, place and digest.
        metrics: how far float and quantized flatbuffer are from the source's own answers.
        size_bytes: of the float flatbuffer, the artifact, and what is stored of it.
        batching: what was proven of running several rows at once.
        quantization: the scheme, the operators that compute in float, why, and what to change.
        warnings: what is odd about the representative rows.
    """

    published: Published
    metrics: Mapping[str, Any]
    size_bytes: Mapping[str, int]
    batching: Mapping[str, Any]
    quantization: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

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
            "warnings": list(self.warnings),
        }

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        return (
            f"{self.published.model} version {self.published.version} in {self.published.url}\n"
            f"{self.size_bytes['quantized']:,} bytes{self._compared()}" + "".join(f"\n{note}" for note in self._notes())
        )

    def _compared(self) -> str:
        if (share := self.metrics.get("max_difference")) is None:
            return ""
        agreement = self.metrics["agreement"]
        classes = "" if agreement is None else f", the same class on {agreement:.1%}"
        return (
            f"; from the source's own answers on {self.metrics['num_examples']} rows at most {share:.2%} of the range, "
            f"99 % within {self.metrics['p99_difference']:.2%}{classes}"
        )

    def _notes(self) -> list[str]:
        notes = [*self.warnings, *([self.quantization["note"]] if self.quantization["note"] else [])]
        if not self.batching["dynamic"]:
            notes.append(f"rows run one by one: {self.batching['reason']}")
        return notes


@dataclass(frozen=True)
class ImportOptions:
    """What an import takes beside the model.

    Attributes:
        representative: .npy or .npz with rows of data; with them the model is quantized to int8.
        labels: names of the classes: a JSON list, or a line each.
        preprocessing: JSON, or a file of it, with what turns raw values into the model's: see `read_preprocessing`.
        allowed: what quantization may cost.
    """

    representative: Path | None = None
    labels: Path | None = None
    preprocessing: str | None = None
    allowed: Allowed = field(default_factory=Allowed)


def import_model(
    path: Path, name: str, store_url: str, reporter: Reporter, options: ImportOptions | None = None
) -> ImportResult:
    """Convert where necessary, hold it against the model's own answers, verify and publish a model.

    Args:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        name: the model's name in the store.
        store_url: `file:///…` or `s3://bucket/prefix`.
        reporter: told about every stage.
        options: rows, labels, preprocessing, and what quantization may cost.

    Raises:
        UsageError: an argument is impossible.
        DataError: rows or labels do not fit the model.
        ConversionError: the model cannot be read or converted, or must not be published as it is.
        VerificationError: it does not answer as its source, or not in the runtime that ships as it must.
        GateError: the quantized model is too far from its source.
        MemoryShortageError: a stage needs more memory than there is.
        PublishError, StoreError: the store refused.
    """
    options = options or ImportOptions()
    if not is_valid_name(name):
        raise UsageError(f"invalid model name {name!r}: use letters, digits, '_', '.' and '-'")
    store = open_publishing_store(store_url)
    with reporter.stage("convert") as stage, shortages_explained("convert"):
        with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
            model = read_model(path, options.representative, Path(scratch), options.allowed)
        names = _read_labels(options.labels, model) if options.labels is not None else None
        preprocessing = read_preprocessing(options.preprocessing, model.signature.inputs, model.preprocessing)
        stage.summary = (
            f"{model.scheme}, {len(model.artifact):,} bytes, inputs {[t.name for t in model.signature.inputs]}"
        )
    with reporter.stage("verify") as stage, shortages_explained("verify"):
        verified = verify(model.artifact, model.rows, model.signature.key)
        stage.summary = f"{verified.num_rows} rows bit for bit"
    with reporter.stage("publish") as stage, shortages_explained("publish"):
        description = Description(
            signature=verified.signature,
            batching=verified.batching,
            warm_up=verified.warm_up,
            quantization=model.to_json(),
            labels=names,
            preprocessing=preprocessing,
            metrics=model.metrics,
            size_bytes={"float": model.float_bytes, "quantized": len(model.artifact)},
            recipe={"imported": _source(path)},
        )
        files = {ARTIFACT_NAME: model.artifact, **_keras_file(path), REPORT_NAME: _report(description)}
        published = publish(store, name, ["latest"], files, description)
        stage.summary = f"version {published.version} in {published.url}"
    stored = {**description.size_bytes, "stored": len(model.artifact)}
    return ImportResult(published, model.metrics, stored, verified.batching, description.quantization, model.warnings)


def _read_labels(path: Path, model: Imported) -> list[str]:
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
        with path.open("rb") as file:
            source["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
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
