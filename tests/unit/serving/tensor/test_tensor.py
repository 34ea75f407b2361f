"""Nested lists to bytes and back, and what is refused on the way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving.errors import TensorError
from litelambda_serving.tensor import DTYPES, DYNAMIC, TensorSpec, pack, row_count
from support.tensor_values import values_of

FLOATS = TensorSpec("x", DTYPES["float32"], (DYNAMIC, 2))
INTEGERS = TensorSpec("n", DTYPES["int8"], (DYNAMIC, 2))
BOOLEANS = TensorSpec("b", DTYPES["bool"], (DYNAMIC,))
SCALAR = TensorSpec("s", DTYPES["float64"], ())


def test_pack_is_row_major_little_endian():
    """Lists become the bytes that the runtime takes."""
    tensor = pack([[1, 2.5], [-1, 0]], FLOATS, (2, 2))
    assert tensor.data == struct.pack("<4f", 1, 2.5, -1, 0)
    assert tensor.shape == (2, 2)


def test_scalar_is_a_bare_value():
    """A tensor of rank 0 is written without brackets, both ways."""
    tensor = pack(3.5, SCALAR, ())
    assert values_of(tensor) == 3.5


@pytest.mark.parametrize("name", [name for name, dtype in DTYPES.items() if dtype.itemsize])
def test_itemsize_is_that_of_the_struct_format(name):
    """Every dtype's size in bytes is that of the struct code it is packed with."""
    assert struct.calcsize("<" + DTYPES[name].format) == DTYPES[name].itemsize


@pytest.mark.parametrize(
    ("values", "spec", "shape", "message"),
    [
        ([[1.0, 2.0], [3.0]], FLOATS, (2, 2), "Expecting tensor size: 2 but got: 1"),
        ([[1.0, 2.0, 3.0]], FLOATS, (1, 2), "Expecting tensor size: 2 but got: 3"),
        ([1.0, 2.0], FLOATS, (2, 2), "expected 2 dimensions .* got Number at depth 1"),
        ([[[1.0], [2.0]]], FLOATS, (1, 2), "JSON Value: … Type: Array is not of expected type: float32"),
        ([["a", "b"]], FLOATS, (1, 2), 'JSON Value: "a" Type: String is not of expected type: float32'),
        ([[None, 1.0]], FLOATS, (1, 2), "Type: Null is not of expected type: float32"),
        ([[True, 1.0]], FLOATS, (1, 2), "JSON Value: true Type: Boolean is not of expected type: float32"),
        ([[{"b64": ""}, 1.0]], FLOATS, (1, 2), "Type: Object is not of expected type: float32"),
        ([[1e300, 1.0]], FLOATS, (1, 2), "outside the range of float32"),
        ([[1.0, 2.0]], INTEGERS, (1, 2), "JSON Value: 1.0 Type: Number is not of expected type: int8"),
        ([[128, 0]], INTEGERS, (1, 2), "outside the range of int8"),
        ([1], BOOLEANS, (1,), "is not of expected type: bool"),
        ([10**400], TensorSpec("d", DTYPES["float64"], (DYNAMIC,)), (1,), "outside the range of float64"),
    ],
)
def test_pack_names_what_came_and_what_was_expected(values, spec, shape, message):
    """Ragged, wrongly shaped and wrongly typed values are refused in words a client can act on."""
    with pytest.raises(TensorError, match=message):
        pack(values, spec, shape)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_quantized_inputs_refuse_what_has_no_code(value):
    """NaN and infinities are taken by float models, and refused by graphs that quantize their input."""
    spec = TensorSpec("x", DTYPES["float32"], (DYNAMIC,), finite=True)
    with pytest.raises(TensorError, match="NaN or an infinity"):
        pack([0.0, value], spec, (2,))
    assert len(pack([0.0, value], TensorSpec("x", DTYPES["float32"], (DYNAMIC,)), (2,)).data) == 8


def test_deep_nesting_is_not_followed():
    """Lists nested ten thousand deep are refused at the depth of the shape, without recursion."""
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(TensorError):
        pack([[deep, deep]], FLOATS, (1, 2))


@pytest.mark.parametrize(("values", "message"), [([], "at least one row"), (3, "expected a list"), ({}, "Object")])
def test_row_count_wants_a_list_with_something_in_it(values, message):
    """The number of rows is that of a non-empty list."""
    with pytest.raises(TensorError, match=message):
        row_count(values)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
        lambda shape: st.tuples(
            st.just(tuple(shape)),
            st.sampled_from(["int16", "int64", "uint8", "float64"]),
            st.randoms(use_true_random=False),
        )
    )
)
def test_numpy_reads_what_pack_writes(case):
    """The bytes of any shape and dtype are those that numpy reads the same values from."""
    shape, name, random = case
    spec = TensorSpec("x", DTYPES[name], (DYNAMIC, *shape[1:]))

    def nested(dimensions):
        if not dimensions:
            return float(random.randint(0, 255)) if name == "float64" else random.randint(0, 255)
        return [nested(dimensions[1:]) for _ in range(dimensions[0])]

    values = nested(shape)
    assert values_of(pack(values, spec, shape)) == values
