"""Copies of models keep all that their layers keep, and prove it: the right values are the original's own answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import TrainError
from litelambda.compression.batch_norm_folding import fold_batch_norm
from litelambda.compression.fake_quantization import fake_quantized
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import check_same, copy_model
from litelambda.keras_tools.layers import rebuild
from litelambda.training.mixed_precision import in_precision

keras = load_keras()
layers, Input = keras.layers, keras.Input
ROWS = np.random.default_rng(0).normal(50, 9, (16, 4)).astype(np.float32)


class Offset(layers.Layer):  # type: ignore[misc, name-defined]  # Keras has no types
    """Adds what was set on it, and tells nobody: no configuration and no weight has it."""

    offset = 0.0

    def call(self, inputs: Any) -> Any:
        """Add it."""
        return inputs + self.offset


def adapted() -> Any:
    """A model with a mean and a variance that are no weights of a fresh copy, inside another model too."""
    keras.utils.set_random_seed(0)
    norms = [layers.Normalization(name="first"), layers.Normalization(name="second")]
    norms[0].adapt(ROWS)
    norms[1].adapt(ROWS / 50)
    inner = keras.Sequential([Input((4,)), norms[1], layers.Dense(4)], name="inner")
    return keras.Sequential([Input((4,), name="x"), norms[0], inner, layers.BatchNormalization(), layers.Dense(3)])


def masked() -> Any:
    """A model whose graph has nodes that are no layers: those of a mask."""
    given = Input((5, 4), name="x")
    return keras.Model(given, layers.Dense(2)(layers.LSTM(3)(layers.Masking()(given))))


def test_a_copy_answers_as_its_original() -> None:
    """Also one that is made of other layers, and one in which activations are quantized: means and variances stay."""
    model = adapted()
    expected = model.predict(ROWS, verbose=0)
    assert np.array_equal(copy_model(model).predict(ROWS, verbose=0), expected)
    assert np.array_equal(rebuild(model, {}).predict(ROWS, verbose=0), expected)
    assert np.array_equal(in_precision(model, "float32").predict(ROWS, verbose=0), expected)
    (first, *_) = fake_quantized(model)[0].layers[2:3]
    assert np.array_equal(first.mean, model.layers[0].mean)


def test_words_are_copied_with_their_numbers() -> None:
    """What a lookup was adapted to is in no configuration."""
    given = Input((1,), dtype="string", name="x")
    lookup = layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "b"]))
    copy = copy_model(keras.Model(given, lookup(given)))
    assert copy.layers[1].get_vocabulary() == ["[UNK]", "b", "a"]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_precision_is_set_on_layers_and_not_on_the_nodes_between_them(precision: Any) -> None:
    """A mask's comparisons have none; all layers but the last compute in 16 bits, and what was adapted is kept."""
    mixed = in_precision(masked(), precision)
    assert [layer.compute_dtype for layer in mixed.layers[1:]] == [precision.removeprefix("mixed_")] * 2 + ["float32"]
    model = adapted()
    apart = np.abs(in_precision(model, precision).predict(ROWS, verbose=0) - model.predict(ROWS, verbose=0))
    assert 0 < apart.max() < 0.1 * np.ptp(model.predict(ROWS, verbose=0))


def test_a_model_with_masks_can_be_fake_quantized() -> None:
    """The nodes of a mask pass through."""
    model = masked()
    copy, quantizers = fake_quantized(model)
    assert set(quantizers) >= {"x"}
    assert [tuple(each.shape) for each in copy.outputs] == [(None, 2)]


def test_a_copy_that_lost_something_is_refused_by_its_layers_name() -> None:
    """What a class tells nobody of cannot be copied: no such copy is trained or published."""
    offset = Offset(name="offset")
    offset.offset = 1.0
    given = Input((4,), name="x")
    model = keras.Model(given, layers.Dense(2)(offset(given)))
    with pytest.raises(TrainError, match=r"layer 'offset' \(Offset\) answers differently once the model is copied"):
        copy_model(model)


def test_a_fold_that_is_wrong_is_refused() -> None:
    """A kernel that is a hundredth too large is found by what comes of it."""
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(5, name="dense"), layers.BatchNormalization(name="norm"), layers.Dense(2, name="last")]
    model = keras.Sequential([Input((4,), name="x"), *parts])
    folded, _ = fold_batch_norm(model)
    check_same(model, folded, "folded", changed=["dense"])
    kernel = folded.get_layer("dense").kernel
    kernel.assign(kernel * 1.01)
    with pytest.raises(TrainError, match=r"layer 'last' \(Dense\) answers differently once the model is folded"):
        check_same(model, folded, "folded", changed=["dense"])
