"""Loads files that Keras 2 wrote, up to TensorFlow 2.15: their configs, said as Keras 3 says it, and their weights.

Keras 3 itself refuses many of them, and gets some wrong:

- it refuses keywords that it has dropped. Nearly all files have values there that say what Keras 3 does in any case:
  these are left out. Any other value stays, and Keras 3 names it
- it counts the calls of a model in a model from 0, Keras 2 from 1
- it passes the tensors among a layer's keywords as lists of names, as in `attention(x, value=y)`, and takes the first
  states of a recurrent layer as a keyword, where Keras 2 has them among the inputs
- it has no layers for TensorFlow's functions, as in `x / 255`
- its `hard_sigmoid` has another slope: see `keras2_layers`
- its RandomCrop returns whole pictures where nothing is trained, Keras 2's resizes and crops them
- weights belong to layers by their order, which it works out by itself: here it must be the file's
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litelambda.keras_tools.backend import load_keras

__all__ = ["load_keras2_file", "version_of_writer"]

_CONFIG, _METADATA = "config.json", "metadata.json"
_MODELS = {"Functional": "keras.src.models.functional", "Model": "keras.src.models.functional", "Sequential": "keras"}
"""Where Keras 3 says that these are, in its own files."""
_FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_OURS = "litelambda.keras_tools.keras2_layers"
_POLICIES = ("Policy", "PolicyV1")
_RECURRENT = ("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional")
_STATE = ("build_config", "compile_config")
"""Left out: a layer is built where it is called, and nothing is trained."""
_CONSTANT, _TENSOR = "_CONSTANT_VALUE", "__keras_tensor__"
_HARD_SIGMOID = {
    "module": "builtins",
    "class_name": "function",
    "config": "litelambda>hard_sigmoid",
    "registered_name": "function",
}


def version_of_writer(path: Path) -> str:
    """The version of Keras that wrote a .keras or .h5 file, or "" where it does not say.

    What `zipfile` raises for a damaged file is let through: its version would be a guess.

    >>> version_of_writer(Path("nowhere.keras"))
    ''
    """
    try:
        return _read(path, _METADATA, "keras_version")
    except (OSError, KeyError, TypeError, ValueError):
        return ""


def load_keras2_file(path: Path, classes: Mapping[str, Any] | None, *, safe_mode: bool) -> Any:
    """Load a file that Keras 2 wrote; see `load_model_file`."""
    from litelambda.keras_tools import keras2_layers  # noqa: F401 - it registers them

    saved = json.loads(_read(path, _CONFIG, "model_config"))
    model = load_keras().saving.deserialize_keras_object(_translate(saved), classes, safe_mode)
    _check_order(model, saved["config"])
    model.load_weights(path)
    return model


def _read(path: Path, document: str, attribute: str) -> str:
    """A document of a .keras file, or one of its fields; an attribute of an .h5 file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(document).decode()
        return text if document == _CONFIG else str(json.loads(text)[attribute])
    import h5py  # which only these files need

    with h5py.File(path) as file:
        value = file.attrs[attribute]
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_order(model: Any, config: Mapping[str, Any]) -> None:
    """Refuse a Functional model, or one in it, whose layers Keras 3 has put in another order than its file has them.

    Raises:
        ValueError: the weights, which it counts, would be other layers'.
    """
    saved = {_name(each): each["config"] for each in config["layers"]}
    found = [layer.name for layer in model.layers if layer.weights]
    if found != (right := [name for name in saved if name in found]):
        raise ValueError(f"its layers come in the order {found}, and its weights in the order {right}")
    for layer in model.layers:
        if "layers" in saved.get(layer.name, {}):
            _check_order(layer, saved[layer.name])


def _name(layer: Mapping[str, Any]) -> str:
    return str(layer.get("name") or layer["config"].get("name"))


