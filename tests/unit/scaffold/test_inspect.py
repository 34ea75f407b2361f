"""What `litelambda init` finds out about data and models, and the recipe that it writes: each loads and is valid."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from litelambda.common.errors import DataError, UsageError
from litelambda.data.dataset import load_data
from litelambda.data.interactions import load_interactions
from litelambda.recipe.load import Recipe, load_any_recipe, load_recipe
from litelambda.recipe.sections import InteractionsData
from litelambda.scaffold.inspect import inspect_project, shipped_examples
from litelambda.scaffold.project import Given
from litelambda.scaffold.write import project_files, write_project
from support.golden_store import GOLDEN

if TYPE_CHECKING:
    from litelambda.scaffold.project import Project


def made(folder: Path, **given: Any) -> tuple[Project, Recipe]:
    """The project of some data, written, and its recipe, which loads and reads the data that was copied."""
    project = inspect_project(Given(**given), folder / "project")
    write_project(folder / "project", project_files(project), project.copies)
    recipe = load_recipe(folder / "project" / "recipe.toml")
    load = load_interactions if isinstance(recipe.data, InteractionsData) else load_data
    load(recipe.data, recipe.folder)
    return project, recipe


def saved(folder: Path, name: str, lines: list[str]) -> Path:
    """A file of lines."""
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_semicolons_decimal_commas_and_gaps(tmp_path: Path) -> None:
    """A spreadsheet as Europe saves it: the dialect is seen, gaps are filled, categories new in a request are taken."""
    draw = random.Random(0)
    rows = [
        f"{draw.uniform(9, 15):.2f}".replace(".", ",")
        + f";{'' if number % 9 == 0 else number % 5};{draw.choice(['rot', 'weiß'])};{'ja' if number % 2 else 'nein'}"
        for number in range(90)
    ]
    path = saved(tmp_path, "Wein 2024.csv", ["Alkohol;Süße;Farbe;gut", *rows])
    project, recipe = made(tmp_path, data=path, label=("gut",))
    data = recipe.data.to_json()
    assert (data["format"], data["task"], data["label"]) == ("csv", "classification", "gut")
    assert (data["missing"], data["normalize"], data["unknown"]) == ("median", "standardize", "zeros")
    assert project.name == recipe.publish.name == "Wein_2024"
    assert any("semicolons, decimal commas" in note for note in project.found.notes)
    assert {"Alkohol", "Süße", "Farbe"} == {*project.examples.rows[0]}
    assert {*project.examples.expected} == {"ja", "nein"}


def test_a_table_with_text_is_a_recipe_of_text(tmp_path: Path) -> None:
    """A column of sentences is read; the last column, the only one of categories, is predicted."""
    words = {"billing": "invoice payment refund", "access": "login password account", "shipping": "parcel courier late"}
    rows = [
        f"T{number:04},please help me with my {words[topic].split()[number % 3]} number {number},{topic}"
        for number in range(120)
        for topic in [[*words][number % 3]]
    ]
    path = saved(tmp_path, "tickets.csv", ["ticket,message,topic", *rows])
    project, recipe = made(tmp_path, data=path)
    assert (
        recipe.data.to_json().items() >= {"format": "text", "text": "message", "label": "topic", "length": 16}.items()
    )
    assert [each.key for each in project.found.guesses][:3] == ["data.label", "data.task", "data.text"]
    assert project.examples.rows[0].keys() == {"message"}
    lines = [json.dumps(dict(zip(("ticket", "message", "topic"), row.split(","), strict=True))) for row in rows]
    _, same = made(tmp_path / "lines", data=saved(tmp_path, "tickets.jsonl", lines))
    assert same.data.to_json() | {"path": ""} == recipe.data.to_json() | {"path": ""}


def test_a_regression_leaves_out_ids_and_dates(tmp_path: Path) -> None:
    """Numbers are predicted in their own units; what only names or dates a row is not learned from, and it says so."""
    draw = random.Random(0)
    rows = [
        f"{1000 + 7 * number},Jan {number % 28 + 1} 2023,{draw.uniform(40, 200):.1f},{number % 4},"
        f"{draw.choice(['north', 'south'])},{draw.uniform(1e5, 9e5):.0f}"
        for number in range(100)
    ]
    path = saved(tmp_path, "houses.csv", ["house_id,sold_on,area,floors,district,price", *rows])
    project, recipe = made(tmp_path, data=path, label=("price",))
    data = recipe.data.to_json()
    assert (data["task"], data["targets"], recipe.train.loss) == ("regression", "standardize", "mse")
    assert data["features"] == ["area", "floors", "district"]
    notes = "\n".join(project.found.notes)
    assert "'house_id' is left out: nearly every row has a value of its own" in notes
    assert "'sold_on' is left out: it holds dates" in notes
    assert "floors stand for categories" in notes


def test_parquet_says_what_its_columns_are(tmp_path: Path) -> None:
    """Types that are neither numbers nor text are left out, categories of pandas are taken, as are numbers of any type.

    The metadata is as pandas' developer guide has it: which columns are categories, only it says.
    """
    count = 60
    marks = [{"name": name, "field_name": name, "pandas_type": "categorical"} for name in ("shop", "kind")]
    columns: dict[str, Any] = {
        "half": np.linspace(0, 1, count).astype(np.float16),
        "price": [Decimal(number % 7) / 4 if number % 5 else None for number in range(count)],
        "shop": [100 + number % 20 for number in range(count)],
        "kind": ["a", "b", None] * 20,
        "open": [number % 3 == 0 for number in range(count)],
        "at": [time(number % 24) for number in range(count)],
        "day": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(number % 9) for number in range(count)],
        "sizes": [[number, 1] for number in range(count)],
        "target": [number % 2 == 0 for number in range(count)],
    }
    table = pa.table(columns).replace_schema_metadata({"pandas": json.dumps({"columns": marks})})
    parquet.write_table(table, tmp_path / "Sales.PARQUET")
    project, recipe = made(tmp_path, data=tmp_path / "Sales.PARQUET")
    data = recipe.data.to_json()
    assert (data["task"], data["label"]) == ("classification", "target")
    assert data["features"] == ["half", "price", "shop", "kind", "open"]
    assert (data["missing"], data["categories"]) == ("median", ["shop"])
    notes = {each.split("'")[1]: each for each in project.found.notes if "is left out" in each}
    assert {*notes} == {"at", "day", "sizes"}
    assert "it holds dates" in notes["day"]
    assert "it is of type list<" in notes["sizes"]
    row = project.examples.rows[0]
    place = columns["shop"].index(int(row["shop"]))
    assert row["open"] in ("true", "false")
    assert place % 2 == (project.examples.expected[0] == "false")
    empty = tmp_path / "empty.parquet"
    parquet.write_table(table.slice(0, 0), empty)
    with pytest.raises(DataError, match=r"empty.parquet has no rows$"):
        inspect_project(Given(data=empty), tmp_path / "project")
    parquet.write_table(
        pa.table({"text": ["a long enough text, " + "x" * n for n in range(20)], "label": [0, 1] * 10}), empty
    )
    with pytest.raises(UsageError, match="Texts are read from CSV files and JSON Lines"):
        inspect_project(Given(data=empty), tmp_path / "project")


def test_targets_far_from_zero_keep_their_precision(tmp_path: Path) -> None:
    """Years in an int8 output would have steps of eight years: its range always includes zero."""
    rows = [f"{number * 37 % 101},{1990 + number % 30}" for number in range(150)]
    _, recipe = made(
        tmp_path, data=saved(tmp_path, "years.csv", ["size,year", *rows]), label=("year",), task="regression"
    )
    assert recipe.quantize.scheme == "dynamic"


def test_several_labels_and_rare_classes(tmp_path: Path) -> None:
    """Names between bars are labels of their own; a class with few rows is named."""
    sets = ["red|round", "red", "round", "green|round"]
    path = saved(tmp_path, "sets.csv", ["a,label", *(f"{number % 13},{sets[number % 4]}" for number in range(80))])
    _, recipe = made(tmp_path, data=path)
    assert (recipe.data.task, recipe.train.loss) == ("multi_label", "binary_crossentropy")
    rare = saved(
        tmp_path, "rare.csv", ["a,class", *(f"{number % 13},{int(number % 20 == 0)}" for number in range(200))]
    )
    project, recipe = made(tmp_path / "rare", data=rare)
    assert recipe.data.task == "classification"
    assert any("'0' has" in note and "class_weights = 'balanced'" in note for note in project.found.notes)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_pictures(tmp_path: Path, zipped: bool) -> None:
    """Classes are the folders, pictures of one small size keep it, and gray ones have one channel."""
    for number in range(24):
        folder = tmp_path / "shapes" / ("dot", "bar")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 28), 10 * number, np.uint8)).save(folder / f"{number}.png")
    path = tmp_path / "shapes"
    if zipped:
        import shutil

        path = Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", path))
    project, recipe = made(tmp_path, data=path)
    assert recipe.data.to_json().items() >= {"image_size": [20, 28], "color": "grayscale", "normalize": "0-1"}.items()
    assert project.examples.rows[0].keys() == {"image"}
    assert {*project.examples.expected} == {"dot", "bar"}


def test_arrays_of_pixels_are_pictures(tmp_path: Path) -> None:
    """28 x 28 whole numbers for a row and ten classes: a convolutional network, and the test's rows are the pixels."""
    noise = np.random.default_rng(0)
    x, y = noise.integers(0, 256, (100, 28, 28), np.uint8), np.arange(100) % 10
    np.savez(tmp_path / "digits.npz", x=x, y=y)
    project, recipe = made(tmp_path, data=tmp_path / "digits.npz")
    assert recipe.model.to_json()["builder"] == "cnn"
    assert (recipe.data.reshape, recipe.data.normalize) == ([28, 28, 1], "0-1")
    row = np.array(project.examples.rows[0])[:, :, 0]
    (found,) = np.flatnonzero((x == row).all(axis=(1, 2)))
    assert project.examples.expected[0] == str(y[found])


