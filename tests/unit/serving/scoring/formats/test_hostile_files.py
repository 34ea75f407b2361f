"""Damaged and hostile files: each is refused by name or costs the rows that it spoils, never a traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import zipfile
import zlib

import numpy as np
import pytest

from litelambda_serving.scoring import errors
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.running.engine import run_job
from support.scoring_files import expected, job_of, make_rows, make_store, read_jsonl

ROWS = make_rows(6)
GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), }"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def headed(header: str | bytes, version: bytes = b"\x01\x00", data: bytes = ROWS.tobytes()) -> bytes:
    """A .npy file with any header."""
    text = header if isinstance(header, bytes) else header.encode()
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text) + 1)
    return b"\x93NUMPY" + version + length + text + b"\n" + data


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def changed(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def directory(data: bytes) -> int:
    """Where a zip's directory begins."""
    return data.index(b"PK\x01\x02")


ARCHIVE = zipped({"x.npy": npy(ROWS)})
STORED = zipped({"x.npy": npy(ROWS)}, zipfile.ZIP_STORED)
BODY = 30 + len("x.npy")  # where the first member's data begins

NPY = {
    "empty": b"",
    "magic alone": b"\x93NUMPY",
    "no length": b"\x93NUMPY\x01\x00",
    "another version": headed(GOOD, b"\x09\x00"),
    "length beyond the file": b"\x93NUMPY\x01\x00\xff\xff{",
    "length of 4 GiB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "a call": headed("__import__('os').system('x')"),
    "an open bracket": headed("{'descr': '<f4', 'shape': (6, 4"),
    "an open string": headed("{'descr': '<f4"),
    "only brackets": headed("(" * 5000),
    "deep brackets": headed("(" * 300 + ")" * 300),
    "NUL": headed("\0" * 64),
    "not UTF-8": headed(b"{'descr': '\xff\xfe', 'fortran_order': False, 'shape': (6, 4), }", b"\x03\x00"),
    "a list": headed("[1, 2]"),
    "keys missing": headed("{'descr': '<f4', 'shape': (6, 4), }"),
    "a key too many": headed(GOOD[:-1] + "'x': 1, }"),
    "shape of text": headed(GOOD.replace("(6, 4)", "'64'")),
    "shape of floats": headed(GOOD.replace("(6, 4)", "(6.0, 4)")),
    "shape below zero": headed(GOOD.replace("(6, 4)", "(-6, 4)")),
    "two sizes below zero": headed(GOOD.replace("(6, 4)", "(6, -2, -2)")),
    "rows of 2**64 + 4 values": headed(GOOD.replace("(6, 4)", f"(6, {2**64 + 4})")),
    "sizes that are 4 modulo 2**64": headed(GOOD.replace("(6, 4)", f"(6, {2**33 * 5 + 4}, {2**31})")),
    "10**30 rows": headed(GOOD.replace("(6, 4)", f"({10**30}, 4)")),
    "a number of 5,000 digits": headed(GOOD.replace("(6, 4)", f"({'9' * 5000}, 4)")),
    "numbers of Python 2": headed(GOOD.replace("(6, 4)", "(6L, 5L)")),
    "an unknown dtype": headed(GOOD.replace("<f4", "<z9")),
    "a dtype of text": headed(GOOD.replace("'<f4'", "7")),
    "a dtype of 4 GB": headed(GOOD.replace("<f4", "|V4294967295")),
    "a structure": headed(GOOD.replace("'<f4'", "[('a', '<f4')]")),
    "dates": npy(np.zeros((6, 4), "datetime64[s]")),
    "complex numbers": npy(ROWS.astype(complex)),
    "Python objects": npy(np.array([[{}] * 4] * 6, object)),
    "a row too few": headed(GOOD)[:-16],
    "a byte too many": headed(GOOD) + b"\0",
    "two arrays": npy(ROWS) + npy(ROWS),
}
NPZ = {
    "empty": b"",
    "directory alone": ARCHIVE[directory(ARCHIVE) :],
    "cut": ARCHIVE[: len(ARCHIVE) // 2],
    "without its end": ARCHIVE[:-5],
    "no members": zipped({}),
    "a member that is none": zipped({"x.npy": b"nonsense"}),
    "a member of nothing": zipped({"x.npy": b""}),
    "a member cut short": zipped({"x.npy": npy(ROWS)[:-7]}),
    "a member too long": zipped({"x.npy": npy(ROWS) + b"1"}),
    "a .npy": npy(ROWS),
    "a broken block": changed(ARCHIVE, BODY, b"\xff\xff\xff\xff"),
    "broken inside": changed(ARCHIVE, BODY + 60, b"\0\0\0\0\0\0"),
    "another checksum": changed(STORED, directory(STORED) + 16, b"\1\2\3\4"),
    "another byte": changed(STORED, directory(STORED) - 3, b"\7"),
    "a method that is none": changed(changed(ARCHIVE, 8, b"\x63\0"), directory(ARCHIVE) + 10, b"\x63\0"),
    "encrypted": changed(changed(ARCHIVE, 6, b"\1"), directory(ARCHIVE) + 8, b"\1"),
    "zip of the future": changed(ARCHIVE, directory(ARCHIVE) + 6, b"\xff\0"),
    "a name that is not UTF-8": changed(
        changed(ARCHIVE, directory(ARCHIVE) + 9, b"\x08"), directory(ARCHIVE) + 46, b"\xff"
    ),
    "a member beyond the file": changed(ARCHIVE, directory(ARCHIVE) + 42, b"\xff\xff\xff\x0f"),
    "4 GB promised": changed(ARCHIVE, directory(ARCHIVE) + 20, b"\xff\xff\xff\x7f" * 2),
    "bzip2 that is none": changed(z := zipped({"x.npy": npy(ROWS)}, zipfile.ZIP_BZIP2), BODY + 12, b"\1" * 9),
    "lzma that is none": changed(zipped({"x.npy": npy(ROWS)}, zipfile.ZIP_LZMA), BODY + 2, b"\xff" * 12),
    "ten thousand members": zipped({f"a{number}.npy": b"" for number in range(10_000)}),
    "the arrays of another model": zipped({"a.npy": npy(ROWS), "b.npy": npy(ROWS)}),
    "Python objects": zipped({"x.npy": npy(np.array([[None] * 4], object))}),
}
GZIP = {
    "empty": b"",
    "header alone": gzip.compress(b"")[:10],
    "zlib": zlib.compress(npy(ROWS)),
    "bzip2": bz2.compress(npy(ROWS)),
    "xz": lzma.compress(npy(ROWS)),
    "another checksum": changed(gzip.compress(npy(ROWS)), len(gzip.compress(npy(ROWS))) - 8, b"\1\2\3\4"),
    "another length": gzip.compress(npy(ROWS))[:-4] + b"\1\2\3\4",
    "second member cut": gzip.compress(npy(ROWS)[:100]) + gzip.compress(npy(ROWS)[100:])[:-9],
    "garbage behind": gzip.compress(npy(ROWS)) + b"garbage",
    "a gigabyte of zeros behind": gzip.compress(npy(ROWS)) + gzip.compress(bytes(2**20)) * 1024,
    "not a .npy": gzip.compress(b"nonsense"),
    "in gzip twice": gzip.compress(gzip.compress(npy(ROWS))),
}
FILES = {
    **{("rows.npy", name): data for name, data in NPY.items()},
    **{("rows.npz", name): data for name, data in NPZ.items()},
    **{("rows.npy.gz", name): data for name, data in GZIP.items()},
    **{("rows.npz.gz", name): gzip.compress(NPZ[name]) for name in ("cut", "broken inside", "another byte")},
}


@pytest.mark.parametrize(("name", "what"), FILES)
def test_each_is_refused_by_name(models, tmp_path, name, what):
    """A file that is not what its format says is unreadable, or not made for the model; nothing of it is left."""
    path = tmp_path / name
    path.write_bytes(FILES[name, what])
    with pytest.raises((errors.UnreadableInputError, errors.SchemaError)) as caught:
        run_job(job_of(path, tmp_path / "out.jsonl", tolerated_bad=1), models)
    assert 10 < len(str(caught.value)) < 500
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_what_the_mutants_come_from_is_good(models, tmp_path):
    """Unchanged, the same files are scored: it is the damage that is refused, in whatever member a gzip has it."""
    two = gzip.compress(npy(ROWS)[:5]) + gzip.compress(npy(ROWS)[5:])
    for name, data in (
        ("a.npy", headed(GOOD)), ("b.npy", headed(GOOD, b"\x03\x00")), ("c.npy.gz", two), ("d.npz", ARCHIVE),
        ("e.npz", STORED), ("f.npz", z), ("g.npz.gz", gzip.compress(ARCHIVE)),
        ("h.npy", headed(GOOD.replace("(6, 4)", "(6L, 4L)"))),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        run_job(job_of(tmp_path / name, tmp_path / f"{name}.out.npy"), models)
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.out.npy"), expected(ROWS))


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "rows.npy.gz", "rows.npz.gz", "rows.csv", "rows.jsonl"])
def test_flipped_bits(models, tmp_path, name):
    """Whatever a few flipped bits make of a file, it is scored, or refused with an error of its own."""
    text = b"\n".join(b",".join(b"%r" % value for value in row) for row in ROWS.tolist())
    good = {"npy": npy(ROWS), "npz": ARCHIVE, "csv": b"x_0,x_1,x_2,x_3\n" + text, "jsonl": b"[1,2,3,4]\n" * 6}
    data = good[name.split(".")[1]]
    data = gzip.compress(data, mtime=0) if name.endswith(".gz") else data
    chance = random.Random(7)
    ended = set()
    for _ in range(60):
        mutant = bytearray(data)
        for _flip in range(chance.choice((1, 1, 3))):
            mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
        (tmp_path / name).write_bytes(mutant)
        try:
            run_job(job_of(tmp_path / name, tmp_path / "out.jsonl", tolerated_bad=1), models)
            ended.add("scored")
        except errors.InputError:
            ended.add("refused")
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
    assert ended == {"scored", "refused"} or name.endswith(("csv", "jsonl", "gz"))


