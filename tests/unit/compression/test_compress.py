"""Compression steps on a real small model: what each promises, what it costs, the same bytes from the same seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from litelambda.artifact.flatbuffer import float_operators
from litelambda.artifact.reference import Reference
from litelambda.artifact.stored_form import stored_size
from litelambda.common.errors import TrainError
from litelambda.compression.compress import Compressed
from litelambda.compression.fake_quantization import fake_quantized, ranges
from litelambda.compression.layer_table import describe_layers
from litelambda.compression.pruning import keep_largest, sparsity_at
from litelambda.compression.weight_grids import even_codes, shared_codes, snap
from litelambda.conversion.quantize import quantize
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import as_matrix, read
from litelambda.recipe.compression import Compress
from litelambda.recipe.load import Recipe, load_recipe
from litelambda.recipe.sections import Quantize
from litelambda.training.fit import seed_everything
from litelambda.training.train import Trained
from support.training import compress_trained, load_rows, train_recipe
from support.weights import weight_codes, weight_sparsity

ROWS = 2400
DIGITS = Path(__file__).parents[3] / "build" / "data" / "mnist.npz"
RECIPE = """
[model]
builder = "{builder}"
{settings}
[data]
format = "npz"
path = "digits.npz"
normalize = "0-1"
reshape = {shape}
validation_split = 0.2
[train]
loss = "sparse_categorical_crossentropy"
optimizer = {{ name = "adam", learning_rate = 0.004 }}
epochs = {epochs}
batch_size = 64
[publish]
name = "digits"
"""


@dataclass(frozen=True)
class Trial:
    """A trained model and all that a step needs."""

    recipe: Recipe
    data: Dataset
    trained: Trained

    def compress(self, **settings: Any) -> Compressed:
        """Apply some steps; every call starts from the same state."""
        seed_everything(0)
        return compress_trained(self.recipe, Compress.model_validate(settings), self.trained, self.data)

    def accuracy(self, model: Any) -> float:
        """Of a Keras model on the test rows."""
        return float(np.mean(model.predict(self.data.test.x, verbose=0).argmax(axis=1) == self.data.test.y))

    def convert(self, model: Any) -> bytes:
        """An int8 flatbuffer."""
        rows = {model.inputs[0].name: self.data.representative(50, 0)}
        return quantize(model, rows, Quantize()).artifact


def make_trial(folder: Path, builder: str, settings: str, shape: list[int], epochs: int) -> Trial:
    with np.load(DIGITS) as arrays:
        rows = {name: arrays[name][: ROWS if name.endswith("train") else 600] for name in arrays.files}
    if len(shape) == 3:
        rows = {name: each[:, ::2, ::2] if each.ndim == 3 else each for name, each in rows.items()}
    np.savez(folder / "digits.npz", **rows)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(builder=builder, settings=settings, shape=shape, epochs=epochs))
    recipe = load_recipe(path)
    data = load_rows(recipe)
    return Trial(recipe, data, train_recipe(recipe, data))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """784 -> Dense 32 relu -> Dense 10 on some of MNIST."""
    return make_trial(tmp_path_factory.mktemp("digits"), "mlp", "hidden = [32]", [784], 4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A CNN with batch normalization on some of MNIST at 14 x 14."""
    settings = "filters = [8, 16]\ndense = [32]\nbatch_norm = true"
    return make_trial(tmp_path_factory.mktemp("pictures"), "cnn", settings, [14, 14, 1], 2)


def operators(artifact: bytes) -> list[str]:
    """The names of a flatbuffer's operators."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(artifact), 0))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    return [names[model.operatorCodes[each.opcodeIndex].builtinCode] for each in model.subgraphs[0].operators]


def activation_ranges(artifact: bytes) -> list[list[float]]:
    """What each activation's int8 grid spans, in the order of the operators; inputs and outputs in float have none."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(artifact), 0))
    graph = model.subgraphs[0]
    grids = [graph.tensors[each.outputs[0]].quantization for each in graph.operators]
    return [
        [float(grid.scale[0] * (end - grid.zeroPoint[0])) for end in (-128, 127)]
        for grid in grids
        if grid is not None and grid.scale is not None
    ]


