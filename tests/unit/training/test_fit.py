"""Fit: the order of rows, what happens to them on the way, and what keeps a model from learning them by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import RecipeError, TrainError
from litelambda.evaluation.evaluate import evaluate_float, trivial_metrics
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.training.fit import class_weights
from litelambda.training.input_pipeline import shuffled_batches
from support.data_recipe import write_recipe
from support.training import load_rows, train_recipe


def test_rows_come_in_another_order_every_epoch(tiny_recipe: Path) -> None:
    """Each epoch sees every row once, in an order of its own that the seed repeats."""
    settings = load_recipe(tiny_recipe).train
    rows = np.arange(100, dtype=np.float32)
    batches = shuffled_batches(rows, rows, settings)
    first, second = (np.concatenate([x.numpy() for x, _ in batches]) for _ in range(2))
    assert sorted(first) == sorted(second) == rows.tolist()
    assert not np.array_equal(first, second)
    again = np.concatenate([x.numpy() for x, _ in shuffled_batches(rows, rows, settings)])
    assert np.array_equal(first, again)


def test_augmented_rows_repeat_with_the_seed_and_differ_by_epoch(tiny_recipe: Path) -> None:
    """Noise, shifts and flips change rows, otherwise in every epoch, the same way for the same seed."""
    overrides = ["train.augmentation={flip_horizontal=true, shift=0.25, noise=0.01}", "train.batch_size=8"]
    settings = load_recipe(tiny_recipe, overrides).train
    rows = np.zeros((16, 8, 8, 1), np.float32)
    rows[:, 3:5, 1:3] = 1

    def epochs() -> list[np.ndarray[Any, Any]]:
        batches = shuffled_batches(rows, np.arange(16), settings)
        return [np.concatenate([x.numpy() for x, _ in batches]) for _ in range(2)]

    first, second = epochs()
    assert not np.array_equal(first, second)
    assert all(np.array_equal(a, b) for a, b in zip((first, second), epochs(), strict=True))
    places = {tuple(np.argwhere(image[:, :, 0] > 0.5)[0]) for image in first}
    assert len(places) > 5
    assert {int((image > 0.5).sum()) for image in first} <= {2, 4}  # two pixels wide, half of it may leave


def test_images_alone_can_be_shifted(tiny_recipe: Path) -> None:
    """A shift of rows of numbers is an error that says what to do."""
    settings = load_recipe(tiny_recipe, ["train.augmentation={shift=0.1}"]).train
    with pytest.raises(TrainError, match=r"train\.augmentation: shift need images"):
        shuffled_batches(np.zeros((4, 3), np.float32), np.zeros(4), settings)


def _augmented(recipe: Path, settings: str, rows: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> list[Any]:
    """The rows and the targets of an epoch with this augmentation, in the order of the first value of the targets."""
    train = load_recipe(recipe, [f"train.augmentation={{{settings}}}", "train.loss=categorical_crossentropy"]).train
    once, again = (
        [np.concatenate(parts) for parts in zip(*(map(np.asarray, batch) for batch in batches), strict=True)]
        for batches in (shuffled_batches(rows, targets, train), shuffled_batches(rows, targets, train))
    )
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    return once


def test_rotation_turns_around_the_middle(tiny_recipe: Path) -> None:
    """A cross stays where it is, its arms turn by up to the angle, and nothing is brighter than it was."""
    rows = np.zeros((64, 21, 21, 1), np.float32)
    rows[:, 10, :] = 1
    found, _ = _augmented(tiny_recipe, "rotation=45", rows, np.zeros((64, 1), np.float32))
    assert np.allclose(found[:, 10, 10], 1, atol=1e-4)
    assert found.max() <= 1 + 1e-5
    ends = found[:, :, 18, 0].argmax(axis=1) - 10  # of the right arm, which is 8 pixels from the middle
    angles = np.degrees(np.arctan2(ends, 8))
    assert np.abs(angles).max() <= 48
    assert angles.min() < -20
    assert angles.max() > 20


def test_a_crop_is_a_part_of_the_image(tiny_recipe: Path) -> None:
    """A slope from 0 to 1 is stretched: each image has a part of it, at least as long as the recipe says."""
    slope = np.linspace(0, 1, 33, dtype=np.float32)
    rows = np.broadcast_to(slope[:, None, None], (64, 33, 33, 1)).copy()
    found, _ = _augmented(tiny_recipe, "crop=0.5", rows, np.zeros((64, 1), np.float32))
    lengths = found[:, -1, 0, 0] - found[:, 0, 0, 0]
    assert lengths.min() >= 0.5 - 1e-5
    assert lengths.max() <= 1 + 1e-5
    assert np.ptp(lengths) > 0.3
    assert np.ptp(found[:, 0, 0, 0]) > 0.2
    assert np.allclose(np.diff(found[:, :, 0, 0], axis=1), lengths[:, None] / 32, atol=1e-5)


def test_brightness_is_one_number_for_a_row(tiny_recipe: Path) -> None:
    """All values of a row change alike, by no more than the recipe says, up or down."""
    found, _ = _augmented(tiny_recipe, "brightness=0.3", np.zeros((64, 5), np.float32), np.zeros((64, 1), np.float32))
    assert np.ptp(found, axis=1).max() == 0
    assert -0.3 <= found.min() < -0.1
    assert 0.1 < found.max() <= 0.3


def test_mixup_mixes_rows_and_targets_alike(tiny_recipe: Path) -> None:
    """A row of one class and one of another become a share of each, and so do their targets."""
    targets = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    found, mixed = _augmented(tiny_recipe, "mixup=0.4", targets * 5, targets)
    np.testing.assert_allclose(found, mixed * 5, atol=1e-5)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-5)
    assert (mixed.max(axis=1) < 0.95).any()
    assert ((mixed > 0.01).sum(axis=1) <= 2).all()


def test_mixup_needs_targets_that_can_be_mixed(tiny_recipe: Path) -> None:
    """Class numbers cannot: the recipe is refused with what to use."""
    with pytest.raises(RecipeError, match=r"train\.augmentation\.mixup: .*use 'categorical_crossentropy'"):
        load_recipe(tiny_recipe, ["train.augmentation={mixup=0.2}", "train.loss=sparse_categorical_crossentropy"])


def test_balanced_classes_have_the_same_weight(tiny_recipe: Path) -> None:
    """Rows of a rare class count for more, so that all classes sum to the same."""
    recipe = load_recipe(tiny_recipe, ["train.class_weights=balanced"])
    data = load_rows(recipe)
    weights = class_weights(recipe.train, data)
    assert weights is not None
    sums = [weights[number] * int((data.train.y == number).sum()) for number in range(3)]
    assert sums == pytest.approx([len(data.train) / 3] * 3)
    assert class_weights(load_recipe(tiny_recipe).train, data) is None


def test_classes_can_have_weights_of_their_own(tiny_recipe: Path) -> None:
    """Weights by name, 1 for the others; a name that no class has is refused."""
    data = load_rows(load_recipe(tiny_recipe))
    assert data.labels is not None
    weights = {data.labels[1]: 5.0}
    train = load_recipe(tiny_recipe).train.model_copy(update={"class_weights": weights})
    assert class_weights(train, data) == {0: 1.0, 1: 5.0, 2: 1.0}
    with pytest.raises(TrainError, match=r"train\.class_weights names x; the classes are"):
        class_weights(train.model_copy(update={"class_weights": {"x": 2.0}}), data)


def test_a_model_of_several_labels_learns_each(tmp_path: Path) -> None:
    """Two labels of unlike rules are learned at once: sigmoid outputs, one for each, as many as there are."""
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    np.savez(tmp_path / "set.npz", x=x, y=(x > [[0, 0.5]]).astype(int))
    section = 'format = "npz"\npath = "set.npz"\ntask = "multi_label"\nlabels = ["left", "top"]'
    recipe = load_recipe(
        write_recipe(tmp_path, section),
        ["train.loss=binary_crossentropy", "train.epochs=20", "train.optimizer={name='adam', learning_rate=0.05}"],
    )
    data = load_rows(recipe)
    trained = train_recipe(recipe, data)
    assert trained.model.outputs[0].shape == (None, 2)
    figures = evaluate_float(trained.model, data, from_logits=False).metrics
    assert figures["accuracy"] > 0.9
    assert figures["f1"] > 0.9 > trivial_metrics(data)["f1"]


def test_penalties_and_schedules_train(tiny_recipe: Path) -> None:
    """L1 and L2 are in the layers, a schedule lowers the rate, and none of the three is in the exported model."""
    overrides = ["model.l1=0.001", "model.l2=0.01", "train.epochs=2", "train.class_weights=balanced"]
    for schedule in ("exponential", "step"):
        recipe = load_recipe(tiny_recipe, [*overrides, f"train.schedule={schedule}", "train.augmentation={noise=0.01}"])
        trained = train_recipe(recipe)
        assert float(trained.model.optimizer.learning_rate) == pytest.approx(0.0001, rel=0.2)
    assert trained.model.get_layer("dense_1").kernel_regularizer.l2 == pytest.approx(0.01)
    assert not any("random" in type(layer).__name__.lower() for layer in trained.model.layers)


def test_a_step_is_traced_once(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow would trace it again if it created variables; the last batch of an epoch is smaller, and no reason."""
    model = load_keras().Model
    step, traced = model.train_step, []

    def counted(self: Any, data: Any) -> Any:
        traced.append(data)
        return step(self, data)

    monkeypatch.setattr(model, "train_step", counted)
    train_recipe(load_recipe(tiny_recipe, ["train.epochs=2"]))
    assert len(traced) == 1
