from __future__ import annotations

import pytest

from litelambda_serving.preprocessing.base import Field
from litelambda_serving.preprocessing.cells import parse_cell, sniff


@pytest.mark.parametrize(
    ("lines", "delimiter", "decimal"),
    [
        (["a,b", "1.5,2"], ",", "."),
        (["a;b", "1,5;2,5"], ";", ","),
        (["a;b", "1.5;2,5"], ";", "."),
        (["a;b", "1;2"], ";", "."),
        (["a\tb", "1,5\t2"], "\t", ","),
        (["a|b|c", "x|1.5|2"], "|", "."),
        (["a", "1,5"], ",", "."),
        (['"a;b",c', "1,2"], ",", "."),
        (["a;b,c", "1;2,3", "4;5,6"], ",", "."),
        (["name;note", "x;one, two", "y;three"], ";", "."),
        (['a;"b', 'c";d', "1;2;3"], ";", "."),
        ([], ",", "."),
    ],
)
def test_the_dialect_is_found(lines: list[str], delimiter: str, decimal: str) -> None:
    """What separates cells makes rows as wide as the header; a comma is a decimal mark where it can be nothing else."""
    found = sniff(lines)
    assert (found.delimiter, found.decimal) == (delimiter, decimal)


def test_names_that_are_looked_for_decide() -> None:
    """A header that has the model's fields is read as it has them, however ragged its rows are."""
    lines = ["a,x;b,x;c", "1;2"]
    assert sniff(lines, names={"b,x", "c"}).delimiter == ";"
    assert sniff(lines, names={"x;b"}).delimiter == ","
    assert sniff(lines, delimiter="|").delimiter == "|"


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [("1,5", ",", 1.5), (" 2 ", ",", 2.0), ("-1,5e3", ",", -1500.0), ("NA", ",", None), ("?", ".", None)],
)
def test_numbers_are_read_with_their_decimal_mark(text: str, decimal: str, value: float | None) -> None:
    """A comma is a point where the file has decimal commas."""
    assert parse_cell(text, Field("a", "number"), decimal) == value


@pytest.mark.parametrize(
    ("text", "decimal", "said"),
    [
        ("1.234", ",", "'1.234' has a decimal point, in a file of decimal commas"),
        ("1,5", ".", "'1,5' is not a number"),
        ("1_000", ".", "'1_000' is not a number"),
        ("1e999", ".", "'1e999' is not a finite number"),
        ("inf", ".", "'inf' is not a finite number"),
    ],
)
def test_what_could_be_two_numbers_is_none(text: str, decimal: str, said: str) -> None:
    """A thousands separator is never taken for a decimal mark."""
    with pytest.raises(ValueError, match=r"number|point") as refused:
        parse_cell(text, Field("a", "number"), decimal)
    assert said in str(refused.value)
