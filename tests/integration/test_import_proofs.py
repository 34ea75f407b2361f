"""The proofs of `litelambda import`, each broken on purpose: nothing is published, and `latest` stays where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from litelambda.cli.main import main
from litelambda.common.errors import DataError
from litelambda.conversion import converter
from litelambda.evaluation import verify
from litelambda.evaluation.representative_rows import check_rows
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from support.flatbuffer_surgery import (
    edited,
    with_nan_weight,
    with_scaled_kernel,
    with_swapped_outputs,
    with_zero_codes,
    without_an_output,
)
from support.golden_store import GOLDEN, golden

ROWS = np.random.default_rng(1).random((64, 4), dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A store in which `m` has version 1, and `latest` points at it."""
    assert do_import(tmp_path / "store", GOLDEN / "tiny_int8.tflite") == 0
    capsys.readouterr()
    return tmp_path / "store"


def do_import(store: Path, path: Path, *options: object) -> int:
    return main(["import", str(path), "--name", "m", "--store", store.as_uri(), "--json", *map(str, options)])


def assert_refused(store: Path, capsys: pytest.CaptureFixture[str], message: str, path: Path, *options: object) -> None:
    """An import ends with exit code 1 and the message, and the store is as it was."""
    assert do_import(store, path, *options) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""
    assert [each.name for each in (store / "m").iterdir() if each.is_dir()] == ["1"]
    assert json.loads((store / "m/aliases.json").read_text())["latest"] == 1


@pytest.fixture
def tampered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[bytes], bytes]], None]:
    """Let the converter's flatbuffers of a name be changed before anyone sees them."""
    real = converter._PROCESS.call

    def use(name: str, change: Callable[[bytes], bytes]) -> None:
        def call(function: Callable[..., None], conversions: Sequence[converter.Conversion]) -> None:
            real(function, conversions)
            for path in Path(conversions[0].output).parent.glob(name):
                path.write_bytes(change(path.read_bytes()))

        monkeypatch.setattr(converter._PROCESS, "call", call)

    return use


@pytest.fixture(scope="module")
def models(tiny_model: Any, two_way_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Keras models of the tests as files."""
    folder = tmp_path_factory.mktemp("models")
    tiny_model.save(folder / "tiny.keras")
    two_way_model.save(folder / "two_way.keras")
    np.save(folder / "rows.npy", ROWS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (
            "tiny.keras",
            with_scaled_kernel,
            "output 'probabilities' of the float flatbuffer differs from the source's",
        ),
        ("two_way.keras", without_an_output, "got lost or renamed in conversion"),
    ],
)
def test_a_conversion_that_changes_the_model_is_refused(
    store: Path, models: Path, capsys: pytest.CaptureFixture[str], tampered: Any, model: str, change: Any, message: str
) -> None:
    """A kernel off by a hundredth, a lost output: Keras' own predictions tell."""
    tampered("float.tflite", change)
    assert_refused(store, capsys, message, models / model)


@pytest.mark.slow
def test_outputs_under_each_others_names_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tampered: Any
) -> None:
    """Outputs of one shape, exchanged: nothing but their values tells them apart."""
    keras = load_keras()
    given = keras.Input((4,), name="x")
    outputs = [keras.layers.Dense(2, name="left")(given), keras.layers.Dense(2, name="right")(given)]
    keras.Model(given, outputs).save(tmp_path / "pair.keras")
    tampered("float.tflite", with_swapped_outputs)
    assert_refused(store, capsys, "a rewrite of the model or the converter has changed it", tmp_path / "pair.keras")


@pytest.mark.slow
def test_an_int8_model_that_is_far_off_is_refused_and_can_be_accepted(
    store: Path, models: Path, capsys: pytest.CaptureFixture[str], tampered: Any
) -> None:
    """int8 weights of zero are refused by the gate; --accept-loss publishes them, and the manifest says so."""
    tampered("int8.tflite", with_zero_codes)
    options = ["--representative", models / "rows.npy"]
    message = "the int8 model is too far from its source on 32 representative rows, output 'probabilities'"
    assert_refused(store, capsys, message, models / "tiny.keras", *options)
    assert do_import(store, models / "tiny.keras", *options, "--accept-loss") == 0
    metrics = json.loads((store / "m/2/manifest.json").read_text())["metrics"]
    assert metrics["accepted_loss"] is True
    assert metrics["max_difference"] > 0.1
    assert metrics["float_difference"] < 2**-11


