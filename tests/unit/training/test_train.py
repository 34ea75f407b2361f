"""Train: models from every source, every optimizer and loss, and what stops training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import TrainError
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import Recipe, load_recipe
from litelambda.training.train import Trained
from support.training import load_rows, train_recipe


def run(path: Path, *overrides: str) -> Trained:
    """Train a recipe with one epoch unless told otherwise."""
    recipe = load_recipe(path, ["train.epochs=1", *overrides])
    return train_recipe(recipe)


def weights(trained: Trained) -> Any:
    """All weights in one vector."""
    return np.concatenate([array.ravel() for array in trained.model.get_weights()])


@pytest.fixture
def regression(tmp_path: Path) -> Path:
    """A recipe for y = x0 - x1."""
    x = np.random.default_rng(0).random((200, 2))
    np.savez(tmp_path / "line.npz", x=x, y=x[:, 0] - x[:, 1])
    (tmp_path / "line.toml").write_text(
        '[model]\nbuilder = "mlp"\nhidden = [8]\n[data]\nformat = "npz"\npath = "line.npz"\ntask = "regression"\n'
        '[train]\nloss = "mse"\noptimizer = { name = "adam", learning_rate = 0.02 }\n[publish]\nname = "line"\n'
    )
    return tmp_path / "line.toml"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A recipe for a small CNN on 8 x 8 pictures that are bright at the left or at the right."""
    y = np.arange(120) % 2
    x = np.random.default_rng(0).integers(0, 50, (120, 8, 8, 1), dtype=np.uint8)
    x[y == 1, :, 4:] += 200
    x[y == 0, :, :4] += 200
    np.savez(tmp_path / "sides.npz", x=x, y=y)
    (tmp_path / "sides.toml").write_text(
        '[model]\nbuilder = "cnn"\nfilters = [4, 4]\ndense = [8]\ndropout = 0.1\nbatch_norm = true\n'
        '[data]\nformat = "npz"\npath = "sides.npz"\nnormalize = "0-1"\n'
        '[train]\nloss = "sparse_categorical_crossentropy"\n'
        'optimizer = { name = "adam", learning_rate = 0.02 }\n'
        '[publish]\nname = "sides"\n'
    )
    return tmp_path / "sides.toml"


