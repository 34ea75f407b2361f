"""Formats of rows, in and out, through the whole engine: real files, a real model, every row accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from litelambda_serving.objects import to_url
from litelambda_serving.scoring import errors
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.running.engine import run_job
from support.scoring_files import as_jsonl, expected, make_rows, make_store, read_jsonl


@pytest.fixture
def models(tmp_path):
    return make_store(tmp_path / "store")


def score(models, path, output, *, model="tiny_int8", **options):
    """Run a job on local files; return its summary."""
    output_format = options.pop("output_format", output.suffix[1:])
    job = Job(to_url(str(path)), output.as_uri(), model=model, output_format=output_format, **options)
    return run_job(job, models).summary


def write(path, data: bytes):
    """Write a file, in gzip if its name says so."""
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def csv_of(rows, names) -> bytes:
    return "\n".join([",".join(names), *(",".join(map(repr, row)) for row in rows.tolist())]).encode() + b"\n"


def read_csv(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


NAMES = ["x_0", "x_1", "x_2", "x_3"]


@pytest.mark.parametrize("count", [1, 7, 200])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("rows.jsonl", as_jsonl),
        ("named.jsonl", lambda rows: as_jsonl(rows, "x")),
        ("rows.csv", lambda rows: csv_of(rows, NAMES)),
        ("rows.npy", npy),
        ("rows.npz", lambda rows: npz(x=rows)),
    ],
)
def test_every_input_format(models, tmp_path, count, ending, name, encode):
    """Whatever the format, gzipped or not, the predictions are those of the rows run one by one, bit for bit."""
    rows = make_rows(count)
    path = write(tmp_path / (name + ending), encode(rows))
    summary = score(models, path, tmp_path / "out.npy")
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (count, count, 0)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(rows))
    assert sum(summary["predictions"]["probabilities"]["classes"].values()) == count


def test_every_output_format(tmp_path):
    """JSON Lines, CSV and .npy hold the same predictions; the text formats have labels and the rows' addresses."""
    models = make_store(tmp_path / "store", labels=["a", "b", "c"])
    rows = make_rows(50)
    path = write(tmp_path / "rows.jsonl", as_jsonl(rows, "x", id=[f"r{index}" for index in range(50)]))
    wanted = expected(rows)
    for name in ("out.jsonl", "out.csv", "out.npy"):
        score(models, path, tmp_path / name)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)
    lines = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line["line"] for line in lines] == list(range(1, 51))
    assert [line["id"] for line in lines] == [f"r{index}" for index in range(50)]
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), wanted)
    assert [line["label"] for line in lines] == ["abc"[index] for index in wanted.argmax(axis=1)]
    table = read_csv(tmp_path / "out.csv")
    assert json.loads(table[3]["passthrough"]) == {"id": "r3"}
    assert float(table[3]["probabilities_1"]) == wanted[3, 1]


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv"])
def test_float32_predictions_have_the_shortest_digits(models, tmp_path, output):
    """Each number gives the model's float32, bit for bit, in the digits that numpy gives it."""
    rows = make_rows(100)
    score(models, write(tmp_path / "rows.npy", npy(rows)), tmp_path / output)
    if output.endswith("csv"):
        found = [[row[f"probabilities_{index}"] for index in range(3)] for row in read_csv(tmp_path / output)]
    else:
        lines = (tmp_path / output).read_bytes().splitlines()
        found = [json.loads(line, parse_float=str)["prediction"] for line in lines]
    wanted = expected(rows)
    assert np.array_equal(np.array(found, np.float32), wanted)
    assert [float(text) for row in found for text in row] == [float(str(value)) for value in wanted.ravel()]


def test_csv_passes_other_columns_through(models, tmp_path):
    """Columns that are no inputs come out again, quotes and line breaks inside them and all."""
    text = 'name,x_0,x_1,x_2,x_3,note\n"a ""b""",0.1,0.2,0.3,0.4,plain\nc,1,0,0,1e0,"two\nlines"\nd,0,0,0,0,\n'
    path = write(tmp_path / "rows.csv", text.encode())
    summary = score(models, path, tmp_path / "out.csv")
    assert summary["rows_out"] == 3
    table = read_csv(tmp_path / "out.csv")
    assert [(row["line"], row["name"], row["note"]) for row in table] == [
        ("2", 'a "b"', "plain"),
        ("3", "c", "two\nlines"),
        ("5", "d", ""),
    ]


