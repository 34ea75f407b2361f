"""The JSON codec, held against the standard library's."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving import json_codec
from litelambda_serving.json_codec import dumps, loads, nest_texts, number_texts, pays_native
from litelambda_serving.tensor import DTYPES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_writes_what_json_writes(value):
    """Any value is written as `json.dumps` writes it without spaces."""
    assert dumps(value) == json.dumps(value, separators=(",", ":"))


@given(VALUES)
def test_reads_what_json_writes(value):
    """Any document of the standard library is read as it would read it, spaces around it included."""
    document = f" \n{json.dumps(value, indent=1)}\r\n"
    expected = json.loads(document)
    assert repr(loads(document)) == repr(expected)
    assert repr(loads(document.encode())) == repr(expected)


@given(st.text() | st.text(alphabet='{}[]",:0123456789eE+-. \ntrufalsn\\u'))
def test_refuses_what_json_refuses(text):
    """Every text is read alike, or refused by both."""
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            loads(text)
    else:
        assert repr(loads(text)) == repr(expected)


@pytest.mark.parametrize("document", [b"\xff", b"", b"  ", b"{} {}", b"[1,]"])
def test_bad_documents_are_value_errors(document):
    """What is not one JSON value in UTF-8 is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        loads(document)


def test_a_byte_order_mark_is_skipped():
    """Windows' tools put one before UTF-8; as `json.loads`, bytes may begin with it and text may not."""
    document = b'\xef\xbb\xbf {"a": "\xc3\xbc"}'
    for kind in (bytes, bytearray):
        assert loads(kind(document)) == json.loads(document) == {"a": "ü"}
    with pytest.raises(ValueError, match="Expecting value"):
        loads(document.decode())


def test_what_is_no_json_is_refused():
    """An object that JSON cannot hold is named by its type."""
    with pytest.raises(TypeError, match="a set cannot be written"):
        dumps({"a": {1}})


@pytest.mark.parametrize("document", ["[" * 100_000, '{"a":' * 100_000])
def test_deep_nesting_is_an_error_not_a_crash(document):
    """The C stack is guarded."""
    with pytest.raises((RecursionError, ValueError)):
        loads(document)


def test_a_circle_is_an_error_not_a_hang():
    """A list that holds itself ends in a RecursionError."""
    circle: list = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        dumps(circle)


def test_loads_neither_json_nor_re():
    """The point of it: reading and writing loads nothing but the C module."""
    script = "from litelambda_serving.json_codec import loads, dumps; dumps(loads('[1.5]')); print('re' in sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "False"


def digits(text):
    """How many digits a number needs."""
    return len(text.lower().partition("e")[0].replace("-", "").replace(".", "").strip("0"))


def float32_of_any_bits():
    """Values of every sign and exponent, and around the powers of two and ten, where rules change."""
    random = np.random.default_rng(3).integers(0, 2**32, 60_000, dtype=np.uint32).view(np.float32)
    tens = np.array([10.0**power for power in range(-45, 39)], np.float32)
    short = [float(f"{number}e{power}") for power in range(-40, 36) for number in (1, 3, 97, 999, 1.23456, 8.58998)]
    usual = np.random.default_rng(4).random(20_000, np.float32)
    near = [np.nextafter(tens, np.float32(0)), np.nextafter(tens, np.float32(1)), tens]
    found = np.concatenate([random, *near, np.array(short, np.float32), usual, np.arange(-300, 300, dtype=np.float32)])
    return found[np.isfinite(found)]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_float32_has_the_digits_that_numpy_gives_it(size):
    """The text gives the same float32, has as few digits as numpy's, and is a float to every reader."""
    json_codec._known.clear()
    values = float32_of_any_bits()
    values = values if size == 1000 else values[:: 100 // size + 40]
    texts = []
    for start in range(0, len(values), size):
        texts += number_texts(values[start : start + size].tobytes(), "f")
    assert np.array(texts, np.float32).tobytes() == values.tobytes()
    wanted = [np.format_float_scientific(value, unique=True, trim="-") for value in values]
    mantissas = np.frexp(values)[0]
    for text, other, mantissa in zip(texts, wanted, mantissas.tolist(), strict=True):
        assert digits(text) <= digits(other) + (abs(mantissa) == 0.5), (text, other)
        assert type(json.loads(text)) is float


def test_powers_of_two_are_read_back():
    """Below them, the next float32 is half as far away as above."""
    powers = np.array([sign * 2.0**power for power in range(-149, 128) for sign in (1, -1)], np.float32)
    around = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(1e30))])
    texts = number_texts(around.tobytes(), "f")
    assert np.array(texts, np.float32).tobytes() == around.tobytes()


