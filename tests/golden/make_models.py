"""Make the tiny flatbuffers beside this file: `python tests/golden/make_models.py`.

They are committed, so that the tests of the serving side need no TensorFlow, and so that an artifact once published is
proven to load in every later version.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import flatbuffers
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

FOLDER = Path(__file__).parent
FIXED_SIZE_DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
)  # fmt: skip


def convert(name, function, specs, *, calibration=None, io=tf.float32, table=None):
    """Export a function under the signature `predict` and convert it; with calibration data to full int8."""
    module = tf.Module()
    module.table = table
    module.predict = tf.function(function, input_signature=specs)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"predict": module.predict})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["predict"])
        if name == "unsupported_op":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({specs[0].name: row[None]} for row in calibration)
            if name != "labelled":  # whose table of strings has no int8 form
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = io
        (FOLDER / f"{name}.tflite").write_bytes(converter.convert())


def rename(name, names):
    """Call the tensors of a signature by other names, which the converter would not take."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((FOLDER / f"{name}.tflite").read_bytes(), 0))
    for entry in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        entry.name = names[entry.name.decode()]
    write(name, model)


def write(name, model):
    """Write a model that was read as objects."""
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (FOLDER / f"{name}.tflite").write_bytes(bytes(builder.Output()))


def reshape_to(name, shape):
    """Give the only RESHAPE of a graph a constant shape instead of a computed one, with which no batch would run."""
    codes = schema.BuiltinOperator
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((FOLDER / f"{name}.tflite").read_bytes(), 0))
    graph = model.subgraphs[0]
    code_of = {id(op): model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators}
    computing = (codes.SHAPE, codes.STRIDED_SLICE, codes.PACK)
    graph.operators = [op for op in graph.operators if code_of[id(op)] not in computing]
    (reshape,) = (op for op in graph.operators if code_of[id(op)] == codes.RESHAPE)
    constant = schema.BufferT()
    constant.data = np.array(shape, "<i4").view(np.uint8)
    graph.tensors[reshape.inputs[1]].buffer = len(model.buffers)
    model.buffers.append(constant)
    write(name, model)


