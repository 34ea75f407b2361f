"""A fixture for tests of requests: they run with all numbers read and written in C, and over ASGI, all in Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from litelambda_serving import json_codec, native
from support.handler_client import through_asgi


@pytest.fixture(scope="module", autouse=True, params=["in Python over ASGI", "in C"])
def number_reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """Answers must not depend on how numbers are read and written, how many there are, nor what they came through."""
    over_asgi = request.param != "in C"
    with pytest.MonkeyPatch.context() as patch, through_asgi() if over_asgi else nullcontext():
        least = math.inf if over_asgi else 0
        for module, name in [(json_codec, "_MIN_NATIVE_BYTES"), (json_codec, "_LOAD_BYTES"), (native, "_MIN_BYTES")]:
            patch.setattr(module, name, least)
        yield
