"""Arrays of numbers read in C: what `json` and `struct` make of the same text, to the byte, or left to Python."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from litelambda_serving import json_codec, native
from litelambda_serving.native import NumberArray, loads_with_arrays
from litelambda_serving.tensor import DTYPES

READ = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DOCUMENTS = int(os.environ.get("LITELAMBDA_DOCUMENTS", "20000"))
EDGES = [
    *("0", "-0", "-0.0", "0.0", "0e5", "-0E-5", "1e400", "-1e400", "1e-400", "4.9e-324", "1.4e-45", "7e-46", "1E+2"),
    *("3.4028235e38", "3.4028236e38", "1.17549435e-38", "255", "256", "-128", "-129", "2147483648", "-2147483648"),
    *("18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "16777217"),
    "9007199254740993",
]
NOT_NUMBERS = ["01", "1.", ".5", "+1", "NaN", "Infinity", "true", "null", '"1"', "1 2", "--1", "1e", "", "[", "{}"]
DOCUMENT_FORMS = [
    '{{"instances": {}}}', '{{"b": 1, "inputs":{}, "c": "[1, 2]"}}', '{{"inputs": {{"x": {}}}}}',
    '{{"inputs": [{{"shape": [1], "data":{}}}]}}', '{{"a": {}}}',
]  # fmt: skip

pytestmark = pytest.mark.skipif(native._library is None, reason=f"nothing is compiled for {platform.machine()} here")


@pytest.fixture(autouse=True)
def every_array_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small documents are read in the same way as large ones."""
    monkeypatch.setattr(native, "_MIN_BYTES", 1)


def flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from flatten(each)
    else:
        yield value


def packed(values: list[Any], dtype: str) -> bytes | None:
    """What `json` and `struct` make of values; None where they cannot, or where not all results are finite."""
    kind = int if DTYPES[dtype].kind == "int" else (int, float)
    if not all(isinstance(value, kind) for value in values):
        return None
    try:
        data = struct.pack(f"<{len(values)}{DTYPES[dtype].format}", *values)
    except (struct.error, OverflowError):
        return None
    finite = DTYPES[dtype].kind == "int" or np.isfinite(np.frombuffer(data, dtype)).all()
    return data if finite else None


def array_of(document: str) -> NumberArray:
    fields = loads_with_arrays(f'{{"inputs": {document}}}'.encode())
    assert isinstance(fields["inputs"], NumberArray), document
    return fields["inputs"]


def check_numbers(texts: list[str]) -> None:
    """One flat array, as every type."""
    document = f"[{','.join(texts)}]"
    values = json.loads(document)
    array = array_of(document)
    for dtype in READ:
        read = array.read(dtype, (len(values),))
        expected = packed(values, dtype)
        assert read == expected, (dtype, document)


def between_floats(rng: random.Random) -> str:
    """The exact decimal between two float32, at times with a digit more at its end."""
    (low,) = struct.unpack("<f", struct.pack("<I", rng.getrandbits(31) & 0x7EFFFFFF | 0x00800000))
    (high,) = struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", low))[0] + 1))
    middle = (Fraction(low) + Fraction(high)) / 2
    shift = max(0, middle.denominator.bit_length() - 1)
    digits = str(middle.numerator * 5**shift)
    return f"{digits}{rng.choice(['', '0', '1'])}e-{shift}" if rng.random() < 0.5 else f"{digits}e-{shift}"


def some_number(rng: random.Random) -> str:
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(EDGES)
    if kind == 1:
        return between_floats(rng)
    if kind == 2:
        return repr(float(np.float32(rng.gauss(0, 1))))
    if kind == 3:
        return repr(rng.gauss(0, 10.0 ** rng.randint(-40, 40)))
    if kind == 4:
        return str(rng.randint(-(10 ** rng.randint(1, 25)), 10 ** rng.randint(1, 25)))
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 30)))
    text = rng.choice(["", "-"]) + (str(int(digits)) if rng.random() < 0.5 else rng.choice("0123456789"))
    if rng.random() < 0.7:
        text += "." + "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 25)))
    if rng.random() < 0.3:
        text += f"{rng.choice('eE')}{rng.choice(['', '+', '-'])}{rng.randint(0, 60)}"
    return text


def some_document(rng: random.Random, depth: int = 0) -> str:
    """Arrays of numbers, at times ragged, empty, holding something else, or not quite JSON."""
    if depth and (depth == 4 or rng.random() < 0.5):
        return rng.choice(NOT_NUMBERS) if rng.random() < 0.01 else some_number(rng)
    count = rng.randint(1, 3) if rng.random() < 0.99 else 0
    spaces = ["", "", "", " ", "\n\t", "\r"]
    inner = [rng.choice(spaces) + some_document(rng, depth + 1) + rng.choice(spaces) for _ in range(count)]
    return f"[{','.join(inner)}]"


