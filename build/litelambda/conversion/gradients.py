"""Integrated gradients of the float model, as an artifact of its own that answers `:explain`.

The number of points on the path is chosen by what the gradients leave unexplained of sample rows; what the artifact
answers to these, in the runtime that ships, is compared with Keras.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import SIGNATURE, read_signatures
from litelambda.artifact.serving_process import ServedArtifact, serve_in_child
from litelambda.common.child_process import shared_folder
from litelambda.common.errors import LitelambdaError, VerificationError, first_line
from litelambda.conversion.converter import Conversion, convert
from litelambda.conversion.gradient_export import Noted, Samples, read_notes, write_gradients
from litelambda.keras_tools.backend import backend
from litelambda.keras_tools.model_files import save_with_modules

__all__ = ["GRADIENTS_NAME", "Gradients", "Samples", "export_gradients", "export_gradients_of_file"]

GRADIENTS_NAME = "explain.tflite"

_LEAST_COSINE = 0.9999
"""Between what the artifact and what Keras attribute to a row: float16 weights leave 0.999999."""


@dataclass(frozen=True)
class Gradients:
    """Integrated gradients that can be published.

    Attributes:
        artifact: the flatbuffer; empty where there is none.
        document: the manifest's `explain.gradients`.
        note: why nothing was exported; "" if it was.
    """

    artifact: bytes = b""
    document: Mapping[str, Any] | None = None
    note: str = ""

    def describe(self) -> str:
        """In a few words, for a person."""
        if self.document is None:
            return f"no gradients: {self.note}"
        return f"gradients at {self.document['steps']} points, {len(self.artifact):,} bytes"


def export_gradients(model: Any, samples: Samples) -> Gradients:
    """Export the integrated gradients of a Keras model.

    Args:
        model: Functional or Sequential.
        samples: rows and their baselines.

    Returns:
        The artifact; or, where the model has no gradients that can be exported, the reason.
    """
    with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
        try:
            return _convert(_export(model, Path(scratch), samples), samples)
        except LitelambdaError as error:
            return Gradients(note=first_line(error))


def export_gradients_of_file(path: Path, samples: Samples) -> Gradients:
    """Export the integrated gradients of a .keras or .h5 file; see `export_gradients`."""
    with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
        source = Path(scratch) / f"source{path.suffix}"  # its SavedModel is written next to it
        source.symlink_to(path.resolve())
        try:
            return _convert(source, samples)
        except LitelambdaError as error:
            return Gradients(note=first_line(error))


def _export(model: Any, folder: Path, samples: Samples) -> Path:
    """Write the SavedModel; of a model on JAX the file that the converter's process makes it of."""
    if backend() != "tensorflow":
        return save_with_modules(model, folder / "source.keras")
    write_gradients(model, folder / "gradients", samples)
    return folder / "gradients"


def _convert(source: Path, samples: Samples) -> Gradients:
    """Convert with weights of 16 bits, or with all 32 where that changes what is attributed."""
    refusal = ""
    for scheme in ("float16", "float32"):
        output = source.with_name(f"{scheme}.tflite")
        convert([Conversion("the model's gradients", str(source), str(output), scheme=scheme, samples=samples)])
        artifact, noted = output.read_bytes(), read_notes(source.with_name("gradients"))
        refusal = _refusal(artifact, noted)
        if not refusal:
            document = {"file": GRADIENTS_NAME, **noted.to_json(), "weights": scheme}
            return Gradients(artifact, document)
    raise VerificationError(refusal)


def _refusal(artifact: bytes, noted: Noted) -> str:
    """Why an artifact is not what Keras computes; "" where it is."""
    (signature,) = (each for each in read_signatures(artifact) if each.key == SIGNATURE)
    count = len(noted.asked["target"])
    try:
        answers = serve_in_child(ServedArtifact(artifact, signature), noted.asked, [1] * count)
    except VerificationError as error:
        return str(error)
    for name, expected in noted.answered.items():
        for row, values in enumerate(expected):
            found = np.frombuffer(answers[name][row], np.float32)
            if not _is_close(found, values.ravel()):
                return f"what is attributed differs from Keras' gradients ({name} of sample row {row})"
    return ""


def _is_close(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    lengths = float(np.linalg.norm(found) * np.linalg.norm(expected))
    if len(expected) == 1:
        return bool(np.allclose(found, expected, rtol=0.02, atol=1e-3 * max(1.0, float(np.abs(expected).max()))))
    return (
        bool(lengths == 0 and not found.any() and not expected.any())
        or float(found @ expected) >= _LEAST_COSINE * lengths
    )