def test_training_learns(tiny_recipe: Path) -> None:
    """The loss falls from epoch to epoch, and every epoch's figures are kept."""
    trained = run(tiny_recipe, "train.epochs=4")
    assert trained.num_epochs == 4
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    assert set(trained.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_training_repeats_itself_for_a_seed(tiny_recipe: Path) -> None:
    """The same seed gives the same weights to the last bit, another seed others."""
    first, again, other = (run(tiny_recipe, f"train.seed={seed}", "model.dropout=0.2") for seed in (1, 1, 2))
    assert np.array_equal(weights(first), weights(again))
    assert not np.array_equal(weights(first), weights(other))


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_every_optimizer_trains(tiny_recipe: Path, name: str) -> None:
    """Each optimizer name of a recipe is a Keras optimizer with its settings."""
    trained = run(tiny_recipe, f"train.optimizer={{name='{name}', learning_rate=0.005}}")
    assert float(trained.model.optimizer.learning_rate) == pytest.approx(0.005)
    assert np.isfinite(trained.history["loss"]).all()
    if name == "momentum":
        assert trained.model.optimizer.momentum == 0.9


@pytest.mark.parametrize(
    ("loss", "from_logits", "activation"),
    [
        ("sparse_categorical_crossentropy", False, "softmax"),
        ("sparse_categorical_crossentropy", True, "linear"),
        ("categorical_crossentropy", False, "softmax"),
        ("binary_crossentropy", False, "sigmoid"),
        ("mse", False, "softmax"),
        ("mae", False, "softmax"),
    ],
)
def test_every_loss_trains_a_classifier(tiny_recipe: Path, loss: str, from_logits: bool, activation: str) -> None:
    """Targets are encoded as the loss needs them, and the last layer fits it."""
    trained = run(tiny_recipe, f"train.loss={loss}", f"train.from_logits={str(from_logits).lower()}")
    assert trained.model.output_shape == (None, 3)
    assert trained.model.layers[-1].activation.__name__ == activation


def test_two_classes_and_binary_crossentropy_make_one_output(images: Path) -> None:
    """The probability of the second class is enough."""
    trained = run(images, "train.loss=binary_crossentropy")
    assert trained.model.output_shape == (None, 1)


def test_a_cnn_learns(images: Path) -> None:
    """The built-in CNN with batch normalization and dropout trains on pictures."""
    trained = run(images, "train.epochs=3")
    assert trained.history["accuracy"][-1] > 0.9


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_regression_learns(regression: Path, loss: str) -> None:
    """A model of one linear output fits numbers, and reports no accuracy."""
    trained = run(regression, f"train.loss={loss}", "train.epochs=5")
    assert set(trained.history) == {"loss", "val_loss"}
    assert trained.history["loss"][-1] < trained.history["loss"][0]


def test_a_cosine_schedule_ends_near_zero(tiny_recipe: Path) -> None:
    """The learning rate falls over the whole of training."""
    trained = run(tiny_recipe, "train.schedule=cosine", "train.epochs=2")
    assert float(trained.model.optimizer.learning_rate) < 1e-4


def test_early_stopping_stops(tiny_recipe: Path) -> None:
    """Training ends when the monitored figure no longer improves, and needs validation rows to know."""
    stopping = "train.early_stopping={patience=1, min_delta=10.0}"
    assert run(tiny_recipe, "train.epochs=9", stopping).num_epochs == 2
    with pytest.raises(TrainError, match=r"set data\.validation_split"):
        run(tiny_recipe, stopping, "data.validation_split=0")


def test_progress_is_told_after_every_epoch(tiny_recipe: Path) -> None:
    """The share that is done and the figures so far."""
    told: list[tuple[float, str]] = []
    recipe = load_recipe(tiny_recipe, ["train.epochs=2"])
    train_recipe(recipe, progress=lambda fraction, text: told.append((fraction, text)))
    assert [fraction for fraction, _ in told] == [0.5, 1.0]
    assert told[1][1].startswith("epoch 2/2  accuracy ")


def test_a_loss_that_is_no_number_stops_the_build(regression: Path) -> None:
    """NaN is an error that says what may help, not a published model."""
    with pytest.raises(TrainError, match=r"the loss became (nan|inf) in epoch \d+: lower train\.optimizer"):
        run(regression, "train.optimizer={name='sgd', learning_rate=1e30}", "train.epochs=3")


MODULE = """
import keras

def small(input_shape, num_classes, width=4):
    inputs = keras.Input(input_shape, name="x")
    hidden = keras.layers.Dense(width, "relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(num_classes, "softmax", name="y")(hidden))

def wrong_input(input_shape, num_classes):
    return keras.Sequential([keras.Input((7,)), keras.layers.Dense(num_classes)])

def wrong_output(input_shape, num_classes):
    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(9)])

def two_inputs(input_shape, num_classes):
    inputs = [keras.Input(input_shape), keras.Input(input_shape)]
    return keras.Model(inputs, keras.layers.Dense(num_classes)(keras.layers.Add()(inputs)))

def nothing(input_shape, num_classes):
    return None

def broken(input_shape, num_classes):
    raise RuntimeError("out of ideas")
"""


def custom(path: Path, function: str, *overrides: str) -> Recipe:
    """The tiny recipe with a model function from a module beside it."""
    (path.parent / "my_models.py").write_text(MODULE)
    text = path.read_text()
    model = f'[model]\nfunction = "{function}"\n'
    changed = path.with_name("custom.toml")
    changed.write_text(model + text[text.index("[data]") :])
    return load_recipe(changed, ["train.epochs=1", *overrides])


def fit(recipe: Recipe) -> tuple[Trained, Dataset]:
    """Train a recipe."""
    data = load_rows(recipe)
    return train_recipe(recipe, data), data


def test_a_function_beside_the_recipe_makes_the_model(tiny_recipe: Path) -> None:
    """`package.module:function` is imported from the recipe's folder and called with its settings."""
    trained, _ = fit(custom(tiny_recipe, "my_models:small", "model.settings={width=6}"))
    assert trained.model.count_params() == 4 * 6 + 6 + 6 * 3 + 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_models:absent", "cannot be imported: module 'my_models' has no attribute 'absent'"),
        ("no_models:small", "cannot be imported: No module named 'no_models'"),
        ("my_models:wrong_input", "the model takes rows of 7, the data has 4: set data.reshape"),
        ("my_models:wrong_output", "the model gives 9 values per row, the data has 3 classes"),
        ("my_models:two_inputs", "the model has 2 inputs and 1 output; a recipe takes one of each"),
        ("my_models:nothing", "the model is a NoneType; expected a Functional or Sequential Keras model"),
        ("my_models:broken", "my_models:broken failed: RuntimeError: out of ideas"),
    ],
)
def test_a_function_that_makes_no_fitting_model_is_refused(tiny_recipe: Path, function: str, message: str) -> None:
    """What the function gave, and what the data needs, is in the message."""
    with pytest.raises(TrainError) as caught:
        fit(custom(tiny_recipe, function))
    assert message in str(caught.value)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_saved_model_is_used_as_it_is(tiny_recipe: Path, tiny_model: Any, suffix: str) -> None:
    """`model.path` loads either format; with no epochs its weights stay."""
    tiny_model.save(tiny_recipe.with_name(f"saved.{suffix}"))
    text = tiny_recipe.read_text()
    path = tiny_recipe.with_name("saved.toml")
    path.write_text(f'[model]\npath = "saved.{suffix}"\n' + text[text.index("[data]") :])
    trained, _ = fit(load_recipe(path, ["train.epochs=0"]))
    assert trained.num_epochs == 0
    for kept, original in zip(trained.model.get_weights(), tiny_model.get_weights(), strict=True):
        assert np.array_equal(kept, original)