def test_csv_without_names_of_inputs(models, tmp_path):
    """A model with one input takes the columns that do not pass through; which do is for the job to say."""
    rows = make_rows(9)
    path = write(
        tmp_path / "rows.csv", csv_of(np.hstack([rows, np.arange(9, dtype=np.float32)[:, None]]), [*"abcd", "id"])
    )
    with pytest.raises(errors.SchemaError, match="not those of the inputs"):
        score(models, path, tmp_path / "out.jsonl")
    score(models, path, tmp_path / "out.jsonl", passthrough=("id",))
    lines = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line["id"] for line in lines] == [f"{index}.0" for index in range(9)]
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(rows))


BAD_LINES = {
    2: (b"[0.1, 0.2, 0.3]", "Expecting tensor size: 4 but got: 3"),
    3: (b'[0.1, 0.2, 0.3, "x"]', 'JSON Value: "x" Type: String'),
    4: (b"{", "not JSON"),
    5: (b'{"y": [1, 2, 3, 4]}', "missing input x"),
    6: (b"[0.1, 0.2, 0.3, true]", "Type: Boolean"),
    7: (b"[0.1, 0.2, 0.3, NaN]", "not JSON"),
    8: (b"[1e39, 0, 0, 0]", "outside the range of float32"),
    9: (b"\xff\xfe", "not JSON"),
    10: (b"null", "expected"),
    11: (b"[" * 5000, "not JSON"),
}


def test_bad_lines_do_not_sink_the_file(models, tmp_path):
    """Each bad row is in errors.jsonl with its line and reason; all others are scored."""
    rows = make_rows(20)
    lines = as_jsonl(rows).splitlines()
    for number, (line, _) in BAD_LINES.items():
        lines[number - 1] = line
    path = write(tmp_path / "rows.jsonl", b"\n".join(lines))  # no newline at the end
    summary = score(models, path, tmp_path / "out.jsonl", tolerated_bad=0.5)
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (20, 10, 10)
    bad = read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())
    assert [row["line"] for row in bad] == list(BAD_LINES)
    for row in bad:
        assert BAD_LINES[row["line"]][1] in row["reason"]
    good = [line["line"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())]
    assert sorted([*good, *BAD_LINES]) == list(range(1, 21))


def test_bad_cells(tmp_path):
    """A CSV cell that is no number, or a record of another width, is a bad row."""
    models = make_store(tmp_path / "store", quantization={"scheme": "int8"})
    path = write(tmp_path / "rows.csv", b"x_0,x_1,x_2,x_3\n1,2,3\n1,2,3,four\n,1,2,3\n1,2,3,nan\n+1,.5,2.,007\r\n")
    summary = score(models, path, tmp_path / "out.jsonl", tolerated_bad=0.9)
    assert (summary["rows_out"], summary["rows_bad"]) == (1, 4)
    reasons = [row["reason"] for row in read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())]
    assert "3 columns, the header has 4" in reasons[0]
    assert "column 4 holds 'four', expected a number" in reasons[1]
    (line,) = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert line["line"] == 6
    np.testing.assert_array_equal(np.float32(line["prediction"]), expected(np.float32([[1, 0.5, 2, 7]]))[0])


def test_rows_that_a_quantized_model_cannot_take(tmp_path):
    """NaN rows of an array are reported, and all NaN in the output, so that the rows stay aligned."""
    models = make_store(tmp_path / "store", quantization={"scheme": "int8"})
    rows = make_rows(300)
    rows[[5, 250]] = np.nan
    rows[7, 2] = np.inf
    path = write(tmp_path / "rows.npy", npy(rows))
    summary = score(models, path, tmp_path / "out.npy", tolerated_bad=0.1)
    assert summary["rows_bad"] == 3
    assert [row["row"] for row in read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())] == [5, 7, 250]
    out = np.load(tmp_path / "out.npy")
    assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == [5, 7, 250]
    good = ~np.isnan(out).any(axis=1)
    np.testing.assert_array_equal(out[good], expected(rows[good]))


