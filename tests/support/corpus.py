"""Models as others make them, each with the answer that its own framework gives: what imports are checked against.

A source is written to disk by Keras, TensorFlow or as a flatbuffer, and answers through Keras' `predict`, the
SavedModel's signature or the reference Interpreter: never through anything of this project.
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.bench.conversion.cases import ARCHITECTURES, all_cases
from litelambda.commands.import_model import import_model
from litelambda.common.errors import ConversionError
from litelambda.keras_tools.backend import load_keras

Arrays = Mapping[str, np.ndarray]

RELATIVE, ABSOLUTE = 2e-4, 2e-5
"""How far float32 answers may be apart: relative to the value, and as a share of the output's largest value."""

LAYER_CASES = {
    name: dataclasses.replace(case, num_rows=5) for name, case in all_cases().items() if case.family != ARCHITECTURES
}
"""A small model for each kind of layer."""

REFUSED = {
    "MaxPooling3D": r"no operator for MaxPool3D \(layer 'max_pooling3d'\)",
    "AveragePooling3D": r"no operator for AvgPool3D \(layer 'average_pooling3d'\)",
    "LSTM, sequence of any length": r"\[None, None, 8\]: only the first size, the batch, may be open",
    "LSTM, 300 steps, any batch": "a recurrent layer loops over a dynamic batch",
    "LSTM, stateful": "keeps state or draws random numbers. Make 'lstm_?[0-9]*' with stateful=False",
    "Hashing": r"no operator for AsString, StringToHashBucketFast \(layer 'hashing'\)",
    "TextVectorization": r"StringSplitV2 \(layer 'text_vectorization'\)",
    "Lambda (x * x)": "code of a file from elsewhere is not run",
    "Lambda (erf)": "code of a file from elsewhere is not run",
}
"""What cannot be imported, and the reason that the user is given."""


@dataclass(frozen=True)
class Source:
    """One model from outside.

    Attributes:
        path: the file or folder to import.
        rows: what it is asked, by input name.
        answers: its own outputs by name, in their order.
        columnar: ask with "inputs" (whole tensors), not with "instances" (a row each).
    """

    path: Path
    rows: Arrays
    answers: Arrays
    columnar: bool = False


def keras_source(
    model: Any, rows: Arrays, folder: Path, names: list[str] | None = None, suffix: str = ".keras"
) -> Source:
    """Save a Keras model; its answers are those of `predict` on the untouched model.

    Args:
        model: Functional or Sequential.
        rows: by input name.
        folder: where the file goes.
        names: of the outputs; None for the names of the layers that make them.
        suffix: of the file.
    """
    path = folder / f"model{suffix}"
    model.save(path)
    values = [_tensor(rows[tensor.name]) for tensor in model.inputs]
    given = values[0] if len(values) == 1 else values
    words = any(rows[tensor.name].dtype == object for tensor in model.inputs)  # `predict` does not take them
    size = model.inputs[0].shape[0] or len(values[0])
    found = model(given, training=False) if words else model.predict(given, batch_size=size, verbose=0)
    leaves = _leaves(found)
    names = names or list(getattr(model, "output_names", None) or [model.layers[-1].name])
    return Source(path, rows, dict(zip(names, leaves, strict=True)))


def saved_model_source(
    folder: Path, function: Callable[..., Any], inputs: Mapping[str, Any], rows: Arrays, columnar: bool = False,
    tracked: Any = None,
) -> Source:  # fmt: skip
    """Write a SavedModel of one function; its answers are those of its own signature.

    Args:
        folder: where it goes.
        function: takes the inputs by name, gives a dict of outputs.
        inputs: a `tf.TensorSpec` by name.
        rows: by input name.
        columnar: see `Source`.
        tracked: variables and tables that the function uses.
    """
    import tensorflow as tf

    module = tf.Module()
    module.tracked = tracked
    module.call = tf.function(function, input_signature=list(inputs.values()), autograph=False)
    path = folder / "saved_model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.call})
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = signature(**{name: tf.constant(values) for name, values in rows.items()})
    return Source(path, rows, {name: np.asarray(value.numpy()) for name, value in found.items()}, columnar)


