"""The native base64 decoder: binascii's strict results, and no two requests in one buffer."""

from __future__ import annotations

import base64
import binascii
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving.bodies import base64_codec
from litelambda_serving.bodies.base64_codec import decode


@given(st.binary(max_size=200))
def test_what_was_encoded_comes_back(data):
    """Any bytes, of any length."""
    assert bytes(decode(base64.b64encode(data).decode())) == data


def test_it_accepts_exactly_what_binascii_accepts():
    """Padding, white space and foreign characters are judged as by binascii in its strict mode."""
    chance = random.Random(0)
    for _ in range(20_000):
        text = "".join(chance.choice("ABab09+/= \n\t-_%é") for _ in range(chance.choice((0, 3, 4, 8))))
        try:
            expected = binascii.a2b_base64(text, strict_mode=True)
        except (binascii.Error, ValueError):
            with pytest.raises(binascii.Error):
                decode(text)
        else:
            assert bytes(decode(text)) == expected


def test_a_view_that_is_held_is_never_written_over():
    """The buffer is used again only when nobody reads it any more."""
    first = decode("A" * 400)
    second = decode("/" * 400)
    assert bytes(first) == bytes(300)
    assert bytes(second) == b"\xff" * 300
    del first, second
    held = decode("A" * 40)
    assert bytes(decode("////")) == b"\xff" * 3
    assert bytes(held) == bytes(30)


def test_without_libcrypto_binascii_does_it(monkeypatch):
    """A machine without the library answers the same."""
    monkeypatch.setattr(base64_codec, "_LIBRARIES", ("no-such-library.so",))
    monkeypatch.setattr(base64_codec, "_looked", False)
    monkeypatch.setattr(base64_codec, "_native", None)
    assert bytes(decode("QUJD")) == b"ABC"
    with pytest.raises(binascii.Error):
        decode("!")
