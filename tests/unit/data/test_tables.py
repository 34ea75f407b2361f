"""Tables: what rows become is fitted on the training rows, and files that are not what they seem are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from litelambda.common.errors import DataError
from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from support.data_recipe import load

CSV = 'format = "csv"\npath = "set.csv"\nlabel = "y"'


def table(folder: Path, text: str | bytes, *overrides: str) -> Dataset:
    """Load the data of a recipe for this CSV file."""
    (folder / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(folder, CSV, "data.validation_split=0", *overrides)


def rows_of(data: Dataset) -> np.ndarray[Any, Any]:
    """All rows of a data set without validation rows, in no particular order."""
    found: np.ndarray[Any, Any] = np.concatenate([data.train.x[:], data.test.x[:]])
    return found[np.lexsort(found.T[::-1])]


def form_of(data: Dataset) -> RawForm:
    """What the rows of a table become."""
    assert isinstance(data.preprocessing, RawForm)
    return data.preprocessing


def column(data: Dataset, name: str) -> dict[str, Any]:
    """The manifest's document of a column."""
    found: dict[str, Any] = next(each for each in form_of(data).document["columns"] if each["name"] == name)
    return found


def gaps(num_rows: int = 200, seed: int = 0) -> tuple[str, dict[str, Any]]:
    """A CSV with gaps in two columns of numbers and one of categories, and its columns."""
    rng = np.random.default_rng(seed)
    age, mass = rng.normal(40, 12, num_rows).round(2), rng.integers(0, 9, num_rows).astype(float)
    age[rng.random(num_rows) < 0.1] = np.nan
    mass[rng.random(num_rows) < 0.2] = np.nan
    color = rng.choice(["red", "green", "blue", ""], num_rows, p=[0.5, 0.2, 0.2, 0.1])
    lines = [
        f"{'' if np.isnan(a) else a},{'' if np.isnan(m) else int(m)},{c},{i % 2}"
        for i, (a, m, c) in enumerate(zip(age.tolist(), mass.tolist(), color, strict=True))
    ]
    return "age,mass,color,y\n" + "\n".join(lines), {"age": age, "mass": mass, "color": color}


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_fills_and_scales_are_those_of_the_training_rows(tmp_path: Path, streaming: str) -> None:
    """Numbers are filled, then standardized, as numpy does it with the training rows; categories are one-hot."""
    text, columns = gaps()
    rules = "data.missing={age='mean', mass='median', color='most_frequent'}"
    data = table(tmp_path, text, rules, "data.normalize=standardize", f"data.streaming={streaming}")
    order = np.random.default_rng(0).permutation(200)
    train = np.sort(order[40:])
    expected = []
    for name, center in (("age", np.nanmean), ("mass", np.nanmedian)):
        values = columns[name].copy()
        fill = center(values[train])
        assert column(data, name)["missing"] == pytest.approx(fill)
        values[np.isnan(values)] = fill
        expected.append((values - values[train].mean()) / values[train].std())
    color = np.where(columns["color"] == "", "red", columns["color"])
    expected += [color == name for name in ("blue", "green", "red")]
    assert column(data, "color") | {"encoding": "one_hot", "unknown": "refuse", "missing": "red"} == column(
        data, "color"
    )
    assert data.train.x[:] == pytest.approx(np.column_stack(expected)[train], abs=1e-5)
    assert data.test.x[:] == pytest.approx(np.column_stack(expected)[order[:40]], abs=1e-5)


def test_raw_test_rows_are_what_the_file_has(tmp_path: Path) -> None:
    """The raw rows of the test split, prepared as a server does, are its rows bit for bit."""
    text, _ = gaps()
    data = table(tmp_path, text, "data.missing=median", "data.normalize=standardize")
    assert data.raw_test is not None
    raw = data.raw_test(np.arange(len(data.test)))
    assert list(raw) == ["age", "mass", "color"]
    assert None in raw["age"]
    assert np.array_equal(form_of(data).prepare(raw), data.test.x)


def test_rows_with_gaps_are_dropped_where_the_recipe_says_so(tmp_path: Path) -> None:
    """Dropped rows are counted in the summary, and requests with gaps are refused."""
    data = table(tmp_path, "a,b,y\n" + "1,2,u\n,2,v\n3,,u\n5,6,v\n7,8,u\n" * 3, "data.missing=drop")
    assert len(data.train) + len(data.test) == 9
    assert "6 rows with missing values dropped" in data.describe()
    assert "missing" not in column(data, "a")


