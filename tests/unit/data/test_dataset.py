"""Data: every source, what is done to its rows and labels, and what is refused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litelambda.common.errors import DataError
from litelambda.data.scaling import Preprocessing
from support.damaged_zips import DAMAGES, damaged_zip
from support.data_recipe import load


def save_npz(folder: Path, **arrays: Any) -> str:
    """Write set.npz and return the data section that names it."""
    np.savez(folder / "set.npz", **arrays)
    return 'format = "npz"\npath = "set.npz"'


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Seeded random pixels."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def npz(tmp_path: Path) -> str:
    """Forty 4 x 4 images of three classes with eight more for testing."""
    return save_npz(
        tmp_path,
        x_train=pixels(40, 4, 4),
        y_train=np.arange(40, dtype=np.uint8) % 3,
        x_test=pixels(8, 4, 4),
        y_test=np.arange(8, dtype=np.uint8) % 3,
    )


@pytest.fixture
def csv(tmp_path: Path) -> str:
    """Twenty rows with the columns width, height and species."""
    lines = [f"{i}.5,{100 * i},{'cat' if i % 2 else 'dog'}" for i in range(20)]
    (tmp_path / "set.csv").write_text("\n".join(["width,height,species", *lines]))
    return 'format = "csv"\npath = "set.csv"\nlabel = "species"'


@pytest.fixture
def images(tmp_path: Path) -> str:
    """Ten gray 5 x 3 pictures in two class-named folders, and a file that is none."""
    for name, ink in (("cat", 200), ("dog", 50)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("L", (5, 3), ink).save(tmp_path / "set" / name / f"{index}.png")
    (tmp_path / "set" / "dog" / "Thumbs.db").write_bytes(b"no image")
    return 'format = "images"\npath = "set"\ncolor = "grayscale"'


def test_npz_splits_are_kept_and_validation_is_cut_off(tmp_path: Path, npz: str) -> None:
    """The test split is the file's own; validation rows come out of the training rows, each row once."""
    data = load(tmp_path, npz, "data.validation_split=0.25")
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 10, 8)
    everything = np.concatenate([data.train.x, data.validation.x]).reshape(40, -1)
    assert len(np.unique(everything, axis=0)) == 40
    assert data.labels == ["0", "1", "2"]
    assert data.num_outputs == 3


def test_splits_depend_on_the_seed_alone(tmp_path: Path, npz: str) -> None:
    """The same seed gives the same rows, another one others."""
    first, again, other = (load(tmp_path, npz, f"data.seed={seed}") for seed in (1, 1, 2))
    assert np.array_equal(first.train.x, again.train.x)
    assert not np.array_equal(first.train.x, other.train.x)
    assert np.array_equal(first.representative(5, 0), again.representative(5, 0))


def test_a_test_split_is_cut_off_where_there_is_none(tmp_path: Path) -> None:
    """Arrays x and y alone are split three ways."""
    section = save_npz(tmp_path, x=pixels(50, 4), y=np.arange(50) % 2)
    data = load(tmp_path, section, "data.test_split=0.2", "data.validation_split=0.1")
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 10)


def test_rows_are_reshaped(tmp_path: Path, npz: str) -> None:
    """data.reshape changes the shape of a row, not the rows."""
    data = load(tmp_path, npz, "data.reshape=[16]")
    assert data.input_shape == (16,)
    assert data.test.x.shape == (8, 16)


@pytest.mark.parametrize(
    ("rule", "scale", "offset"),
    [("0-1", 1 / 255, 0.0), ("{scale=2, offset=-1}", 2.0, -1.0)],
)
def test_normalization_is_what_the_preprocessing_says(
    tmp_path: Path, npz: str, rule: str, scale: float, offset: float
) -> None:
    """Rows are raw x scale + offset with the numbers that go into the manifest."""
    raw, data = load(tmp_path, npz), load(tmp_path, npz, f"data.normalize={rule}")
    assert raw.preprocessing is None
    assert data.preprocessing is not None
    assert (data.preprocessing.scale, data.preprocessing.offset) == (scale, offset)
    assert np.array_equal(data.test.x, raw.test.x * np.float32(scale) + np.float32(offset))
    assert data.train.x.dtype == np.float32


