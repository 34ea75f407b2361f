"""What `tests/integration/test_jax.py` runs in a process of its own: every training and compression step on JAX.

    KERAS_BACKEND=jax python tests/support/jax_worker.py FOLDER STORE

prints one JSON document of what was found. FOLDER has the two recipes that the test wrote.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.artifact import latency
from litelambda.commands import explain
from litelambda.commands.build import build
from litelambda.common.errors import TrainError
from litelambda.common.progress import Reporter
from litelambda.compression.compress import Compressed
from litelambda.compression.weight_grids import to_codes
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Split
from litelambda.keras_tools.backend import choose_backend, load_keras
from litelambda.keras_tools.layers import as_matrix, read
from litelambda.recipe.compression import Compress
from litelambda.recipe.load import load_recipe
from litelambda.search.candidates import SearchSpace
from litelambda.search.search import search
from litelambda.training.fit import seed_everything
from litelambda.training.train import Trained
from support.training import compress_trained, load_rows, train_recipe

ONE_DEVICE = "train.devices=['CPU:0']"


class Steps:
    """A trained CNN, and what each step makes of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.recipe = path, load_recipe(path, [ONE_DEVICE])
        self.data = load_rows(self.recipe)
        self.trained = train_recipe(self.recipe, self.data)
        self.before = [values.copy() for values in self.trained.model.get_weights()]

    def all(self) -> dict[str, Any]:
        return {
            "folding": self.folding(),
            "structured": self.structured(),
            "taught_low_rank": self.taught_low_rank(),
            "wanda": self.wanda(),
            "clustering": self.clustering(),
            "grids": self.grids(),
            "search": self.search(),
        } | {"untouched": all(map(np.array_equal, self.before, self.trained.model.get_weights()))}

    def compress(self, data: Dataset | None = None, **settings: Any) -> Compressed:
        seed_everything(0)
        steps = Compress.model_validate(settings)
        return compress_trained(self.recipe, steps, self.trained, data or self.data)

    def folding(self) -> dict[str, Any]:
        folded = self.compress(fold_batch_norm=True)
        rows = self.data.test.x
        apart = folded.model.predict(rows, verbose=0) - self.trained.model.predict(rows, verbose=0)
        return {"names": folded.figures["fold_batch_norm"]["folded"], "apart": float(np.abs(apart).max())}

    def structured(self) -> dict[str, Any]:
        smaller = self.compress(structured={"sparsity": 0.5, "epochs": 2})
        shapes = [list(layer.kernel.shape) for layer in smaller.model.layers if hasattr(layer, "kernel")]
        return {"kernels": shapes, "loss": smaller.figures["structured"]["history"]["loss"]}

    def taught_low_rank(self) -> dict[str, Any]:
        """The labels are all wrong, and only the teacher counts."""
        train = Split(self.data.train.x, (self.data.train.y + 1) % 10)
        trial = replace(self.data, train=train)
        taught = self.compress(trial, low_rank={"rank": 8, "epochs": 4}, distillation={"weight": 1.0})
        product = kernel(taught, "dense_1_inner") @ kernel(taught, "dense_1")
        return {"rank": int(np.linalg.matrix_rank(product)), "accuracy": self.accuracy(taught)}

    def wanda(self) -> dict[str, Any]:
        settings = {"final_sparsity": 0.8, "scores": "wanda", "scope": "global", "epochs": 1}
        pruned = self.compress(pruning=settings, exclude=["conv_1"])
        zeros = [kernel(pruned, name) == 0 for name in ("dense_1", "output")]
        return {
            "sparsity": float(np.mean(np.concatenate([each.ravel() for each in zeros]))),
            "alive": bool(all((~each).any(axis=0).all() for each in zeros)),
            "excluded": float(np.mean(kernel(pruned, "conv_1") == 0)),
            "accuracy": self.accuracy(pruned),
        }

    def clustering(self) -> dict[str, Any]:
        clustered = self.compress(clustering={"clusters": 8, "epochs": 1})
        codes = [to_codes(kernel(clustered, name)) for name in ("conv_1", "dense_1", "output")]
        return {"distinct": [len(np.unique(each)) for each in codes], "accuracy": self.accuracy(clustered)}

    def grids(self) -> dict[str, Any]:
        """Magnitude pruning, then few bits and activations on int8's own grid."""
        bits = {"bits": 4, "layer_bits": {"dense_1": 3}, "activations": True, "epochs": 1}
        both = self.compress(pruning={"final_sparsity": 0.6, "epochs": 1}, quantization_aware=bits)
        return {
            "pruned": both.figures["pruning"]["sparsity"],
            "codes": {name: np.unique(to_codes(kernel(both, name))).tolist() for name in ("dense_1", "output")},
            "sparsity": float(np.mean(kernel(both, "dense_1") == 0)),
            "ranges": both.figures["quantization_aware"]["activation_ranges"],
            "accuracy": self.accuracy(both),
        }

    def search(self) -> dict[str, Any]:
        """The schemes, a sketch and the first grid of `compress.auto`; in one scheme, and one shape."""
        auto = "compress.auto={max_accuracy_drop=0.3, epochs=1, max_candidates=4}"
        recipe = load_recipe(self.path, [ONE_DEVICE, auto, "quantize.io='int8'"])
        SearchSpace.shapes = lambda *_: []  # type: ignore[method-assign] # they are tested on TensorFlow
        found = search(recipe, self.trained.model, self.data, lambda *_: None)
        return {**found.figures["auto"], "accuracy_in_float": self.accuracy(found)}

    def accuracy(self, compressed: Compressed) -> float:
        classes = compressed.model.predict(self.data.test.x, verbose=0).argmax(axis=1)
        return float(np.mean(classes == self.data.test.y))


