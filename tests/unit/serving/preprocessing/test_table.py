from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from litelambda_serving.errors import ManifestError, TensorError
from litelambda_serving.preprocessing import RawInputs, open_preprocessor
from litelambda_serving.preprocessing.base import FieldError
from litelambda_serving.tensor import DTYPES, DYNAMIC, Quantization, TensorSpec

MASS = {"name": "mass", "type": "number", "scale": 0.0012, "offset": -5.1, "missing": 4200.0}
BILL = {"name": "bill", "type": "number", "scale": 0.3, "offset": 0.1}
ISLAND = {"name": "island", "type": "category", "vocabulary": ["Biscoe", "Dream", "Torgersen"]}
SEX = {"name": "sex", "type": "category", "vocabulary": ["f", "m"], "unknown": "other", "missing": "f"}


def _table(*columns: dict[str, Any], dtype: str = "float32", width: int = 0, **more: Any) -> RawInputs:
    document = {"kind": "table", "columns": list(columns), **more}
    spec = TensorSpec("input", DTYPES[dtype], (DYNAMIC, width))
    return RawInputs((spec,), {"input": document}, {})


PENGUINS = (BILL, ISLAND, MASS, SEX)


def _rows(raw_inputs: RawInputs, rows: list[Any]) -> list[list[float]]:
    tensor = raw_inputs.from_rows(rows)["input"]
    found: list[list[float]] = np.frombuffer(tensor.data, tensor.dtype.name).reshape(tensor.shape).tolist()
    return found


def test_numbers_and_categories_become_one_row() -> None:
    """Each number is scaled in float64 and rounded once, each category is one-hot, in the manifest's order."""
    raw_inputs = _table(*PENGUINS, width=8)
    rows = [[39.1, "Dream", 3750, "m"], [1e-3, "Torgersen", 5000.5, "f"]]
    numbers = np.array([[row[0], row[2]] for row in rows], np.float64) * [0.3, 0.0012] + [0.1, -5.1]
    expected = [
        [numbers[0, 0], 0, 1, 0, numbers[0, 1], 0, 1, 0],
        [numbers[1, 0], 0, 0, 1, numbers[1, 1], 1, 0, 0],
    ]
    assert _rows(raw_inputs, rows) == np.array(expected, np.float32).tolist()