def test_standardize_works_per_column_of_a_table(tmp_path: Path, csv: str) -> None:
    """Columns of a CSV are centered one by one, from the training rows alone; pictures as a whole."""
    data = load(tmp_path, csv, "data.normalize=standardize")
    assert data.train.x.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert data.train.x.std(axis=0) == pytest.approx([1, 1], abs=1e-5)
    pictures = load(tmp_path, save_npz(tmp_path, x=pixels(40, 4, 4), y=np.arange(40) % 2), "data.normalize=standardize")
    assert isinstance(pictures.preprocessing, Preprocessing)
    assert isinstance(pictures.preprocessing.scale, float)


def test_standardize_works_per_column_of_rows_in_an_array(tmp_path: Path) -> None:
    """Rows of numbers in an .npz are columns too, each with its own mean and deviation."""
    x = np.random.default_rng(0).normal([0, 50, -7], [1, 9, 0.1], (60, 3))
    data = load(tmp_path, save_npz(tmp_path, x=x, y=np.arange(60) % 2), "data.normalize=standardize")
    assert data.train.x.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-5)
    assert data.train.x.std(axis=0) == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_constant_column_survives_standardize(tmp_path: Path) -> None:
    """A column without spread is centered, not divided by zero."""
    (tmp_path / "set.csv").write_text("a,b,y\n" + "\n".join(f"{i},7,{i % 2}" for i in range(20)))
    data = load(tmp_path, 'format = "csv"\npath = "set.csv"\nlabel = "y"', "data.normalize=standardize")
    assert np.array_equal(data.train.x[:, 1], np.zeros(len(data.train)))


def test_csv_takes_the_named_columns(tmp_path: Path, csv: str) -> None:
    """Features are all other columns, or those listed in their order; labels sort into classes."""
    data = load(tmp_path, csv)
    assert data.labels == ["cat", "dog"]
    assert data.input_shape == (2,)
    height = load(tmp_path, csv, "data.features=['height']")
    assert np.array_equal(height.test.x[:, 0], data.test.x[:, 1])


def test_csv_regression(tmp_path: Path, csv: str) -> None:
    """A numeric label column is a target of one value a row."""
    data = load(tmp_path, csv, "data.task=regression", "data.label=height", "data.features=['width']")
    assert data.labels is None
    assert data.num_outputs == 1
    assert np.array_equal(data.test.y[:, 0], (data.test.x[:, 0] - 0.5) * 100)


def test_images_are_read_by_class_folder(tmp_path: Path, images: str) -> None:
    """Folders name the classes; other files in them are ignored."""
    data = load(tmp_path, images)
    assert data.labels == ["cat", "dog"]
    assert data.input_shape == (3, 5, 1)
    assert set(data.train.x[data.train.y == 1].ravel()) == {50.0}


def test_images_are_resized(tmp_path: Path, images: str) -> None:
    """data.image_size is height and width."""
    data = load(tmp_path, images, "data.image_size=[8, 6]", "data.color=rgb")
    assert data.input_shape == (8, 6, 3)


def test_a_zip_of_a_folder_of_images(tmp_path: Path, images: str) -> None:
    """A .zip is read as the folder that it holds; one that is damaged is named."""
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    packed = images.replace('"set"', '"packed.zip"')
    for streaming in ("true", "false"):
        data, other = (load(tmp_path, section, f"data.streaming={streaming}") for section in (images, packed))
        np.testing.assert_array_equal(data.train.x[:], other.train.x[:])
        assert other.raw_test is not None
        assert [type(each) for each in other.raw_test(np.arange(1))["image"]] == [bytes]
    (tmp_path / "packed.zip").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"packed\.zip is not a readable \.zip file"):
        load(tmp_path, packed)


@pytest.mark.parametrize("message", DAMAGES)
def test_archives_that_cannot_be_read_are_named(tmp_path: Path, images: str, message: str) -> None:
    """Of pictures, and of arrays, whichever library below them finds out."""
    content = io.BytesIO()
    np.save(content, pixels(40, 4, 4))
    for name in ("set.zip", "set.npz"):
        (tmp_path / name).write_bytes(damaged_zip(message, dict.fromkeys(("x.npy", "y.npy"), content.getvalue())))
    with pytest.raises(DataError, match=rf"set\.zip is not a readable \.zip file: .*{message}"):
        load(tmp_path, images.replace('"set"', '"set.zip"'))
    with pytest.raises(DataError, match=rf"set\.npz is not a readable \.npz file: .*{message}"):
        load(tmp_path, 'format = "npz"\npath = "set.npz"')