def test_who_chose_what_is_a_recommender(tmp_path: Path) -> None:
    """Columns that name users and items: what has one value for each item is known of it, the rest of the user."""
    draw = random.Random(0)
    rows = [
        f"u{draw.randrange(9)},{('de', 'fr')[number % 2]},s{song},{('rock', 'folk')[song % 2]}"
        for number in range(300)
        for song in [draw.randrange(12)]
    ]
    project, recipe = made(tmp_path, data=saved(tmp_path, "plays.csv", ["user,country,song,genre", *rows]))
    assert recipe.data.to_json().items() >= {
        "task": "recommendation", "user": ["user", "country"], "item": "song", "item_features": ["genre"],
    }.items()  # fmt: skip
    assert project.examples.expected[0].startswith("s")


@pytest.mark.parametrize("example", ["penguins", "plays"])
def test_an_example_is_the_recipe_that_ships(tmp_path: Path, example: str) -> None:
    """Its recipe with its data: the same but for the path, and for the name where another one is wanted."""
    assert example in shipped_examples()
    project = inspect_project(Given(example=example, name="own"), tmp_path)
    write_project(tmp_path, project_files(project), project.copies)
    recipe, shipped = load_recipe(tmp_path / "recipe.toml"), load_recipe(example)
    assert recipe.to_json() | {"data": 0, "publish": 0} == shipped.to_json() | {"data": 0, "publish": 0}
    assert recipe.publish.name == "own"
    assert recipe.resolve(recipe.data.path).read_bytes() == shipped.resolve(shipped.data.path).read_bytes()


