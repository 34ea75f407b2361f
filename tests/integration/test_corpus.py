"""Models as strangers make them: imported, served over HTTP, and compared with their own framework's answer."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.commands.import_model import import_model
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from support.corpus import ask, check, flatbuffer_source, keras_source, saved_model_source
from support.golden_store import GOLDEN

keras, tf = load_keras(), load_tensorflow()
layers = keras.layers

pytestmark = pytest.mark.slow

NOISE = np.random.default_rng(0)
VECTORS = NOISE.normal(0, 1, (6, 4)).astype(np.float32)
TOKENS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [6, 7, 1, 2, 3], [0, 0, 0, 0, 0]], np.int32)
STEPS = np.where(TOKENS[..., None] > 0, NOISE.normal(0, 1, (4, 5, 3)), 0).astype(np.float32)
WORDS = np.array([[b"ant"], [b"bee"], [b"unknown"], [b""]], object)


def vector(name="x"):
    return keras.Input((4,), name=name)


def adapted(layer, data):
    layer.adapt(data)
    return layer


# ---- Keras: layers with state of their own


def normalized(folder, **settings):
    data = NOISE.normal(50, 9, (64, 4)).astype(np.float32)
    model = keras.Sequential([vector(), adapted(layers.Normalization(**settings), data), layers.Dense(3)])
    return keras_source(model, {"x": data[:6]}, folder)


def nested_normalization(folder):
    data = NOISE.normal(50, 9, (64, 4)).astype(np.float32)
    inner = keras.Sequential([vector("inner"), adapted(layers.Normalization(), data), layers.Dense(5, "relu")])
    x = vector()
    return keras_source(keras.Model(x, layers.Dense(3)(inner(x))), {"x": data[:6]}, folder)


def discretized(folder):
    data = NOISE.normal(0, 3, (64, 4)).astype(np.float32)
    layer = adapted(layers.Discretization(num_bins=5), data)
    return keras_source(keras.Sequential([vector(), layer, layers.Dense(3)]), {"x": data[:6]}, folder)


def string_lookup(folder):
    layer = adapted(layers.StringLookup(), [b"ant", b"bee", b"cat"])
    return keras_source(keras.Sequential([keras.Input((1,), dtype="string", name="x"), layer]), {"x": WORDS}, folder)


def integer_lookup(folder):
    layer = adapted(layers.IntegerLookup(), [10, 20, 30])
    model = keras.Sequential([keras.Input((2,), dtype="int64", name="x"), layer])
    return keras_source(model, {"x": np.array([[10, 30], [7, 20]], np.int64)}, folder)


def batch_norm_with_statistics(folder):
    norm = layers.BatchNormalization()
    model = keras.Sequential([vector(), layers.Dense(5), norm, layers.Dense(3)])
    norm.set_weights([NOISE.normal(1, 1, 5), NOISE.normal(0, 1, 5), NOISE.normal(3, 1, 5), NOISE.uniform(1, 4, 5)])
    return keras_source(model, {"x": VECTORS}, folder)


# ---- Keras: masks


def masked(recurrent, **settings):
    def make(folder):
        inner = getattr(layers, recurrent)(4, **settings)
        model = keras.Sequential([keras.Input((5, 3), name="x"), layers.Masking(), inner, layers.Dense(2)])
        return keras_source(model, {"x": STEPS}, folder)

    return make


def masked_bidirectional(folder):
    inner = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
    model = keras.Sequential([keras.Input((5, 3), name="x"), layers.Masking(), inner])
    return keras_source(model, {"x": STEPS}, folder)


def embedded_bidirectional(folder):
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32", name="x"),
            layers.Embedding(8, 4, mask_zero=True),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.Dense(2),
        ]
    )
    return keras_source(model, {"x": TOKENS}, folder)


def masked_mean(folder):
    x = keras.Input((5,), dtype="int32", name="x")
    words = layers.Embedding(8, 4, mask_zero=True)(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(words)))
    return keras_source(model, {"x": TOKENS[:3]}, folder)


def transformer_with_mask_mean(folder):
    x = keras.Input((5,), dtype="int32", name="x")
    words = layers.Embedding(8, 4)(x)
    attended = layers.MultiHeadAttention(2, 2)(words, words) + words
    weights = keras.ops.expand_dims(keras.ops.cast(x > 0, "float32"), -1)
    mean = keras.ops.sum(attended * weights, 1) / keras.ops.sum(weights, 1)
    return keras_source(keras.Model(x, layers.Dense(2)(mean)), {"x": TOKENS[:3]}, folder)


# ---- Keras: outputs


def one_layer_twice(folder):
    a, b = vector("a"), vector("b")
    head = layers.Dense(2, name="head")
    model = keras.Model([a, b], [head(a), head(b)])
    return keras_source(model, {"a": VECTORS, "b": VECTORS[::-1].copy()}, folder, ["head", "head_1"])


def lstm_states(folder):
    x = keras.Input((5, 3), name="x")
    model = keras.Model(x, layers.LSTM(4, return_state=True, name="lstm")(x))
    return keras_source(model, {"x": STEPS}, folder, ["lstm", "lstm_1", "lstm_2"])


def input_as_output(folder):
    x = vector()
    model = keras.Model(x, [layers.Dense(2, name="y")(x), x])
    return keras_source(model, {"x": VECTORS}, folder, ["y", "x"])


def one_tensor_twice(folder):
    x = vector()
    y = layers.Dense(2, name="y")(x)
    return keras_source(keras.Model(x, [y, y]), {"x": VECTORS}, folder, ["y", "y_1"])


def dict_outputs(folder):
    x = vector()
    model = keras.Model(x, {"second": layers.Dense(2)(x), "first": layers.Dense(3)(x)})
    return keras_source(model, {"x": VECTORS}, folder, ["first", "second"])


def argmax(folder):
    x = vector()
    model = keras.Model(x, keras.ops.argmax(layers.Dense(3)(x), axis=-1))
    return keras_source(model, {"x": VECTORS}, folder)


def top_k(folder):
    x = vector()
    values, indices = keras.ops.top_k(layers.Dense(5)(x), 2)
    return keras_source(keras.Model(x, [values, indices]), {"x": VECTORS}, folder, ["top_k", "top_k_1"])


# ---- Keras: dtypes and files


def mixed(policy):
    def make(folder):
        dtype = keras.DTypePolicy(policy)
        model = keras.Sequential([vector(), layers.Dense(8, "relu", dtype=dtype), layers.Dense(3, dtype="float32")])
        source = keras_source(model, {"x": VECTORS}, folder)
        plain = keras.Sequential([vector(), layers.Dense(8, "relu"), layers.Dense(3)])
        plain.set_weights(model.get_weights())
        answers = dict(zip(source.answers, [plain.predict(VECTORS, verbose=0)], strict=True))
        return type(source)(source.path, source.rows, answers)  # as float32, which is what is served

    return make


def h5(folder):
    model = keras.Sequential([vector(), layers.Dense(5, "tanh"), layers.Dense(3)])
    return keras_source(model, {"x": VECTORS}, folder, suffix=".h5")


def fixed_batch(folder):
    model = keras.Sequential([keras.Input(batch_shape=(4, 6), name="x"), layers.Dense(3)])
    return keras_source(model, {"x": NOISE.normal(0, 1, (4, 6)).astype(np.float32)}, folder)


def saved_after_predict(folder):
    model = keras.Sequential([layers.Dense(3)])
    model.predict(VECTORS, verbose=0)
    return keras_source(model, {model.inputs[0].name: VECTORS}, folder)


def two_inputs(folder):
    a, b = vector("left"), keras.Input((2, 3), name="right")
    model = keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([a, layers.Flatten()(b)])))
    return keras_source(model, {"left": VECTORS, "right": NOISE.random((6, 2, 3), np.float32)}, folder)


KERAS = {
    "Normalization, adapted": normalized,
    "Normalization, inverted": lambda folder: normalized(folder, invert=True),
    "Normalization, over all axes": lambda folder: normalized(folder, axis=None),
    "Normalization in a nested model": nested_normalization,
    "Discretization, adapted": discretized,
    "StringLookup, adapted": string_lookup,
    "IntegerLookup, adapted": integer_lookup,
    "BatchNormalization with statistics": batch_norm_with_statistics,
    "Masking, LSTM": masked("LSTM"),
    "Masking, GRU": masked("GRU"),
    "Masking, SimpleRNN": masked("SimpleRNN"),
    "Masking, LSTM of sequences": masked("LSTM", return_sequences=True),
    "Masking, LSTM backwards": masked("LSTM", go_backwards=True),
    "Masking, Bidirectional LSTM of sequences": masked_bidirectional,
    "Embedding with a mask, Bidirectional GRU": embedded_bidirectional,
    "Embedding with a mask, mean": masked_mean,
    "transformer with a mean over a mask": transformer_with_mask_mean,
    "one layer twice": one_layer_twice,
    "LSTM with its states": lstm_states,
    "an input as an output": input_as_output,
    "one tensor as two outputs": one_tensor_twice,
    "outputs in a dict": dict_outputs,
    "argmax": argmax,
    "top_k": top_k,
    "mixed_float16": mixed("mixed_float16"),
    "mixed_bfloat16": mixed("mixed_bfloat16"),
    "HDF5": h5,
    "fixed batch": fixed_batch,
    "Sequential saved after predict": saved_after_predict,
    "two inputs": two_inputs,
}


# ---- SavedModels


def spec(shape, dtype=tf.float32, name="x"):
    return tf.TensorSpec(shape, dtype, name=name)


def half_plus_two(folder):
    rows = {"x": np.array([1.0, 2.0, 5.0], np.float32)}
    return saved_model_source(folder, lambda x: {"y": x / 2 + 2}, {"x": spec([None])}, rows)


def keyed(folder):
    inputs = {"key": spec([None], tf.int64, "key"), "x": spec([None, 4])}
    rows = {"key": np.arange(6, dtype=np.int64) + 2**40, "x": VECTORS}
    return saved_model_source(folder, lambda key, x: {"key": tf.identity(key), "y": 2 * x}, inputs, rows)


def keyed_with_words(folder):
    inputs = {"key": spec([None], tf.string, "key"), "x": spec([None, 4])}
    rows = {"key": np.array([b"a", b"b", b"", b"d", b"e", b"f"], object), "x": VECTORS}
    return saved_model_source(folder, lambda key, x: {"key": tf.identity(key), "y": 2 * x}, inputs, rows)


def identity(folder):
    return saved_model_source(folder, lambda x: {"y": tf.identity(x)}, {"x": spec([None, 4])}, {"x": VECTORS})


def without_rows(folder):
    function = lambda x: {"total": tf.reduce_sum(x, 0), "y": 2 * x}  # noqa: E731
    return saved_model_source(folder, function, {"x": spec([None, 4])}, {"x": VECTORS[:1]}, columnar=True)


def scalar_output(folder):
    function = lambda x: {"y": tf.reduce_sum(x)}  # noqa: E731
    return saved_model_source(folder, function, {"x": spec([3])}, {"x": VECTORS[0, :3]}, columnar=True)


def no_batch(folder):
    inputs = {"a": spec([2], tf.int32, "a"), "b": spec([1, 3], tf.int32, "b")}
    rows = {"a": np.array([1, 2], np.int32), "b": np.array([[3, 4, 5]], np.int32)}
    function = lambda a, b: {"y": tf.reduce_sum(a) + b}  # noqa: E731
    return saved_model_source(folder, function, inputs, rows, columnar=True)


def no_batch_words(folder):
    inputs = {"a": spec([2], tf.string, "a"), "b": spec([1], tf.string, "b")}
    rows = {"a": np.array([b"ant", b"bee"], object), "b": np.array([b"cat"], object)}
    function = lambda a, b: {"y": tf.identity(a), "z": tf.identity(b)}  # noqa: E731
    return saved_model_source(folder, function, inputs, rows, columnar=True)


def two_rows_exactly(folder):
    return saved_model_source(folder, lambda x: {"y": x + 1}, {"x": spec([2, 4])}, {"x": VECTORS[:2]})


def one_row_exactly(folder):
    return saved_model_source(folder, lambda x: {"y": x + 1}, {"x": spec([1, 2])}, {"x": VECTORS[:1, :2]})


def top_k_of_any_batch(folder):
    """TFLite's TOPK_V2 takes no open batch: it is made for one row."""
    function = lambda x: dict(zip(("values", "indices"), tf.math.top_k(x, 2), strict=True))  # noqa: E731
    return saved_model_source(folder, function, {"x": spec([None, 4])}, {"x": VECTORS})