def test_a_share_of_broken_images_is_tolerated(tmp_path: Path, images: str) -> None:
    """Broken files are named and left out, up to the recipe's share of all."""
    (tmp_path / "set" / "dog" / "cut.png").write_bytes(b"\x89PNG")
    (tmp_path / "set" / "dog" / "old.tif").write_bytes(b"II*\0")
    data = load(tmp_path, images, "data.tolerated_bad=0.2")
    assert "2 of 12 images cannot be read: " in data.describe()
    assert "old.tif: a file of the format TIFF: expected PNG" in data.describe()
    assert len(data.train) + len(data.test) + len(data.validation or []) == 10


def test_images_with_a_test_folder(tmp_path: Path, images: str) -> None:
    """Folders train/ and test/ are the splits."""
    (tmp_path / "set").rename(tmp_path / "train")
    (tmp_path / "set").mkdir()
    (tmp_path / "train").rename(tmp_path / "set" / "train")
    (tmp_path / "set" / "test" / "dog").mkdir(parents=True)
    Image.new("L", (5, 3), 9).save(tmp_path / "set" / "test" / "dog" / "x.png")
    data = load(tmp_path, images)
    assert data.test.x.shape == (1, 3, 5, 1)
    assert data.test.y.tolist() == [1]


@pytest.mark.parametrize(
    ("y", "labels", "names"),
    [
        (np.arange(20) % 2 + 7, None, ["7", "8"]),
        (np.arange(20) % 2, ["no", "yes"], ["no", "yes"]),
        (np.array(["b", "a"] * 10), None, ["a", "b"]),
        (np.array(["b", "a"] * 10), ["b", "a"], ["b", "a"]),
        (np.array(["9", "10"] * 10), None, ["9", "10"]),
        (np.eye(2)[np.arange(20) % 2], None, ["0", "1"]),
        (np.arange(20).reshape(20, 1) % 2, None, ["0", "1"]),
        (np.arange(20) % 2 == 0, None, ["0", "1"]),
    ],
)
def test_labels_become_class_numbers(tmp_path: Path, y: Any, labels: list[str] | None, names: list[str]) -> None:
    """Integers, strings, booleans and one-hot rows are encoded, with names in a stable order."""
    section = save_npz(tmp_path, x=np.arange(20.0).reshape(20, 1), y=y)
    data = load(tmp_path, section, *([f"data.labels={labels}"] if labels else []))
    assert data.labels == names
    first = int(np.flatnonzero(data.train.x[:, 0] % 2 == 0)[0])
    plain = y if y.ndim == 1 else y.argmax(axis=1) if y.shape[1] == 2 else y[:, 0]
    expected = str(plain[0]) if y.dtype.kind == "U" else names[int(plain[0]) - int(plain.min())]
    assert data.labels[int(data.train.y[first])] == expected


