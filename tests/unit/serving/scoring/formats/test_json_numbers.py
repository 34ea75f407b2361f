"""Numbers read without objects: whatever the lines hold, rows and reasons are those of the other parser."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving.scoring.columns import row_bytes
from litelambda_serving.scoring.formats.base import Chunk, DecodedRows, RowSchema
from litelambda_serving.scoring.formats.json_numbers import JsonNumbers
from litelambda_serving.scoring.formats.jsonl import JsonlDecoder
from litelambda_serving.tensor import DTYPES, TensorSpec

OUTPUT = TensorSpec("y", DTYPES["float32"], (-1, 2), None)


def model_of(dtype: str, shape: tuple[int, ...]) -> RowSchema:
    return RowSchema((TensorSpec("x", DTYPES[dtype], (-1, *shape), None),), (OUTPUT,), {}, None, 1)


def decoded(rows: DecodedRows, model: RowSchema) -> tuple[object, ...]:
    """All that a decoder says of a chunk."""
    ((count, (fill,)),) = rows.pieces
    bad = [(each.id, each.reason, each.index) for each in rows.bad]
    data = bytearray(count * row_bytes(model.inputs[0]))
    fill(memoryview(data), 0)
    return count, bytes(data), list(rows.ids), rows.extras, bad


def both_ways(lines: bytes, model: RowSchema, passthrough=None) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """A chunk decoded with the fast reader, and without."""
    decoder = JsonlDecoder(model, passthrough)
    chunk = Chunk(lines, 1, {}, 0)
    fast = decoder._decode(chunk, decoder._numbers) or decoder._decode(chunk, None)
    return decoded(fast, model), decoded(decoder._decode(chunk, None), model)


def values(shape: tuple[int, ...]) -> st.SearchStrategy[object]:
    """JSON values that are mostly of a shape."""
    number = st.one_of(
        st.integers(-300, 300),
        st.integers(),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        st.floats(),
        st.sampled_from([0, -0.0, 1e39, 2**63, 2**64, 2**53 + 1, True, None, "1", [], [1], {}]),
    )
    rows = number if not shape else st.lists(values(shape[1:]), min_size=shape[0], max_size=shape[0])
    return st.one_of(rows, rows, rows, st.lists(number, max_size=4)) if shape else rows


def lines_of(shape: tuple[int, ...]) -> st.SearchStrategy[bytes]:
    value = values(shape)
    others = st.dictionaries(st.sampled_from(["id", "x", "list", "[1,2]"]), st.one_of(st.text(), value), max_size=2)
    documents = st.one_of(value, value, st.builds(lambda x, more: {**more, "x": x}, value, others), others)
    texts = documents.map(lambda document: json.dumps(document).encode())
    odd = st.sampled_from(
        [b"", b"  ", b" [1,2]", b"[1,2]\r", b"[1,2", b"3]", b"[1],[2]", b"[01,2]", b"[1,2,]", b"[1,2]x", b"\xff",
         b'{"x":[1,2],"x":[3,4]}', b"[-0,1E2]", b"[1e400,1]", b"[NaN,1]", b"[[1,2],[]]", b"\xef\xbb\xbf[1,2]",
         b'{"x":[1,2],"note":"["}', b'{"x":[1,2],"more":[3]}', b"[1,\t2 ]"]
    )  # fmt: skip
    return st.lists(st.one_of(texts, texts, odd), max_size=8).map(b"\n".join)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 2)])
@given(data=st.data())
def test_agrees_with_the_other_parser(dtype, shape, data):
    """Bytes, line numbers, what passes through and why a row is bad are the same, for any lines and any dtype."""
    fast, slow = both_ways(data.draw(lines_of(shape)), model_of(dtype, shape))
    assert fast == slow


@pytest.mark.parametrize(
    ("shape", "name"), [((784,), None), ((784,), "x"), ((28, 28, 1), None), ((28, 28, 1), "x"), ((1,), None)]
)
def test_good_rows_are_read_without_objects(monkeypatch, shape, name):
    """Rows of the model's shape never reach the parser that makes objects, alone or as a long object's member."""
    model = model_of("float32", shape)
    rows = np.random.default_rng(0).random((50, *shape), dtype=np.float32)
    documents = [row if name is None else {"id": index, name: row} for index, row in enumerate(rows.tolist())]
    lines = b"\n".join(json.dumps(document).encode() for document in documents)
    monkeypatch.setattr(JsonlDecoder, "_pack_line", None)
    count, data, ids, extras, bad = decoded(JsonlDecoder(model, None).decode(Chunk(lines, 1, {}, 0)), model)
    assert (count, ids, bad) == (50, list(range(1, 51)), [])
    assert data == rows.tobytes()
    assert extras == (None if name is None else [{"id": index} for index in range(50)])


def test_a_ragged_row_among_good_ones_is_the_only_bad_one():
    """Two rows whose numbers add up to two good ones are bad, and only these."""
    lines = b"[1,2]\n[3]\n[4,5,6]\n[7,8]"
    count, _data, ids, _extras, bad = both_ways(lines, model_of("float32", (2,)))[0]
    assert (count, ids, [each[0] for each in bad]) == (2, [1, 4], [2, 3])


def test_is_pickled_on_its_way_to_a_worker():
    """What a worker process gets reads as the original does."""
    numbers = pickle.loads(pickle.dumps(JsonNumbers(model_of("float32", (2,)).inputs[0])))
    read = numbers.read(b"[1.5,2]")
    assert read is not None
    assert np.frombuffer(read[0]).tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("dtype", "shape", "readable"),
    [("float32", (3,), True), ("uint64", (3,), False), ("bool", (3,), False), ("float32", (), False)],
)
def test_says_which_inputs_it_reads(dtype, shape, readable):
    """Values beyond the parser's own types, booleans and single values are left to the other parser."""
    (spec,) = model_of(dtype, shape).inputs
    assert JsonNumbers.can_read(spec) is readable
