"""Where the model is in what other platforms keep it in; layouts by SageMaker's, MLflow's and Keras' own documents."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.commands.import_archive import unpack
from litelambda.commands.import_layouts import find_model
from litelambda.common.errors import UsageError
from litelambda.keras_tools.backend import load_keras
from support.damaged_zips import DAMAGES, damaged_zip

ML_MODEL = "artifact_path: model\nflavors:\n  python_function:\n    loader_module: mlflow\n  {flavor}\nmodel_uuid: 1f\n"
KERAS_3 = ML_MODEL.format(flavor="keras: {data: data, keras_version: 3.9.0, save_exported_model: false}")
TENSORFLOW = ML_MODEL.format(flavor="tensorflow: {code: null, data: data, model_type: keras, save_format: tf}")
TF_MODULE = ML_MODEL.format(flavor="tensorflow: {code: null, model_type: tf2-module, saved_model_dir: tf2model}")
SKLEARN = ML_MODEL.format(flavor="sklearn: {pickled_model: model.pkl}")
OUTSIDE = ML_MODEL.format(flavor="tensorflow: {saved_model_dir: ../other}")


KINDS = {tarfile.REGTYPE: stat.S_IFREG, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR}
"""What a .zip file says of what a .tar file has."""
archives = pytest.mark.parametrize("name", ["model.tar.gz", "model.zip"])


def make(folder: Path, files: dict[str, str]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    """An archive with these members, as many zeros in each as it says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                info = zipfile.ZipInfo(member.name)
                info.external_attr = KINDS[member.type] << 16
                archive.writestr(info, member.linkname or bytes(member.size))
        return path
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, size: int = 4, **fields: Any) -> tarfile.TarInfo:
    """An entry of an archive."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@archives
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1/saved_model.pb", "1/variables/variables.index"], "1"),
        (["export/Servo/1/saved_model.pb", "code/requirements.txt"], "export/Servo/1"),
        (["9/saved_model.pb", "10/saved_model.pb"], "10"),  # TensorFlow Serving takes the highest
        (["saved_model.pb", "assets/words.tflite"], "."),
        (["model.keras", "._model.keras", ".cache/model.h5"], "model.keras"),
        (["weights/model.h5", "checkpoint.weights.h5"], "weights/model.h5"),
    ],
)
def test_the_model_in_an_archive(tmp_path, name, names, expected):
    """A SavedModel in either layout, its newest version, or a model file; macOS' hidden files are none."""
    archive = archive_of(tmp_path / name, *map(member, names))
    (tmp_path / "scratch").mkdir()
    found = find_model(archive, tmp_path / "scratch")
    assert (found.inside, found.path.exists(), found.warnings) == (expected, True, ())


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"MLmodel": KERAS_3, "data/model.keras": "", "data/keras_module.txt": "keras"}, "data/model.keras"),
        ({"MLmodel": KERAS_3, "data/model/saved_model.pb": ""}, "data/model"),
        ({"MLmodel": TENSORFLOW, "data/model.h5": "", "data/save_format.txt": "h5"}, "data/model.h5"),
        ({"MLmodel": TF_MODULE, "tf2model/saved_model.pb": "", "other/saved_model.pb": ""}, "tf2model"),
        ({"run/model/MLmodel": KERAS_3, "run/model/data/model.keras": ""}, "run/model/data/model.keras"),
        ({"config.json": "{}", "metadata.json": "{}", "README.md": "", "model.keras": ""}, "model.keras"),
        ({"config.json": "{}", "tf_model.h5": "", "saved_model/1/saved_model.pb": ""}, "saved_model/1"),
    ],
)
def test_the_model_in_a_folder(tmp_path, files, expected):
    """What MLmodel names, in each form that MLflow has written; otherwise the only model that there is."""
    assert find_model(make(tmp_path / "model", files), tmp_path).inside == expected