def test_integers_are_raw_values(tmp_path):
    """Integer arrays for a float input are scaled by the manifest's preprocessing; floats are taken as they are."""
    models = make_store(tmp_path / "store", preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
    pixels = np.random.default_rng(1).integers(0, 256, (40, 2, 2), np.uint8)
    path = write(tmp_path / "pixels.npy", npy(pixels))
    score(models, path, tmp_path / "out.npy")
    scaled = pixels.reshape(40, 4).astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(scaled))


def test_floats_for_a_raw_int8_model(tmp_path):
    """A model with int8 edges takes floats by its own scale, and gives its codes."""
    models = make_store(tmp_path / "store", "tiny_int8_raw")
    rows = make_rows(30)
    path = write(tmp_path / "rows.npy", npy(rows))
    score(models, path, tmp_path / "out.npy", model="tiny_int8_raw")
    codes = np.clip(np.rint(rows / 0.003910627216100693) - 128, -128, 127).astype(np.int8)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(codes, "tiny_int8_raw"))


def test_several_inputs_and_outputs(tmp_path):
    """A model with two inputs and outputs takes objects and .npz, and gives objects and named columns."""
    models = make_store(tmp_path / "store", "two_by_two")
    a, b = make_rows(12, 3), np.arange(12, dtype=np.int32)
    lines = b"".join(json.dumps({"a": x, "b": y}).encode() + b"\n" for x, y in zip(a.tolist(), b.tolist(), strict=True))
    write(tmp_path / "rows.jsonl", lines)
    write(tmp_path / "rows.npz", npz(a=a, b=b))
    write(tmp_path / "rows.csv", csv_of(np.hstack([a, b[:, None]]), ["a_0", "a_1", "a_2", "b"]).replace(b".0\n", b"\n"))
    results = []
    for name in ("rows.jsonl", "rows.npz", "rows.csv"):
        score(models, tmp_path / name, tmp_path / (name + ".jsonl"), model="two_by_two")
        results.append([line["prediction"] for line in read_jsonl((tmp_path / (name + ".jsonl")).read_bytes())])
    assert results[0] == results[1] == results[2]
    assert [each["twice"] for each in results[0]] == (b * 2).tolist()
    with pytest.raises(errors.JobError, match=r"a \.npy holds one"):
        score(models, tmp_path / "rows.jsonl", tmp_path / "out.npy", model="two_by_two")
    with pytest.raises(errors.SchemaError, match=r"send a \.npz"):
        score(models, write(tmp_path / "rows.npy", npy(a)), tmp_path / "x.jsonl", model="two_by_two")


def test_scalars(tmp_path):
    """A row may be a single number."""
    models = make_store(tmp_path / "store", "half_plus_two")
    path = write(tmp_path / "rows.jsonl", b"1.0\n5\n[1]\n")
    summary = score(models, path, tmp_path / "out.jsonl", model="half_plus_two", tolerated_bad=0.5)
    assert [line["prediction"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())] == [2.5, 4.5]
    assert summary["predictions"]["y"]["min"] == 2.5
    assert summary["predictions"]["y"]["sum"] == 7.0
    assert summary["rows_bad"] == 1


def picture(size, mode="L", kind="PNG", seed=0) -> bytes:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, kind)
    return stream.getvalue()