def kernel(compressed: Compressed, name: str) -> Any:
    layer = compressed.model.get_layer(name)
    return as_matrix(layer, read(layer.kernel))


@pytest.mark.parametrize(("scores", "scope"), [("magnitude", "layer"), ("wanda", "global")])
def test_pruning_reaches_its_sparsity(digits: Trial, scores: str, scope: str) -> None:
    """The asked-for share of weights is zero, each output keeps one, and accuracy holds."""
    pruned = digits.compress(pruning={"final_sparsity": 0.8, "scores": scores, "scope": scope, "epochs": 3})
    figures = pruned.figures["pruning"]
    assert figures["total_sparsity"] == pytest.approx(0.8, abs=0.01)
    if scope == "layer":
        assert figures["sparsity"]["dense_1"] == pytest.approx(0.8, abs=0.01)
    assert (np.abs(kernel(pruned, "dense_1")).max(axis=0) > 0).all()
    assert digits.accuracy(pruned.model) > digits.accuracy(digits.trained.model) - 0.05


def test_wanda_drops_weights_of_silent_inputs_first(digits: Trial) -> None:
    """A weight whose input is always zero goes before any other, however large it is."""
    pruned = digits.compress(pruning={"final_sparsity": 0.5, "scores": "wanda", "scope": "global", "epochs": 1})
    silent = (digits.data.train.x == 0).all(axis=0)
    kept = kernel(pruned, "dense_1") != 0
    assert silent.sum() > 30
    assert not kept[silent].any()


def test_the_schedule_rises_fast_at_first() -> None:
    """Sparsity starts at the initial value, is past the middle early and ends at the final value."""
    assert [round(sparsity_at(at, 0.1, 0.9), 3) for at in (0, 0.5, 1, 2)] == [0.1, 0.8, 0.9, 0.9]


def test_no_output_channel_is_left_empty() -> None:
    """A channel whose weights are all small keeps its largest, by layer and by one threshold for all."""
    scores = {"a": np.array([[1.0, 9.0], [2.0, 8.0]]), "b": np.array([[0.1], [0.2]])}
    assert keep_largest(scores, 0.5)["a"].tolist() == [[False, True], [True, True]]
    together = keep_largest(scores, 0.7, shared_threshold=True)
    assert together["b"].tolist() == [[False], [True]]
    assert together["a"].tolist() == [[False, True], [True, True]]


def test_quantization_aware_training_ends_on_its_grid(digits: Trial) -> None:
    """The flatbuffer's int8 codes take at most 2^bits - 1 values, zero and both ends among them."""
    trained = digits.compress(quantization_aware={"bits": 3, "epochs": 2}, distillation={})
    assert max(trained.figures["quantization_aware"]["distinct_values"].values()) <= 7
    artifact = digits.convert(trained.model)
    for codes in weight_codes(artifact):
        assert set(np.unique(codes)) <= set(even_codes(3).tolist())
        assert np.abs(codes).max() == 127
    assert float_operators(artifact) == []
    outputs = Reference(artifact).run_real({"input": digits.data.test.x}, 1)["output"]
    accuracy = float(np.mean(outputs.argmax(axis=1) == digits.data.test.y))
    assert accuracy > digits.accuracy(digits.trained.model) - 0.05