def kernel(compressed: Compressed, name: str) -> Any:
    layer = compressed.model.get_layer(name)
    return as_matrix(layer, read(layer.kernel))


def train_in_all_ways(path: Path) -> dict[str, Any]:
    """What training itself does: what a recipe can ask for, sharing, and the errors."""
    settings = ["train.schedule=cosine", "train.class_weights=balanced", "train.augmentation={noise=0.01}"]
    stopping = ["train.early_stopping={patience=1, min_delta=10.0}", "train.epochs=5"]
    odd = "data.validation_split=0.101"  # 447 rows to train on and 65 to watch: two devices cannot share the last
    shared, data = fit(path, "train.devices=auto", odd)
    return {
        "settings": fit(path, ONE_DEVICE, *settings, *stopping)[0].history["loss"],
        "alone": fit(path, ONE_DEVICE, odd)[0].history["loss"],
        "shared": shared.history["loss"],
        "in_16_bits": fit(path, ONE_DEVICE, odd, "train.precision=mixed_bfloat16")[0].history["loss"],
        "devices_of_shared": sorted({str(each) for w in shared.model.weights for each in w.value.devices()}),
        "answers_of_shared": list(shared.model.predict(data.test.x, verbose=0).shape),
        "no_number": refusal(path, ONE_DEVICE, "train.optimizer={name='sgd', learning_rate=1e30}", "train.loss=mse"),
        "no_equal_parts": refusal(path, "train.batch_size=33"),
        "no_device": refusal(path, "train.devices=['TPU:0']"),
    }


def fit(path: Path, *overrides: str) -> tuple[Trained, Dataset]:
    recipe = load_recipe(path, ["train.epochs=2", *overrides])
    data = load_rows(recipe)
    return train_recipe(recipe, data), data


def refusal(path: Path, *overrides: str) -> str:
    try:
        fit(path, *overrides)
    except TrainError as error:
        return str(error)
    return "it was not refused"


def main(folder: Path, store: Path) -> None:
    choose_backend(None)
    latency.PROCESSES, explain.MOST_BYTES = 1, 0  # as tests/conftest.py has it: nothing here is about them
    found: dict[str, Any] = {"backend": load_keras().backend.backend()}
    found["train"] = train_in_all_ways(folder / "small.toml")
    found["compress"] = Steps(folder / "pictures.toml").all()
    build(load_recipe(folder / "small.toml", [ONE_DEVICE]), store.as_uri(), Reporter())
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
