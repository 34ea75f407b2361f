"""The JSON codec, held against the standard library's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.json_codec import dumps, loads

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
    script = "from serving.json_codec import loads, dumps; dumps(loads('[1.5]')); print('re' in sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {script}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "False"