def test_activations_are_on_their_int8_grid_while_training(digits: Trial) -> None:
    """Trained with rounded activations, the artifact has the same ranges, no trace of the rounding, and is as good."""
    trained = digits.compress(quantization_aware={"bits": 8, "epochs": 2, "activations": True}, distillation={})
    ranges = trained.figures["quantization_aware"]["activation_ranges"]
    assert list(ranges) == ["input", "dense_1", "output_sum"]
    assert [layer.name for layer in trained.model.layers] == [layer.name for layer in digits.trained.model.layers]
    moved = read(trained.model.get_layer("dense_1").kernel) - read(digits.trained.model.get_layer("dense_1").kernel)
    assert np.abs(moved).max() > 0.02  # far more than rounding to 8 bits: gradients go through the grids
    artifact = digits.convert(trained.model)
    assert set(operators(artifact)) == {"QUANTIZE", "FULLY_CONNECTED", "SOFTMAX", "DEQUANTIZE"}
    calibrated = activation_ranges(artifact)
    assert len(calibrated) == 4  # the softmax's is fixed
    for trained_for, ships in zip(ranges.values(), calibrated, strict=False):
        assert trained_for == pytest.approx(ships, abs=0.2 * (trained_for[1] - trained_for[0]))
    outputs = Reference(artifact).run_real({"input": digits.data.test.x}, 1)["output"]
    accuracy = float(np.mean(outputs.argmax(axis=1) == digits.data.test.y))
    assert accuracy > digits.accuracy(digits.trained.model) - 0.02


def test_fake_quantized_activations_take_256_values(pictures: Trial) -> None:
    """Behind each operator at most 256 values, and none before what is fused into it."""
    keras = load_keras()
    model = pictures.trained.model
    copy, quantizers = fake_quantized(model)
    assert list(quantizers) == ["input", "activation_1", "activation_2", "dense_1", "output_sum"]
    rows = pictures.data.train.x[:512]
    copy(rows, training=True)  # sees the ranges
    watched = keras.Model(copy.inputs, [quantizer.output for quantizer in quantizers.values()])
    for found, (low, high) in zip(watched.predict(rows, verbose=0), ranges(quantizers).values(), strict=True):
        steps = found.astype(np.float64) / ((high - low) / 255)
        assert np.abs(steps - np.round(steps)).max() < 0.01
        assert 10 < len(np.unique(np.round(steps))) <= 256


def test_activations_that_are_zero_throughout_do_no_harm(digits: Trial) -> None:
    """A grid without any width gives zeros, not NaN; nothing can be learnt through it."""
    keras = load_keras()
    silent = keras.models.clone_model(digits.trained.model)
    silent.set_weights(digits.trained.model.get_weights())
    silent.get_layer("dense_1").bias.assign(np.full(32, -1e3))
    trial = Trial(digits.recipe, digits.data, Trained(silent, {}))
    trained = trial.compress(quantization_aware={"bits": 8, "epochs": 1, "activations": True})
    assert np.isfinite(trained.figures["quantization_aware"]["history"]["loss"]).all()
    before, after = (read(model.get_layer("dense_1").kernel) for model in (silent, trained.model))
    assert np.abs(after - before).max() < 0.02  # the grid of the weights alone


def test_layers_that_ship_in_int4_train_on_its_grid(digits: Trial) -> None:
    """The weights of a layer for native int4 are sevenths of their channel's largest."""
    recipe = digits.recipe.model_copy(update={"quantize": Quantize(int4=["dense_1"])})
    trained = Trial(recipe, digits.data, digits.trained).compress(quantization_aware={"bits": 8, "epochs": 1})
    assert trained.figures["quantization_aware"]["bits"] == {"dense_1": 4, "output": 8}
    matrix = kernel(trained, "dense_1")
    sevenths = 7 * matrix / np.abs(matrix).max(axis=0)
    assert np.abs(sevenths - np.round(sevenths)).max() < 1e-5
    assert len(np.unique(np.round(sevenths))) == 15
    assert even_codes(3, int4=True).tolist() == [code * 127 / 7 for code in (-7, -5, -2, 0, 2, 5, 7)]


def test_no_step_looks_at_the_test_rows(digits: Trial) -> None:
    """Everything is trained, pruned, clustered and calibrated without the test split."""
    blind = Trial(digits.recipe, replace(digits.data, test=cast(Any, None)), digits.trained)
    blind.compress(
        structured={"sparsity": 0.25, "epochs": 0},
        low_rank={"rank": 8, "epochs": 0},
        pruning={"final_sparsity": 0.5, "scores": "wanda", "epochs": 1},
        clustering={"epochs": 0},
        distillation={},
    )


