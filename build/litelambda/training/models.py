"""Makes the Keras model that a recipe asks for: built in, from a function of the user's, or from a saved file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litelambda.common.errors import TrainError
from litelambda.common.wording import counted
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import CnnModel, FunctionModel, MlpModel, Recipe, SavedKerasModel


def build_model(recipe: Recipe, data: Dataset) -> Any:
    """Make the model, untrained or as it was saved, and check that it fits the data.

    Raises:
        TrainError: the model cannot be made, or takes or gives other shapes than the data has.
    """
    section = recipe.model
    if isinstance(section, FunctionModel):
        model = _from_function(section, data, recipe.folder)
    elif isinstance(section, SavedKerasModel):
        model = _from_file(recipe.resolve(section.path))
    else:
        layers = _mlp(section, data) if isinstance(section, MlpModel) else _cnn(section, data)
        model = _sequential(section, layers, *_head(recipe, data))
    _check(model, recipe, data)
    return model


def _mlp(section: MlpModel, data: Dataset) -> list[Any]:
    keras, input_shape = load_keras(), data.input_shape
    if len(input_shape) != 1:
        raise TrainError(f"model.builder = 'mlp' takes rows of one dimension, the data has {_sizes(input_shape)}: "
                         "set data.reshape")  # fmt: skip
    layers = [keras.Input(input_shape, name=section.input_name)]
    for number, width in enumerate(section.hidden, start=1):
        layers.append(
            keras.layers.Dense(
                width, activation=section.activation, kernel_regularizer=_penalty(section), name=f"dense_{number}"
            )
        )
        if section.dropout:
            layers.append(keras.layers.Dropout(section.dropout, name=f"dropout_{number}"))
    return layers


def _cnn(section: CnnModel, data: Dataset) -> list[Any]:
    keras, input_shape = load_keras(), data.input_shape
    if len(input_shape) != 3:
        raise TrainError(f"model.builder = 'cnn' takes rows of height, width and channels, the data has "
                         f"{_sizes(input_shape)}: set data.reshape")  # fmt: skip
    if min(input_shape[:2]) < 2 ** len(section.filters):
        raise TrainError(f"model.filters: {len(section.filters)} halvings leave nothing of {_sizes(input_shape)}")
    layers = [keras.Input(input_shape, name=section.input_name)]
    for number, filters in enumerate(section.filters, start=1):
        layers.append(
            keras.layers.Conv2D(
                filters,
                section.kernel_size,
                padding="same",
                use_bias=not section.batch_norm,
                kernel_regularizer=_penalty(section),
                name=f"conv_{number}",
            )
        )
        if section.batch_norm:
            layers.append(keras.layers.BatchNormalization(name=f"norm_{number}"))
        layers.append(keras.layers.Activation(section.activation, name=f"activation_{number}"))
        layers.append(keras.layers.MaxPooling2D(name=f"pool_{number}"))
    layers.append(keras.layers.Flatten(name="flatten"))
    for number, width in enumerate(section.dense, start=1):
        layers.append(
            keras.layers.Dense(
                width, activation=section.activation, kernel_regularizer=_penalty(section), name=f"dense_{number}"
            )
        )
    if section.dropout:
        layers.append(keras.layers.Dropout(section.dropout, name="dropout"))
    return layers


def _penalty(section: MlpModel | CnnModel) -> Any:
    return load_keras().regularizers.L1L2(section.l1, section.l2) if section.l1 or section.l2 else None


def _sequential(section: MlpModel | CnnModel, layers: list[Any], units: int, activation: str) -> Any:
    keras = load_keras()
    head = keras.layers.Dense(units, activation=activation, name=section.output_name)
    return keras.Sequential([*layers, head], name=section.builder)


def _head(recipe: Recipe, data: Dataset) -> tuple[int, str]:
    """Units and activation of the last layer, as the loss needs them."""
    loss = recipe.train.loss
    if data.labels is None:
        return data.num_outputs, "linear"
    units = 1 if loss == "binary_crossentropy" and data.num_outputs == 2 else data.num_outputs
    if recipe.train.from_logits:
        return units, "linear"
    return units, "sigmoid" if loss == "binary_crossentropy" else "softmax"


def _from_function(section: FunctionModel, data: Dataset, folder: Path) -> Any:
    module_name, _, name = section.function.partition(":")
    with _importable(folder):
        try:
            function: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as error:
            raise TrainError(f"model.function = {section.function!r} cannot be imported: {error}") from error
        try:
            return function(input_shape=data.input_shape, num_classes=data.num_outputs, **section.settings)
        except Exception as error:
            raise TrainError(f"{section.function} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules beside the recipe be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise TrainError(f"there is no model at {path} (model.path)")
    try:
        return load_keras().models.load_model(path, compile=False)
    except Exception as error:
        raise TrainError(f"{path} cannot be loaded by Keras: {error}") from error


def _check(model: Any, recipe: Recipe, data: Dataset) -> None:
    keras = load_keras()
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise TrainError(f"the model is a {type(model).__name__}; expected a Functional or Sequential Keras model")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise TrainError(
            f"the model has {counted(len(model.inputs), 'input')} and {counted(len(model.outputs), 'output')}; "
            "a recipe takes one of each"
        )
    takes = tuple(model.inputs[0].shape[1:])
    if len(takes) != len(data.input_shape) or any(
        size not in (None, given) for size, given in zip(takes, data.input_shape, strict=True)
    ):
        raise TrainError(
            f"the model takes rows of {_sizes(takes)}, the data has {_sizes(data.input_shape)}: set data.reshape"
        )
    gives = tuple(model.outputs[0].shape[1:])
    binary = recipe.train.loss == "binary_crossentropy" and data.num_outputs == 2
    if gives != (data.num_outputs,) and not (binary and gives == (1,)):
        what = "classes" if data.labels else "targets"
        raise TrainError(f"the model gives {_sizes(gives)} values a row, the data has {data.num_outputs} {what}")


def _sizes(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape) or "no dimension"