def make_mobilenet():
    """A MobileNet of a quarter's width, its classes spread by hand, and Keras' own answers for a few pictures."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=10)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    pixels = (pictures / 127.5 - 1).astype(np.float32)
    last = model.get_layer("conv_preds")
    logits = keras.Model(model.input, last.output).predict(pixels, verbose=0)
    scale = 4 / logits.std(axis=0).mean()
    last.set_weights([last.get_weights()[0] * scale, -logits.reshape(8, 10).mean(axis=0) * scale])
    spec = tf.TensorSpec([None, 32, 32, 3], tf.float32, name="image")
    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("predict", lambda image: {"probabilities": model(image)}, [spec])
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["predict"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        (FOLDER / "mobilenet.tflite").write_bytes(converter.convert())
    reshape_to("mobilenet", [-1, 10])
    answers = model.predict(pixels, verbose=0)
    np.savez_compressed(FOLDER / "mobilenet.npz", pictures=pictures, answers=answers)


def make_page_models():
    """What the page has forms for: words by their numbers, and a drawing of 28 by 28 pixels."""
    # Unknown and padding, good, bad, very, not: each for one of two classes, or for neither.
    weights = tf.constant([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 0.5], [0.5, 0.0]])
    convert(
        "words",
        lambda ids: {"probabilities": tf.nn.softmax(tf.reduce_sum(tf.gather(weights, ids), axis=1))},
        [tf.TensorSpec([None, 8], tf.int32, name="ids")],
    )
    # How much lies in the four lines in the middle, across and down.
    convert(
        "strokes",
        lambda image: {
            "probabilities": tf.nn.softmax(
                tf.stack([tf.reduce_sum(image[:, 12:16, :], [1, 2]), tf.reduce_sum(image[:, :, 12:16], [1, 2])], axis=1)
                / 5000.0
            )
        },
        [tf.TensorSpec([None, 28, 28], tf.float32, name="image")],
    )


def make_odd_signatures():
    """Tensors that are not rows in and rows out, values that a run fails on, names."""
    # A key that comes back as it came: an output that is an input tensor.
    x3 = tf.TensorSpec([None, 3], tf.float32, name="x")
    convert("keyed", lambda key, x: {"key": key, "y": 2.0 * x}, [tf.TensorSpec([None], tf.int64, name="key"), x3])
    # Two outputs that are one tensor.
    convert("twins", lambda x: dict.fromkeys(("a", "b"), 2.0 * x), [x3])
    # A number that is computed after strings, whose shapes are only known while the model runs.
    convert(
        "after_strings",
        lambda s, x: {"t": tf.expand_dims(s, 1), "y": 2.5 * x},
        [tf.TensorSpec([None], tf.string, name="s"), x3],
    )
    # An output without rows, made of all of them.
    convert("totals", lambda x: {"total": tf.reduce_sum(x, axis=0), "y": 2.0 * x}, [x3])
    # An output that is the same whatever comes in.
    convert("constant", lambda x: {"c": tf.constant([1.0, 2.0, 3.0]), "y": 2.0 * x}, [x3])
    # Whole tensors without a batch, of first dimensions that differ.
    convert(
        "whole",
        lambda a, b: {"y": tf.cast(a, tf.float32) * 2.0, "z": b + 1},
        [tf.TensorSpec([2], tf.int32, name="a"), tf.TensorSpec([1, 3], tf.int32, name="b")],
    )
    # Exactly four rows.
    convert("four_rows", lambda x: {"y": tf.reduce_sum(x, axis=1)}, [tf.TensorSpec([4, 6], tf.float32, name="x")])
    # Inputs that a run can fail on, in an order that is not the runtime's.
    numbers = [tf.TensorSpec([None], tf.int32, name=name) for name in ("a", "b")]
    convert("division", lambda a, b: {"y": a // b}, numbers)
    # Large outputs of small inputs, and a run that fails where one is 0.
    table = tf.reshape(tf.range(1.0, 4097.0), [1, 64, 64])
    number = tf.TensorSpec([None, 1], tf.int32, name="x")

    def spread(x):
        real = tf.reshape(tf.cast(x, tf.float32), [-1, 1, 1])
        return {"image": real / 7.0 * table, "codes": tf.reshape(tf.range(1000, 1008), [1, 8]) // x}

    convert("spread", spread, [number])
    # The same as division with a string output, for whose size a run can fail as well.
    key = tf.TensorSpec([None], tf.string, name="key")
    convert("keyed_division", lambda key, a, b: {"key": tf.expand_dims(key, 1), "y": a // b}, [key, *numbers])
    # A remainder, which for the smallest integer and -1 is a fault of the processor.
    convert("remainder", lambda a, b: {"y": a % b}, numbers)
    # Rows of a table by their numbers: directly, and as an int64 that is cast and reshaped first.
    rows_of = tf.constant([[10.0 * row, 10.0 * row + 1] for row in range(5)])
    convert("table", lambda ids: {"y": tf.gather(rows_of, ids)}, [tf.TensorSpec([None, 2], tf.int32, name="ids")])
    convert(
        "wide_table",
        lambda ids: {"y": tf.gather(rows_of, tf.cast(tf.reshape(ids, [-1, 2]), tf.int32))},
        [tf.TensorSpec([None, 2, 1], tf.int64, name="ids")],
    )
    # Names that are no identifiers, or Python's own.
    odd = ("a b", "x:0", "grün", "class", "self")
    plain = [tf.TensorSpec([None, 2], tf.float32, name=name) for name in "vwxyz"]
    convert("odd_names", lambda v, w, x, y, z: {"V": 2 * v, "W": 2 * w, "X": 2 * x, "Y": 2 * y, "Z": 2 * z}, plain)
    rename("odd_names", dict(zip("vwxyzVWXYZ", odd * 2, strict=True)))
    # Two outputs of the same shape.
    pair = [tf.TensorSpec([None, 2], tf.float32, name=name) for name in ("left", "right")]
    convert("two_doubles", lambda left, right: {"left": 2 * left, "right": 2 * right}, pair)
    # Exactly one row, as in TensorFlow Serving's own half_plus_two for TensorFlow 2.
    convert("one_row", lambda x: {"y": x / 2 + 2}, [tf.TensorSpec([1], tf.float32, name="x")])


def main():
    random = np.random.default_rng(0)
    weights = tf.constant(random.normal(size=(4, 3)), tf.float32)
    rows = random.uniform(0, 1, size=(64, 4)).astype("float32")
    x4 = tf.TensorSpec([None, 4], tf.float32, name="x")

    # The TensorFlow Serving tutorial's model.
    convert("half_plus_two", lambda x: {"y": x / 2 + 2}, [tf.TensorSpec([None], tf.float32, name="x")])
    # int8 inside, float32 at the edges, as the build makes them.
    classify = lambda x: {"probabilities": tf.nn.softmax(x @ weights)}  # noqa: E731
    convert("tiny_int8", classify, [x4], calibration=rows)
    # The same with raw codes at the edges.
    convert("tiny_int8_raw", classify, [x4], calibration=rows, io=tf.int8)
    # Several inputs and outputs, of several dtypes and ranks.
    convert(
        "two_by_two",
        lambda a, b: {"total": tf.reduce_sum(a, axis=1) + tf.cast(b, tf.float32), "twice": b * 2},
        [tf.TensorSpec([None, 3], tf.float32, name="a"), tf.TensorSpec([None], tf.int32, name="b")],
    )
    # Every dtype of fixed size, out as it came in but for its shape.
    for dtype in FIXED_SIZE_DTYPES:
        convert(
            f"dtype_{dtype}",
            lambda x: {"y": tf.reshape(x, [3, 1])},
            [tf.TensorSpec([1, 3], tf.dtypes.as_dtype(dtype), name="x")],
        )
    # Pictures of 2 by 3 RGB pixels, as floats and as codes.
    image = tf.TensorSpec([None, 2, 3, 3], tf.float32, name="image")
    colors = lambda image: {"mean": tf.reduce_mean(image, axis=[1, 2])}  # noqa: E731
    convert("image_2x3", colors, [image])
    pictures = random.uniform(0, 1, size=(64, 2, 3, 3)).astype("float32")
    convert("image_2x3_uint8", colors, [image], calibration=pictures, io=tf.uint8)
    # Strings as they came, also as values that TensorFlow Serving answers in base64, and compared.
    text = tf.TensorSpec([None, 2], tf.string, name="text")
    convert(
        "strings",
        lambda text: {"echo": tf.identity(text), "echo_bytes": tf.expand_dims(text, 1),
                      "same": tf.equal(text[:, 0], text[:, 1])},
        [text],
    )  # fmt: skip
    # Strings looked up in a table, next to a number.
    entries = tf.lookup.KeyValueTensorInitializer(["red", "green", "blue"], tf.constant([1, 2, 3], tf.int64))
    table = tf.lookup.StaticHashTable(entries, -1)
    convert(
        "lookup",
        lambda word, step: {"id": tf.reshape(table.lookup(word), [-1]) + step},
        [tf.TensorSpec([None], tf.string, name="word"), tf.TensorSpec([None], tf.int64, name="step")],
        table=table,
    )
    # A string output that is a thousand times its input.
    convert("growing", lambda text: {"y": tf.tile(text, [1, 1000])}, [tf.TensorSpec([None, 1], tf.string, name="text")])
    # An int8 classifier that names the class itself.
    names = tf.constant(["cat", "dog", "fox"])
    label = lambda p: {"probabilities": p, "label": tf.gather(names, tf.argmax(p, axis=1))}  # noqa: E731
    convert("labelled", lambda x: label(tf.nn.softmax(x @ weights)), [x4], calibration=rows)
    # No batch dimension at all.
    convert("scalar", lambda x: {"y": x * 3.0}, [tf.TensorSpec([], tf.float32, name="x")])
    # A batch size taken from SHAPE: its output keeps a stale size after a resize.
    kernel = tf.constant(random.normal(size=(2, 2, 1, 2)), tf.float32)
    dense = tf.constant(random.normal(size=(18, 3)), tf.float32)
    convert(
        "dynamic_flatten",
        lambda x: {"y": tf.reshape(tf.nn.conv2d(x, kernel, 1, "VALID"), [tf.shape(x)[0], 18]) @ dense},
        [tf.TensorSpec([None, 4, 4, 1], tf.float32, name="x")],
    )
    # An operator that only TensorFlow has.
    convert("unsupported_op", lambda x: {"y": tf.linalg.det(x)}, [tf.TensorSpec([1, 2, 2], tf.float32, name="x")])
    make_mobilenet()
    make_odd_signatures()
    make_page_models()


if __name__ == "__main__":
    main()
