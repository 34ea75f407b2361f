"""Sources in the child of `source_model`: a Keras model and a SavedModel's signature, as they were handed in."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.arrays import Arrays
from litelambda.common.errors import ConversionError, first_line
from litelambda.conversion.saved_model_check import check_saved_model
from litelambda.conversion.saved_model_signature import load_signature
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda.keras_tools.dtype_policies import set_policies
from litelambda.keras_tools.keras2_files import version_of_writer
from litelambda.keras_tools.model_files import import_own_modules, is_damaged, load_model_file
from litelambda.keras_tools.model_inputs import ModelInput, describe_inputs
from litelambda.keras_tools.output_names import output_names


@dataclass(frozen=True)
class Described:
    """What a loaded source says about itself.

    Attributes:
        inputs: in the order in which it takes them.
        precision: the least precise type that it computes in.
    """

    inputs: tuple[ModelInput, ...]
    precision: str


class SourceLoadError(ConversionError):
    """A source cannot be loaded in a process of its own; in this one it may answer all the same."""


class KerasSource:
    """A Keras model.

    Attributes:
        name: for messages.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self.name = f"the model {name}"
        for variable in model.variables:
            if not _is_finite(_numbers(variable)):
                raise ConversionError(
                    f"{self.name}: the weights {variable.path!r} hold NaN or infinity: train it again with a lower "
                    "learning rate, or restore weights from before they diverged"
                )

    @classmethod
    def load(cls, path: Path, *, own: bool) -> KerasSource:
        """Load a .keras or .h5 file; one that this build wrote (`own`) may import the classes of its layers."""
        try:
            model = load_model_file(path, import_own_modules(path) if own else None, safe_mode=not own)
        except Exception as error:
            raise SourceLoadError(f"Keras cannot load {path}: {_cause(error)}\n{_remedy(path)}") from error
        if not getattr(model, "inputs", None):
            kind = type(model).__name__
            raise ConversionError(f"{path}: {kind} is neither a Functional nor a Sequential model")
        return cls(model, path.name)

    def describe(self) -> Described:
        """Its inputs, with the ids and the mask values that its layers speak of."""
        computed = {str(getattr(layer, "compute_dtype", "")) for layer in self._model._flatten_layers()}
        half = next((name for name in ("bfloat16", "float16") if name in computed), "float32")
        return Described(describe_inputs(self._model), half)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Keras' own predict, on one batch."""
        tree = load_keras().tree
        flat = [_given(inputs[tensor.name]) for tensor in self._model.inputs]
        structure = getattr(self._model, "_inputs_struct", None)
        given = tree.pack_sequence_as(structure, flat) if structure is not None and len(flat) > 1 else flat[0]
        outputs = tree.flatten(self._model.predict_on_batch(given))
        return {name: _plain(np.asarray(each)) for name, each in zip(output_names(self._model), outputs, strict=True)}

    def compute_in_float64(self) -> None:
        """Let every layer compute in float64 from now on, with the weights that it has."""
        policy = load_keras().dtype_policies.DTypePolicy("float64")
        policy._variable_dtype = "float32"  # what they are: only then a layer casts them when it reads them
        set_policies(self._model, lambda _: policy)
        self._model.predict_function = None  # compiled for what it was

    def checksums(self) -> dict[str, int]:
        """Of every variable."""
        return {variable.path: _checksum(_numbers(variable)) for variable in self._model.variables}

    def advice(self) -> str:
        """What to change, with the layers that keep state, where there are any."""
        recurrent = [each.name for each in self._model._flatten_layers() if getattr(each, "stateful", False) is True]
        if recurrent:
            return f"Make {', '.join(map(repr, recurrent))} with stateful=False"
        return "Make its layers without state and without random numbers at inference"


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Answers as numpy can store them: it has no bfloat16 (kind "V", void), and float32 holds that exactly."""
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def _given(values: NDArray[Any]) -> Any:
    return load_tensorflow().constant(values.tolist()) if values.dtype.kind == "O" else values


def _numbers(variable: Any) -> NDArray[Any]:
    return np.asarray(load_keras().ops.convert_to_numpy(variable))


def _cause(error: BaseException) -> str:
    """What was wrong at first: Keras says of each thing around it that it cannot be made."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return f"{type(error).__name__}: {first_line(error)}"


def _remedy(path: Path) -> str:
    """What to do about a file that Keras cannot load."""
    if is_damaged(path):
        return "It is damaged, cut short or behind a password: copy it again from where it was made"
    version = version_of_writer(path)
    if version.startswith("2."):
        return (
            f"It was written by Keras {version}: load it there, write it with model.export(FOLDER), before 2.13 with "
            "tf.saved_model.save(model, FOLDER), and import that folder. A SavedModel is a program: operators that "
            "touch files or run Python are refused"
        )
    return (
        "A Lambda layer or a class of its own is code, and code of a file from elsewhere is not run. If you trust who "
        "made the model, load it in Python yourself and write it with model.export(FOLDER): a SavedModel needs none of "
        "its classes. It is a program all the same: operators that touch files or run Python are refused"
    )


class SavedModelSource:
    """A SavedModel's default signature.

    Attributes:
        name: for messages.
    """

    def __init__(self, path: Path) -> None:
        self._precision = check_saved_model(path)
        self.name = f"the SavedModel {path}"
        self._loaded, self._function = load_signature(path)
        for variable in self._function.variables:
            if variable.dtype.is_floating and not _is_finite(variable.numpy()):
                raise ConversionError(f"{path}: the weights {variable.name!r} hold NaN or infinity: train it again")

    def describe(self) -> Described:
        """Its signature's inputs."""
        specs = self._function.structured_input_signature[1]
        inputs = (ModelInput(name, spec.dtype.name, tuple(spec.shape)) for name, spec in specs.items())
        return Described(tuple(inputs), self._precision)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """The signature itself."""
        tf = load_tensorflow()
        specs = self._function.structured_input_signature[1]
        given = {name: tf.constant(values.tolist() if values.dtype.kind == "O" else values, specs[name].dtype)
                 for name, values in inputs.items()}  # fmt: skip
        return {name: _plain(np.asarray(each.numpy())) for name, each in self._function(**given).items()}

    def compute_in_float64(self) -> None:
        """A graph cannot: its types are written into it."""
        raise ConversionError(f"{self.name} computes in the types of its graph")

    def checksums(self) -> dict[str, int]:
        """Of every variable that it reads."""
        return {each.name: _checksum(np.asarray(each.numpy())) for each in self._function.variables}

    def advice(self) -> str:
        """What to change."""
        return "Export it with training=False, without variables that it changes"


def _checksum(values: NDArray[Any]) -> int:
    """Tells whether a variable has changed."""
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data) if values.dtype.kind != "O" else 0


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether all values are numbers, without a copy of them."""
    if values.dtype.kind not in "f" or not values.size:
        return True
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))