def test_a_saved_model_with_a_weight_that_is_no_number_is_refused(tiny_recipe: Path, tiny_model: Any) -> None:
    """One NaN of 67 weights, and the layer it is in, are named before anything is trained or converted."""
    model = load_keras().models.clone_model(tiny_model)
    values = model.get_weights()
    values[2][3, 1] = np.nan
    model.set_weights(values)
    model.save(tiny_recipe.with_name("nan.keras"))
    text = tiny_recipe.read_text()
    path = tiny_recipe.with_name("nan.toml")
    path.write_text('[model]\npath = "nan.keras"\n' + text[text.index("[data]") :])
    with pytest.raises(
        TrainError, match=r"1 of 67 weights are NaN or infinite, in .*probabilities/kernel: the model has t"
    ):
        fit(load_recipe(path, ["train.epochs=0"]))


def test_weights_that_overflow_in_the_last_step_are_refused(regression: Path) -> None:
    """The loss of an epoch is of the weights before its steps: it is a number here, and the weights are not."""
    overrides = [
        "train.optimizer={name='sgd', learning_rate=3e38}",
        "train.batch_size=1000",
        "data.normalize={scale=1e3}",
    ]
    with pytest.raises(
        TrainError, match=r"weights are NaN or infinite, in .*kernel.*: training diverged: lower train.opt"
    ):
        run(regression, *overrides)


def test_files_that_are_no_model_are_refused(tiny_recipe: Path) -> None:
    """A missing file and one that Keras cannot load are named."""
    text = tiny_recipe.read_text()
    path = tiny_recipe.with_name("missing.toml")
    path.write_text('[model]\npath = "none.keras"\n' + text[text.index("[data]") :])
    with pytest.raises(TrainError, match=r"the file .*none\.keras does not exist"):
        fit(load_recipe(path))
    tiny_recipe.with_name("none.keras").write_bytes(b"no model")
    with pytest.raises(TrainError, match=r"none\.keras cannot be loaded by Keras"):
        fit(load_recipe(path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.reshape=[2, 2]"], "'mlp' takes rows of one dimension, the data has 2 x 2"),
        (["model={builder='cnn'}"], "'cnn' takes rows of height, width and channels, the data has 4"),
        (["model={builder='cnn', filters=[4, 4]}", "data.reshape=[2, 2, 1]"], "2 poolings halve 2 x 2 x 1 to nothing"),
    ],
)
def test_rows_of_another_shape_are_refused(tiny_recipe: Path, overrides: list[str], message: str) -> None:
    """The built-in models say which rows they take."""
    with pytest.raises(TrainError, match=message):
        run(tiny_recipe, *overrides)


def test_layers_have_the_same_names_in_every_build(tiny_recipe: Path) -> None:
    """Names do not count up within a process: they are in the artifact's bytes."""
    names = [[layer.name for layer in run(tiny_recipe).model.layers] for _ in range(2)]
    assert names[0] == names[1] == ["dense_1", "probabilities"]
    assert load_keras().backend.backend() == "tensorflow"
