"""What text can bring that is neither a good row nor a plain mistake: line ends, encodings, numbers of any length."""

from __future__ import annotations

import csv
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from litelambda_serving.scoring import errors
from litelambda_serving.scoring.formats.csv_records import whole_records
from litelambda_serving.scoring.formats.json_tokens import JsonNumber, Tokens, dump_fields
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.running.engine import run_job
from support.scoring_files import as_jsonl, expected, job_of, make_rows, make_store, read_jsonl

HEADER = "id,x_0,x_1,x_2,x_3"
ROWS = make_rows(40)
IDS = [f"r{number}" for number in range(40)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"), quantization={"scheme": "int8"})


def score(models, path, output, **options):
    return run_job(job_of(path, output, **options), models).summary


def reasons(output):
    return {row["line"]: row["reason"] for row in read_jsonl(output.with_suffix(".errors.jsonl").read_bytes())}


def csv_lines():
    return [HEADER, *(",".join([name, *map(repr, row)]) for name, row in zip(IDS, ROWS.tolist(), strict=True))]


def mixed(lines):
    """Each line with another end than the one before."""
    return "".join(line + ("\n", "\r\n", "\r")[index % 3] for index, line in enumerate(lines))


LINE_ENDS = {
    "LF": lambda lines: "\n".join(lines) + "\n",
    "CRLF": lambda lines: "\r\n".join(lines) + "\r\n",
    "CR": lambda lines: "\r".join(lines) + "\r",
    "CR, none at the end": "\r".join,
    "mixed": mixed,
    "blank lines": lambda lines: "\r\n\r\n".join(["", *lines]) + "\n\n",
}


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 200, 1_000_000])
def test_csv_with_any_line_ends(models, tmp_path, monkeypatch, ends, encoding, chunk_bytes):
    """Lines end with LF, CRLF or CR, or each otherwise: the rows are the same, wherever a piece of the file ends."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "rows.csv"
    path.write_bytes(LINE_ENDS[ends](csv_lines()).encode(encoding))
    summary = score(models, path, tmp_path / "out.jsonl")
    assert (summary["rows_in"], summary["rows_out"]) == (40, 40)
    lines = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line["id"] for line in lines] == IDS
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(ROWS))
    first, step = (5, 2) if ends == "blank lines" else (2, 1)
    assert [line["line"] for line in lines] == [first + step * index for index in range(40)]


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1_000_000])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_json_lines_with_any_line_ends(models, tmp_path, monkeypatch, ends, chunk_bytes, ending):
    """So it is with JSON Lines, gzipped or not."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", chunk_bytes)
    data = LINE_ENDS[ends](as_jsonl(ROWS).decode().splitlines()).encode()
    path = tmp_path / f"rows{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    summary = score(models, path, tmp_path / "out.npy")
    assert (summary["rows_in"], summary["rows_out"]) == (40, 40)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(ROWS))


@pytest.mark.parametrize("cuts", [(0, 100), (0, 301), (0, 77, 900)])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_ranges_of_a_file_with_mixed_line_ends(models, tmp_path, cuts, name):
    """Each row is in one of the ranges, and in no other."""
    lines = csv_lines() if name.endswith("csv") else as_jsonl(ROWS, "x", id=IDS).decode().splitlines()
    path = tmp_path / name
    path.write_bytes(mixed(lines).encode())
    spans = list(zip(cuts, [*cuts[1:], path.stat().st_size], strict=True))
    found = []
    for number, span in enumerate(spans):
        score(models, path, tmp_path / f"out{number}.jsonl", span=span)
        found += [line["id"] for line in read_jsonl((tmp_path / f"out{number}.jsonl").read_bytes())]
    assert found == IDS


CELLS = st.text(st.sampled_from('a,"\r\n é'), max_size=6)


