"""What an import reads: damaged rows, types without a place in a request, and what int8 is judged on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.commands.imported import check_tensors
from litelambda.common.child_process import call_in_child
from litelambda.common.errors import ConversionError, DataError
from litelambda.evaluation.comparison import representative_runs
from litelambda.evaluation.loaded_sources import Described, KerasSource
from litelambda.evaluation.quantization_loss import measure_loss
from litelambda.evaluation.representative_rows import halves, read_rows
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.model_inputs import ModelInput

X = ModelInput("x", "float32", (None, 4))
ROWS = np.arange(48, dtype=np.float32).reshape(12, 4)


def test_answers_in_bfloat16_reach_the_other_process() -> None:
    """A last layer in bfloat16 answers in numbers that survive the way, equal to the layer's own bit for bit."""
    keras = load_keras()
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, dtype="bfloat16", name="y")])
    answers = KerasSource(model, "half.keras").run({"x": ROWS})
    (found,) = call_in_child(dict, answers).values()
    kernel, right = (keras.ops.cast(each, "bfloat16") for each in (model.layers[0].kernel, ROWS))
    assert found.dtype == np.float32
    assert np.array_equal(found, keras.ops.convert_to_numpy(keras.ops.cast(right @ kernel, "float32")))


def test_an_input_of_a_type_without_a_place_in_a_request() -> None:
    """A bfloat16 input is refused by name, before rows are made of it."""
    with pytest.raises(ConversionError, match=r"'x' is of the type bfloat16.*use float32"):
        check_tensors(Described((ModelInput("x", "bfloat16", (None, 4)),), "bfloat16"))


def _compressed(path: Path) -> bytes:
    np.savez_compressed(path, x=np.tile(ROWS, (20, 1)))
    return path.read_bytes()


def _damaged(name: str, folder: Path) -> bytes:
    np.save(folder / "rows.npy", ROWS)
    whole = (folder / "rows.npy").read_bytes()
    zipped = _compressed(folder / "rows.npz")
    middle = len(zipped) // 3
    return {
        "empty.npy": b"",
        "cut.npy": whole[:90],
        "quote.npy": whole.replace(b"}", b"(", 1),
        "cut.npz": zipped[: len(zipped) // 2],
        "flipped.npz": zipped[:middle] + bytes(8) + zipped[middle + 8 :],
        "method.npz": zipped.replace(b"\x08\x00", b"\x63\x00"),
    }[name]


@pytest.mark.parametrize("name", ["empty.npy", "cut.npy", "quote.npy", "cut.npz", "flipped.npz", "method.npz"])
def test_damaged_files_of_rows(tmp_path: Path, name: str) -> None:
    """Whatever is wrong with the file, the message names it."""
    (tmp_path / name).write_bytes(_damaged(name, tmp_path))
    with pytest.raises(DataError, match=f"{name} is not an .npy or .npz file of numbers"):
        read_rows(tmp_path / name, [X])


def test_a_single_number_is_no_rows(tmp_path: Path) -> None:
    """An array without any dimension has no rows."""
    np.save(tmp_path / "rows.npy", np.float32(3))
    with pytest.raises(DataError, match=r"has shape \[\], expected rows of \[4\]"):
        read_rows(tmp_path / "rows.npy", [X])


def test_rows_of_a_fixed_batch() -> None:
    """Twelve rows for a model of eight at a time calibrate and judge both, sixteen are parted, seven are refused."""
    assert halves({"x": ROWS}, 8) == (list(range(12)), list(range(12)))
    assert halves({"x": np.zeros((16, 4))}, 8) == (list(range(0, 16, 2)), list(range(1, 16, 2)))
    with pytest.raises(DataError, match="takes 8 rows at a time, and there are 7 representative rows"):
        halves({"x": ROWS[:7]}, 8)


def test_an_input_without_a_shape_gets_a_number_a_run() -> None:
    """A scalar beside a batch of four: each run has four rows of the one, and the first of their numbers."""
    inputs = [ModelInput("x", "float32", (4, 4)), ModelInput("s", "float32", ())]
    runs = representative_runs({"x": ROWS, "s": np.arange(12.0)}, inputs, list(range(12)))
    assert runs.inputs["x"].shape == (3, 4, 4)
    assert runs.inputs["s"].tolist() == [0.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("right", "found"), [([[7], [900], [3], [1]], [[7], [901], [3], [1]]), ([[b"a"]] * 4, [[b"a"]] * 3 + [[b"b"]])]
)
def test_answers_that_are_no_real_numbers(right: Any, found: Any) -> None:
    """Of four whole numbers or strings one is another: three quarters agree, and no distance is measured."""
    dtype = object if isinstance(right[0][0], bytes) else np.int64
    loss = measure_loss({"y": np.array(right, dtype)}, {"y": np.array(found, dtype)})
    assert (loss.agreement, loss.lost_rows, loss.max_difference) == (0.75, 0.25, 0.0)
