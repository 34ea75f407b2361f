"""A build with int4 weights that were trained for it: what the manifest and the report say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from litelambda.commands.build import build
from litelambda.common.progress import Reporter
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from support.weights import weight_codes


@pytest.mark.slow
def test_a_build_with_int4_weights(tiny_recipe: Path, tmp_path: Path) -> None:
    """Trained on int4's grid with int8 activations, verified, published with each layer's bits; the rest stays int8."""
    overrides = [
        'quantize.int4=["dense_1"]',
        "compress.quantization_aware={ bits = 8, epochs = 2, activations = true }",
        'compress.pruning={ final_sparsity = 0.25, epochs = 1, exclude = ["probabilities"] }',
        "gate.max_accuracy_drop=0.2",
    ]
    recipe = load_recipe(tiny_recipe, overrides)
    result = build(recipe, tmp_path.as_uri(), Reporter())
    folder = tmp_path / "tiny" / "1"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["quantization"]["weight_bits"] == {"dense_1": 4, "probabilities": 8}
    assert manifest["batching"]["dynamic"] is True
    assert result.metrics["agreement"] > 0.9
    assert max(np.abs(codes).max() for codes in weight_codes((folder / "model.tflite").read_bytes())) == 127
    layers = {row["layer"]: row for row in json.loads((folder / "report.json").read_bytes())["layers"]}
    assert (layers["dense_1"]["bits"], layers["dense_1"]["grid"]) == (4, 4)
    assert layers["dense_1"]["zeros"] >= 0.25
    assert layers["probabilities"]["left_out"] == {"pruning": "named in exclude"}
    assert "<li>probabilities, by pruning: named in exclude</li>" in (folder / "report.html").read_text()
    saved = load_keras().models.load_model(folder / "model.keras", compile=False)
    assert [layer.name for layer in saved.layers] == ["dense_1", "probabilities"]