@settings(max_examples=100)
@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_is_inside_quotes_stays_as_it_is(rows, end):
    """Records are cut where Python's own reader cuts them, and hold what they held."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    whole, rest = whole_records(text.getvalue().encode() + b"x")
    assert list(csv.reader(io.StringIO(whole.decode(), newline=""))) == rows
    assert rest == b"x"


def test_line_breaks_of_any_kind_pass_through(models, tmp_path):
    """A field of three lines, each with another end, comes out with the same three."""
    note = "one\rtwo\r\nthree\nfour"
    (tmp_path / "rows.csv").write_bytes(f'note,x_0,x_1,x_2,x_3\r"{note}",1,2,3,4\rplain,1,2,3,4\r'.encode())
    score(models, tmp_path / "rows.csv", tmp_path / "out.jsonl")
    lines = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line["note"] for line in lines] == [note, "plain"]
    score(models, tmp_path / "rows.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == [note, "plain"]


def test_a_header_alone_has_no_rows(models, tmp_path):
    """A CSV file of a header, whatever its line end, is one of no rows."""
    for end in ("", "\n", "\r\n", "\r", "\n\n"):
        (tmp_path / "rows.csv").write_text(HEADER + end, newline="")
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        assert score(models, tmp_path / "rows.csv", tmp_path / "out.jsonl")["rows_in"] == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER.encode("utf-16"), "not CSV in UTF-8"),
        ((HEADER + "\n1,2,3,4,5\n").encode("utf-16-le"), "as UTF-16 does: save the file as UTF-8"),
        (HEADER.encode("utf-32"), "not CSV in UTF-8"),
        (b"\xef\xbb\xbf", "expected a header"),
        (b"\r\n\r\n", "expected a header"),
        (b'"' + b"x" * 200_000, "field larger than field limit"),
        (b"x" * 5_000_000, "no CSV header within 4194304 bytes"),
    ],
)
def test_headers_that_are_none(models, tmp_path, data, message):
    """A file that is no CSV in UTF-8 is refused by name, and as a whole."""
    (tmp_path / "rows.csv").write_bytes(data)
    with pytest.raises(errors.UnreadableInputError, match=message):
        score(models, tmp_path / "rows.csv", tmp_path / "out.jsonl")


BAD_CELLS = {
    2: ("1" + "0" * 309, "range of float32"),
    3: ("-1" + "0" * 400, "range of float32"),
    4: ("9" * 5000, "expected a number"),
    5: ("1e400", "outside the range of any type"),
    6: ("1e-9999999999999999999", None),
    7: ("1e999999999999999999999", "outside the range of any type"),
    8: ("1_000", "expected a number"),
    9: ("1e39", "range of float32"),
    10: ("0x10", "expected a number"),
    11: ("١٢", None),  # decimal digits all the same
    12: ("--1", "expected a number"),
    13: ("", "expected a number"),
}


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_cells_of_any_length_are_one_bad_row(tmp_path, quote, scheme):
    """A number that no type holds sinks its row and no other, in quotes or not."""
    models = make_store(tmp_path / "store", quantization={"scheme": scheme})
    lines = [HEADER, *(f"a,{quote}{cell}{quote},0,0,0" for cell, _ in BAD_CELLS.values()), "z,0,0,0,0"]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    summary = score(models, tmp_path / "rows.csv", tmp_path / "out.jsonl", tolerated_bad=1)
    wanted = {line: message for line, (_cell, message) in BAD_CELLS.items() if message}
    found = reasons(tmp_path / "out.jsonl")
    assert found.keys() == wanted.keys()
    assert all(wanted[line] in found[line] for line in wanted)
    assert summary["rows_out"] == len(BAD_CELLS) + 1 - len(wanted)
    assert max(map(len, found.values())) < 200


@pytest.mark.parametrize("name", ["dtype_int64", "dtype_uint64", "dtype_int8", "dtype_float16", "dtype_float64"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_numbers_beyond_every_type(tmp_path, name, ending):
    """Integers of 20, 310, 400 and 4,000 digits, and exponents as long, are bad rows; what the type holds is good."""
    models = make_store(tmp_path / "store", name)
    numbers = ["1" + "0" * (digits - 1) for digits in (310, 400, 4000, 5000)] + ["1e400", "-1e" + "9" * 30]
    numbers += [] if "float" in name else ["1" + "0" * 20, "-" + "9" * 40, "1.5"]
    rows = [["1", "0", "1"], *([number, "0", "1"] for number in numbers)]
    lines = ["x_0,x_1,x_2", *map(",".join, rows)] if ending == "csv" else [f"[{','.join(row)}]" for row in rows]
    path, output = tmp_path / f"rows.{ending}", tmp_path / "out.jsonl"
    path.write_text("\n".join(lines))
    job = Job(path.as_uri(), output.as_uri(), model=name, tolerated_bad=1)
    summary = run_job(job, models).summary
    assert (summary["rows_out"], summary["rows_bad"]) == (1, len(numbers)), reasons(output)


def test_bytes_that_are_not_utf8_are_a_bad_row(models, tmp_path):
    """They are not replaced in what passes through: an id that came out another would be somebody else's."""
    rows = b"\xff\xfe,1,2,3,4\nb,1,2,3,4\n"
    for data, bad in ((rows, {2}), (rows + b'"\xff",1,2,3,4\n', {2, 4})):
        (tmp_path / "rows.csv").write_bytes(HEADER.encode() + b"\n" + data)
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        score(models, tmp_path / "rows.csv", tmp_path / "out.jsonl", tolerated_bad=1)
        assert reasons(tmp_path / "out.jsonl") == dict.fromkeys(bad, "the line is not UTF-8")
        assert [line["id"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())] == ["b"]