def _translate(value: Any) -> Any:
    """A config, or a part of one, as Keras 3 says it."""
    if isinstance(value, list):
        return [_translate(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "Sequential":
        value = _with_input(value)
    found = {key: _translate(each) for key, each in value.items()}
    if isinstance(found.get("class_name"), str) and isinstance(found.get("config"), dict):
        return _translate_object(found)
    return {
        key: _HARD_SIGMOID if key.endswith("activation") and each == "hard_sigmoid" else each
        for key, each in found.items()
    }


def _translate_object(value: dict[str, Any]) -> Any:
    """A layer, a model, an initializer or another object."""
    name, config = str(value["class_name"]), value["config"]
    if name in _POLICIES:
        return config["name"]
    found = {key: each for key, each in value.items() if key not in _STATE}
    found["config"] = _translate_config(name, dict(config))
    if name == "RandomCrop":
        kept = {key: config[key] for key in ("name", "trainable", "dtype", "height", "width")}
        name, found["class_name"], found["config"] = "Resizing", "Resizing", kept | {"crop_to_aspect_ratio": True}
    if name in _MODELS:
        found |= {"class_name": name.replace("Model", "Functional"), "module": _MODELS[name]}
    elif "module" in value:
        found["module"] = value["module"].replace("tf_keras", "keras", 1)
    elif "name" in config and hasattr(load_keras().layers, name):  # a layer of up to TensorFlow 2.12, and of .h5 files
        found["module"] = "keras.layers"
    return found


def _translate_config(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The keywords of an object, of which some have other names, other forms, or none."""
    if isinstance(config.get("layers"), list):
        config["layers"] = _with_calls(config["layers"])
    for key in ("input_layers", "output_layers"):  # one alone is that itself
        if isinstance(config.get(key), list) and len(config[key]) == 1:
            config[key] = config[key][0]
    if "name" not in config:  # of an initializer, up to TensorFlow 1.15
        config.pop("dtype", None)
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config["batch_input_shape"]
    if name == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    if name == "BatchNormalization" and isinstance(config.get("axis"), list):
        config["axis"] = config["axis"][0]
    return {key: each for key, each in config.items() if not _says_nothing(name, key, each)}


def _says_nothing(name: str, key: str, value: Any) -> bool:
    """Whether a keyword that Keras 3 does not take says what it does in any case, or nothing about inference."""
    if key in ("batch_input_shape", "input_length", "rng_type"):
        return True
    if key in ("time_major", "causal"):
        return value is False
    if name.startswith(("Depthwise", "Separable")) or name.endswith("Transpose"):
        kernels = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")  # of none of their weights
        return (key == "groups" and value == 1) or (name.startswith("Separable") and key in kernels)
    if name.startswith("SpatialDropout"):
        return key in ("trainable", "noise_shape")
    if name == "MultiHeadAttention":
        return key in ("query_shape", "key_shape", "value_shape")
    return name == "Discretization" and key in ("trainable", "dtype")  # with int64, Keras 3 rounds what it is given


def _with_input(model: dict[str, Any]) -> dict[str, Any]:
    """A Sequential model whose first layer is an InputLayer: up to TensorFlow 2.1, the next one has its shape."""
    config = model.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not layers or layers[0]["class_name"] == "InputLayer":
        return model
    own = layers[0]["config"]
    if "batch_input_shape" not in own:
        return model
    given = {"batch_shape": own["batch_input_shape"], "dtype": own.get("dtype"), "name": f"{own['name']}_input"}
    return {**model, "config": {**config, "layers": [{"class_name": "InputLayer", "config": given}, *layers]}}


def _with_calls(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers of a Functional model with their calls as Keras 3 writes them."""
    first_calls = {_name(each): int("layers" in each["config"]) for each in layers}
    return [
        _function_layer(each, first_calls)
        if each["class_name"] in _FUNCTION_LAYERS
        else {**each, "inbound_nodes": [_call(node, each, first_calls) for node in each.get("inbound_nodes", [])]}
        for each in layers
    ]


def _call(node: Any, layer: Mapping[str, Any], first_calls: Mapping[str, int]) -> dict[str, Any]:
    """`[[layer, call, tensor, keywords], …]`, a mapping of such, or one alone, as `{"args", "kwargs"}`."""
    first, keywords = _arguments(node, first_calls)
    if isinstance(first, list) and layer["class_name"] in _RECURRENT:
        first, keywords["initial_state"] = first[0], first[1:]
        if keywords.get("constants", ...) is None:  # of cells that a user writes, and gone
            del keywords["constants"]
    return {"args": [first], "kwargs": keywords}


def _function_layer(layer: dict[str, Any], first_calls: Mapping[str, int]) -> dict[str, Any]:
    """A layer that calls a function: it has the arguments, in which tensors are numbered, and is called on these."""
    first, keywords = _arguments(layer["inbound_nodes"][0], first_calls)
    tensors: list[Any] = []

    def numbered(value: Any) -> Any:
        if isinstance(value, list):
            return [numbered(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        if value.get("class_name") != _TENSOR:
            return {key: numbered(each) for key, each in value.items()}
        tensors.append(value)
        return {"tensor": len(tensors) - 1}

    config = {
        "name": _name(layer),
        "dtype": layer["config"].get("dtype"),
        "function": layer["config"]["function"],
        "first": numbered(first),
        "keywords": numbered(dict(sorted(keywords.items()))),  # as Keras 2 visits them, which orders the layers
    }
    own = "TensorFlowFunction"
    return {
        **layer,
        "module": _OURS,
        "class_name": own,
        "registered_name": f"litelambda>{own}",
        "config": config,
        "inbound_nodes": [{"args": [tensors], "kwargs": {}}],
    }


def _arguments(node: Any, first_calls: Mapping[str, int]) -> tuple[Any, dict[str, Any]]:
    """A call's first argument, and its keywords."""
    keywords: dict[str, Any] = {}

    def argument(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: argument(each) for key, each in value.items()}
        if not (isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str)):
            return [argument(each) for each in value] if isinstance(value, list) else value
        if len(value) == 4 and isinstance(value[3], Mapping):
            keywords.update({key: argument(each) for key, each in value[3].items()})
        if value[0] == _CONSTANT:  # as in `1 - x`
            return value[2]
        return _tensor(value[0], value[1] - first_calls[value[0]], value[2]) if value[0] in first_calls else value

    first = argument(node)
    return first[0] if isinstance(first, list) and len(first) == 1 else first, keywords


def _tensor(*history: Any) -> dict[str, Any]:
    """A reference to what a layer returned; of its shape, which Keras 3 looks up, it wants any."""
    config = {"shape": [None], "dtype": "float32", "keras_history": list(history)}
    return {"class_name": _TENSOR, "config": config}
