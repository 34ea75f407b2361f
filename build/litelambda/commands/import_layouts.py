"""Finds the model in what other platforms keep it in: an archive such as SageMaker's, a folder of MLflow's or a hub's.

    model.tar.gz    or a .zip file: 1/saved_model.pb, export/Servo/1/saved_model.pb, or a model file; code/
    MLmodel         with the flavor `keras` or `tensorflow`: data/model.keras, data/model/, tf2model/
    config.json, metadata.json, model.weights.h5    a .keras file, unpacked, as `model.save("hf://…")` uploads it
    config.json, README.md, …                       of a hub, with a .keras file or a SavedModel among them

Only names are looked at, and MLmodel and config.json are read: nothing of the model itself is opened here.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litelambda.commands.import_archive import ARCHIVE_SUFFIXES, unpack
from litelambda.common.errors import UsageError
from litelambda.keras_tools.model_files import KERAS_SUFFIX, KERAS_SUFFIXES

__all__ = ["EXPECTED", "Found", "find_model"]

EXPECTED = (
    "expected a .tflite, .keras or .h5 file, the folder of a SavedModel, or a .tar.gz or .zip file or a folder with "
    "one of these in it"
)
"""What is taken, for messages."""

_SAVED_MODEL = "saved_model.pb"
_ML_MODEL = "MLmodel"
_UNPACKED_KERAS = ("config.json", "metadata.json", "model.weights.h5")
_ONLY_WEIGHTS = ("tf_model.h5", ".weights.h5")
_OTHER_LIBRARIES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".pkl", ".joblib")
_HIDDEN = (".", "__MACOSX")
_EXPECTED = "Expected a .keras, .h5 or .tflite file, or the folder of a SavedModel"
_MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
_MAX_FILES = 10_000
_LISTED = 12


@dataclass(frozen=True)
class Found:
    """A model that was found.

    Attributes:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        inside: where it is in what was given; "" where it is what was given.
        warnings: what came with it and is not imported.
    """

    path: Path
    inside: str = ""
    warnings: tuple[str, ...] = ()


def find_model(path: Path, scratch: Path) -> Found:
    """Find the model in an archive or a folder; a model file, or the folder of a SavedModel, is one itself.

    Args:
        path: what was given.
        scratch: an empty folder that stays as long as the model is needed.

    Raises:
        UsageError: it holds no model, or several, or one that needs code of another library.
    """
    if path.is_file() and path.name.endswith(ARCHIVE_SUFFIXES):
        root = scratch / "unpacked"
        root.mkdir()
        unpack(path, root)
    elif path.is_dir() and not (path / _SAVED_MODEL).is_file():
        root = path
    else:
        return Found(path)
    files = _list_files(root, path)
    ml_models = [file for file in files if file.name == _ML_MODEL]
    model = _model_of_mlflow(ml_models[0], path) if len(ml_models) == 1 else _choose(root, files, path)
    inside = model.relative_to(root).as_posix()
    if _is_unpacked_keras(model):
        model = _pack(model, scratch / f"model{KERAS_SUFFIX}")
    return Found(model, inside, tuple(_left_behind(root, files)))


def _list_files(root: Path, given: Path) -> list[Path]:
    """All files of a folder, those aside that are hidden; no links are followed."""
    files: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith(_HIDDEN)]
        if len(files) > _MAX_FILES:
            raise UsageError(f"{given} has more than {_MAX_FILES:,} files: import the model's own file or folder")
    return files


def _choose(root: Path, files: list[Path], given: Path) -> Path:
    """The only model among some files; of versions side by side, as TensorFlow Serving has them, the newest.

    Raises:
        UsageError: there is none, or several.
    """
    saved = {file.parent for file in files if file.name == _SAVED_MODEL}
    newest = {
        parent: max(_numbers(saved, parent)) for parent in {each.parent for each in saved if each.name.isdecimal()}
    }
    found = {each for each in saved if not each.name.isdecimal() or int(each.name) == newest[each.parent]}
    for file in files:
        if not saved.isdisjoint(file.parents):
            continue  # one of a SavedModel's assets
        if file.suffix in (*KERAS_SUFFIXES, ".tflite") and not file.name.endswith(_ONLY_WEIGHTS):
            found.add(file)
        elif file.name == _UNPACKED_KERAS[-1] and _is_unpacked_keras(file.parent):
            found.add(file.parent)
    if not found:
        raise UsageError(f"no model to import in {given}: {_why_none(root, files)}")
    if len(found) > 1:
        names = ", ".join(sorted(each.relative_to(root).as_posix() for each in found))
        unpacked = "" if root == given else "unpack it and "
        raise UsageError(f"{given} has several models, {names}: {unpacked}import one of them by its path")
    return found.pop()


def _numbers(saved: set[Path], parent: Path) -> list[int]:
    return [int(each.name) for each in saved if each.parent == parent and each.name.isdecimal()]


def _why_none(root: Path, files: list[Path]) -> str:
    """What is there instead of a model, and what to do."""
    if any(file.name == _ONLY_WEIGHTS[0] for file in files):
        return (
            f"{_ONLY_WEIGHTS[0]} has the weights of a Hugging Face transformers model, whose layers are code of that "
            'library. Export it with `model.save_pretrained("exported", saved_model=True)` of TFAutoModel, and import '
            "exported/saved_model/1"
        )
    if any(file.name.endswith(_ONLY_WEIGHTS[1]) for file in files):
        return 'a .weights.h5 file has no layers: save the whole model, with `model.save("model.keras")`'
    names = [file.relative_to(root).as_posix() for file in files]
    if foreign := [name for name in names if name.endswith(_OTHER_LIBRARIES)]:
        return f"{foreign[0]} is a file of another library than Keras or TensorFlow. {_EXPECTED}"
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    return f"it has {listed or 'no files'}. {_EXPECTED}"


def _model_of_mlflow(document: Path, given: Path) -> Path:
    """The model that an MLmodel file names."""
    try:
        flavors: dict[str, Any] = dict(yaml.safe_load(_read(document))["flavors"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{document} is not an MLmodel file of MLflow: {error!r}") from error
    flavor = next((flavors[name] for name in ("keras", "tensorflow") if isinstance(flavors.get(name), dict)), None)
    if flavor is None:
        raise UsageError(
            f"{given} is an MLflow model of the flavors {', '.join(map(str, flavors)) or '(none)'}: only models with "
            "the flavor keras or tensorflow can be imported"
        )
    folder = document.parent.resolve()
    data = f"{flavor.get('data') or 'data'}/model"
    names = [str(flavor["saved_model_dir"])] if flavor.get("saved_model_dir") else [
        f"{data}{suffix}" for suffix in (*KERAS_SUFFIXES, "")
    ]  # fmt: skip
    for name in names:
        model = (folder / name).resolve()
        if not model.is_relative_to(folder):
            raise UsageError(f"{document} names {name}, which is outside of its folder")
        if model.is_file() or (model / _SAVED_MODEL).is_file():
            return document.parent / name
    raise UsageError(f"{given} is an MLflow model, but lacks what it must have: one of {', '.join(names)}")


def _is_unpacked_keras(folder: Path) -> bool:
    """Whether a folder has what a .keras file has, and is Keras' own: transformers writes a config.json as well."""
    if not all((folder / name).is_file() for name in _UNPACKED_KERAS):
        return False
    try:
        return "class_name" in json.loads(_read(folder / _UNPACKED_KERAS[0]))
    except (ValueError, TypeError):
        return False


def _pack(folder: Path, target: Path) -> Path:
    """Make a .keras file of one that was unpacked."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in [*(folder / name for name in _UNPACKED_KERAS), *(folder / "assets").rglob("*")]:
            archive.write(path, path.relative_to(folder))
    return target


def _left_behind(root: Path, files: list[Path]) -> Iterator[str]:
    """What came with the model and does something to its answers, but is not imported."""
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.name == "inference.py":
            yield f"{name} is not imported: what its handlers do to requests and answers is up to --preprocessing"
        elif file.suffix == ".cloudpickle":
            yield f"{name} is not opened: pickled objects are code; only layers of Keras' own can be imported"


def _read(document: Path) -> str:
    """A small text file.

    Raises:
        UsageError: it cannot be read, or is not small.
    """
    try:
        if document.stat().st_size > _MAX_DOCUMENT_BYTES:
            raise UsageError(f"{document} has more than {_MAX_DOCUMENT_BYTES:,} bytes")
        return document.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{document} cannot be read: {error}") from error
