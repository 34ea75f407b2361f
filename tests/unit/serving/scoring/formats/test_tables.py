"""Tables in batch: columns by name in any order, in CSV of every dialect, JSON Lines, Parquet and arrays."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from litelambda_serving.objects import to_url
from litelambda_serving.scoring import errors
from litelambda_serving.scoring.formats import parquet
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.running.engine import run_job
from support.scoring_files import expected, make_store, read_jsonl

NUMBERS = [
    {"name": "a", "type": "number", "scale": 0.1, "offset": 0.3},
    {"name": "b", "type": "number", "scale": 0.01, "missing": 50.0},
]
MORE = [{"name": name, "type": "number", "scale": 0.1} for name in "cd"]
KIND = {"name": "kind", "type": "category", "vocabulary": ["p", "q"]}
ROWS = [(1.5, 20.0, "p"), (3.25, None, "q"), (0.5, 70.125, "q"), (9.0, 1.0, "p")]


@pytest.fixture
def models(tmp_path):
    """A model that is asked with two numbers and a category."""
    document = {"kind": "table", "label": "y", "columns": [*NUMBERS, KIND]}
    return make_store(tmp_path / "store", format_version=2, preprocessing={"x": document})


def score(models, path, **options) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run a job on a local file; return its lines and its summary."""
    output = path.parent / "out.jsonl"
    summary = run_job(Job(to_url(str(path)), output.as_uri(), model="tiny_int8", **options), models).summary
    return read_jsonl(output.read_bytes()), summary


def right() -> np.ndarray[Any, Any]:
    """What the reference Interpreter says of the rows, prepared by numpy."""
    a, b = (np.array([row[place] or 50 for row in ROWS], np.float64) for place in (0, 1))
    kinds = [[row[2] == "p", row[2] == "q"] for row in ROWS]
    prepared = np.column_stack([a * 0.1 + 0.3, b * 0.01, kinds])
    return expected(prepared.astype(np.float32))


def text_of(delimiter=",", decimal=".") -> str:
    """The rows as CSV, columns reversed, with a label and an id, each of which passes through."""
    cells = [["id", "y", "kind", "b", "a"]]
    cells += [[f"#{i}", "n", kind, "" if b is None else repr(b), repr(a)] for i, (a, b, kind) in enumerate(ROWS)]
    return "\n".join(delimiter.join(cell.replace(".", decimal) for cell in row) for row in cells)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("rows.csv", text_of(), "commas, decimal points"),
        ("rows.csv", text_of(";"), "semicolons, decimal points"),
        ("rows.csv", text_of(";", ","), "semicolons, decimal commas"),
        ("rows.tsv", text_of("\t"), "tabs, decimal points"),
        ("rows.csv", text_of("|", ","), "bars, decimal commas"),
        ("rows.csv", "\ufeff" + text_of().replace("\n", "\r\n"), "commas, decimal points"),
        (
            "rows.csv",
            "\n".join('"' + line.replace(",", '","') + '"' for line in text_of().split("\n")),
            "commas, decimal points",
        ),
        ("rows.csv", text_of().replace(",", " , ").replace("#", " #"), "commas, decimal points"),
    ],
)
def test_csv_of_every_dialect_is_the_same_rows(tmp_path, models, name, text, form) -> None:
    """Columns are found by name in any order; what separates cells is found and said; other columns pass through."""
    (tmp_path / name).write_bytes(text.encode())
    found, summary = score(models, tmp_path / name)
    assert [row["prediction"] for row in found] == right().tolist()
    assert [row["id"].strip() for row in found] == ["#0", "#1", "#2", "#3"]
    assert summary["rows_bad"] == 0
    assert summary["input"]["form"] == f"cells separated by {form}"


