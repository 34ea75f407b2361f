"""Base64 decoded in C: binascii's strict results and errors."""

from __future__ import annotations

import base64
import binascii
import platform
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import Buffer

from litelambda_serving import native
from litelambda_serving.native import decode_base64


def outcome(decode: Callable[[str], Buffer], text: str) -> bytes | tuple[type, str]:
    try:
        return bytes(decode(text))
    except ValueError as error:
        return type(error), str(error)


@given(st.binary(max_size=200))
def test_what_was_encoded_comes_back(data: bytes) -> None:
    """Any bytes, of any length, from text and from bytes."""
    text = base64.b64encode(data)
    assert bytes(decode_base64(text.decode())) == bytes(decode_base64(bytearray(text))) == data


@pytest.mark.parametrize("is_compiled", [True, False])
def test_it_accepts_exactly_what_binascii_accepts(is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding, white space and foreign characters are judged as by binascii in its strict mode."""
    if is_compiled and native._library is None:
        pytest.skip(f"nothing is compiled for {platform.machine()} here")
    if not is_compiled:
        monkeypatch.setattr(native, "_library", None)
    chance = random.Random(0)
    for _ in range(20_000 if is_compiled else 1):
        text = "".join(chance.choice("ABab09+/= \n\t-_%é\0") for _ in range(chance.choice((0, 3, 4, 8))))
        assert outcome(decode_base64, text) == outcome(lambda each: binascii.a2b_base64(each, strict_mode=True), text)
