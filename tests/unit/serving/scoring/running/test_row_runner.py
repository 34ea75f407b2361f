"""Rows that the model itself refuses, in batch: they alone are bad, with their address; all others are scored."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest

from litelambda_serving.scoring.errors import SchemaError, TooManyBadRowsError
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from support.golden_store import describe, golden
from support.scoring_files import make_store, read_jsonl

DIVISION = {"a": list(range(40, 80)), "b": [row % 5 for row in range(40)]}
"""Every fifth row divides by zero: a and b, whose order in the runtime is another."""


def signature(name: str, **more: dict[str, Any]) -> dict[str, Any]:
    """A golden model's signatures in alphabetical order, as published ones are; `more` by tensor."""
    (found,) = describe(golden(name)).values()
    sides = {
        side: [{**tensor, **more.get(tensor["name"], {})} for tensor in sorted(tensors, key=lambda each: each["name"])]
        for side, tensors in found.items()
    }
    return {"predict": sides}


def score(tmp_path: Any, name: str, content: bytes, ending: str, output: str = "out.jsonl", **fields: Any) -> Any:
    """Score a file; what is in the output, and what is wrong with the bad rows by their address."""
    tmp_path.mkdir(exist_ok=True)
    models = make_store(tmp_path / "store", name, **fields)
    source, target = tmp_path / f"rows.{ending}", tmp_path / output
    source.write_bytes(content)
    job = Job(source.as_uri(), target.as_uri(), model=name, output_format=target.suffix[1:], tolerated_bad=1.0)
    outcome = run_job(job, models)
    errors = tmp_path / outcome.outputs.errors.rsplit("/", 1)[1]
    bad = read_jsonl(errors.read_bytes()) if errors.exists() else []
    return target.read_bytes(), {row.get("line", row.get("row")): row["reason"] for row in bad}


