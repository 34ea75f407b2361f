"""A build's comparison at the root, broken on purpose: nothing is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.commands.build import build
from litelambda.common.errors import VerificationError
from litelambda.common.progress import Reporter
from litelambda.conversion import converter
from litelambda.conversion.quantize import quantize
from litelambda.evaluation.build_comparison import check_build
from litelambda.evaluation.loaded_sources import SourceLoadError
from litelambda.evaluation.source_model import SourceModel
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.recipe.sections import Quantize
from support.built import BuiltArtifact
from support.flatbuffer_surgery import with_scaled_kernel


@pytest.mark.slow
def test_a_conversion_that_changes_the_model_fails_the_build(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel off by a hundredth passes every gate on accuracy; Keras' own predictions tell."""
    real = converter._PROCESS.call

    def call(function: Callable[..., None], conversions: Sequence[converter.Conversion]) -> None:
        real(function, conversions)
        in_float = Path(conversions[0].output)
        in_float.write_bytes(with_scaled_kernel(in_float.read_bytes()))

    monkeypatch.setattr(converter._PROCESS, "call", call)
    with pytest.raises(VerificationError, match="output 'probabilities' of the float flatbuffer differs"):
        build(load_recipe(tiny_recipe, []), tmp_path.as_uri(), Reporter())
    assert list(tmp_path.iterdir()) == []


def test_what_was_compared_is_in_the_manifest(built_artifact: BuiltArtifact) -> None:
    """The metrics name the source and how far the float flatbuffer is from it."""
    metrics = built_artifact.result.metrics
    assert metrics["source"] == "Keras' predict, in a process of its own"
    assert 0 <= metrics["float_difference"] < 2**-11
    assert metrics["rows_compared"] > 32


@pytest.mark.slow
def test_a_model_that_only_this_process_can_load_is_compared_in_it(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metrics say so; a flatbuffer of another model is refused all the same."""
    rows = {"features": np.random.default_rng(0).random((8, 4), dtype=np.float32)}
    in_float = quantize(tiny_model, rows, Quantize(scheme="float32")).in_float

    def fail(_: SourceModel) -> Any:
        raise SourceLoadError("a layer of this process")

    monkeypatch.setattr(SourceModel, "describe", fail)
    assert check_build(tiny_model, in_float, rows)["source"].startswith("Keras' predict, the model in memory")
    with pytest.raises(VerificationError, match="rewrite of the model or the converter has changed it"):
        check_build(tiny_model, with_scaled_kernel(in_float), rows)


@pytest.mark.slow
def test_an_input_without_a_name_is_compared_too() -> None:
    """Keras gives such an input another name when it loads the model's file; the comparison goes by place."""
    keras = load_keras()
    given = keras.Input((4,))
    model = keras.Model(given, keras.layers.Dense(3)(given))
    rows = {model.inputs[0].name: np.random.default_rng(0).random((8, 4), dtype=np.float32)}
    in_float = quantize(model, rows, Quantize(scheme="float32")).in_float
    assert check_build(model, in_float, rows)["source"] == "Keras' predict, in a process of its own"
    with pytest.raises(VerificationError, match="rewrite of the model or the converter has changed it"):
        check_build(model, with_scaled_kernel(in_float), rows)