def test_the_reasons_for_leaving_layers_alone(pictures: Trial) -> None:
    """Each step says which layers it did not touch, and why: by name, by size, the first convolution, no kernel."""
    done = pictures.compress(
        exclude=["dense_1"],
        structured={"sparsity": 0.25, "epochs": 0},
        low_rank={"rank": 8, "epochs": 0, "min_weights": 500},
        pruning={"final_sparsity": 0.5, "epochs": 1},
    )
    excluded = {step: figures["excluded"] for step, figures in done.figures.items()}
    norms = dict.fromkeys(("norm_1", "norm_2"), "BatchNormalization has no kernel of its own")
    assert excluded["structured"] == {
        "dense_1": "named in exclude", **norms, "output": "its units do not lead to exactly one other kernel"
    }  # fmt: skip
    assert excluded["low_rank"]["conv_1"] == "54 weights are fewer than min_weights = 500"
    assert excluded["pruning"]["conv_1"].startswith("the first convolution")
    assert done.figures["pruning"]["sparsity"].keys() == {"conv_2_inner", "conv_2", "output"}
    table = {row["layer"]: row for row in describe_layers(done.model, done.figures, "int8", {"output": 4})}
    assert (table["conv_1"]["bits"], table["output"]["bits"]) == (8, 4)
    assert table["conv_2"]["rank"] == 8
    assert table["conv_1"]["units"] == (8, 6)
    assert table["output"]["zeros"] == pytest.approx(0.5, abs=0.01)
    assert table["dense_1"]["left_out"] == dict.fromkeys(done.figures, "named in exclude")


def test_bits_can_differ_by_layer_and_layers_can_be_left_out(digits: Trial) -> None:
    """`layer_bits` and `exclude` do what they say, and refuse names that the model lacks."""
    trained = digits.compress(quantization_aware={"bits": 3, "layer_bits": {"output": 5}, "epochs": 1})
    assert len(np.unique(trained.figures["quantization_aware"]["distinct_values"]["dense_1"])) <= 7
    assert 7 < trained.figures["quantization_aware"]["distinct_values"]["output"] <= 31
    left = digits.compress(quantization_aware={"bits": 3, "epochs": 1, "exclude": ["output"]})
    assert list(left.figures["quantization_aware"]["distinct_values"]) == ["dense_1"]
    with pytest.raises(TrainError, match=r"compress\.quantization_aware\.layer_bits: no layer dense_7"):
        digits.compress(quantization_aware={"layer_bits": {"dense_7": 4}})
    with pytest.raises(TrainError, match=r"compress\.exclude: no layer dense_7; layers with a kernel are dense_1, out"):
        digits.compress(exclude=["dense_7"], pruning={"final_sparsity": 0.5})


@pytest.mark.parametrize("epochs", [0, 1])
def test_clustering_leaves_few_values(digits: Trial, epochs: int) -> None:
    """Each layer has at most k different int8 codes, with and without fine-tuning."""
    clustered = digits.compress(clustering={"clusters": 16, "epochs": epochs})
    assert max(clustered.figures["clustering"]["distinct_values"].values()) <= 16
    assert digits.accuracy(clustered.model) > digits.accuracy(digits.trained.model) - 0.05


def test_shared_codes_hold_zero_and_both_ends() -> None:
    """0 and ±127 are always there, never more than asked for, and the others are where the weights are."""
    weights = np.concatenate([np.full(50, 64 / 127), np.full(50, -0.25), [1.0, -1.0]])
    assert shared_codes(weights, 5).tolist() == [-127, -32, 0, 64, 127]
    assert shared_codes(weights, 3).tolist() == [-127, 0, 127]
    assert shared_codes(weights, 9).tolist() == [-127, -32, 0, 64, 127]
    snapped = snap(np.array([[0.9], [-0.26], [0.01]]), shared_codes(weights, 5))
    assert np.allclose(snapped[:, 0], [0.9, -0.9 * 32 / 127, 0])