def test_a_prefix_of_images(tmp_path):
    """Every image below a folder is a row, named by its path; those that are none, or of another size, are bad rows."""
    models = make_store(tmp_path / "store", "dynamic_flatten", batching={"dynamic": False, "reason": "test"})
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for index in range(150):
        write(folder / "deep" / f"{index:03d}.png", picture((4, 4), seed=index))
    write(folder / "a.jpg", picture((4, 4), "RGB", "JPEG"))
    write(folder / "b.png.gz", picture((4, 4), seed=3))
    write(folder / "c.png", b"no image")
    write(folder / "d.png", picture((5, 4)))
    write(folder / "e.png", picture((4, 4))[:-30])
    write(folder / "notes.txt", b"ignored")
    summary = score(models, f"{folder}/", tmp_path / "out.jsonl", model="dynamic_flatten", tolerated_bad=0.1)
    assert (summary["rows_in"], summary["rows_bad"]) == (155, 3)
    bad = {row["file"]: row["reason"] for row in read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())}
    assert "expected PNG, JPEG, WebP, GIF or BMP" in bad["c.png"]
    assert "5 x 4 pixels, the model takes 4 x 4" in bad["d.png"]
    assert "truncated" in bad["e.png"]
    lines = {line["file"]: line["prediction"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())}
    assert lines["b.png.gz"] == lines["deep/003.png"]
    summary = score(
        models, f"{folder}/", tmp_path / "resized.csv", model="dynamic_flatten", tolerated_bad=0.1, resize=True
    )
    assert summary["rows_bad"] == 2


def test_one_image(tmp_path):
    """One image is a file with one row; its pixels are scaled by the manifest."""
    models = make_store(tmp_path / "store", preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
    write(tmp_path / "a.png", picture((2, 2), seed=5))
    score(models, tmp_path / "a.png", tmp_path / "out.npy")
    pixels = np.random.default_rng(5).integers(0, 256, (1, 4), np.uint8)
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), expected(pixels.astype(np.float32) * np.float32(1 / 255))
    )


@pytest.mark.parametrize(
    ("name", "data", "kind", "message"),
    [
        ("rows.txt", b"1", errors.UnreadableInputError, "no ending that names a format"),
        ("rows.npy", b"nonsense", errors.UnreadableInputError, r"not a \.npy array"),
        ("rows.npy", npy(make_rows(5, 3)), errors.SchemaError, "3 values instead of 4"),
        ("rows.npy", npy(np.asfortranarray(make_rows(5))), errors.SchemaError, "Fortran"),
        ("rows.npy", npy(make_rows(5))[:-4], errors.UnreadableInputError, "too short"),
        ("rows.npy.gz", npy(make_rows(5))[:-4], errors.UnreadableInputError, "too short"),
        ("rows.npy", npy(np.array(["a", "b"])), errors.UnreadableInputError, "expected numbers"),
        ("rows.npy", npy(np.float32(1)), errors.SchemaError, "single value"),
        ("rows.npz", b"nonsense", errors.UnreadableInputError, r"not a \.npz"),
        ("rows.npz", npz(y=make_rows(5), z=make_rows(5)), errors.SchemaError, "expected x"),
        ("rows.csv", b"", errors.UnreadableInputError, "expected a header"),
        ("rows.csv", b"x_0,x_0\n", errors.SchemaError, "twice"),
        ("rows.jsonl", b"", None, ""),
    ],
)
def test_inputs_that_cannot_be_scored(models, tmp_path, name, data, kind, message):
    """A file that is no such format, or made for another model, is refused as a whole; an empty one has no rows."""
    path = write(tmp_path / name, data)
    if kind is None:
        assert score(models, path, tmp_path / "out.jsonl")["rows_in"] == 0
        return
    with pytest.raises(kind, match=message):
        score(models, path, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("data", [b"nonsense", gzip.compress(as_jsonl(make_rows(2000)), mtime=0)[:-300]])
def test_damaged_gzip(models, tmp_path, data):
    """A gzip stream that is none, or cut short, is an unreadable input; nothing is left of its output."""
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(errors.UnreadableInputError, match="gzip"):
        score(models, path, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("padding", [0, 1, 37, 2000])
def test_gzip_of_several_members(models, tmp_path, monkeypatch, padding):
    """They are one stream, as gzip itself has it, whatever zeros are behind each, wherever a piece of it ends."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text._PACKED_BYTES", 100)
    rows = make_rows(10)
    members = [gzip.compress(line) + bytes(padding) for line in as_jsonl(rows).splitlines(keepends=True)]
    (tmp_path / "rows.jsonl.gz").write_bytes(b"".join(members))
    score(models, tmp_path / "rows.jsonl.gz", tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(rows))