@pytest.mark.slow
def test_what_is_measured_of_an_int8_model(store: Path, models: Path, tiny_model: Any) -> None:
    """The manifest's figures are those between Keras' predictions and the served codes, on rows held back."""
    assert do_import(store, models / "tiny.keras", "--representative", models / "rows.npy") == 0
    metrics = json.loads((store / "m/2/manifest.json").read_text())["metrics"]
    expected = tiny_model.predict(ROWS[1::2], verbose=0)
    interpreter = Interpreter(model_content=(store / "m/2/model.tflite").read_bytes())
    run = interpreter.get_signature_runner("predict")
    found = np.concatenate([run(features=row[None])["probabilities"] for row in ROWS[1::2]])
    share = np.abs(found - expected).max() / expected.max()
    assert metrics["max_difference"] == pytest.approx(share, rel=1e-3)
    assert metrics["agreement"] == pytest.approx((found.argmax(1) == expected.argmax(1)).mean())
    assert (metrics["num_examples"], metrics["calibrated_on"]) == (32, 32)


@pytest.mark.slow
def test_a_strict_limit_is_a_gate_as_well(store: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--max-difference below what int8 can do refuses a good model."""
    options = ["--representative", models / "rows.npy", "--max-difference", "1e-6"]
    assert_refused(store, capsys, "1 % of its values are off by", models / "tiny.keras", *options)


def test_a_runtime_that_returns_zeros_is_refused(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime that ships is compared with the reference Interpreter, bit for bit."""
    real = verify.serve_in_child

    def zeros(*arguments: Any) -> Any:
        return {name: [bytes(len(data)) for data in runs] for name, runs in real(*arguments).items()}

    monkeypatch.setattr(verify, "serve_in_child", zeros)
    message = "differs between the shipped runtime and the reference Interpreter"
    assert_refused(store, capsys, message, GOLDEN / "tiny_int8.tflite")


def rows_with(value: float) -> np.ndarray[Any, Any]:
    rows = ROWS.copy()
    rows[5, 2] = value
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros_like(ROWS), "are constant, all values are 0"),
        (np.full_like(ROWS, 3), "are constant, all values are 3"),
        (np.tile(ROWS[:1], (64, 1)), "are all the same row"),
        (ROWS / 1000 + 5, "are nearly constant, from 5"),
        (rows_with(1e30), "have an outlier, 1e+30 in row 5"),
        (rows_with(np.nan), "hold NaN or infinity in 1 of 64 rows, the first is row 5"),
        (rows_with(-np.inf), "hold NaN or infinity in 1 of 64 rows, the first is row 5"),
    ],
)
def test_rows_that_say_nothing_are_refused(
    store: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: Any, message: str
) -> None:
    """Rows that int8 cannot be calibrated with are named, before anything is converted."""
    np.save(tmp_path / "bad.npy", rows)
    assert_refused(store, capsys, message, models / "tiny.keras", "--representative", tmp_path / "bad.npy")


@pytest.mark.parametrize("sparse", [np.eye(4, dtype=np.float32)[np.arange(64) % 4], np.float32(10) ** -ROWS])
def test_rows_that_look_odd_and_are_not(sparse: Any) -> None:
    """One-hot rows, and values over a decade, are what they are."""
    assert check_rows({"x": sparse}, accept_loss=False) == []


def test_odd_rows_can_be_accepted_but_for_what_is_not_finite() -> None:
    """--accept-loss turns the refusal into a warning, never NaN."""
    (warning,) = check_rows({"x": np.zeros_like(ROWS)}, accept_loss=True)
    assert "are constant" in warning
    with pytest.raises(DataError, match="hold NaN"):
        check_rows({"x": rows_with(np.nan)}, accept_loss=True)


def saved_model(folder: Path, function: Callable[[Any, Any], Any]) -> Path:
    """A SavedModel of one function of a module with a variable, and of its input x."""
    tf = load_tensorflow()
    module = tf.Module()
    module.count = tf.Variable(0.0)
    module.serve = tf.function(
        lambda x: {"y": function(module, x)}, input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def counts(module: Any, x: Any) -> Any:
    return x + module.count.assign_add(1.0)


def draws(module: Any, x: Any) -> Any:
    return x + load_tensorflow().random.uniform([1, 2])


def prints(module: Any, x: Any) -> Any:
    tf = load_tensorflow()
    with tf.control_dependencies([tf.print("x", output_stream="file:///dev/null")]):
        return x + 1.0


def runs_python(module: Any, x: Any) -> Any:
    return load_tensorflow().numpy_function(lambda values: values, [x], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (counts, "keeps state from one request to the next, or draws random numbers (AssignAddVariableOp)"),
        (draws, "keeps state from one request to the next, or draws random numbers (RandomUniform)"),
        (prints, "touch files, run Python or reach outside the model (PrintV2)"),
        (runs_python, "touch files, run Python or reach outside the model (PyFunc)"),
    ],
)
def test_saved_models_that_must_not_be_served(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], function: Any, message: str
) -> None:
    """State, chance, files and Python are named by their operators."""
    assert_refused(store, capsys, message, saved_model(tmp_path / "saved", function))