def test_a_tflite_file_is_imported(tmp_path: Path) -> None:
    """TensorFlow Serving's own example, in a folder with the project: imported, half of each number plus two."""
    model = tmp_path / "exported" / "half.tflite"
    model.parent.mkdir()
    model.write_bytes((GOLDEN / "half_plus_two.tflite").read_bytes())
    project = inspect_project(Given(model=tmp_path), tmp_path / "project")
    write_project(tmp_path / "project", project_files(project), project.copies)
    assert {*project.copies} == {"model/half.tflite"}
    recipe, folder = load_any_recipe(tmp_path / "project" / "recipe.toml")
    assert not isinstance(recipe, Recipe)
    assert (folder / recipe.source.path).read_bytes() == (GOLDEN / "half_plus_two.tflite").read_bytes()
    rows, expected = (np.array(each, float).ravel() for each in (project.examples.rows, project.examples.expected))
    assert len(rows)
    np.testing.assert_allclose(expected, rows / 2 + 2, rtol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("labelled", 8), ("totals", 0), ("strings", 0), ("scalar", 0)])
def test_a_model_has_rows_for_its_test_where_each_has_an_answer(tmp_path: Path, name: str, count: int) -> None:
    """An output of texts has its answers; where there is no row for each answer, the user is asked to write some."""
    project = inspect_project(Given(model=GOLDEN / f"{name}.tflite"), tmp_path)
    assert len(project.examples.rows) == len(project.examples.expected) == count
    assert any("tests/rows.json" in note for note in project.found.notes) == (not count)