def test_no_other_codes_have_less_error() -> None:
    """Every pair of codes next to the three that are fixed was tried: none is nearer to random weights."""
    weights = np.clip(np.random.default_rng(0).standard_normal(200) / 3, -1, 1) * 127

    def error(*codes: int) -> float:
        return float(np.sum(np.min((weights[:, None] - np.array([-127, 0, 127, *codes])) ** 2, axis=1)))

    least = min(error(first, second) for first in range(-126, 127) for second in range(first, 127))
    assert error(*shared_codes(weights / 127, 5).tolist()) == pytest.approx(least)


def test_zeros_of_pruning_outlive_the_grid(digits: Trial) -> None:
    """Quantization-aware training keeps the zeros that pruning made; the artifact has them, in no sparse encoding."""
    both = digits.compress(pruning={"final_sparsity": 0.7, "epochs": 1}, quantization_aware={"bits": 4, "epochs": 1})
    assert float(np.mean(kernel(both, "dense_1") == 0)) >= both.figures["pruning"]["sparsity"]["dense_1"]
    assert both.figures["quantization_aware"]["distinct_values"]["dense_1"] <= 15
    artifact = digits.convert(both.model)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(artifact), 0))
    assert weight_sparsity(artifact) > 0.65
    assert all(tensor.sparsity is None for tensor in model.subgraphs[0].tensors)


def test_low_rank_makes_the_model_smaller(digits: Trial) -> None:
    """Two thin kernels of the asked-for rank stand for a large one, and the flatbuffer shrinks with them."""
    factorized = digits.compress(low_rank={"rank": 10, "epochs": 2}, distillation={"weight": 0.5})
    assert factorized.figures["low_rank"]["ranks"] == {"dense_1": 10}
    assert np.linalg.matrix_rank(kernel(factorized, "dense_1_inner") @ kernel(factorized, "dense_1")) == 10
    before, after = factorized.figures["low_rank"]["parameters"]
    assert after == factorized.model.count_params() < 0.4 * before
    whole, thin = digits.convert(digits.trained.model), digits.convert(factorized.model)
    assert len(thin) < 0.5 * len(whole)
    assert digits.accuracy(factorized.model) > digits.accuracy(digits.trained.model) - 0.05


def test_factors_compute_what_the_whole_kernel_did(pictures: Trial) -> None:
    """Where kernels have low rank already, their factors change no answer, in convolutions and Dense layers."""
    keras = load_keras()
    model = keras.models.clone_model(pictures.trained.model)
    model.set_weights(pictures.trained.model.get_weights())
    noise = np.random.default_rng(0)
    for name in ("conv_2", "dense_1"):
        layer = model.get_layer(name)
        matrix = as_matrix(layer, read(layer.kernel))
        low = noise.normal(0, 0.3, (matrix.shape[0], 5)) @ noise.normal(0, 0.3, (5, matrix.shape[1]))
        layer.kernel.assign(low.reshape(layer.kernel.shape))
    trial = Trial(pictures.recipe, pictures.data, Trained(model, {}))
    factorized = trial.compress(low_rank={"energy": 0.9999, "min_weights": 500, "epochs": 0})
    assert factorized.figures["low_rank"]["ranks"] == {"conv_2": 5, "dense_1": 5}
    rows = pictures.data.test.x
    assert np.allclose(factorized.model.predict(rows, verbose=0), model.predict(rows, verbose=0), atol=1e-4)
    with pytest.raises(TrainError, match="no Dense layer or convolution would get smaller"):
        pictures.compress(low_rank={"energy": 1.0, "min_weights": 1, "epochs": 0})