def test_parquet_and_json_lines_are_the_same_rows(tmp_path, models) -> None:
    """A Parquet file of any types and lines of JSON give what the CSV gives, row by row."""
    a, b, kind = (list(column) for column in zip(*ROWS, strict=True))
    table = pa.table(
        {
            "kind": pa.array(kind).dictionary_encode(),
            "b": pa.array(b, pa.float32()),
            "day": pa.array([0] * 4, pa.date32()),
            "a": pa.array([Decimal(str(each)) for each in a], pa.decimal128(6, 3)),
            "y": ["n"] * 4,
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=3)
    found, _ = score(models, tmp_path / "rows.parquet")
    assert [row["prediction"] for row in found] == right().tolist()
    assert found[0] | {"row": 0, "day": "1970-01-01", "y": "n"} == found[0]
    lines = [json.dumps({"kind": k, "b": y, "a": x, "y": 1}) for x, y, k in ROWS]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found, _ = score(models, tmp_path / "rows.jsonl")
    assert [row["prediction"] for row in found] == right().tolist()


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_of_a_table_of_numbers(tmp_path, ending) -> None:
    """Rows of an array are the columns in their order, raw; a gap without a fill spoils its row alone."""
    document = {"kind": "table", "columns": [*NUMBERS, *MORE]}
    models = make_store(tmp_path / "store", format_version=2, preprocessing={"x": document})
    raw = np.array([[1, 2, 3, 4], [5, np.nan, 7, 8], [np.nan, 1, 1, 1], [0.5, 1, 2, 3]], np.float64)
    (np.save if ending == "npy" else np.savez)(tmp_path / f"rows.{ending}", raw)
    found, summary = score(models, tmp_path / f"rows.{ending}", tolerated_bad=0.5)
    filled = np.where(np.isnan(raw), 50, raw)[[0, 1, 3]]
    prepared = filled * [0.1, 0.01, 0.1, 0.1] + [0.3, 0, 0, 0]
    assert [row["prediction"] for row in found] == expected(prepared.astype(np.float32)).tolist()
    assert ([row["row"] for row in found], summary["rows_bad"]) == ([0, 1, 3], 1)


@pytest.mark.parametrize(
    ("name", "data", "kind", "message"),
    [
        ("x.csv", "a,kind,y\n1,p,n", errors.SchemaError, "no column 'b'; it has a, kind, y"),
        ("x.csv", "a;kind;y\n1;p;n", errors.SchemaError, r"no column 'b'.*cells separated by semicolons"),
        ("x.csv", "a,b,b,kind\n1,2,3,p", errors.SchemaError, "names a column twice"),
        ("x.csv", text_of().encode("utf-16"), errors.UnreadableInputError, "not CSV in UTF-8"),
        ("x.csv", text_of().encode("utf-16-le"), errors.UnreadableInputError, "NUL characters, as UTF-16 does"),
        ("x.npy", np.zeros((2, 4)), errors.SchemaError, "arrays cannot hold the columns a, b, kind"),
        ("x.parquet", b"PAR1 and no more", errors.UnreadableInputError, "not a readable Parquet file"),
        ("x.parquet", {"a": [1.0], "kind": ["p"]}, errors.SchemaError, "has no column 'b'; it has a, kind"),
        (
            "x.parquet",
            {"a": [1.0], "b": pa.array([0], pa.date32()), "kind": ["p"]},
            errors.SchemaError,
            "column 'b' is of type date32",
        ),
    ],
)
def test_files_without_the_columns_are_refused(tmp_path, models, name, data, kind, message) -> None:
    """What the file has and what is looked for is said before anything is scored."""
    if isinstance(data, dict):
        pyarrow.parquet.write_table(pa.table(data), tmp_path / name)
    elif isinstance(data, np.ndarray):
        np.save(tmp_path / name, data)
    else:
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(kind, match=message):
        score(models, tmp_path / name)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,2,p", "field 'a': 'x' is not a number"),
        ("1_0,2,p", "field 'a': '1_0' is not a number"),
        ('"1,5",2,p', "field 'a': '1,5' is not a number"),
        (",2,p", "field 'a': is missing, expected a number"),
        ("1,2,r", "field 'kind': unknown category 'r': expected one of 'p', 'q'"),
        ("1,2", "2 columns, the header has 3"),
        ("1,2,p,4", "4 columns, the header has 3"),
        ('1,2,"p', "not CSV: unexpected end of data"),
        ("1e40,2,p", "field 'a': 1e+40 is outside the range of float32"),
        ("inf,2,p", "field 'a': 'inf' is not a finite number"),
        (f"1,2,{'p' * 200_000}", "not CSV: field larger than field limit"),
    ],
)
def test_a_bad_line_is_named_and_spoils_no_other(tmp_path, models, line, reason) -> None:
    """The reason names the field; the line before it is scored."""
    (tmp_path / "x.csv").write_text(f"a,b,kind\n1.5,20.0,p\n{line}\n")
    found, summary = score(models, tmp_path / "x.csv", tolerated_bad=0.5)
    assert [row["prediction"] for row in found] == right()[:1].tolist()
    (bad,) = read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())
    assert reason in bad["reason"]
    assert (bad["line"], summary["rows_bad"]) == (3, 1)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path, models, monkeypatch) -> None:
    """Where pyarrow is not installed, as in the deployed function, the message says which formats are read there."""
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    pyarrow.parquet.write_table(pa.table({"a": [1.0]}), tmp_path / "x.parquet")
    with pytest.raises(
        errors.UnreadableInputError, match=r"pip install 'litelambda\[parquet\]'.* as CSV or JSON Lines"
    ):
        score(models, tmp_path / "x.parquet")


def test_parquet_resumes_after_a_position(tmp_path, models) -> None:
    """A reader that starts after a checkpoint has the rows that follow it, by their numbers in the file."""
    from litelambda_serving.objects import objects_for
    from litelambda_serving.scoring.formats import open_reader
    from litelambda_serving.scoring.formats.base import RowSchema

    table = pa.table({"a": np.arange(9000.0), "b": np.ones(9000), "kind": ["p"] * 9000})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    url = to_url(str(tmp_path / "x.parquet"))
    job = Job(url, (tmp_path / "out.jsonl").as_uri(), model="tiny_int8")
    model = models.load(models.pin("tiny_int8"))
    reader = open_reader(job, objects_for(url).head(url, ""), RowSchema.of(model.manifest))
    chunks = list(reader.chunks(None))
    assert [chunk.first for chunk in chunks] == [0, 4096, 8192]
    later = list(reader.chunks(chunks[0].position))
    reader.close()
    assert [(chunk.first, chunk.payload["a"][0]) for chunk in later] == [(4096, 4096.0), (8192, 8192.0)]
    assert later[-1].progress_bytes == reader.total_bytes
