"""Rewrites: flatbuffers of what is hard to export, in the reference Interpreter, against Keras' own `predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.artifact.flatbuffer import operator_names, parse
from litelambda.artifact.reference import Reference
from litelambda.common.errors import ConversionError
from litelambda.conversion import export as exporting
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.conversion.rewrites import Rewrite, proven
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.made_rows import ULPS, answered, difference_ulps
from litelambda.keras_tools.output_names import output_names
from litelambda.recipe.sections import Quantize
from litelambda_serving.litert import CompiledModel

Models = dict[str, Callable[[], Any]]
SOME_WORDS = np.array(["a", "text", "text"])

keras = load_keras()
layers, ops, Input = keras.layers, keras.ops, keras.Input


def data(*shape: int) -> Any:
    """Seeded rows far from zero, of a small range: what makes a lost mean or variance show."""
    return np.random.default_rng(0).normal(50, 9, shape).astype(np.float32)


def adapted(layer: Any, rows: Any) -> Any:
    """A layer that has seen rows."""
    layer.adapt(rows)
    return layer


def sequential(*parts: Any) -> Any:
    """A Sequential model."""
    return keras.Sequential(list(parts))


def on(shape: tuple[int | None, ...], make: Callable[[Any], Any], dtype: str = "float32", name: str = "x") -> Any:
    """A Functional model of one input."""
    given = Input(shape, dtype=dtype, name=name)
    return keras.Model(given, make(given))


def masked(layer: Any) -> Any:
    """A layer behind a Masking."""
    return on((4, 2), lambda x: layer(layers.Masking()(x)))


def embedded(layer: Any) -> Any:
    """A layer behind an Embedding that masks zeros."""
    return on((4,), lambda x: layer(layers.Embedding(9, 3, mask_zero=True)(x)), "int32")


def pair(make: Callable[[Any, Any], Any]) -> Any:
    """A model with the inputs "a" and "b"."""
    a, b = Input((4,), name="a"), Input((4,), name="b")
    return keras.Model([a, b], make(a, b))


def shared_twice(a: Any, b: Any) -> Any:
    """One layer, used for two outputs."""
    head = layers.Dense(2, name="head")
    return [head(a), head(b)]


def one_tensor_twice(a: Any, b: Any) -> Any:
    """Two outputs on one tensor, and one of the rest."""
    y = layers.Dense(2, name="head")(a)
    return [y, layers.Dense(2, name="tail")(b), y]


def named(*names: str) -> Any:
    """A model whose inputs have these names."""
    inputs = [Input((4,), name=name) for name in names]
    joined = layers.Concatenate()(inputs) if len(inputs) > 1 else inputs[0]
    return keras.Model(inputs, layers.Dense(2, name="scores")(joined))


class OwnArgmax(layers.Layer):  # type: ignore[misc, name-defined]  # Keras has no types
    """A layer of the user's with an operation that TFLite lacks as Keras writes it."""

    def call(self, inputs: Any) -> Any:
        """The place of the largest."""
        return ops.argmax(inputs * 2, axis=-1)


