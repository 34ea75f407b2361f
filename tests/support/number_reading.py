"""A fixture for tests of requests: they run once with all numbers read in Python, and once with all read in C."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from litelambda_serving import json_codec, json_numbers


@pytest.fixture(scope="module", autouse=True, params=["in Python", "in C"])
def number_reading(request: pytest.FixtureRequest) -> Iterator[None]:
    """Answers must not depend on how a document's numbers are read, nor on its size."""
    with pytest.MonkeyPatch.context() as patch:
        least = math.inf if request.param == "in Python" else 1
        for module, name in [
            (json_codec, "MIN_ARRAY_BYTES"),
            (json_numbers, "MIN_ARRAY_BYTES"),
            (json_numbers, "_MIN_BYTES"),
        ]:
            patch.setattr(module, name, least)
        yield