def test_a_gap_may_be_a_value_of_its_own(tmp_path: Path) -> None:
    """data.fill gives a column's gaps a number or a category, which joins the vocabulary."""
    data = table(tmp_path, "a,b,y\n" + "1,p,u\n,q,v\n3,,u\n" * 4, "data.fill={a=-1, b='none'}")
    assert column(data, "a")["missing"] == -1
    assert column(data, "b")["vocabulary"] == ["none", "p", "q"]
    assert {tuple(row) for row in rows_of(data).tolist()} == {(1, 0, 1, 0), (-1, 0, 0, 1), (3, 1, 0, 0)}


def test_categories_that_no_training_row_has(tmp_path: Path) -> None:
    """A category of test rows alone is refused with what to set, or unknown by the recipe's rule."""
    text = "a,c,y\n" + "".join(f"{i},{'rare' if i == 0 else 'pq'[i % 2]},{i % 3}\n" for i in range(30))
    with pytest.raises(DataError, match=r"no training row has the category 'rare': set data\.unknown to 'zeros'"):
        table(tmp_path, text, "data.seed=3", "data.test_split=0.5")
    data = table(tmp_path, text, "data.seed=3", "data.test_split=0.5", "data.unknown=zeros")
    assert rows_of(data)[0].tolist() == [0, 0, 0]
    data = table(tmp_path, text, "data.unknown=other", "data.min_rows=3", "data.test_split=0.1")
    assert column(data, "c")["vocabulary"] == ["p", "q"]
    assert rows_of(data)[0].tolist() == [0, 0, 0, 1]


def test_columns_of_numbers_can_be_categories(tmp_path: Path) -> None:
    """The recipe says that class numbers are categories; 10 comes after 9, and 3.0 is 3."""
    text = "class,y\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(["9", "10", "3.0", "3"] * 5))
    data = table(tmp_path, text, "data.categories=['class']")
    assert column(data, "class")["vocabulary"] == ["3", "9", "10"]
    assert "categories: class" in data.describe()


def test_categories_can_be_numbers_of_their_places(tmp_path: Path) -> None:
    """With data.encoding = 'index' the model reads int32; a large vocabulary is a file of its own."""
    text = "item,user,y\n" + "".join(f"item{i % 1500},u{i % 7},{i % 2}\n" for i in range(3000))
    data = table(tmp_path, text, "data.encoding=index", "data.unknown=other", "data.test_split=0.001")
    assert (data.train.x.dtype, data.input_shape) == (np.int32, (2,))
    assert len(json.loads(form_of(data).assets[column(data, "item")["vocabulary_file"]])) == 1500
    assert rows_of(data).max(axis=0).tolist() == [1499, 6]
    with pytest.raises(DataError, match="column 'item' has 1,500 categories"):
        table(tmp_path, text, "data.unknown=other", "data.test_split=0.001")