@pytest.mark.parametrize(
    ("arrays", "overrides", "message"),
    [
        ({"x": pixels(9, 2)}, [], "has only x; expected both x and y"),
        ({"z": pixels(9, 2)}, [], "has z; expected x_train, y_train or x, y"),
        ({"x": pixels(9, 2), "y": np.array(3)}, [], "labels of the training split are a single value"),
        ({"x": pixels(9, 2), "y": np.array([np.inf] * 9)}, [], "labels such as inf are not classes"),
        ({"x": pixels(9, 2), "y": np.arange(8)}, [], "9 rows but 8 labels"),
        ({"x": pixels(0, 2), "y": np.arange(0)}, [], "the training split has no rows"),
        ({"x": np.full((9, 2), "a"), "y": np.arange(9)}, [], "expected numbers"),
        ({"x": np.full((9, 2), np.nan), "y": np.arange(9)}, [], "row 0 of the training split holds NaN"),
        ({"x": pixels(9, 2), "y": np.zeros(9, int)}, [], "all training rows are of class '0'"),
        (
            {"x_train": pixels(9, 2), "y_train": np.arange(9), "x_test": pixels(0, 2), "y_test": np.arange(0)},
            [],
            "the test split has no rows",
        ),
        ({"x": pixels(9, 2), "y": np.arange(9) / 2}, [], "or data.task = 'regression'"),
        ({"x": pixels(9, 2), "y": np.ones((9, 2))}, [], "expected one class per row, or one-hot rows"),
        (
            {"x": pixels(9, 2), "y": np.arange(9)},
            ["data.labels=['a', 'b']"],
            "labels 2, 3, 4, .* not among the classes a, b",
        ),
        ({"x": pixels(9, 2), "y": np.arange(9)}, ["data.reshape=[3]"], r"reshape = \[3\] has 3 values"),
        ({"x": pixels(9, 2), "y": np.arange(9)}, ["data.test_split=0"], "test_split = 0.* neither part may be empty"),
        ({"x": pixels(2, 2), "y": np.arange(2)}, ["data.validation_split=0.1"], "neither part may be empty"),
        ({"x": pixels(9, 2), "y": np.full(9, np.inf)}, ["data.task=regression"], "target 0 is NaN or infinite"),
        ({"x": pixels(9, 2), "y": np.full(9, "a")}, ["data.task=regression"], "expected one or more numbers per row"),
        (
            {"x_train": pixels(9, 2), "y_train": np.arange(9), "x_test": pixels(1, 2), "y_test": np.array([77])},
            [],
            "labels 77 are not among the classes 0, 1",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], overrides: list[str], message: str
) -> None:
    """What is wrong with the arrays is said in a sentence."""
    section = save_npz(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path, section, *overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,species\n1,x\n2\n", "line 3: 1 fields, the header has 2"),
        ("a,species\n1,x\noops,y\n", "line 3: 'oops' in column 'a' is not a number"),
        ("a,b\n1,2\n", "has no column species; it has a, b"),
        ("", "has no column species; it has none"),
        ("a,species\n", "the training split has no rows"),
        ("a,species\nnan,x\n", "line 2: column 'a' has no value: set data.missing"),
        ("a,species\n" + "1,x\n" * 20, "all training rows are of class 'x'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A CSV's mistake is named by line and column."""
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path, 'format = "csv"\npath = "set.csv"\nlabel = "species"')


@pytest.mark.parametrize("kind", ['format = "npz"', 'format = "images"', 'format = "csv"\nlabel = "y"'])
def test_a_missing_data_set_is_named(tmp_path: Path, kind: str) -> None:
    """The path that was tried and the key it came from are in the message."""
    with pytest.raises(DataError, match=r"there is no data set at .*nowhere\.npz \(data\.path = '\.\./nowhere\.npz'\)"):
        load(tmp_path, f'{kind}\npath = "../nowhere.npz"')


def test_files_of_the_wrong_kind_are_refused(tmp_path: Path, images: str) -> None:
    """A file that is no .npz, an empty folder, a broken and an odd-sized image are errors by name."""
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"set\.npz is not a readable \.npz file"):
        load(tmp_path, 'format = "npz"\npath = "set.npz"')
    np.save(tmp_path / "single.npy", pixels(3))
    with pytest.raises(DataError, match="is a single array"):
        load(tmp_path, 'format = "npz"\npath = "single.npy"')
    with pytest.raises(DataError, match="expects a folder"):
        load(tmp_path, 'format = "images"\npath = "set.npz"')
    Image.new("L", (7, 3)).save(tmp_path / "set" / "dog" / "wide.png")
    with pytest.raises(DataError, match=r"wide\.png has 3 x 7 pixels.*data\.image_size"):
        load(tmp_path, images)
    (tmp_path / "set" / "dog" / "wide.png").write_bytes(b"no image")
    reason = r"1 of 11 images cannot be read: .*wide\.png: no picture of a known format.*tolerated_bad = 0\.01 allows"
    with pytest.raises(DataError, match=reason):
        load(tmp_path, images)
    shutil.rmtree(tmp_path / "set" / "dog")
    with pytest.raises(DataError, match="all training rows are of class 'cat'"):
        load(tmp_path, images, "data.validation_split=0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images in class-named folders"):
        load(tmp_path, 'format = "images"\npath = "empty"')


@pytest.mark.parametrize(
    ("other", "overrides", "message"),
    [
        ({"x_test": pixels(3, 5)}, [], r"the test split has rows of \[5\], the training split of \[4\]"),
        ({"x_test": pixels(3, 2, 2)}, ["data.reshape=[4]"], r"test split has rows of \[2, 2\], the training split of"),
        ({"x_test": pixels(3)}, [], r"the test split has rows of \[\]"),
        ({"x_test": pixels(0, 4), "y_test": np.arange(0)}, [], "the test split has no rows"),
        ({"x_test": pixels(3, 4) / 255}, [], "rows of the test split are of type float64, .* training split of uint8"),
        ({"x_test": pixels(3, 4).astype(str)}, [], "the test rows are of type <U3, expected numbers"),
        ({"y_test": np.array([0, 1])}, [], "the test split has 3 rows but 2 labels"),
        ({"y_test": np.array([0, 1, 0, 1])}, [], "the test split has 3 rows but 4 labels"),
        ({"y_test": np.array(["0", "1", "0"])}, [], "labels of the test split are of type <U1, those of .* int64"),
        (
            {"y_test": np.array([0, 1, 2])},
            ["data.labels=['a', 'b', 'c']"],
            "test split has rows of class 'c', which no tr",
        ),
        (
            {"y_test": np.eye(3)[[0, 1, 2]], "y_train": np.eye(2)[[0, 1] * 4]},
            [],
            r"rows of \[3\], those of .* of \[2\]",
        ),
        ({"y_test": np.ones((3, 2))}, ["data.task=regression"], "the test rows have 2 targets, training rows have 1"),
        ({"y_test": None}, [], "has only x_test; expected both x_test and y_test"),
        ({"x_validation": pixels(3, 5), "y_validation": np.arange(3) % 2}, [], "the validation split has rows of"),
    ],
)
def test_splits_that_do_not_fit_one_another_are_refused(
    tmp_path: Path, other: dict[str, Any], overrides: list[str], message: str
) -> None:
    """What a model of the training rows could not be asked about is said before it is trained."""
    arrays = {
        "x_train": pixels(8, 4),
        "y_train": np.arange(8.0 if "data.task=regression" in overrides else 8) % 2,
        "x_test": pixels(3, 4),
        "y_test": np.array([0, 1, 0]),
    }
    section = save_npz(tmp_path, **{name: each for name, each in (arrays | other).items() if each is not None})
    with pytest.raises(DataError, match=message):
        load(tmp_path, section, *overrides)


def test_splits_of_like_types_go_together(tmp_path: Path) -> None:
    """Integers of other widths, one-hot and plain labels, and columns of one target are the same data."""
    arrays = {
        "x_train": pixels(8, 4),
        "y_train": np.eye(2)[[0, 1] * 4],
        "x_test": pixels(3, 4).astype(np.int32),
        "y_test": np.array([0.0, 1.0, 0.0]),
    }
    data = load(tmp_path, save_npz(tmp_path, **arrays))
    assert data.test.y.tolist() == [0, 1, 0]


def test_targets_are_standardized_for_training_alone(tmp_path: Path) -> None:
    """Mean 0 and deviation 1 over the training rows, per target, validation alike; test rows keep their own units."""
    y = np.column_stack([np.linspace(100, 900, 50), np.full(50, 7.0)])
    section = save_npz(tmp_path, x=pixels(50, 3), y=y)
    overrides = ["data.task=regression", "data.targets=standardize"]
    data, plain = load(tmp_path, section, *overrides), load(tmp_path, section, "data.task=regression")
    assert data.validation is not None
    assert plain.validation is not None
    assert data.target_scaling is not None
    assert np.array_equal(data.test.y, plain.test.y)
    mean, deviation = plain.train.y.mean(axis=0), np.array([plain.train.y[:, 0].std(), 1.0])
    assert data.train.y == pytest.approx((plain.train.y - mean) / deviation, abs=1e-5)
    assert data.validation.y == pytest.approx((plain.validation.y - mean) / deviation, abs=1e-5)
    assert data.target_scaling.undo(data.train.y) == pytest.approx(plain.train.y, rel=1e-5)
