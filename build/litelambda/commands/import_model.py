"""`litelambda import`: publish a model that was not built here, verified as a build's is.

litelambda import model.tflite --name fruit --labels labels.txt
litelambda import model.keras --name fruit --representative rows.npy
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litelambda.commands.explain import Explained, explain_import
from litelambda.commands.import_layouts import EXPECTED, Found, find_model
from litelambda.commands.import_preprocessing import read_preprocessing
from litelambda.commands.import_source import Allowed, convert_source
from litelambda.commands.import_text import complete_text
from litelambda.commands.import_tflite import read_tflite
from litelambda.commands.imported import Imported
from litelambda.commands.results import ImportResult
from litelambda.common.child_process import shared_folder
from litelambda.common.confinement import missing
from litelambda.common.errors import DataError, UsageError
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.memory_errors import shortages_explained
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda.common.progress import Reporter, Stage
from litelambda.evaluation.drift_rows import baseline_of_representative_rows
from litelambda.evaluation.quantization_loss import MAX_DIFFERENCE
from litelambda.evaluation.verify import Verified, verify
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda.publishing.encryption import Encryption
from litelambda.publishing.publish import REPORT_NAME, Description, publish
from litelambda.store.artifact_store import Store
from litelambda.store.signing import Signer
from litelambda_serving.artifact import ARTIFACT_NAME
from litelambda_serving.manifest import is_valid_name

__all__ = ["ImportResult", "import_model"]


def import_model(  # noqa: PLR0913 - all but the first three are named by the caller
    path: str | Path,
    name: str,
    store: str | Path = DEFAULT_STORE,
    *,
    representative: str | Path | None = None,
    labels: str | Path | None = None,
    preprocessing: str | None = None,
    tokenizer: str | Path | None = None,
    max_difference: float = MAX_DIFFERENCE,
    accept_loss: bool = False,
    signer: Signer | None = None,
    encrypt: str | None = None,
    explain: bool | None = None,
    reporter: Reporter | None = None,
) -> ImportResult:
    """Convert where necessary, compare with the model's own answers, verify and publish a model.

    Args:
        path: a .tflite, .keras or .h5 file, the folder of a SavedModel, or what has one of these in it: a
            .tar.gz file, as SageMaker's, or a .zip file, a folder of MLflow's or of Hugging Face's.
        name: the model's name in the store.
        store: a folder, or `s3://bucket/prefix`.
        representative: .npy or .npz with rows of data; with them the model is quantized to int8.
        labels: names of the classes: a JSON list, or a line each.
        preprocessing: JSON, or a file of it, with what turns raw values into the model's: see `read_preprocessing`.
        tokenizer: a `tokenizer.json` of Hugging Face's, for a model that reads text.
        max_difference: how far 99 % of the int8 model's values may be from its source's, as a share of the range.
        accept_loss: publish the int8 model however far it is off.
        signer: signs the version, see `litelambda.store.signing.open_signer`; None leaves it unsigned.
        encrypt: key that its files are encrypted with: an ARN of KMS, or a file; None leaves them as they are.
        explain: whether to publish the gradients of a Keras model for `:explain`; None for what its size allows.
        reporter: told about every stage.

    Returns:
        The version that was published, and how far it is from its source's own answers.

    Raises:
        UsageError: an argument is impossible.
        DataError: rows or labels do not fit the model.
        ConversionError: the model cannot be read or converted, or must not be published as it is.
        VerificationError: it does not answer as its source, or not in the runtime that ships as it must.
        GateError: the quantized model is too far from its source.
        MemoryShortageError: a stage needs more memory than there is.
        PublishError, StoreError: the store refused.

    Example::

        from litelambda import import_model

        result = import_model("model.keras", "fruit", "models", representative="rows.npy")
        print(result.published.url, result.metrics["p99_difference"])
    """
    if not is_valid_name(name):
        raise UsageError(f"invalid model name {name!r}: use letters, digits, '_', '.' and '-'")
    encryption = Encryption(encrypt) if encrypt else None
    target, reporter = Store(store_url(store)), reporter or Reporter()
    given = Path(path).absolute()  # the processes that read it keep the directory they were started in
    allowed = Allowed(max_difference, accept_loss)
    with interrupts_noted(), tempfile.TemporaryDirectory(dir=shared_folder()) as unpacked:
        with _stage(reporter, "convert") as stage:
            found = find_model(given, Path(unpacked))
            path = found.path
            with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
                model = read_model(path, _path(representative), Path(scratch), allowed)
            inputs = model.signature.inputs
            names = _read_labels(Path(labels), model) if labels is not None else None
            raw = read_preprocessing(preprocessing, inputs, model.preprocessing)
            documents, assets = complete_text(raw, inputs, _path(tokenizer))
            stage.summary = f"{model.scheme}, {len(model.artifact):,} bytes, inputs {[each.name for each in inputs]}"
        with _stage(reporter, "verify") as stage:
            verified = verify(model.artifact, model.rows, model.signature.key)
            stage.summary = f"{verified.num_rows} rows bit for bit"
        with _stage(reporter, "explain") as stage:
            explained = explain_import(path, model.rows, model.float_bytes, wanted=explain)
            stage.summary = explained.summary
        with _stage(reporter, "publish") as stage:
            description = _describe(_source(given, found), model, verified, names, documents, assets, explained)
            made = {ARTIFACT_NAME: model.artifact, **explained.files}
            files = {**made, **_keras_file(path), REPORT_NAME: _report(description)}
            published = publish(target, name, ["latest"], files, description, signer=signer, encryption=encryption)
            stage.summary = f"version {published.version} in {published.url}"
    return ImportResult(
        published=published,
        metrics=model.metrics,
        size_bytes={**description.size_bytes, "stored": len(model.artifact)},
        float_operators=model.float_operators,
        note=model.note,
        batching=verified.batching,
        explain=explained.document,
        warnings=(*_unconfined(), *found.warnings, *model.warnings),
    )


def _unconfined() -> Iterator[str]:
    """What to say of a system that cannot confine the processes that open the model."""
    for ability in missing():
        yield (
            f"this system cannot keep the processes that open a model from {ability}: import models of people whom "
            "you do not trust on Linux 5.13 or newer, or in a container"
        )


def read_model(path: Path, representative: Path | None, folder: Path, allowed: Allowed) -> Imported:
    """Read a model, make a flatbuffer of it, and compare that with the model's own answers.

    Args:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        representative: rows of data as the model will see it; with them the model is quantized to int8.
        folder: a scratch folder.
        allowed: what quantization may cost.

    Raises:
        UsageError: no such file, or of another kind.
        DataError: the representative rows do not fit the model's inputs, or say nothing.
        ConversionError: the model cannot be read or converted, or must not be published as it is.
        VerificationError: the float flatbuffer does not answer as the model itself does.
        GateError: the quantized one is too far off.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir() or path.suffix in KERAS_SUFFIXES:
        return convert_source(path, representative, folder, allowed)
    if path.suffix != ".tflite":
        raise UsageError(f"{path}: {EXPECTED}")
    if representative is not None:
        raise UsageError(
            f"{path} is converted already and cannot be quantized any more: import the .keras file or SavedModel "
            "it was made from, or leave --representative out"
        )
    return read_tflite(path)


@contextmanager
def _stage(reporter: Reporter, name: str) -> Iterator[Stage]:
    with reporter.stage(name) as stage, shortages_explained(name):
        yield stage


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _describe(
    source: Mapping[str, str],
    model: Imported,
    verified: Verified,
    labels: list[str] | None,
    preprocessing: Mapping[str, Any],
    assets: Mapping[str, bytes],
    explained: Explained,
) -> Description:
    return Description(
        signature=verified.signature,
        batching=verified.batching,
        warm_up=verified.warm_up,
        quantization=model.to_json(),
        labels=labels,
        preprocessing=preprocessing,
        assets=assets,
        metrics=model.metrics,
        size_bytes={"float": model.float_bytes, "quantized": len(model.artifact)},
        recipe={"imported": source},
        explain=explained.document,
        drift=baseline_of_representative_rows(
            verified.signature, model.representative, model.artifact, preprocessing, assets, labels
        ),
    )


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


def _source(path: Path, found: Found) -> dict[str, str]:
    source = {"file": path.name}
    if found.path != path:
        source["model"] = found.inside
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