HEADER, BODY = "a,b,y", [f"{i}.5,{'pq'[i % 2]},{i % 2}" for i in range(20)]
PLAIN = "\n".join([HEADER, *BODY])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (PLAIN.replace("\n", "\r\n"), ""),
        (PLAIN.replace("\n", "\r"), ""),
        (PLAIN.replace("\n", "\n\n") + "\n\n", ""),
        ("\ufeff" + PLAIN, ""),
        (PLAIN.replace(",", ";"), "cells separated by semicolons, decimal points"),
        (PLAIN.replace(",", "\t"), "cells separated by tabs, decimal points"),
        (PLAIN.replace(",", "|"), "cells separated by bars, decimal points"),
        (PLAIN.replace(",", ";").replace(".", ","), "cells separated by semicolons, decimal commas"),
        (PLAIN.replace(",", " , "), ""),
        ("\n".join('"' + line.replace(",", '","') + '"' for line in [HEADER, *BODY]), ""),
        ("\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate([HEADER, *BODY])), "the index column '' is"),
        ("\n".join(f"{i - 1 if i else 'Unnamed: 0'},{x}" for i, x in enumerate([HEADER, *BODY])), "'Unnamed: 0' is"),
    ],
)
def test_files_that_say_the_same_are_the_same_data(tmp_path: Path, text: str, note: str) -> None:
    """Ends of lines, separators, decimal commas, quotes and index columns make no difference, and are said."""
    data = table(tmp_path, text)
    expected = [[i + 0.5, i % 2 == 0, i % 2] for i in range(20)]
    assert rows_of(data).tolist() == expected
    assert note in data.describe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column y"),
        ("\n\n", "has no column y"),
        (PLAIN.encode("utf-16"), "is not a CSV file in UTF-8: .* save it as UTF-8"),
        (PLAIN.encode("utf-16-le"), "line 1: a NUL character, as files in UTF-16 have"),
        (PLAIN.replace("p", "\u00e9").encode("latin-1"), "is not a CSV file in UTF-8: .* save it as UTF-8"),
        (PLAIN + "\n1,\0,0", "line 22: a NUL character"),
        (PLAIN + "\n1,p", r"line 22: 2 fields, the header has 3 \(cells separated by commas"),
        (PLAIN + "\n1,p,0,9", "line 22: 4 fields"),
        (PLAIN + '\n1,"p,0', "line 22, is not CSV: unexpected end of data"),
        (PLAIN + f"\n1,{'p' * 200_000},0", "line 22, is not CSV: field larger than field limit"),
        (PLAIN.replace("a,b", "b,b"), "several columns of the name 'b'"),
        (PLAIN.replace("a,b", "a,"), "column 2 has no name"),
        ("\n".join(BODY), "has no column y"),
        ("1,2,3\n4,5,6", "begins with 1, 2, 3: expected a header"),
        (PLAIN + "\n1,p,", r"line 22: column 'y', which is to be predicted, has no value \(''\)"),
        (PLAIN + "\n1,p,NA", r"has no value \('NA'\): remove the line, or list the value in data\.labels"),
        (PLAIN + "\n,p,0", r"line 22: column 'a' has no value: set data\.missing"),
        (PLAIN + "\n1,?,0", "line 22: column 'b' has no value"),
        (PLAIN + "\nabc,p,0", r"line 22: 'abc' in column 'a' is not a number.* list the column in data\.categories"),
        (PLAIN + "\n1_000,p,0", "line 22: column 'a': '1_000' is not a number"),
        (PLAIN + "\ninf,p,0", "line 22: column 'a': 'inf' is not a finite number"),
        (PLAIN + "\n1e39,p,0", "line 22: field 'a': 1e[+]39 is outside the range of float32"),
        (
            PLAIN.replace(",", ";").replace(".", ",") + "\n1.234;p;0",
            "line 2: '0,5' in column 'a' is a number with another decimal mark",
        ),
        ("a;b;y\n" + "0,5;p;0\n" * 300 + "1.234;p;0", "line 302: column 'a': '1.234' has a decimal point"),
        (PLAIN + "\n" + "\n".join(f"{i},p,x" for i in range(2)), ""),
    ],
)
def test_hostile_files_are_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    """The message says in which line and column, what is wrong, and what to do."""
    if not message:
        assert table(tmp_path, text).labels == ["0", "1", "x"]
        return
    with pytest.raises(DataError, match=message):
        table(tmp_path, text)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.categories=['c']"], "data.categories names c, but the columns to predict from are a, b"),
        (["data.missing={c='mean'}"], "data.missing names c"),
        (["data.fill={a='x'}"], "data.fill of column 'a' must be a number, got 'x'"),
        (["data.missing={b='mean'}"], "data.missing = 'mean' is for numbers: use 'most_frequent' for column 'b'"),
        (["data.features=['a', 'y']"], "column 'y' is in data.features and in data.label"),
        (["data.encoding=index"], "data.encoding = 'index' needs categories in all columns, but a are numbers"),
        (["data.reshape=[2, 2]"], r"data.reshape = \[2, 2\] has 4 values, but rows of the data have shape \[3\]"),
        (["data.delimiter=;"], "has no column y"),
    ],
)
def test_recipes_that_do_not_fit_the_table_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    """A recipe that names what the table does not have is wrong by name."""
    with pytest.raises(DataError, match=message):
        table(tmp_path, PLAIN, *overrides)


