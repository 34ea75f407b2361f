"""A model of every kind of layer, imported and served over HTTP: sequences, preprocessing and whole graphs."""

from __future__ import annotations

import pytest

from support.corpus import LAYER_CASES, check_layer

FAMILIES = ("sequences", "preprocessing", "whole graphs")
CASES = [name for name, case in LAYER_CASES.items() if case.family in FAMILIES]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_served_as_keras_predicts(tmp_path, served_store, name):
    """What is imported from a .keras file answers over HTTP as the untouched model does, or is refused by name."""
    check_layer(name, tmp_path, *served_store)