NUMBERS = [
    *("123456789012345678901234567890", "-" + "9" * 40, "18446744073709551615", "18446744073709551616"),
    *("-9223372036854775809", "-0", "-0.0", "0", "19.90", "1E5", "1e+05", "1.0", "0.1000000000000000055"),
    *("1e-400", "3.141592653589793238462643383279"),
]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("shape", ["%s", "[1,%s]", '{"a":{"b":[%s]}}'])
def test_numbers_pass_through_as_they_came(models, tmp_path, output, shape):
    """An id of 30 digits, -0, 19.90 and 1E5 come out with the characters they came with, nested or not."""
    texts = [shape % number for number in NUMBERS]
    lines = [f'{{"id":{text},"x":[1, 2, -0, 0.5],"s":"é"}}' for text in texts]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    score(models, tmp_path / "rows.jsonl", tmp_path / output)
    wanted = [f'"id":{text},' for text in texts]
    if output.endswith(".csv"):
        with (tmp_path / output).open(newline="", encoding="utf-8") as file:
            found = [row["passthrough"] for row in csv.DictReader(file)]
    else:
        found = (tmp_path / output).read_text(encoding="utf-8").splitlines()
    assert len(found) == len(wanted)
    assert all(text in line and '"s":"é"' in line for text, line in zip(wanted, found, strict=True))


def test_csv_has_every_field_that_passes_through(models, tmp_path):
    """Also where one of them is named as the column that holds them all."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"x":[1,2,3,4],"passthrough":5,"id":7}\n')
    score(models, tmp_path / "rows.jsonl", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["passthrough"] for row in csv.DictReader(file)] == ['{"passthrough":5,"id":7}']


FIELDS = st.recursive(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xy"), inner, max_size=2)),
    max_leaves=6,
)


@settings(max_examples=100)
@example({"id": {"x": [[], 0.5, {}]}}, False)
@given(st.dictionaries(st.sampled_from(["x", "id", "[1]"]), FIELDS, min_size=1), st.booleans())
def test_what_is_read_again_is_the_same(fields, first):
    """Wherever the input stands, and whatever its name is nested in: each field has the value that `json` reads."""
    rest = {name: value for name, value in fields.items() if name != "x"}
    document = {"x": [1.5, 2], **rest} if first else {**rest, "x": [1.5, 2]}
    line = json.dumps(document).encode()
    again = Tokens("x").as_they_came(line, rest)
    assert json.loads(dump_fields(again)) == rest
    assert not any(type(value) is float for value in again.values())
    assert all(value in line.decode() for value in again.values() if isinstance(value, JsonNumber))


@pytest.mark.parametrize("depth", [100, 300, 900, 5000])
def test_fields_nested_too_deeply_are_a_bad_row(models, tmp_path, depth):
    """What could be read but not written sinks its row and no other."""
    deep = b"[" * depth + b"]" * depth
    (tmp_path / "rows.jsonl").write_bytes(b'{"x":[1,2,3,4],"deep":' + deep + b'}\n{"x":[1,2,3,4]}\n')
    summary = score(models, tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tolerated_bad=1)
    assert (summary["rows_out"], summary["rows_bad"]) == ((2, 0) if depth == 100 else (1, 1))
