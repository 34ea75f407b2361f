"""Arrays of numbers written in C: what Python writes of the same values, to the byte, or left to Python."""

from __future__ import annotations

import os
import platform
from math import prod

import numpy as np
import pytest
from numpy.typing import NDArray

from litelambda_serving import json_codec, native
from litelambda_serving.json_codec import nest_texts, number_texts, pays_native
from litelambda_serving.native import array_text
from litelambda_serving.tensor import DTYPES, json_text

VALUES = 10 * int(os.environ.get("LITELAMBDA_DOCUMENTS", "20000"))
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]

pytestmark = pytest.mark.skipif(native._library is None, reason=f"nothing is compiled for {platform.machine()} here")


def check_floats(values: NDArray[np.float32]) -> None:
    text = array_text(values.tobytes(), "float32", values.shape, ",")
    assert text is not None
    texts = text.split(",")
    wanted = number_texts(values.tobytes(), "f")
    different = [(value, *both) for value, *both in zip(values, texts, wanted, strict=True) if both[0] != both[1]]
    assert not different, different[:5]


@pytest.mark.parametrize("kind", ["any bits", "probabilities", "integers", "binary fractions"])
def test_floats_are_written_as_python_writes_them(kind: str) -> None:
    """The fewest digits that give each float32 back, exponents and points where Python has them."""
    rng = np.random.default_rng(0)
    if kind == "any bits":
        values = rng.integers(0, 2**32, VALUES, np.uint32).view(np.float32)
    elif kind == "probabilities":
        values = rng.dirichlet(np.full(1000, 0.1), VALUES // 8000).astype(np.float32).ravel()
    elif kind == "integers":
        near = np.concatenate([np.arange(each - 9000, each + 9000, 3) for each in (10**6, 2**23, 10**7, 2**24)])
        values = np.concatenate([near, rng.integers(-(2**30), 2**30, 2000)]).astype(np.float32)
    else:
        values = (rng.integers(0, 2**24, 20_000) / 2.0 ** rng.integers(0, 24, 20_000)).astype(np.float32)
    check_floats(values)


def test_powers_and_their_neighbors() -> None:
    """Of two, below which floats lie closer together, and of ten, where a digit is carried."""
    powers = np.array([2.0**power for power in range(-149, 128)] + [10.0**power for power in range(-45, 39)])
    values = powers.astype(np.float32)
    for _ in range(3):
        values = np.concatenate([values, np.nextafter(values, np.float32(0)), np.nextafter(values, np.float32(3e38))])
    check_floats(np.unique(np.concatenate([values, -values, np.float32([0.0, -0.0, np.nan, np.inf, -np.inf])])))


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_integers_and_booleans(dtype: str) -> None:
    """From the least to the largest of each type."""
    if dtype == "bool":
        values = np.array([True, False, True])
    else:
        limits = np.iinfo(dtype)
        some = np.random.default_rng(0).integers(limits.min, limits.max, 500, dtype, endpoint=True)
        values = np.concatenate([some, np.array([limits.min, 0, 1, limits.max], dtype)])
    text = array_text(values.tobytes(), dtype, values.shape, ",")
    assert text == ",".join(number_texts(values.tobytes(), DTYPES[dtype].format))


@pytest.mark.parametrize(
    "shape", [(), (6,), (2, 3), (1, 2, 3), (3, 2, 1, 1), (2, 0), (0, 2), (2, 0, 3), (0,), (1,) * 20]
)
def test_arrays_are_nested_as_python_nests_them(shape: tuple[int, ...]) -> None:
    """Lists in lists, empty ones too, with what was asked for between the outermost entries."""
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32).tobytes()
    texts = nest_texts(number_texts(data, "f"), shape)
    for between in (",", "\n"):
        assert array_text(data, "float32", shape, between) == between.join(texts)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_are_written_too(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half floats as the float32 that they are, doubles in Python."""
    monkeypatch.setattr(json_codec, "_LOAD_BYTES", 0)
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(dtype)
    texts = nest_texts(number_texts(values.tobytes(), DTYPES[dtype].format), values.shape)
    assert pays_native(16 * prod(values.shape))
    assert json_text(values.tobytes(), DTYPES[dtype], values.shape) == ",".join(texts)


def test_without_a_compiled_file_python_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that nothing is compiled for, the text is the same; as it is for bytes that are too few."""
    data = np.arange(100, dtype=np.float32).tobytes()
    monkeypatch.setattr(json_codec, "_LOAD_BYTES", 0)
    expected = json_text(data, DTYPES["float32"], (10, 10))
    assert array_text(data[:-1], "float32", (10, 10), ",") is None
    monkeypatch.setattr(native, "_library", None)
    assert json_text(data, DTYPES["float32"], (10, 10)) == expected
    assert array_text(data, "float32", (10, 10), ",") is None