def lines(columns: dict[str, list[Any]]) -> bytes:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_rows_that_divide_by_zero_are_bad_and_the_rest_is_scored(tmp_path):
    """Inputs reach the model under their own names, and what passes through stays with its row."""
    columns = {**DIVISION, "id": [f"r{row}" for row in range(40)]}
    output, bad = score(
        tmp_path, "division", lines(columns), "jsonl", warm_up={"b": 1}, signatures=signature("division")
    )
    reason = "input 'b': an operator of the model refuses these values"
    assert bad == {row + 1: reason for row in range(40) if DIVISION["b"][row] == 0}
    assert read_jsonl(output) == [
        {"line": row + 1, "id": f"r{row}", "prediction": DIVISION["a"][row] // DIVISION["b"][row]}
        for row in range(40)
        if DIVISION["b"][row]
    ]


@pytest.mark.parametrize("count", [1, 40])
def test_rows_without_faults_reach_the_inputs_of_their_names(tmp_path, count):
    """A batch is filled up with a row that the model can compute with, not with zeros."""
    columns = {"a": list(range(100, 100 + count)), "b": [7] * count}
    fields = {"warm_up": {"b": 1}, "signatures": signature("division")}
    output, bad = score(tmp_path, "division", lines(columns), "jsonl", **fields)
    assert not bad
    assert [row["prediction"] for row in read_jsonl(output)] == [a // 7 for a in columns["a"]]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "npy", "npz"])
def test_numbers_beyond_a_table_are_bad_rows_in_every_format(tmp_path, ending):
    """The reason says what came and what there is; every other row has its prediction."""
    ids = np.array([[row % 5, (row * 3) % 5] for row in range(30)], "int32")
    ids[4, 1], ids[17, 0], ids[29, 1] = -1, 5, 2**31 - 1
    buffer = io.BytesIO()
    if ending == "jsonl":
        buffer.write(lines({"ids": ids.tolist()}))
    elif ending == "csv":
        np.savetxt(buffer, ids, "%d", ",", header="ids_0,ids_1", comments="")
    elif ending == "npy":
        np.save(buffer, ids)
    else:
        np.savez(buffer, ids=ids)
    fields = {"signatures": signature("table", ids={"range": [0, 4]})}
    output, bad = score(tmp_path, "table", buffer.getvalue(), ending, **fields)
    first = {"jsonl": 1, "csv": 2}.get(ending, 0)
    wrong = {4: -1, 17: 5, 29: 2**31 - 1}
    assert bad == {row + first: f"input 'ids': {value} is outside the range [0, 4]" for row, value in wrong.items()}
    found = {next(iter(row.values())): row["prediction"] for row in read_jsonl(output)}
    assert found == {
        row + first: [[10.0 * index, 10.0 * index + 1] for index in ids[row].tolist()]
        for row in range(30)
        if row not in wrong
    }


@pytest.mark.parametrize("ending", ["jsonl", "npy"])
def test_a_file_of_which_every_row_is_refused(tmp_path, ending):
    """Each row is reported as bad; where that is more than is tolerated, the job fails for that reason."""
    fields = {"signatures": signature("table", ids={"range": [0, 4]})}
    ids, buffer = np.array([[9, 1], [0, -1]], "int32"), io.BytesIO()
    if ending == "npy":
        np.save(buffer, ids)
    else:
        buffer.write(lines({"ids": ids.tolist()}))
    output, bad = score(tmp_path, "table", buffer.getvalue(), ending, **fields)
    assert output == b""
    assert list(bad.values()) == [f"input 'ids': {value} is outside the range [0, 4]" for value in (9, -1)]
    job = Job((tmp_path / f"rows.{ending}").as_uri(), (tmp_path / "few.jsonl").as_uri(), model="table")
    with pytest.raises(TooManyBadRowsError, match="2 of 2 rows are bad"):
        run_job(job, ModelSource((tmp_path / "store").as_uri()))


def test_an_array_keeps_a_place_for_a_refused_row(tmp_path):
    """In a .npy a refused row is NaN, where its prediction would have been."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([[0, 1], [9, 1], [4, 4]], "int32"))
    fields = {"signatures": signature("table", ids={"range": [0, 4]})}
    output, bad = score(tmp_path, "table", buffer.getvalue(), "npy", "out.npy", **fields)
    found = np.load(io.BytesIO(output))
    assert list(bad) == [1]
    assert np.isnan(found[1]).all()
    assert found[[0, 2], :, 0].tolist() == [[0, 10], [40, 40]]


def test_an_output_of_all_rows_is_not_scored_in_batch(tmp_path):
    """No row of a file has it: the job is refused by the output's name; a constant one is each row's."""
    with pytest.raises(SchemaError, match="output 'total' of totals has no row"):
        score(tmp_path, "totals", lines({"x": [[1, 2, 3]]}), "jsonl")
    fields = {"signatures": signature("constant", c={"constant": True})}
    output, _ = score(tmp_path, "constant", lines({"x": [[1, 2, 3], [4, 5, 6]]}), "jsonl", **fields)
    assert [row["prediction"] for row in read_jsonl(output)] == [
        {"c": [1.0, 2.0, 3.0], "y": [2.0 * value for value in x]} for x in ([1, 2, 3], [4, 5, 6])
    ]


def test_keys_and_odd_names_are_columns(tmp_path):
    """An output that is an input has its row's value; names with spaces, colons and umlauts are headers as they are."""
    keyed = {"key": [5, 6], "x": [[1, 2, 3], [4, 5, 6]]}
    output, _ = score(tmp_path, "keyed", lines(keyed), "jsonl", "keyed.csv")
    assert list(csv.reader(io.StringIO(output.decode()))) == [
        ["line", "passthrough", "key", "y_0", "y_1", "y_2"],
        ["1", "", "5", "2.0", "4.0", "6.0"],
        ["2", "", "6", "8.0", "10.0", "12.0"],
    ]
    names = ("a b", "x:0", "grün", "class", "self")
    odd = lines({name: [[float(place), 1.0]] for place, name in enumerate(names)})
    output, _ = score(tmp_path / "odd", "odd_names", odd, "jsonl", signatures=signature("odd_names"))
    (row,) = read_jsonl(output)
    assert row["prediction"] == {name: [2.0 * place, 2.0] for place, name in enumerate(names)}