ADAPTED: Models = {
    "adapted": lambda: sequential(Input((4,)), adapted(layers.Normalization(), data(99, 4)), layers.Dense(3)),
    "invert": lambda: sequential(Input((4,)), adapted(layers.Normalization(invert=True), data(99, 4)), layers.Dense(3)),
    "constants": lambda: sequential(Input((4,)), layers.Normalization(mean=3.0, variance=4.0), layers.Dense(3)),
    "bins": lambda: on((4,), adapted(layers.Discretization(num_bins=4), data(99, 4))),
    "argmax": lambda: on((4,), lambda x: ops.argmax(layers.Dense(5)(x), axis=-1)),
    "argmin": lambda: on((4,), lambda x: ops.argmin(x, axis=1, keepdims=True)),
    "own argmax": lambda: on((4,), OwnArgmax(name="own")),
}
WORDS: Models = {
    "lookup": lambda: on((1,), adapted(layers.StringLookup(), SOME_WORDS), "string"),
    "one hot": lambda: on((1,), adapted(layers.StringLookup(output_mode="one_hot"), SOME_WORDS), "string"),
    "many hot": lambda: on((1,), adapted(layers.StringLookup(output_mode="multi_hot"), SOME_WORDS), "string"),
    "text": lambda: on((1,), adapted(layers.TextVectorization(standardize=None, split=None), SOME_WORDS), "string"),
}
WHOLE_NUMBERS: Models = {
    "lookup": lambda: on((3,), adapted(layers.IntegerLookup(), np.array([4, 7, 7, -9])), "int64"),
    "back": lambda: on((3,), layers.IntegerLookup(vocabulary=[4, 7, -9], invert=True, oov_token=-2), "int64"),
    "two strangers": lambda: on(
        (3,), layers.IntegerLookup(vocabulary=[4, 7], num_oov_indices=2, mask_token=-1, output_mode="count"), "int64"
    ),
    "many hot": lambda: on((3,), layers.CategoryEncoding(11, output_mode="multi_hot"), "int64"),
}
MASKED: Models = {
    "last": lambda: masked(layers.SimpleRNN(2)),
    "backwards": lambda: masked(layers.SimpleRNN(2, go_backwards=True, return_sequences=True)),
    "zeros": lambda: masked(layers.SimpleRNN(2, zero_output_for_mask=True)),
    "GRU": lambda: masked(layers.GRU(2, go_backwards=True, return_sequences=True, zero_output_for_mask=True)),
    "Bidirectional": lambda: masked(layers.Bidirectional(layers.LSTM(2, return_sequences=True))),
    "sum": lambda: masked(layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode="sum")),
}
EMBEDDED: Models = {
    "sequence": lambda: embedded(layers.Bidirectional(layers.GRU(2, return_sequences=True))),
    "last": lambda: embedded(layers.Bidirectional(layers.LSTM(2))),
}
OUTPUTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "shared layer": (lambda: pair(shared_twice), ["head", "head_1"]),
    "one tensor": (lambda: pair(one_tensor_twice), ["head", "tail", "head_1"]),
    "input is an output": (lambda: pair(lambda a, b: [layers.Dense(3, name="y")(a), b, a]), ["y", "b", "a"]),
    "keyed": (lambda: pair(lambda a, b: {"key": a, "y": layers.Dense(2)(b)}), ["key", "y"]),
    "nested": (
        lambda: pair(lambda a, b: {"k": [layers.Dense(2)(a), layers.Dense(2)(b)], "l": {"m": ops.exp(b)}}),
        ["k_0", "k_1", "l_m"],
    ),
    "identity": (lambda: on((4,), lambda x: x), ["x"]),
    "words": (lambda: on((2,), lambda x: {"key": x, "again": x}, "string"), ["again", "key"]),
    "state": (lambda: on((6, 3), layers.LSTM(4, return_state=True, name="lstm")), ["lstm", "lstm_1", "lstm_2"]),
}