def test_numbers_are_read_as_json_and_struct_read_them() -> None:
    """Every kind of number in every type; between two float32 too, where one rounding differs from two."""
    rng = random.Random(1)
    for _ in range(DOCUMENTS // 20):
        check_numbers([some_number(rng)])
    for _ in range(DOCUMENTS // 100):
        check_numbers([repr(rng.random()) for _ in range(5)])


def shape_of(value: Any) -> tuple[int, ...]:
    return (len(value), *shape_of(value[0])) if isinstance(value, list) and value else ()


def is_regular(value: Any, shape: tuple[int, ...]) -> bool:
    if not shape:
        return not isinstance(value, list)
    return isinstance(value, list) and len(value) == shape[0] and all(is_regular(each, shape[1:]) for each in value)


def test_documents_mean_what_they_mean_to_json() -> None:
    """Valid or not, regular or ragged: the same values, or the same refusal; and only a regular array is read."""
    rng, read = random.Random(2), 0
    for _ in range(DOCUMENTS):
        document = rng.choice(DOCUMENT_FORMS).format(some_document(rng))
        try:
            expected = json.loads(document)
        except ValueError:
            with pytest.raises(ValueError, match="char"):
                loads_with_arrays(document.encode())
            continue
        found = loads_with_arrays(document.encode())
        for array in arrays_in(found):
            check_array(array)
            read += 1
        assert json.dumps(resolved(found)) == json.dumps(expected), document
    assert read > DOCUMENTS / 3


def resolved(value: Any) -> Any:
    """A document with its lists."""
    if isinstance(value, NumberArray):
        return value.to_list()
    if isinstance(value, dict):
        return {name: resolved(each) for name, each in value.items()}
    return [resolved(each) for each in value] if isinstance(value, list) else value


def arrays_in(value: Any) -> Iterator[NumberArray]:
    if isinstance(value, NumberArray):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from arrays_in(each)


def check_array(array: NumberArray) -> None:
    """It is read in its own shape, and in no other."""
    plain = array.to_list()
    shape = shape_of(plain)
    assert len(array) == len(plain)
    assert array.is_flat is not isinstance(plain[0], list)
    expected = packed(list(flatten(plain)), "float64") if is_regular(plain, shape) else None
    assert array.read("float64", shape) == expected
    assert array.read("float64", (*shape[:-1], shape[-1] + 1)) is None


@pytest.mark.parametrize(
    "document",
    [
        r'{"x": "\"a\": [1, 2]", "a": null}',
        r'{"a\\": [1], "a": "\\"}',
        '{"p": {"q": {"a": [1, 2, 3]}}, "a": [4]}',
        '{"a": [1], "a": [2, 3]}',
        '{"a": [2, 3], "a": null}',
        '\ufeff{"a": [1, 2], "ä": "\U0001f600"}',
        '[{"inputs": [1]}]',
        '{"inputs": [1], "instances": {"a": [2]}, "parameters": {"shape": [3, 4]}, "b": [{"c": [5]}]}',
        '{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}',
        '{"inputs": {"x": [1, 2], "y": [[3]]}}',
        '{"a": [[]], "b": [[1], []]}',
        '{"a": [' * 20 + "1" + "]}" * 20,
        '{"a": ' + "[" * 17 + "1" + "]" * 17 + "}",
    ],
)
def test_places_and_strings_are_kept_apart(document: str) -> None:
    """What looks like an array in a string, comes twice, or lies where no tensor is, is what `json` says."""
    found = loads_with_arrays(document.encode())
    assert resolved(found) == json.loads(document.removeprefix("\ufeff"))


def test_many_arrays_and_a_claimed_shape() -> None:
    """Beyond 64 arrays Python reads all; a shape that the text cannot have asks for no memory."""
    document = json.dumps({f"a{index}": [index, 2] for index in range(70)}).encode()
    assert loads_with_arrays(document)["a69"] == [69, 2]
    assert array_of("[1, 2]").read("int8", (2**60,)) is None
    assert array_of("[1, 2]").read("float16", (2,)) is None
    assert array_of("[1, 2]").read("int8", ()) is None


@pytest.mark.parametrize(("scale", "offset"), [((1 / 255,), (0.0,)), ((0.1, 3.0), (-1.0,)), ((2.0,), (0.1, 0.2))])
def test_scaling_rounds_each_step(scale: tuple[float, ...], offset: tuple[float, ...]) -> None:
    """As numpy's float32: no fused multiply-add, no addition of zero, which would turn -0 into 0."""
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    values[:2] = -0.0
    data = bytearray(values.tobytes())
    assert array_of("[1]").scale(data, scale, offset)
    factors, terms = (np.resize(np.float32(each), 1000) for each in (scale, offset))
    expected = values * factors
    assert bytes(data) == (expected + terms if any(offset) else expected).tobytes()
    assert not array_of("[1]").scale(bytearray(np.float32([1e38]).tobytes()), (10.0,), (0.0,))


def test_without_a_compiled_file_python_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that nothing is compiled for, the result is the same."""
    monkeypatch.setattr(native, "_library", None)
    document = json.dumps({"a": [math.pi] * 3}).encode()
    assert loads_with_arrays(document) == json_codec.loads(document) == {"a": [math.pi] * 3}


@pytest.mark.parametrize("is_compiled", [True, False])
def test_what_is_not_finite_is_found(is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN and infinities at any place; not the largest numbers, wherever in a body they lie."""
    if not is_compiled:
        monkeypatch.setattr(native, "_library", None)
    values = np.full(1000, 3.4e38, np.float32)
    assert native.are_finite(memoryview(b"x" + values.tobytes())[1:].cast("f"))
    for place, value in [(0, np.nan), (999, np.inf), (500, -np.inf)]:
        spoiled = values.copy()
        spoiled[place] = value
        assert not native.are_finite(memoryview(spoiled))
