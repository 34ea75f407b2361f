"""Model files of Keras that another process of this build reads again, custom layers included."""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litelambda.common.archive_errors import ARCHIVE_ERRORS
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.keras2_files import load_keras2_file, version_of_writer

KERAS_SUFFIX = ".keras"
KERAS_SUFFIXES = (KERAS_SUFFIX, ".h5", ".hdf5")


def save_with_modules(model: Any, path: Path) -> Path:
    """Write a .keras file, and next to it the list of modules that its custom layers come from."""
    model.save(path)
    modules_file(path).write_text(json.dumps(_user_modules(model)))
    return path


def import_own_modules(path: Path) -> dict[str, Any]:
    """Import the modules that `save_with_modules` listed, which registers what they register; their classes by name."""
    found: dict[str, Any] = {}
    for name, folder in json.loads(modules_file(path).read_text()).items():
        if folder not in sys.path:
            sys.path.insert(0, folder)
        module = vars(importlib.import_module(name))
        found.update({key: part for key, part in module.items() if isinstance(part, type)})
    return found


def load_model_file(path: Path, classes: Mapping[str, Any] | None = None, *, safe_mode: bool = True) -> Any:
    """Load a .keras or .h5 file of Keras 3 or 2, without what it was compiled with.

    Args:
        path: of the file.
        classes: of its own layers, by name.
        safe_mode: whether to refuse Lambda layers, which are code.

    Raises:
        Exception: whatever Keras raises where it cannot be loaded.
    """
    if version_of_writer(path).startswith("2."):
        return load_keras2_file(path, classes, safe_mode=safe_mode)
    return load_keras().models.load_model(path, classes, compile=False, safe_mode=safe_mode)


def is_damaged(path: Path) -> bool:
    """Whether a .keras or .h5 file cannot be read as such, whatever it holds."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is not None
        import h5py  # which only these files need

        with h5py.File(path):
            return False
    except (*ARCHIVE_ERRORS, OSError):
        return True


def modules_file(path: Path) -> Path:
    """Where the list of a model file's modules is; models that were not saved here have none."""
    return path.with_suffix(".modules.json")


def _user_modules(model: Any) -> dict[str, str]:
    """The modules that a model's own layers and registered functions come from, each with where to import it from."""
    own = [type(layer) for layer in model._flatten_layers(include_self=False)]
    registered = load_keras().saving.get_custom_objects().values()
    folders = {}
    for name in sorted({part.__module__ for part in (*own, *registered)}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name.partition(".")[0] == "keras":
            continue
        depth = name.count(".") + (Path(file).name == "__init__.py")
        folders[name] = str(Path(file).resolve().parents[depth])
    return folders