BIG, TOO_BIG = 3.4e38, 1e39


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "rows.npy.gz"])
@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2"])
@pytest.mark.parametrize("scheme", ["int8", "float32"])
def test_what_is_not_finite_or_out_of_range(tmp_path, name, dtype, scheme):
    """NaN is a bad row where the model is quantized, a value beyond float32 is one for every model, as in text."""
    models = make_store(tmp_path / "store", quantization={"scheme": scheme})
    rows = make_rows(5).astype(dtype)
    rows[1, 2] = np.nan
    wanted = {1: "NaN or an infinity"} if scheme == "int8" else {}
    if rows.dtype.itemsize == 8:
        rows[3, 0], rows[4, 0] = TOO_BIG, BIG
        wanted[3] = "outside the range of float32"
    data = npy(rows) if "npy" in name else zipped({"x.npy": npy(rows)})
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    summary = run_job(job_of(tmp_path / name, tmp_path / "out.jsonl", tolerated_bad=1), models).summary
    assert summary["rows_bad"] == len(wanted)
    if wanted:
        bad = read_jsonl((tmp_path / "out.errors.jsonl").read_bytes())
        assert [row["row"] for row in bad] == list(wanted)
        assert all(wanted[row["row"]] in row["reason"] for row in bad)
    good = [row for row in range(5) if row not in wanted]
    assert [line["row"] for line in read_jsonl((tmp_path / "out.jsonl").read_bytes())] == good


