"""Writes a model's integrated gradients as a SavedModel: chooses the points on the path, and notes what to expect."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import SIGNATURE
from litelambda.common.arrays import Arrays
from litelambda.common.errors import ConversionError, LitelambdaError, first_line
from litelambda.conversion.export import load_exported
from litelambda.conversion.gradient_graph import PathGradients, gauss_legendre
from litelambda.conversion.signature_tensors import Names, write_names
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.keras_tools.dtype_policies import in_float32
from litelambda.keras_tools.graph import call, layer_names

TOLERANCE = 0.01
"""Of the difference between a row's output and its baseline's, the share that may be left unexplained."""

_STEPS = (12, 16, 24, 32, 48, 64)
_CHUNK = 32
_MOST_POINTS = 1000
_SHARE = 0.9

_COMPARED_ROWS = 4
_NOTHING = 1e-3
"""A smaller difference is that of the outputs' rounding."""


@dataclass(frozen=True)
class Samples:
    """Rows to choose the points by, and to compare with Keras.

    Attributes:
        rows: by input name.
        baselines: by input name, a row, or one number for all of it; zeros where there is none.
    """

    rows: Mapping[str, NDArray[Any]]
    baselines: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted:
    """What was exported.

    Attributes:
        inputs: names of the model's inputs, in order.
        outputs: names of the outputs that a target can name, in order.
        steps: points on the path.
        completeness_error: what nine of ten sample rows are below.
        asked: by tensor of the SavedModel, what it was asked.
        answered: what it gave.
    """

    inputs: list[str]
    outputs: list[str]
    steps: int
    completeness_error: float
    asked: Arrays
    answered: Arrays

    def to_json(self) -> dict[str, Any]:
        """Its part of the manifest."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "steps": self.steps,
            "completeness_error": self.completeness_error,
        }


def read_notes(folder: Path) -> Noted:
    """What `write_gradients` noted in a folder."""
    with np.load(folder / "notes.npz") as arrays:
        sides = {
            side: {name.removeprefix(side): arrays[name] for name in arrays if name.startswith(side)}
            for side in ("asked ", "answered ")
        }
    document = json.loads((folder / "notes.json").read_text())
    return Noted(**document, asked=sides["asked "], answered=sides["answered "])


def export_gradients_again(path: Path, samples: Samples) -> Path:
    """In the converter's process: make the SavedModel of a Keras file's gradients; its folder.

    Raises:
        ConversionError: the model has none that can be exported.
    """
    folder = path.with_name("gradients")
    if not folder.exists():
        write_gradients(load_exported(path), folder, samples)
    return folder


def write_gradients(model: Any, folder: Path, samples: Samples) -> None:
    """Write a SavedModel with the signature "predict", whose inputs `PathGradients.specs` names.

    Raises:
        ConversionError: the model has no gradients that can be exported.
    """
    tf = load_tensorflow()
    with in_float32(model):
        try:
            paths = PathGradients(model)
            asked = list(questions(model, paths, samples))
            steps, error = _choose_steps(paths, asked)
            exported = tf.function(paths.over(steps), input_signature=paths.specs(), autograph=False)
            module = tf.Module()
            module.explain, module.resources = exported, [*exported.get_concrete_function().variables]
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # second ones are not needed
            tf.saved_model.save(module, str(folder), signatures={SIGNATURE: exported}, options=options)
        except LitelambdaError:
            raise
        except Exception as failure:  # TensorFlow's and Keras' are of any kind: LookupError where there is no gradient
            raise ConversionError(f"{type(failure).__name__}: {first_line(failure)}") from failure
    write_names(folder, Names(layers=layer_names(model)))
    names = [each.name for each in paths.specs()]
    compared = asked[:_COMPARED_ROWS]
    answers = [exported(*map(tf.constant, each)) for each in compared]
    arrays: dict[str, Any] = {
        f"asked {name}": np.stack([each[at] for each in compared]) for at, name in enumerate(names)
    }
    arrays |= {f"answered {name}": np.stack([each[name].numpy() for each in answers]) for name in answers[0]}
    np.savez(folder / "notes.npz", **arrays)
    document = {
        "inputs": [tensor.name for tensor in model.inputs],
        "outputs": paths.outputs,
        "steps": steps,
        "completeness_error": error,
    }
    (folder / "notes.json").write_text(json.dumps(document))


def questions(model: Any, paths: PathGradients, samples: Samples) -> Iterator[list[NDArray[Any]]]:
    """For each sample row what the graph takes: the row, its baseline, and as the target the row's largest output."""
    count = len(next(iter(samples.rows.values())))
    for index in range(count):
        rows, baselines = [], []
        for tensor, spec in zip(model.inputs, paths.specs(), strict=False):
            shape, dtype = spec.shape.as_list(), spec.dtype.as_numpy_dtype
            rows.append(np.asarray(samples.rows[tensor.name][index : index + 1]).astype(dtype).reshape(shape))
            baseline = np.asarray(samples.baselines.get(tensor.name, 0)).astype(dtype)
            baselines.append(np.broadcast_to(baseline.reshape(shape) if baseline.size > 1 else baseline, shape))
        outputs = [each.numpy() for each in call(model, rows) if each.dtype.is_floating]
        target = np.zeros((1, paths.num_outputs), np.float32)
        target[0, int(outputs[0].ravel().argmax())] = 1
        yield [*rows, *map(np.ascontiguousarray, baselines), np.array([[0, 1]], np.float32), target]


