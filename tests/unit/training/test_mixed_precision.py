"""Precision and warm-up: how a model is trained, never what leaves training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import RecipeError
from litelambda.conversion.export import export
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda.recipe.load import load_recipe
from litelambda.training.learning_rate import learning_rate
from litelambda.training.mixed_precision import Precision, in_precision, with_loss_scaling
from litelambda.training.models import make_model
from litelambda.training.train import Trained
from support.training import load_rows, train_recipe


def run(path: Path, *overrides: str) -> Trained:
    """Train a recipe with one epoch unless told otherwise."""
    recipe = load_recipe(path, ["train.epochs=1", *overrides])
    return train_recipe(recipe)


def dtypes_of(model: Any, folder: Path) -> set[str]:
    """Names of the dtypes of all tensors in the graph that the converter is given."""
    tf = load_tensorflow()
    export(model, folder)
    loaded = tf.saved_model.load(str(folder))
    graph = loaded.signatures["predict"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {tf.as_dtype(each.type).name for node in nodes for each in node.attr.values() if each.type}


@pytest.fixture(scope="module")
def plain(module_tiny_recipe: Path) -> Trained:
    """The model that float32 makes of two epochs."""
    return run(module_tiny_recipe, "train.epochs=2")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_trained_in_16_bits_leaves_training_in_float32(
    tiny_recipe: Path, tmp_path: Path, plain: Trained, precision: str
) -> None:
    """It learns, with nearly the losses of float32; nothing of 16 bits is in the graph that is converted."""
    mixed = run(tiny_recipe, f"train.precision={precision}", "train.epochs=2")
    assert mixed.history["loss"][-1] < mixed.history["loss"][0]
    assert mixed.history["loss"] != plain.history["loss"]
    assert mixed.history["loss"] == pytest.approx(plain.history["loss"], rel=0.05)
    assert {layer.dtype_policy.name for layer in mixed.model.layers} == {"float32"}
    assert type(mixed.model.optimizer).__name__ == "Adam"
    assert {array.dtype for array in mixed.model.get_weights()} == {np.dtype(np.float32)}
    assert not {"half", "float16", "bfloat16"} & dtypes_of(mixed.model, tmp_path)


def test_layers_compute_in_16_bits_while_they_are_trained(tiny_recipe: Path) -> None:
    """All but the last; weights are float32, and start as those of a float32 model do."""
    recipe = load_recipe(tiny_recipe, ["train.precision=mixed_bfloat16"])
    data = load_rows(recipe)
    model = make_model(recipe.model, recipe.train, data, recipe.folder)
    assert [layer.compute_dtype for layer in model.layers] == ["bfloat16", "float32"]
    assert {array.dtype for array in model.get_weights()} == {np.dtype(np.float32)}
    rows = data.train.x[:2]
    assert model.layers[0](rows).dtype == load_tensorflow().bfloat16
    assert model(rows).dtype == load_tensorflow().float32
    again = in_precision(model, "float32")
    assert all(np.array_equal(*both) for both in zip(again.get_weights(), model.get_weights(), strict=True))


def test_float16_alone_scales_its_loss(tiny_model: Any) -> None:
    """What bfloat16 does not need, and float32 does not either."""
    optimizer = load_keras().optimizers.SGD()
    names: tuple[Precision, ...] = ("float32", "mixed_bfloat16", "mixed_float16")
    kept = [type(with_loss_scaling(optimizer, in_precision(tiny_model, name))).__name__ for name in names]
    assert kept == ["SGD", "SGD", "LossScaleOptimizer"]


@pytest.mark.parametrize(
    ("schedule", "later"),
    [
        ("constant", [1.0, 1.0, 1.0]),
        ("cosine", [1.0, 0.5, 0.0]),
        ("exponential", [1.0, 0.1, 0.01]),
        ("step", [1.0, 1.0, 0.01]),
    ],
)
def test_the_learning_rate_rises_before_any_schedule(schedule: Any, later: list[float]) -> None:
    """In equal steps to the recipe's own; then the schedule runs over what is left, from its beginning."""
    rate = learning_rate(1.0, schedule, num_steps=104, num_warmup_steps=4)
    assert [float(rate(step)) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [float(rate(step)) for step in (4, 54, 104)] == pytest.approx(later, abs=1e-6)


def test_warm_up_of_part_of_an_epoch_trains(tiny_recipe: Path, plain: Trained) -> None:
    """It changes what is learned first, and is no part of the optimizer that is saved with the model."""
    warmed = run(tiny_recipe, "train.warmup_epochs=0.5")
    assert warmed.history["loss"][0] > plain.history["loss"][0]
    assert float(warmed.model.optimizer.get_config()["learning_rate"]) == pytest.approx(0.01)
    both = run(tiny_recipe, "train.warmup_epochs=0.25", "train.schedule=cosine", "train.precision=mixed_bfloat16")
    assert np.isfinite(both.history["loss"]).all()


def test_a_warm_up_as_long_as_training_is_refused(tiny_recipe: Path) -> None:
    """The rate would never be what the recipe says."""
    with pytest.raises(RecipeError, match=r"train\.warmup_epochs: must be fewer than train\.epochs, 2"):
        load_recipe(tiny_recipe, ["train.epochs=2", "train.warmup_epochs=2"])
