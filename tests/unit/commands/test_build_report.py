"""What of the test rows goes into a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from litelambda.commands.build_report import describe_failures, describe_origin
from litelambda.data.dataset import load_data
from litelambda.evaluation.evaluate import Evaluated, FloatAnswers
from litelambda.recipe.load import load_recipe
from litelambda.recipe.sections import Publish


@pytest.mark.parametrize("shown", [0, 3, Publish(name="default").report_examples])
def test_the_recipe_says_how_many_rows_are_shown(tiny_recipe: Path, shown: int) -> None:
    """Twelve by default, none with 0."""
    recipe = load_recipe(tiny_recipe, [f"publish.report_examples={shown}"])
    data = load_data(recipe.data, recipe.folder)
    outputs = np.eye(3)[data.test.y]
    evaluated = Evaluated({}, None, {}, {}, None, 0.0, 0.0, len(data.test), outputs=outputs)
    found = describe_failures(recipe, data, FloatAnswers(outputs, {}, None), evaluated)
    assert (len(found["examples"]), len(found["typical"])) == (shown, min(shown, 3))
    assert "examples_left_out" not in found
    assert Publish(name="default").report_examples == 12


def test_the_report_of_an_encrypted_version_shows_no_rows(tiny_recipe: Path) -> None:
    """The report is not encrypted: it has the numbers of the worst rows, and why they are not shown."""
    recipe = load_recipe(tiny_recipe, ["publish.encrypt=key", "publish.report_examples=12"])
    data = load_data(recipe.data, recipe.folder)
    outputs = np.eye(3)[data.test.y]
    evaluated = Evaluated({}, None, {}, {}, None, 0.0, 0.0, len(data.test), outputs=outputs)
    found = describe_failures(recipe, data, FloatAnswers(outputs, {}, None), evaluated)
    assert found["examples"] == []
    assert len(found["worst_rows"]) == 12
    assert "the version is encrypted" in found["examples_left_out"]


def test_the_origin_names_version_data_and_tools(tiny_recipe: Path) -> None:
    """The rows of each split add up to those of the data set."""
    recipe = load_recipe(tiny_recipe)
    data = load_data(recipe.data, recipe.folder)
    found = describe_origin(recipe, data, b"artifact", 7)
    assert found["version"] == 7
    assert sum(found["data"]["rows"].values()) == 600
    assert found["data"]["files"][0]["file"] == "tiny.npz"
    assert {"litelambda", "keras", "numpy", "python"} <= found["tools"].keys()