def _choose_steps(paths: PathGradients, asked: list[list[NDArray[Any]]]) -> tuple[int, float]:
    """How many points a run takes so that all runs of a row take the fewest, and the error that they leave."""
    tf = load_tensorflow()
    traced = tf.function(
        paths.attributions,
        input_signature=[tf.TensorSpec((_CHUNK,)), tf.TensorSpec((_CHUNK,)), *paths.specs()],
        autograph=False,
    )
    found = []
    for steps in _STEPS:
        walked = [_walk(traced, steps, each) for each in asked]
        left = float(np.quantile([each[1] for each in walked], _SHARE, method="inverted_cdf"))
        found.append((float(np.mean([each[0] for each in walked])), steps, round(left, 6)))
    return min(found)[1:]


def _walk(traced: Any, steps: int, asked: list[NDArray[Any]]) -> tuple[int, float]:
    """How many points a row takes where the function halves its path, and the share that is left unexplained then."""
    parts = [(0.0, 1.0, *_part(traced, steps, asked, 0.0, 1.0))]
    points = steps + 2
    while points + 2 * (steps + 2) <= _MOST_POINTS:
        difference = sum(part[3] for part in parts)
        if sum(abs(part[2] - part[3]) for part in parts) <= TOLERANCE * max(abs(difference), _NOTHING):
            break
        worst = max(parts, key=lambda part: abs(part[2] - part[3]))
        parts.remove(worst)
        middle = (worst[0] + worst[1]) / 2
        for begin, end in ((worst[0], middle), (middle, worst[1])):
            parts.append((begin, end, *_part(traced, steps, asked, begin, end)))
        points += 2 * (steps + 2)
    difference = sum(part[3] for part in parts)
    left = abs(sum(part[2] - part[3] for part in parts))
    return points, left / max(abs(difference), _NOTHING)


def _part(traced: Any, steps: int, asked: list[NDArray[Any]], begin: float, end: float) -> tuple[float, float]:
    """What the points attribute of a part of a row's path, and the difference between its ends."""
    places, shares = (np.resize(each, _CHUNK * -(-steps // _CHUNK)) for each in gauss_legendre(steps))
    shares[steps:] = 0
    total, difference = 0.0, 0.0
    for start in range(0, len(places), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        found = traced(places[chunk], shares[chunk], *asked[:-2], np.array([[begin, end]], np.float32), asked[-1])
        difference = found.pop("output").numpy().item() - found.pop("baseline_output").numpy().item()
        total += sum(float(each.numpy().astype(np.float64).sum()) for each in found.values())
    return total, difference