@pytest.mark.parametrize(
    ("name", "lines", "given", "message"),
    [
        ("a.csv", ["x,y2,z", "1,2,3", "2,3,4"], {}, "with --label COLUMN:\n  x: numbers from 1 to 2\n"),
        ("a.csv", ["x,y", "1,2", "2,3"], {"label": ("w",)}, "no column w to predict: choose from x, y"),
        ("a.csv", ["x,label"], {}, "a.csv has no rows after its header"),
        ("a.csv", ["x,label", "7,a", "7,b"], {}, "no column to predict from. x: it has one value in all rows"),
        ("a.csv", ["x,y", *(f"{n},2024-01-{n}" for n in range(10, 30))], {"label": ("y",)}, "'y' cannot be predicted"),
        ("a.csv", ["x,label", *(f"{n},{n % 2}" for n in range(9)), "3,"], {}, "which is to be predicted, has no value"),
        ("a.jsonl", ['{"a": 1, "label": 2}'], {}, "JSON Lines hold texts and their labels, and none of a, label is te"),
        ("a.jsonl", ["{"], {}, "a.jsonl, line 1: not JSON"),
        ("a.docx", ["x"], {}, "a.docx: expected a CSV, Parquet, .npz or JSON Lines file"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_recipe_says_what_to_do(
    tmp_path: Path, name: str, lines: list[str], given: dict[str, Any], message: str
) -> None:
    """Nothing is guessed that would make a worthless model; what a build would refuse is refused at once."""
    with pytest.raises((UsageError, DataError)) as refused:
        inspect_project(Given(data=saved(tmp_path, name, lines), **given), tmp_path / "project")
    assert message in str(refused.value)


def test_a_project_in_its_own_data_is_refused(tmp_path: Path) -> None:
    """A copy of a folder into itself would not end."""
    np.save(tmp_path / "x.npy", np.eye(60))
    np.save(tmp_path / "y.npy", np.arange(60) % 2)
    with pytest.raises(UsageError, match="would become part of it: name a folder outside of that"):
        inspect_project(Given(data=tmp_path), tmp_path / "project")


def test_the_user_is_asked_for_the_column(tmp_path: Path) -> None:
    """Where someone answers, the likely column is the default, and another one may be named."""
    path = saved(tmp_path, "a.csv", ["x,size,z", *(f"{n % 7},{n % 2},{n}" for n in range(40))])
    asked = []

    def ask(question: str, default: str, answers: Any) -> str:
        asked.append((question, default, [*answers]))
        return "size"

    project = inspect_project(Given(data=path, ask=ask), tmp_path / "project")
    assert asked == [("Which column should be predicted?", "z", ["x", "size", "z"])]
    assert project.found.tables["data"]["label"] == "size"