def bad_rows(tmp_path, model, array, **fields):
    """The reasons of the bad rows of an array, by row."""
    models = make_store(tmp_path / "store", model, **fields)
    (tmp_path / "rows.npy").write_bytes(npy(array))
    output = tmp_path / "out.jsonl"
    run_job(Job((tmp_path / "rows.npy").as_uri(), output.as_uri(), model=model, tolerated_bad=1), models)
    report = tmp_path / "out.errors.jsonl"
    return {row["row"]: row["reason"] for row in read_jsonl(report.read_bytes())} if report.exists() else {}


def test_nan_has_no_code(tmp_path):
    """A model with int8 edges has no code for NaN: it was the code of zero."""
    rows = make_rows(4)
    rows[2, 1] = np.nan
    assert list(bad_rows(tmp_path, "tiny_int8_raw", rows)) == [2]


@pytest.mark.parametrize(
    ("model", "dtype", "values", "bad"),
    [
        ("dtype_int32", "int64", [1, 2**31 - 1, 2**31, -(2**31) - 1, -1], [2, 3]),
        ("dtype_uint64", "int64", [0, 5, -1], [2]),
        ("dtype_int64", "uint64", [0, 2**63 - 1, 2**63, 2**64 - 1], [2, 3]),
        ("dtype_uint8", "int16", [255, 256, -1], [1, 2]),
        ("dtype_int64", "int8", [-128, 127], []),
        ("dtype_float16", "float32", [65504, 65519, 65520, -1e9], [2, 3]),
    ],
)
def test_numbers_of_another_type(tmp_path, model, dtype, values, bad):
    """An array of wider numbers is taken; rows with one that the model's type does not hold are bad."""
    rows = np.zeros((len(values), 3), dtype)
    rows[:, 1] = values
    found = bad_rows(tmp_path, model, rows)
    assert list(found) == bad
    assert all(reason == f"a value is outside the range of {model[6:]}" for reason in found.values())


def test_bools_are_zero_or_one(tmp_path):
    """Any other byte would be run as it is: behind an array of bool there can be one."""
    rows = np.array([[0, 1, 1], [0, 2, 1], [255, 0, 0]], np.uint8).view(bool)
    assert bad_rows(tmp_path, "dtype_bool", rows) == dict.fromkeys([1, 2], "a byte of a bool is neither 0 nor 1")