def flatbuffer_source(path: Path, rows: Arrays, columnar: bool = False) -> Source:
    """A .tflite; its answers are the reference Interpreter's, one row at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    open_batch = all(list(detail["shape_signature"][:1]) == [-1] for detail in runner.get_input_details().values())
    count = len(next(iter(rows.values()))) if open_batch else 1
    parts = [
        runner(**{name: values[index : index + 1] if open_batch else values for name, values in rows.items()})
        for index in range(count)
    ]
    answers = {
        name: np.concatenate([part[name] for part in parts]) if open_batch else parts[0][name] for name in parts[0]
    }
    return Source(path, rows, answers, columnar)


def _tensor(values: np.ndarray) -> Any:
    if values.dtype != object:
        return values
    import tensorflow as tf

    return tf.constant(values.tolist())


def _leaves(found: Any) -> list[np.ndarray]:
    """Outputs in Keras' own order of a nested structure: a dict by its sorted keys."""
    if isinstance(found, dict):
        return [leaf for key in sorted(found) for leaf in _leaves(found[key])]
    if isinstance(found, list | tuple):
        return [leaf for each in found for leaf in _leaves(each)]
    return [np.asarray(found)]


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """`litelambda serve` over a store; its address."""
    command = [sys.executable, "-m", "litelambda", "serve", "--store", store.as_uri(), "--port", "0"]
    with subprocess.Popen(
        [*command, "--log-level", "ERROR"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ
    ) as server:
        try:
            assert server.stderr is not None
            yield next(found[1] for line in server.stderr if (found := re.search(r"http://([\d.]+:\d+)", line)))
        finally:
            server.terminate()


def ask(address: str, name: str, source: Source) -> dict[str, np.ndarray]:
    """What the service says of a source's rows, by output name.

    Raises:
        AssertionError: it does not answer with 200.
    """
    body, key = (
        ({"inputs": _columns(source.rows)}, "outputs")
        if source.columnar
        else ({"instances": _rows(source.rows)}, "predictions")
    )
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("POST", f"/v1/models/{name}:predict", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, text
    found = json.loads(text)[key]
    if not source.columnar and isinstance(found[0], dict):
        found = {output: [row[output] for row in found] for output in found[0]}
    if not isinstance(found, dict):
        found = {next(iter(source.answers)): found}
    return {output: np.asarray(values) for output, values in found.items()}


def check(source: Source, found: Mapping[str, np.ndarray]) -> float:
    """Compare the service's answers with the source's own.

    Returns:
        The largest difference, as a share of the output's largest value.
    """
    assert sorted(found) == sorted(source.answers)
    largest = 0.0
    for name, expected in source.answers.items():
        values = found[name]
        assert values.shape == expected.shape, (name, values.shape, expected.shape)
        if expected.dtype.kind in "OSU":
            texts = [value.decode() if isinstance(value, bytes) else value for value in expected.ravel().tolist()]
            assert values.ravel().tolist() == texts, name
        elif expected.dtype.kind in "iub":
            assert np.array_equal(values, expected), name
        else:
            finite = np.isfinite(expected)
            assert np.array_equal(values[~finite], expected[~finite], equal_nan=True), name
            scale = float(np.max(np.abs(expected[finite]), initial=0.0))
            difference = float(np.max(np.abs(values[finite].astype(np.float64) - expected[finite]), initial=0.0))
            assert np.allclose(values[finite], expected[finite], RELATIVE, ABSOLUTE * scale), (name, difference, scale)
            largest = max(largest, difference / scale if scale else difference)
    return largest


def check_layer(name: str, folder: Path, store: Path, address: str) -> None:
    """Import the model of one kind of layer and compare what is served with Keras' own answer.

    Args:
        name: one of `LAYER_CASES`.
        folder: for the .keras file.
        store: what is served at `address`.
        address: of the service.
    """
    case, keras = LAYER_CASES[name], load_keras()
    keras.utils.set_random_seed(0)
    model = case.make(keras)
    if model.inputs[0].shape[0]:
        case = dataclasses.replace(case, num_rows=model.inputs[0].shape[0])
    source = keras_source(model, case.rows(model), folder)
    published = f"m{list(LAYER_CASES).index(name)}"
    if name in REFUSED:
        with pytest.raises(ConversionError, match=REFUSED[name]):
            import_model(source.path, published, store.as_uri())
        assert not (store / published).exists()
        return
    import_model(source.path, published, store.as_uri())
    check(source, ask(address, published, source))


def _columns(rows: Arrays) -> Any:
    columns = {name: _json(values) for name, values in rows.items()}
    return columns if len(columns) > 1 else next(iter(columns.values()))


def _rows(rows: Arrays) -> list[Any]:
    columns = {name: _json(values) for name, values in rows.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(values: np.ndarray) -> Any:
    if values.dtype.kind not in "OS":
        return values.tolist()
    return np.vectorize(lambda word: {"b64": base64.b64encode(bytes(word)).decode()}, otypes=[object])(values).tolist()
