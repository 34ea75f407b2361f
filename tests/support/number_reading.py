"""A fixture for tests of requests: they run with all numbers read in C, and over ASGI, with all read in Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from litelambda_serving import json_codec, json_numbers
from support.handler_client import through_asgi


@pytest.fixture(scope="module", autouse=True, params=["in Python over ASGI", "in C"])
def number_reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """Answers must not depend on how a document's numbers are read, on its size, nor on what it came through."""
    over_asgi = request.param != "in C"
    with pytest.MonkeyPatch.context() as patch, through_asgi() if over_asgi else nullcontext():
        least = math.inf if over_asgi else 1
        for module, name in [
            (json_codec, "MIN_ARRAY_BYTES"),
            (json_numbers, "MIN_ARRAY_BYTES"),
            (json_numbers, "_MIN_BYTES"),
        ]:
            patch.setattr(module, name, least)
        yield
