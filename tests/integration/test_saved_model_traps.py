"""SavedModels on the way into a flatbuffer: no weights may be lost, no endpoint may hide another."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.artifact.reference import Reference
from litelambda.commands.import_model import read_model
from litelambda.commands.import_source import Allowed
from litelambda.common.child_process import shared_folder
from litelambda.common.errors import ConversionError
from litelambda.conversion.export import export
from litelambda.keras_tools.backend import load_keras, load_tensorflow

ROWS = np.random.default_rng(3).random((5, 4), dtype=np.float32)


def expected(model: Any) -> Any:
    return load_keras().ops.convert_to_numpy(model(ROWS))


def test_the_export_has_predict_alone_and_every_weight(tiny_model: Any, tmp_path: Path) -> None:
    """Beside an endpoint called "serve" the converter drops all others, so there is none; answers are Keras's own."""
    loaded = load_tensorflow().saved_model.load(str(export(tiny_model, tmp_path / "model")))
    assert set(loaded.signatures) == {"predict"}
    answer = loaded.signatures["predict"](features=ROWS)["probabilities"]
    assert np.allclose(answer, expected(tiny_model), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["export", "save"])
def test_kerass_own_saved_models_are_imported_whole(tiny_model: Any, tmp_path: Path, how: str) -> None:
    """Model.export calls its endpoint "serve", tf.saved_model.save forgets weights easily: both come out complete."""
    if how == "export":
        tiny_model.export(str(tmp_path / "model"), verbose=False)
    else:
        load_tensorflow().saved_model.save(tiny_model, str(tmp_path / "model"))
    with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
        model = read_model(tmp_path / "model", None, Path(scratch), Allowed())
    assert model.signature.key == "predict"
    reference = Reference(model.artifact)
    answer = reference.run({reference.inputs[0].name: ROWS}, 1)[reference.outputs[0].name]
    assert np.allclose(answer, expected(tiny_model), atol=1e-6)
    assert len(model.artifact) > 4 * tiny_model.count_params()


def test_a_saved_model_without_a_signature_is_refused(tmp_path: Path) -> None:
    """What tf.saved_model.save leaves of a module without signatures is not guessed at."""
    tf = load_tensorflow()
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"))
    with pytest.raises(ConversionError, match=r"has no signature: save it with signatures=…, or import the \.keras"):
        read_model(tmp_path / "model", None, shared_folder(), Allowed())