def one_tensor_two_names(folder):
    def function(x):
        y = 2 * x
        return {"first": y, "second": y}

    return saved_model_source(folder, function, {"x": spec([None, 4])}, {"x": VECTORS})


def of_dtype(dtype, values):
    def make(folder):
        values_ = np.array(values)
        tensors = {"x": spec([None, *values_.shape[1:]], dtype)}
        function = (lambda x: {"y": tf.logical_not(x)}) if dtype == tf.bool else (lambda x: {"y": x + x})
        return saved_model_source(folder, function, tensors, {"x": values_.astype(dtype.as_numpy_dtype)})

    return make


def float64(folder):
    function = lambda x: {"y": tf.cast(2 * tf.cast(x, tf.float32), tf.float64)}  # noqa: E731
    rows = {"x": np.array([[1.5, -2.25], [1e-30, 4.0]])}
    return saved_model_source(folder, function, {"x": spec([None, 2], tf.float64)}, rows)


def with_variable(folder):
    weights = tf.Variable(NOISE.normal(0, 1, (4, 3)).astype(np.float32))
    return saved_model_source(
        folder, lambda x: {"y": tf.matmul(x, weights)}, {"x": spec([None, 4])}, {"x": VECTORS}, tracked=weights
    )


def reshaped_float64(folder):
    rows = {"x": np.array([[1.0, np.nan], [np.inf, 4.0]])}
    return saved_model_source(
        folder, lambda x: {"y": tf.reshape(x, (-1, 2, 1))}, {"x": spec([None, 2], tf.float64)}, rows
    )