def test_a_keras_model_that_was_uploaded_unpacked(tmp_path, tiny_model):
    """Files of `model.save("hf://…")` are packed again, and Keras predicts with them as with the model itself."""
    keras = load_keras()
    folder = make(tmp_path / "hub", {"README.md": "# Tiny"})
    tiny_model.save(folder, zipped=False)
    found = find_model(folder, tmp_path)
    rows = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    assert found.inside == "."
    assert np.array_equal(keras.saving.load_model(found.path)(rows), tiny_model(rows))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it has no files. Expected a .keras"),
        ({"a.txt": "", "b/c.csv": ""}, "it has a.txt, b/c.csv. Expected"),
        ({f"{n}.txt": "" for n in range(20)}, "and 8 more"),
        ({"config.json": "{}", "tf_model.h5": ""}, "weights of a Hugging Face transformers model"),
        ({"config.json": "{}", "model.safetensors": ""}, "model.safetensors is a file of another library"),
        ({"model.weights.h5": ""}, "a .weights.h5 file has no layers"),
        ({"config.json": "{", "metadata.json": "{}", "model.weights.h5": ""}, "a .weights.h5 file has no layers"),
        ({"a.keras": "", "b/saved_model.pb": ""}, "has several models, a.keras, b: import one of them by its path"),
        ({"MLmodel": SKLEARN, "model.pkl": ""}, "of the flavors python_function, sklearn: only models with"),
        ({"MLmodel": KERAS_3}, "lacks what it must have: one of data/model.keras, data/model.h5"),
        ({"MLmodel": OUTSIDE}, "names ../other, which is outside of its folder"),
        ({"MLmodel": "flavors: ["}, "is not an MLmodel file of MLflow"),
        ({"MLmodel": "- 1"}, "is not an MLmodel file of MLflow"),
    ],
)
def test_folders_without_a_model_to_import(tmp_path, files, message):
    """The error says what was found and what to do."""
    folder = make(tmp_path / "model", {"empty/.keep": "", **files})
    with pytest.raises(UsageError) as raised:
        find_model(folder, tmp_path)
    assert message in str(raised.value)


def test_what_came_with_the_model_and_is_left(tmp_path):
    """Handlers and pickled layers change answers, so the user is told that they are not imported."""
    files = {"1/saved_model.pb": "", "code/inference.py": "", "data/custom_objects.cloudpickle": ""}
    handlers, pickled = find_model(make(tmp_path / "model", files), tmp_path).warnings
    assert handlers.startswith("code/inference.py is not imported")
    assert pickled.startswith("data/custom_objects.cloudpickle is not opened")


@archives
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([member("../model.keras")], "a name outside of the archive: ../model.keras"),
        ([member("/tmp/model.keras")], "a name outside of the archive: /tmp/model.keras"),
        ([member("a", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd")], "a is not a file or a folder"),
        ([member("null", 0, type=tarfile.CHRTYPE)], "null is not a file or a folder"),
        ([member("a", 60), member("b", 60)], "more than 3 files or 100 bytes"),
        ([member(name) for name in "abcd"], "more than 3 files or 100 bytes"),
    ],
)
def test_archives_that_are_refused(tmp_path, name, members, message):
    """No links, no devices, nothing outside, and no more than the limits: nothing is written outside of the folder."""
    archive = archive_of(tmp_path / name, *members)
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError) as raised:
        unpack(archive, tmp_path / "out", max_files=3, max_bytes=100)
    assert message in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {name, "out"}


def test_hard_links_are_refused(tmp_path):
    """A .tar file has them, a .zip file has not."""
    linked = member("b", 0, type=tarfile.LNKTYPE, linkname="a")
    archive = archive_of(tmp_path / "model.tar", member("a"), linked)
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="b is not a file or a folder"):
        unpack(archive, tmp_path / "out")


@archives
@pytest.mark.parametrize("keep", [0, 9, -20])
def test_archives_that_are_damaged(tmp_path, name, keep):
    """An archive that is empty, no archive, or cut short is one line of an error."""
    archive = archive_of(tmp_path / name, member("model.keras", 5000))
    archive.write_bytes(archive.read_bytes()[:keep])
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("message", DAMAGES)
def test_zip_files_that_cannot_be_read(tmp_path, message):
    """Whichever library below it finds out."""
    archive = tmp_path / "model.zip"
    archive.write_bytes(damaged_zip(message, {"model.keras": bytes(range(256)) * 4}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match=rf"model\.zip cannot be unpacked: .*{message}"):
        unpack(archive, tmp_path / "out")