def test_a_table_in_parquet_is_the_table_in_csv(tmp_path: Path) -> None:
    """The same columns in Parquet, their types and gaps its own, give the same rows and the same document."""
    text, columns = gaps()
    settings = ["data.missing=median", "data.normalize=standardize", "data.categories=['mass']"]
    data = table(tmp_path, text, *settings)
    arrow = pa.table(
        {
            "color": pa.array([each or None for each in columns["color"].tolist()]).dictionary_encode(),
            "mass": pa.array([None if np.isnan(m) else int(m) for m in columns["mass"].tolist()], pa.int8()),
            "age": columns["age"],
            "y": np.arange(200) % 2,
            "__index_level_0__": np.arange(200),
        }
    )
    pyarrow.parquet.write_table(arrow, tmp_path / "set.parquet")
    section = 'format = "parquet"\npath = "set.parquet"\nlabel = "y"\nfeatures = ["age", "mass", "color"]'
    same = load(tmp_path, section, "data.validation_split=0", *settings)
    assert form_of(same).to_json() == form_of(data).to_json()
    assert np.array_equal(same.train.x, data.train.x)
    assert same.labels == data.labels
    assert "'__index_level_0__' is left out" in load(tmp_path, section.rpartition("\n")[0], *settings).describe()


def test_parquet_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A broken file, a date and a missing label are named."""
    section = 'format = "parquet"\npath = "set.parquet"\nlabel = "y"'
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        load(tmp_path, section)
    for columns, message in (
        ({"a": pa.array([0, 1], pa.date32()), "y": [0, 1]}, "column 'a' is of type date32.*neither numbers nor text"),
        ({"a": [1, 2], "y": ["u", None]}, "row 2: column 'y', which is to be predicted, has no value"),
        ({"a": [1.0, float("inf")], "y": ["u", "v"]}, "row 2: column 'a' holds an infinity"),
        ({"a": [1.0, None], "y": ["u", "v"]}, "row 2: column 'a' has no value"),
    ):
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / "set.parquet")
        with pytest.raises(DataError, match=message):
            load(tmp_path, section)


TAGS = ["red|round", "red", "", "round | red", "blue", "red|blue|round"] * 8


def tags_csv() -> str:
    """A table whose column y has the tags of a row."""
    return "a,y\n" + "\n".join(f"{number},{tags}" for number, tags in enumerate(TAGS))


def test_a_row_can_have_several_labels(tmp_path: Path) -> None:
    """A column of names, or a column of 0 and 1 for each, become rows of 0 and 1 in the order of the labels."""
    recipe = ["data.task=multi_label", "train.loss=binary_crossentropy"]
    data = table(tmp_path, tags_csv(), *recipe)
    assert data.multi_label
    assert data.labels == ["blue", "red", "round"]
    expected = [[name in [each.strip() for each in tags.split("|")] for name in data.labels] for tags in TAGS]
    assert data.train.y.tolist() == [expected[int(row)] for row in data.train.x[:, 0]]
    ordered = table(tmp_path, tags_csv(), *recipe, "data.labels=['round', 'red', 'blue']")
    assert np.array_equal(ordered.train.y[:, ::-1], data.train.y)
    columns = "a,blue,red,round\n" + "\n".join(
        ",".join(map(str, [number, *map(int, row)])) for number, row in enumerate(expected)
    )
    label = ["data.label=['blue', 'red', 'round']"]
    same = table(tmp_path, columns, *recipe, *label)
    assert np.array_equal(same.train.y, data.train.y)
    assert (same.labels, same.input_shape) == (data.labels, (1,))
    assert form_of(same).document["label"] == ["blue", "red", "round"]
    values = table(tmp_path, columns, "data.task=regression", *label)
    assert np.array_equal(values.train.y, data.train.y)
    assert values.labels is None


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (tags_csv(), ["data.labels=['red', 'blue']"], "label 'round' is not among the labels red, blue"),
        ("a,y\n" + "1,u|v\n2,u\n3,u|v\n" * 5, [], "all training rows agree on label 'u'"),
        ("a,p,q\n" + "1,0,1\n2,2,0\n" * 5, ["data.label=['p', 'q']"], "expected for each row 0 or 1 by label"),
        ("a,p,q\n" + "1,0,1\n2,,0\n" * 5, ["data.label=['p', 'q']"], "line 3: column 'p', which is to be predicted"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    """What several labels cannot be is said by name."""
    with pytest.raises(DataError, match=message):
        table(tmp_path, text, "data.task=multi_label", "train.loss=binary_crossentropy", *overrides)


def test_labels_have_the_order_of_the_recipe(tmp_path: Path) -> None:
    """Classes that have an order keep it."""
    text = "a,y\n" + "".join(f"{i},{('low', 'mid', 'high')[i % 3]}\n" for i in range(30))
    data = table(tmp_path, text, "data.labels=['low', 'mid', 'high']")
    assert data.train.y.tolist() == [int(row) % 3 for row in data.train.x[:, 0]]
