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
from litelambda.keras_tools.finite_checks import check_weights
from litelambda.keras_tools.model_files import load_model_file
from litelambda.recipe.models import (
    BuiltInNetwork,
    CnnModel,
    FunctionModel,
    MlpModel,
    ModelSection,
    SavedKerasModel,
    TextModel,
    TwoTowerModel,
)
from litelambda.recipe.sections import resolve_path
from litelambda.recipe.training import Train
from litelambda.training.mixed_precision import in_precision
from litelambda.training.target_units import check_can_change_units, in_standard_units
from litelambda.training.text_model import text_model


def make_model(section: ModelSection, settings: Train, data: Dataset, folder: Path) -> Any:
    """Make the model in the precision that it is trained in; its weights start as those of a float32 model do.

    Args:
        section: the recipe's `model`.
        settings: the recipe's `train`.
        data: what the model has to fit.
        folder: the recipe's folder, where relative paths and the user's modules are looked for.

    Raises:
        TrainError: it cannot be made, does not fit the data, or has weights that are not finite.
    """
    if isinstance(section, FunctionModel):
        model = _from_function(section, data, folder)
    elif isinstance(section, SavedKerasModel):
        model = _from_file(resolve_path(section.path, folder))
    elif isinstance(section, TextModel):
        model = text_model(section, data, _head(section, settings, data))
    elif isinstance(section, TwoTowerModel):
        raise TrainError("model.builder = 'two_tower' is for recommendations: it needs data.format = 'interactions'")
    else:
        layers = _mlp(section, data.input_shape) if isinstance(section, MlpModel) else _cnn(section, data.input_shape)
        model = load_keras().Sequential([*layers, _head(section, settings, data)], name=section.builder)
    _check(model, settings, data)
    check_weights(model, "the model has them before it is trained")
    if data.target_scaling is not None:
        check_can_change_units(model)
        if isinstance(section, SavedKerasModel):
            in_standard_units(model, data.target_scaling)
    return model if settings.precision == "float32" else in_precision(model, settings.precision)


def _mlp(section: MlpModel, input_shape: tuple[int, ...]) -> list[Any]:
    keras = load_keras()
    if len(input_shape) != 1:
        raise TrainError(
            f"model.builder = 'mlp' takes rows of one dimension, the data has {_sizes(input_shape)}: set data.reshape"
        )
    layers = [keras.Input(input_shape, name=section.input_name)]
    for number, units in enumerate(section.hidden, start=1):
        layers.append(_dense(section, units, number))
        if section.dropout:
            layers.append(keras.layers.Dropout(section.dropout, name=f"dropout_{number}"))
    return layers


def _cnn(section: CnnModel, input_shape: tuple[int, ...]) -> list[Any]:
    keras = load_keras()
    if len(input_shape) != 3:
        raise TrainError(
            "model.builder = 'cnn' takes rows of height, width and channels, the data has "
            f"{_sizes(input_shape)}: set data.reshape"
        )
    if min(input_shape[:2]) < 2 ** len(section.filters):
        raise TrainError(
            f"model.filters: {len(section.filters)} poolings halve {_sizes(input_shape)} to nothing: use fewer filters"
        )
    layers = [keras.Input(input_shape, name=section.input_name)]
    for number, filters in enumerate(section.filters, start=1):
        convolution = keras.layers.Conv2D(
            filters,
            section.kernel_size,
            padding="same",
            use_bias=not section.batch_norm,
            kernel_regularizer=_penalty(section),
            name=f"conv_{number}",
        )
        norm = [keras.layers.BatchNormalization(name=f"norm_{number}")] if section.batch_norm else []
        activation = keras.layers.Activation(section.activation, name=f"activation_{number}")
        layers += [convolution, *norm, activation, keras.layers.MaxPooling2D(name=f"pool_{number}")]
    layers.append(keras.layers.Flatten(name="flatten"))
    layers += [_dense(section, units, number) for number, units in enumerate(section.dense, start=1)]
    return [*layers, keras.layers.Dropout(section.dropout, name="dropout")] if section.dropout else layers


def _dense(section: BuiltInNetwork, units: int, number: int) -> Any:
    return load_keras().layers.Dense(
        units, activation=section.activation, kernel_regularizer=_penalty(section), name=f"dense_{number}"
    )


def _penalty(section: BuiltInNetwork) -> Any:
    return load_keras().regularizers.L1L2(section.l1, section.l2) if section.l1 or section.l2 else None


def _head(section: BuiltInNetwork, settings: Train, data: Dataset) -> Any:
    """The last layer, with the units and the activation that the loss needs."""
    binary = settings.loss == "binary_crossentropy"
    is_pair = data.num_outputs == 2 and not data.multi_label
    activation = "linear"
    if data.labels is not None and not settings.from_logits:
        activation = "sigmoid" if binary else "softmax"
    units = 1 if binary and is_pair else data.num_outputs
    return load_keras().layers.Dense(units, activation=activation, name=section.output_name)


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
    """Let modules in the recipe's folder be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise TrainError(f"model.path: the file {path} does not exist")
    try:
        return load_model_file(path)
    except Exception as error:
        raise TrainError(f"{path} cannot be loaded by Keras: {error}") from error


def _check(model: Any, settings: Train, data: Dataset) -> None:
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
    binary = settings.loss == "binary_crossentropy" and data.num_outputs == 2 and not data.multi_label
    if gives != (data.num_outputs,) and not (binary and gives == (1,)):
        what = "classes" if data.labels else "targets"
        raise TrainError(f"the model gives {_sizes(gives)} values per row, the data has {data.num_outputs} {what}")


def _sizes(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape) or "no dimension"