def test_objects_lists_and_columns_are_the_same_rows() -> None:
    """Names in any order, values in the manifest's order, and whole columns give the same bytes."""
    raw_inputs = _table(*PENGUINS, width=8, label="species")
    objects = [{"species": "Adelie", "sex": "m", "mass": 3750, "island": "Dream", "bill": 39.1}]
    lists = [[39.1, "Dream", 3750, "m"]]
    columns = {"mass": [3750], "bill": [39.1], "sex": ["m"], "island": ["Dream"]}
    made = [raw_inputs.from_rows(objects), raw_inputs.from_rows(lists), raw_inputs.from_columns(lists)]
    assert len({bytes(each["input"].data) for each in [*made, raw_inputs.from_columns(columns)]}) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"bill": 1, "island": "Dream", "mass": 1}, "instance 0: missing 'sex'"),
        ({"bill": 1, "island": "Dream", "mass": 1, "sex": "m", "weight": 3}, "instance 0: unknown 'weight'"),
        ([1, "Dream", 1], "or a list of these 4 values in this order, all instances in the same form; got a list of 3"),
        ([None, "Dream", 1, "m"], "field 'bill', row 0: is missing, expected a number"),
        ([float("nan"), "Dream", 1, "m"], "field 'bill', row 0: is missing"),
        (["39.1", "Dream", 1, "m"], "field 'bill', row 0: expected a number, got the text '39.1'"),
        ([True, "Dream", 1, "m"], "field 'bill', row 0: expected a number, got True"),
        ([[1], "Dream", 1, "m"], "field 'bill', row 0: expected a number, got a list"),
        ([float("inf"), "Dream", 1, "m"], "field 'bill', row 0: inf is not a finite number"),
        ([1e40, "Dream", 1, "m"], "field 'bill', row 0: 1e+40 is outside the range of float32"),
        ([10**400, "Dream", 1, "m"], "is outside the range of float32"),
        ([1, "dream", 1, "m"], "field 'island', row 0: unknown category 'dream': expected one of 'Biscoe', 'Dream'"),
        ([1, None, 1, "m"], "field 'island', row 0: is missing, expected a category"),
        ([1, "", 1, "m"], "field 'island', row 0: is missing"),
        ([1, {"a": 1}, 1, "m"], "field 'island', row 0: expected a category, got an object"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_name(row: Any, said: str) -> None:
    """The message says which field of which row, what came, and what was expected."""
    with pytest.raises(TensorError) as refused:
        _table(*PENGUINS, width=8).from_rows([row])
    assert said in str(refused.value)


def test_the_row_of_a_bad_value_is_known() -> None:
    """A caller that goes on with the other rows learns which one is bad."""
    with pytest.raises(FieldError) as refused:
        _table(*PENGUINS, width=8).from_rows([[1, "Dream", 1, "m"], [1, "Dream", 1e300, "m"]])
    assert (refused.value.row, refused.value.field) == (1, "mass")


def test_missing_and_unknown_values_count_as_the_manifest_says() -> None:
    """A gap has the column's fill, NaN is a gap too, and an unknown category is one of its own where it may be."""
    raw_inputs = _table(*PENGUINS, width=8)
    filled, said = _rows(raw_inputs, [[1, "Dream", None, None], [1, "Dream", 4200, "f"]])
    assert filled == said
    assert _rows(raw_inputs, [[1, "Dream", float("nan"), ""]]) == [said]
    assert _rows(raw_inputs, [[1, "Dream", 4200, "x"]])[0][-3:] == [0, 0, 1]
    zeros = {**ISLAND, "unknown": "zeros"}
    assert _rows(_table(BILL, zeros, width=4), [[1, "Atlantis"]])[0][1:] == [0, 0, 0]


@pytest.mark.parametrize("value", [3, 3.0, "3", " 3 ", "3.0"])
def test_a_whole_number_is_the_same_category_however_it_is_written(value: Any) -> None:
    """JSON's 3 and 3.0, and a cell that pandas wrote as 3.0 because of a gap above it, are the category '3'."""
    column = {"name": "class", "type": "category", "vocabulary": ["1", "2", "3"]}
    assert _rows(_table(column, width=3), [[value]]) == [[0, 0, 1]]


def test_leading_zeros_tell_categories_apart() -> None:
    """A postal code is no number."""
    column = {"name": "code", "type": "category", "vocabulary": ["01067", "1067"]}
    assert _rows(_table(column, width=2), [["01067"], [1067]]) == [[1, 0], [0, 1]]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_index_encoding_gives_places_in_the_vocabulary(dtype: str) -> None:
    """Categories are the numbers of their places, unknown ones the place after the last."""
    columns = [{**ISLAND, "encoding": "index"}, {**SEX, "encoding": "index"}]
    raw_inputs = _table(*columns, dtype=dtype, width=2)
    assert _rows(raw_inputs, [["Torgersen", "x"], ["Biscoe", None]]) == [[2, 2], [0, 0]]


def test_a_large_vocabulary_is_a_file_of_the_version() -> None:
    """A vocabulary that the column names as a file is read from the version's assets."""
    column = {"name": "item", "type": "category", "vocabulary_file": "items.json", "encoding": "index"}
    spec = TensorSpec("input", DTYPES["int32"], (DYNAMIC, 1))
    items = [f"item {number}" for number in range(5000)]
    document = {"kind": "table", "columns": [column]}
    table = open_preprocessor(spec, document, {"items.json": json.dumps(items).encode()})
    assert np.frombuffer(table.prepare([["item 4999", "item 0"]]).data, np.int32).tolist() == [4999, 0]
    with pytest.raises(ManifestError, match=r"items\.json"):
        open_preprocessor(spec, document, {})


def test_large_numbers_of_a_small_spread_keep_it() -> None:
    """Seconds since 1970, standardized, tell one second from the next, which float32 does not."""
    column = {"name": "time", "type": "number", "scale": 0.01, "offset": -17_000_000.0}
    assert _rows(_table(column, width=1), [[1_700_000_001], [1_700_000_002]]) == [
        [pytest.approx(0.01, rel=1e-6)],
        [pytest.approx(0.02, rel=1e-6)],
    ]


def test_a_quantized_input_gets_codes() -> None:
    """Where the input itself is int8, the prepared row is its codes."""
    spec = TensorSpec("input", DTYPES["int8"], (DYNAMIC, 4), Quantization(0.05, -10))
    table = open_preprocessor(spec, {"kind": "table", "columns": [BILL, ISLAND]}, {})
    codes = np.frombuffer(table.prepare([[2.0], ["Dream"]]).data, np.int8).tolist()
    assert codes == [round(0.7 / 0.05) - 10, -10, 10, -10]


def test_rows_of_numbers_may_come_as_an_array() -> None:
    """A table without categories takes arrays, NaN for a gap; one with categories says why it does not."""
    raw_inputs = _table(BILL, MASS, width=2)
    (table,) = raw_inputs.preprocessors.values()
    tensor = table.prepare_array(np.array([1, 2, 3, np.nan], np.float32).tolist(), (2, 2))
    same = raw_inputs.from_rows([[1, 2], [3, 4200]])["input"]
    assert (tensor.shape, bytes(tensor.data)) == ((2, 2), bytes(same.data))
    (table,) = _table(*PENGUINS, width=8).preprocessors.values()
    with pytest.raises(Exception, match="prepared from bill, island, mass, sex, which an array cannot hold"):
        table.prepare_array([0.0] * 8, (1, 8))


@pytest.mark.parametrize(
    ("columns", "width", "said"),
    [
        ([BILL], 2, "rows of 1 values, the input has 2"),
        ([BILL, BILL], 2, "two columns have the same name"),
        ([{"name": "a", "type": "date"}], 1, "type 'date' is neither 'number' nor 'category'"),
        ([{**BILL, "scale": float("inf")}], 1, "scale of column 'bill': expected a finite number"),
        ([{**BILL, "missing": "x"}], 1, "missing of column 'bill': expected a finite number, got 'x'"),
        ([{**ISLAND, "vocabulary": []}], 0, "its vocabulary must be a list of texts"),
        ([{**ISLAND, "vocabulary": ["a", "a"]}], 2, "its vocabulary has a category twice"),
        ([{**ISLAND, "unknown": "guess"}], 3, "unknown 'guess' or encoding 'one_hot' cannot be read"),
        ([{**ISLAND, "missing": "Atlantis"}], 3, "missing 'Atlantis' is not in the vocabulary"),
        ([{**ISLAND, "encoding": "index", "unknown": "zeros"}], 1, "unknown 'zeros' needs encoding 'one_hot'"),
        ([{**ISLAND, "encoding": "index"}], 1, "encoding 'index' needs categories in all columns"),
        ([{"type": "number"}], 1, "'name'"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(columns: list[Any], width: int, said: str) -> None:
    """A manifest whose columns cannot be what the input takes fails when the model is loaded, not when it is asked."""
    with pytest.raises(ManifestError) as refused:
        _table(*columns, width=width)
    assert said in str(refused.value)