def rows_of(model: Any) -> dict[str, Any]:
    """The made rows that a model takes."""
    batches = [batch for batch, _ in answered(model)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def convert(make: Callable[[], Any]) -> tuple[Any, dict[str, Any], Quantized]:
    """A model, made rows and its float flatbuffer."""
    keras.utils.set_random_seed(0)
    model = make()
    rows = rows_of(model)
    return model, rows, quantize(model, rows, Quantize(scheme="float32"))


def predict(model: Any, rows: dict[str, Any]) -> list[Any]:
    """Keras' own answers, one flat list."""
    tensors = [ops.convert_to_tensor(rows[tensor.name]) for tensor in model.inputs]
    given = tensors[0] if len(tensors) == 1 else tensors
    return list(keras.tree.flatten(model.predict_on_batch(given)))


def side_by_side(models: Models) -> Any:
    """One model of several that take the same, since starting a conversion takes longest; an output for each."""
    parts = {name: make() for name, make in models.items()}
    (first, *_) = parts.values()
    given = Input(batch_shape=first.inputs[0].shape, dtype=first.inputs[0].dtype, name="x")
    return keras.Model(given, {name: part(given) for name, part in parts.items()})


def check(make: Callable[[], Any], *batches: int) -> Quantized:
    """Convert a model, and hold its flatbuffer against Keras' own predict."""
    model, rows, quantized = convert(make)
    expected, names = predict(model, rows), output_names(model)
    assert {tensor.name for tensor in quantized.signature.outputs} == set(names)
    assert {tensor.name for tensor in quantized.signature.inputs} == set(rows)
    reference = Reference(quantized.artifact)
    for batch in batches:
        found = reference.run_real(rows, batch)
        apart = {name: difference_ulps([right], [found[name]]) for name, right in zip(names, expected, strict=True)}
        assert max(apart.values()) < 64, apart
    return quantized


@pytest.mark.parametrize("models", [ADAPTED, WORDS, WHOLE_NUMBERS], ids=["reals", "words", "whole numbers"])
def test_what_layers_keep_beside_their_weights_is_kept(models: Models) -> None:
    """Means, boundaries, vocabularies: given or adapted to, inside other models too; row by row and all at once."""
    check(lambda: side_by_side(models), 1, 5)


def test_top_k_is_made_for_one_row() -> None:
    """With the batch open TOPK_V2 makes its outputs while it runs, which the shipped runtime takes from no operator."""
    quantized = check(lambda: on((4,), lambda x: {"values": ops.top_k(x, 2)[0], "places": ops.top_k(x, 2)[1]}), 1)
    with CompiledModel(quantized.artifact) as shipped:
        (values, places) = shipped.run("predict", [np.array([[3, 1, 4, 2]], np.float32).tobytes()])
        names = [spec.name for spec in shipped.signatures["predict"].outputs]
    found = dict(zip(names, (bytes(values), bytes(places)), strict=True))
    assert np.frombuffer(found["values"], np.float32).tolist() == [4, 3]
    assert np.frombuffer(found["places"], np.int32).tolist() == [2, 0]


@pytest.mark.parametrize("models", [MASKED, EMBEDDED], ids=["Masking", "Embedding"])
def test_unrolled_layers_keep_their_masks(models: Models) -> None:
    """Forwards and backwards, padded at either end or masked as a whole, with zeros or the last answer in the gaps."""
    check(lambda: side_by_side(models), 1)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_comes_back_under_its_own_name(name: str) -> None:
    """Also where a layer makes several, or some are keyed, nested, the same tensor, or an input."""
    make, names = OUTPUTS[name]
    keras.utils.set_random_seed(0)
    assert output_names(make()) == names
    check(make, 1, *([3] if name != "state" else []))  # LiteRT resizes no unrolled layer


@pytest.mark.parametrize("names", [["a b"], ["a b", "x:0", "grün", "class", "a_b", "A_B", "input_0", "1st"]])
def test_inputs_keep_names_that_tensorflow_does_not_take(names: list[str]) -> None:
    """They are converted under others, and get their own back."""
    check(lambda: named(*names), 1)


def test_outputs_do_not_share_tensors() -> None:
    """A copy is made where an output is an input, or another output, and only there."""
    for name, copies in (("one tensor", 1), ("input is an output", 2), ("words", 2), ("shared layer", 0)):
        _, _, quantized = convert(OUTPUTS[name][0])
        graph = parse(quantized.artifact).subgraphs[0]
        assert len({*graph.outputs, *graph.inputs}) == len(graph.outputs) + len(graph.inputs)
        made = operator_names(parse(quantized.artifact))
        codes = [made[operator.opcodeIndex] for operator in graph.operators]
        assert codes.count("RESHAPE") == copies


def test_a_keyed_model_is_quantized() -> None:
    """What is passed through comes back within half a step of its int8 grid."""
    keras.utils.set_random_seed(0)
    model = OUTPUTS["keyed"][0]()
    rows = {name: np.random.default_rng(0).random((64, 4), np.float32) for name in ("a", "b")}
    answer = Reference(quantize(model, rows, Quantize()).artifact).run_real(rows, 1)
    expected = dict(zip(output_names(model), predict(model, rows), strict=True))
    for name, values in expected.items():
        assert np.abs(answer[name] - values).max() < 0.02 * np.ptp(values)


def test_a_scalar_output_keeps_its_shape() -> None:
    """It has no rows: one number for all that are run at once, as Keras gives it."""
    model, rows, quantized = convert(lambda: on((4,), lambda x: {"y": x * 2, "total": ops.sum(x)}))
    by_name = {tensor.name: tensor.shape for tensor in quantized.signature.outputs}
    assert by_name == {"total": (), "y": (-1, 4)}
    del rows, model


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_a_model_saved_in_16_bits_converts_as_float32(policy: str, tmp_path: Path) -> None:
    """The right value is that of the same weights in float32; the model in hand goes on in its own precision."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        parts = [layers.Masking(), layers.SimpleRNN(4), adapted(layers.Normalization(), data(99, 4)), layers.Dense(3)]
        sequential(Input((3, 2), name="x"), *parts).save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.models.load_model(tmp_path / "model.keras")
    rows = rows_of(model)
    artifact = quantize(model, rows, Quantize(scheme="float32")).artifact
    assert {layer.dtype_policy.name for layer in model.layers} == {policy}
    parts = [layers.Masking(), layers.SimpleRNN(4), layers.Normalization(), layers.Dense(3)]
    plain = sequential(Input((3, 2), name="x"), *parts)
    for layer, source in zip(plain.layers, model.layers, strict=True):
        stored: dict[str, Any] = {}
        for each, other in zip(layer._flatten_layers(), source._flatten_layers(), strict=True):
            stored = {}
            other.save_own_variables(stored)
            if stored:
                each.load_own_variables({key: np.asarray(value, np.float32) for key, value in stored.items()})
    (found,) = Reference(artifact).run_real(rows, 1).values()
    assert difference_ulps(predict(plain, rows), [found]) < 512


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: on((1,), layers.TextVectorization(vocabulary=["a"], name="words"), "string"), "StringLower.*'words'"),
        (lambda: on((1,), layers.Hashing(4, name="bins"), "string"), "StringToHashBucketFast .layer 'bins'"),
        (
            lambda: on((4,), layers.Dense(2, name="a b")),
            "layer 'a b' .Dense. has a name that TensorFlow does not accept",
        ),
    ],
    ids=["TextVectorization", "Hashing", "name"],
)
def test_what_tflite_lacks_names_the_layer(make: Callable[[], Any], message: str) -> None:
    """The one that the user wrote, not the operators that it is made of alone."""
    with pytest.raises(ConversionError, match=message):
        convert(make)


def scaled(rewrite: Rewrite, factor: float) -> Rewrite:
    """A rewrite that is not right."""

    def wrong(original: Any, *arguments: Any, **settings: Any) -> Any:
        made = rewrite.function(original, *arguments, **settings)
        return keras.tree.map_structure(lambda each: each * factor, made)

    return Rewrite(rewrite.kind, rewrite.layer, rewrite.method, wrong, rewrite.needed)


def test_a_wrong_rewrite_is_left_out_or_refused_by_its_layers_name() -> None:
    """One that only helps is not used, and answers stay right; without one that is needed nothing is converted."""
    model = on((5, 3), lambda x: layers.LSTM(4, name="memory")(layers.Dense(3, name="flat")(x)))
    flat, loop = exporting.rewrites_for(model)
    assert proven(model, [flat, loop]) == [flat, loop]
    assert proven(model, [scaled(flat, 1.001), loop]) == [loop]
    assert (1.001 - 1) / np.finfo(np.float32).eps > ULPS
    with pytest.raises(ConversionError, match=r"layer 'memory' \(LSTM\) cannot be converted: unrolled, .*differently"):
        proven(model, [flat, scaled(loop, 1.001)])


def test_export_uses_only_what_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every rewrite broken, the flatbuffer still answers as Keras does."""
    right = exporting.rewrites_for
    monkeypatch.setattr(exporting, "rewrites_for", lambda model: [scaled(each, 2) for each in right(model)])
    model, rows, quantized = convert(lambda: on((5, 3), layers.Dense(3, name="flat")))
    (found,) = Reference(quantized.artifact).run_real(rows, 1).values()
    assert difference_ulps(predict(model, rows), [found]) < 64