def save_tensor(path: str) -> Any:
    """Write a checkpoint."""
    tf = load_tensorflow()
    return tf.raw_ops.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.constant(1.0)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: load_tensorflow().io.write_file(path, "x"), "outside the model (WriteFile): it was not loaded"),
        (save_tensor, "outside the model (SaveV2): it was not loaded"),
    ],
    ids=["a file", "a checkpoint"],
)
@pytest.mark.parametrize("name", [b"_initializer_", b"_of_another__"], ids=["its own name", "another name"])
def test_a_saved_model_that_writes_a_file_when_it_is_loaded(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Any, message: str, name: bytes
) -> None:
    """Its initializer is read, never run, whatever its function is called."""
    tf, trace = load_tensorflow(), tmp_path / "written"

    class Writing(tf.lookup.KeyValueTensorInitializer):  # type: ignore[misc]  # TensorFlow has no types
        """Fills a table, and writes a file."""

        def initialize(self, table: Any) -> Any:
            with tf.control_dependencies([] if tf.executing_eagerly() else [write(str(trace))]):
                return super().initialize(table)

    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(Writing(["a"], tf.constant([1.0])), 0.0)
    module.serve = tf.function(
        lambda x: {"y": x + module.table.lookup(tf.constant(["a"]))},
        input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    file = tmp_path / "saved" / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"_initializer_", name))
    for each in tmp_path.glob("written*"):
        each.unlink()
    assert_refused(store, capsys, message, tmp_path / "saved")
    assert not list(tmp_path.glob("written*"))


def to_tflite(path: Path) -> bytes:
    """A SavedModel through TensorFlow's converter alone."""
    converter = load_tensorflow().lite.TFLiteConverter.from_saved_model(str(path))
    converter.experimental_enable_resource_variables = True
    return bytes(converter.convert())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (counts, "keeps state from one request to the next (ASSIGN_VARIABLE, READ_VARIABLE, VAR_HANDLE)"),
        (draws, "draws random numbers (RANDOM_UNIFORM)"),
    ],
)
def test_tflite_files_with_state_or_chance(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], function: Any, message: str
) -> None:
    """The same models, converted by somebody else."""
    path = tmp_path / "state.tflite"
    path.write_bytes(to_tflite(saved_model(tmp_path / "saved", function)))
    assert_refused(store, capsys, message, path)


def with_a_variable(model: Any) -> None:
    """Its first operator's input keeps its values."""
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[0].inputs[0]].isVariable = True


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("two_by_two", lambda data: edited(data, with_a_variable), "keeps its state from one request to the next"),
        ("half_plus_two", with_nan_weight, "hold NaN: train it again"),
        ("tiny_int8", lambda data: data[:1225] + b"s" + data[1226:], "the reference Interpreter crashed (SIGSEGV)"),
        ("tiny_int8", lambda data: data[:16] + b"\0" + data[17:], "is damaged or cut short"),
    ],
)
def test_tflite_files_that_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, change: Any, message: str
) -> None:
    """Recurrent state, NaN, and bytes that crash the Interpreter end with a message, not with the command."""
    path = tmp_path / "bad.tflite"
    path.write_bytes(change(golden(name)))
    assert_refused(store, capsys, message, path)


@pytest.mark.slow
def test_keras_files_that_are_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One NaN weight, state between requests, and code: each is named."""
    keras = load_keras()
    dense = keras.layers.Dense(2, name="diverged")
    model = keras.Sequential([keras.Input((2,), name="x"), dense])
    kernel, bias = dense.get_weights()
    kernel[1, 1] = np.nan
    dense.set_weights([kernel, bias])
    model.save(tmp_path / "nan.keras")
    assert_refused(store, capsys, "the weights 'diverged/kernel' hold NaN", tmp_path / "nan.keras")
    given = keras.Input((4, 2), batch_size=1, name="x")
    keras.Model(given, keras.layers.LSTM(3, stateful=True, name="memory")(given)).save(tmp_path / "state.keras")
    assert_refused(store, capsys, "Make 'memory' with stateful=False", tmp_path / "state.keras")
    given = keras.Input((2,), name="x")
    keras.Model(given, keras.layers.Lambda(lambda x: x * 2)(given)).save(tmp_path / "code.keras")
    assert_refused(store, capsys, "code of a file from elsewhere is not run", tmp_path / "code.keras")