def test_structured_pruning_removes_units(pictures: Trial) -> None:
    """Filters and units are gone from the layers, their normalization and their consumers; training goes on."""
    smaller = pictures.compress(structured={"sparsity": 0.5, "epochs": 2}, distillation={})
    figures = smaller.figures["structured"]
    assert figures["units"] == {"conv_1": (8, 4), "conv_2": (16, 8), "dense_1": (32, 16)}
    assert smaller.model.get_layer("norm_2").gamma.shape == (8,)
    assert smaller.model.get_layer("dense_1").kernel.shape == (9 * 8, 16)
    assert figures["parameters"][1] < 0.35 * figures["parameters"][0]
    assert figures["history"]["loss"][-1] < figures["history"]["loss"][0]


def test_removing_units_that_never_fire_changes_nothing(digits: Trial) -> None:
    """The units chosen to go are those that move the outputs least."""
    keras = load_keras()
    silent = keras.models.clone_model(digits.trained.model)
    silent.set_weights(digits.trained.model.get_weights())
    weights, bias = silent.get_layer("dense_1").get_weights()
    weights[:, ::4], bias[::4] = 0, -1
    silent.get_layer("dense_1").set_weights([weights, bias])
    trial = Trial(digits.recipe, digits.data, Trained(silent, {}))
    smaller = trial.compress(structured={"sparsity": 0.25, "epochs": 0})
    rows = digits.data.test.x
    assert np.allclose(smaller.model.predict(rows, verbose=0), silent.predict(rows, verbose=0), atol=1e-6)


def test_folding_changes_nothing_but_the_layers(pictures: Trial) -> None:
    """Batch normalization becomes part of the kernels: fewer layers, the same answers."""
    folded = pictures.compress(fold_batch_norm=True)
    assert folded.figures["fold_batch_norm"]["folded"] == ["norm_1", "norm_2"]
    assert not any("norm" in layer.name for layer in folded.model.layers)
    rows = pictures.data.test.x
    assert np.allclose(
        folded.model.predict(rows, verbose=0), pictures.trained.model.predict(rows, verbose=0), atol=1e-5
    )


def test_steps_work_on_functional_models(pictures: Trial) -> None:
    """A model with a branch is rebuilt too; what feeds the branch is left alone."""
    keras = load_keras()
    seed_everything(0)
    image = keras.Input((14, 14, 1), name="input")
    first = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    normed = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(8, 3, padding="same", name="conv")(first))
    joined = keras.layers.Add(name="add")([first, keras.layers.Activation("relu", name="relu")(normed)])
    hidden = keras.layers.Dense(64, "relu", name="hidden")(keras.layers.Flatten(name="flat")(joined))
    model = keras.Model(image, keras.layers.Dense(10, "softmax", name="output")(hidden), name="branched")
    trial = Trial(pictures.recipe, pictures.data, Trained(model, {}))
    smaller = trial.compress(
        fold_batch_norm=True,
        structured={"sparsity": 0.5, "epochs": 0},
        low_rank={"rank": 4, "epochs": 0},
    )
    assert smaller.figures["fold_batch_norm"]["folded"] == ["norm"]
    assert smaller.figures["structured"]["units"] == {"hidden": (64, 32)}
    assert smaller.figures["low_rank"]["ranks"] == {"hidden": 4}
    assert smaller.model.predict(pictures.data.test.x[:4], verbose=0).shape == (4, 10)


def test_the_same_seed_gives_the_same_bytes(digits: Trial) -> None:
    """All steps together, twice: the artifacts are equal, and far smaller stored than what they started from."""
    artifacts = []
    for _time in range(2):
        compressed = digits.compress(
            low_rank={"rank": 16, "epochs": 0},
            pruning={"final_sparsity": 0.75, "scores": "wanda", "scope": "global", "epochs": 1},
            quantization_aware={"bits": 4, "epochs": 1, "activations": True},
            distillation={},
        )
        artifacts.append(digits.convert(compressed.model))
    assert artifacts[0] == artifacts[1]
    assert stored_size(artifacts[0]) < 32 * 784 / 4