def test_texts_are_the_same_when_they_are_known():
    """What was written before is written again, whatever else comes with it; -0 is not 0."""
    json_codec._known.clear()
    values = np.array([0.0003, -0.0, 0.0, np.nan, np.inf, -np.inf, 5.0, 1e-45, 16777217, 3.4e38, 1e7], np.float32)
    wanted = ["0.0003", "-0.0", "0.0", "NaN", "Infinity", "-Infinity", "5.0", "1e-45", "16777216.0", "3.4e+38", "1e+07"]
    for _ in range(2):
        assert number_texts(values.tobytes(), "f") == wanted
        for value, text in zip(values, wanted, strict=True):
            assert number_texts(value.tobytes(), "f") == [text]


def test_a_nan_of_any_bits_is_written():
    """A client's own NaN, passed through by a model, has bits that arithmetic never makes."""
    bits = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFE0000, 0xFFFFFFFF], "<u4")
    assert number_texts(bits.tobytes(), "f") == ["NaN"] * len(bits)


def test_a_large_answer_is_not_remembered():
    """One answer of more values than are kept leaves nothing behind."""
    json_codec._known.clear()
    number_texts(np.random.default_rng(0).random(json_codec._MAX_KNOWN + 1, np.float32).tobytes(), "f")
    assert not json_codec._known


def test_what_is_known_is_bounded(monkeypatch):
    """A model whose outputs never repeat fills no memory."""
    monkeypatch.setattr(json_codec, "_MAX_KNOWN", 100)
    monkeypatch.setattr(json_codec, "_MAX_RULES", 50)
    json_codec._known.clear()
    for start in range(0, 2000, 50):
        number_texts(np.random.default_rng(start).normal(size=50).astype(np.float32).tobytes(), "f")
        assert len(json_codec._known) <= 100
        assert len(json_codec._rules) <= max(50, 8192)
    assert len(json_codec._rules) <= 50


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("int64", [-(2**63), 0, 2**63 - 1]), ("bool", [True, False]), ("float64", [0.1, 1e300]), ("uint8", []),
     ("float16", [0.5, 65504.0, -2.0])],
)  # fmt: skip
def test_other_numbers_are_written_as_json_writes_them(dtype, values):
    """Integers, booleans and doubles keep their digits; no values are no texts."""
    data = np.array(values, dtype).tobytes()
    assert number_texts(data, DTYPES[dtype].format) == [json.dumps(value) for value in values]


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 2, 1, 1), (2, 0), (0, 2), (2, 0, 3)])
def test_texts_are_nested_as_their_array(shape):
    """The nested texts are `tolist` of the array, along its first dimension."""
    array = np.arange(np.prod(shape)).reshape(shape)
    rows = nest_texts([str(value) for value in array.ravel().tolist()], shape)
    assert [json.loads(row) for row in rows] == array.tolist()


def test_c_pays_for_much_at_once_and_for_little_often(monkeypatch):
    """A large document, or as much in smaller ones; what Python does as fast does not count."""
    monkeypatch.setattr(json_codec, "_done_bytes", 0)
    assert not any(pays_native(1000) for _ in range(1000))
    assert [pays_native(8_000) for _ in range(4)] == [False, False, True, True]
    assert not pays_native(1000)
    monkeypatch.setattr(json_codec, "_done_bytes", 0)
    assert pays_native(20_000)