def odd_output_names(folder):
    function = lambda x: {"self": 2 * x, "class": x + 1, "a b": x - 1}  # noqa: E731 - TensorFlow takes no such inputs
    return saved_model_source(folder, function, {"x": spec([None, 4])}, {"x": VECTORS})


SAVED_MODELS = {
    "half_plus_two": half_plus_two,
    "keyed": keyed,
    "keyed with words": keyed_with_words,
    "identity": identity,
    "an output without rows": without_rows,
    "scalar output": scalar_output,
    "no batch": no_batch,
    "no batch, words": no_batch_words,
    "two rows exactly": two_rows_exactly,
    "one row exactly": one_row_exactly,
    "top_k of any batch": top_k_of_any_batch,
    "one tensor with two names": one_tensor_two_names,
    "int32": of_dtype(tf.int32, [[1, -2], [3, 4]]),
    "int64": of_dtype(tf.int64, [[1, -(2**40)], [3, 4]]),
    "float64": float64,
    "bool": of_dtype(tf.bool, [[True, False], [False, False]]),
    "variable": with_variable,
    "float64 reshaped": reshaped_float64,
    "odd output names": odd_output_names,
}


# ---- flatbuffers


def golden_rows(name, rows, columnar=False):
    return lambda _: flatbuffer_source(GOLDEN / f"{name}.tflite", rows, columnar)


FLATBUFFERS = {
    "tiny int8": golden_rows("tiny_int8", {"x": NOISE.random((5, 4), np.float32)}),
    "half plus two": golden_rows("half_plus_two", {"x": np.array([1.0, 2.0, 5.0], np.float32)}),
}

SOURCES = {**KERAS, **SAVED_MODELS, **FLATBUFFERS}


@pytest.mark.parametrize("index", range(len(SOURCES)), ids=list(SOURCES))
def test_a_model_from_outside_is_served_as_its_own_framework_answers(tmp_path, served_store, index):
    """What is imported answers over HTTP as Keras, TensorFlow or the reference Interpreter does, output by output."""
    store, address = served_store
    keras.utils.set_random_seed(0)
    source = list(SOURCES.values())[index](tmp_path)
    import_model(source.path, f"m{index}", store.as_uri())
    check(source, ask(address, f"m{index}", source))
