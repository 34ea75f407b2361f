"""A model of every kind of layer, imported and served over HTTP: sequences, preprocessing and whole graphs."""

from __future__ import annotations

import pytest

from corpus import LAYER_CASES, check_layer, serving

FAMILIES = ("sequences", "preprocessing", "whole graphs")
CASES = [name for name, case in LAYER_CASES.items() if case.family in FAMILIES]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A store, and the address of what serves it."""
    store = tmp_path_factory.mktemp("store")
    with serving(store) as address:
        yield store, address


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_served_as_keras_predicts(tmp_path, service, name):
    """What is imported from a .keras file answers over HTTP as the untouched model does, or is refused by name."""
    check_layer(name, tmp_path, *service)
