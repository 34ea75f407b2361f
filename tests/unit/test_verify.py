"""Verify: the shipped runtime against the reference Interpreter, and what is proven of batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from golden_store import golden
from litelambda.errors import MemoryShortageError, VerificationError
from litelambda.memory import shortages_explained
from litelambda.processes import describe_exit, run_child
from litelambda.sections import Quantize
from litelambda.stages import verify as verify_module
from litelambda.stages.backend import load_keras
from litelambda.stages.probe import probe
from litelambda.stages.quantize import quantize
from litelambda.stages.verify import verify
from serving.strings import to_wire


def features(num_rows: int = 300) -> dict[str, Any]:
    """Rows for the tiny model."""
    return {"features": np.random.default_rng(2).random((num_rows, 4), dtype=np.float32)}


def test_a_sound_artifact_is_verified_and_may_run_in_batches(tiny_tflite: bytes) -> None:
    """Every row equals the Interpreter's bits, alone and together with others."""
    verified = verify(tiny_tflite, features())
    assert verified.num_rows == 300
    assert verified.batching == {"dynamic": True, "verified_sizes": [1, 2, 3, 8, 32, 64, 128, 256]}


def test_raw_edges_are_verified_on_codes(tiny_uint8_tflite: bytes) -> None:
    """A model with uint8 edges is compared code by code."""
    codes = np.random.default_rng(2).integers(0, 256, (64, 4), dtype=np.uint8)
    assert verify(tiny_uint8_tflite, {"features": codes}).batching["dynamic"] is True


def test_several_inputs_and_outputs_are_verified(two_way_tflite: bytes) -> None:
    """Inputs are matched by name, whatever the order of the runtime."""
    noise = np.random.default_rng(2)
    rows = {"right": noise.random((40, 2, 3), np.float32), "left": noise.random((40, 4), np.float32)}
    assert verify(two_way_tflite, rows).batching["dynamic"] is True


def test_a_model_with_a_stale_output_size_must_run_row_by_row() -> None:
    """A reshape that takes its batch from a SHAPE operator is found out, and the manifest will forbid batches."""
    rows = {"x": np.random.default_rng(2).random((40, 4, 4, 1), dtype=np.float32)}
    verified = verify(golden("dynamic_flatten"), rows)
    assert verified.batching["dynamic"] is False
    assert "run its rows one by one" in verified.batching["reason"]


def test_a_model_of_a_fixed_batch_is_verified_as_it_is() -> None:
    """A model built for two rows at once runs two at a time and is never resized."""
    keras = load_keras()
    inputs = keras.Input(batch_shape=(2, 4), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3, name="y")(inputs))
    rows = {"x": np.random.default_rng(2).random((21, 4), dtype=np.float32)}
    calibration = {"x": rows["x"][:20].reshape(10, 2, 4)}
    artifact = quantize(model, calibration, Quantize(scheme="float32")).artifact
    verified = verify(artifact, rows)
    assert verified.num_rows == 20
    assert verified.batching == {"dynamic": False, "reason": "the model takes exactly 2 rows at once"}


Probe = Callable[[bytes, str, Mapping[str, Any], Sequence[int], Path], dict[str, bytes]]


def altered(change: Callable[[bytes], bytes], when: Callable[[Sequence[int]], bool]) -> Probe:
    """The real probe, with its first output changed in some runs."""

    def fake(
        artifact: bytes, signature: str, rows: Mapping[str, Any], sizes: Sequence[int], folder: Path
    ) -> dict[str, bytes]:
        outputs = probe(artifact, signature, rows, sizes, folder)
        return {name: change(data) if when(sizes) else data for name, data in outputs.items()}

    return fake


def test_other_bits_are_refused(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flipped bit in one row fails verification, and the message says where and by how much."""
    flip = altered(lambda data: data[:36] + bytes([data[36] ^ 1]) + data[37:], lambda sizes: set(sizes) == {1})
    monkeypatch.setattr(verify_module, "probe", flip)
    with pytest.raises(VerificationError, match=r"'probabilities' differs .* on 1 of 300 rows, first row 3, by"):
        verify(tiny_tflite, features())


def test_missing_bytes_are_refused(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output of another size fails verification."""
    monkeypatch.setattr(verify_module, "probe", altered(lambda data: data[:-4], lambda _: True))
    with pytest.raises(VerificationError, match="gave 3596 bytes, not 3600"):
        verify(tiny_tflite, features())


def test_batches_with_other_bits_are_forbidden(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that change in company do not fail the build: the manifest says that they run one by one."""
    monkeypatch.setattr(verify_module, "probe", altered(lambda data: data[::-1], lambda sizes: len(set(sizes)) > 1))
    batching = verify(tiny_tflite, features()).batching
    assert batching["dynamic"] is False
    assert "rows in a batch differ" in batching["reason"]


def test_a_crash_in_batches_is_survived_and_forbidden(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the runtime dies on a resize, only its own process dies, and batches are forbidden."""

    def crashing(
        artifact: bytes, signature: str, rows: Mapping[str, Any], sizes: Sequence[int], folder: Path
    ) -> dict[str, bytes]:
        if len(set(sizes)) > 1:
            raise VerificationError(f"the runtime crashed ({describe_exit(-11)})")
        return probe(artifact, signature, rows, sizes, folder)

    monkeypatch.setattr(verify_module, "probe", crashing)
    assert verify(tiny_tflite, features()).batching == {"dynamic": False, "reason": "the runtime crashed (SIGSEGV)"}


@pytest.mark.parametrize(
    "death", ["os.kill(os.getpid(), 9)", "raise MemoryError", "print('std::bad_alloc', file=sys.stderr); os.abort()"]
)
def test_too_little_memory_says_nothing_of_the_model(
    tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """Where the kernel ended the runtime, the build fails for want of memory: batches are not forbidden for that."""

    def dying(command: list[str]) -> CompletedProcess[str]:
        sizes = json.loads(Path(command[-1]).read_text())["sizes"]
        if len(set(sizes)) > 1:
            command = [sys.executable, "-c", f"import os, sys; {death}"]
        return run_child(command)

    monkeypatch.setattr("litelambda.stages.probe.run_child", dying)
    with (
        pytest.raises(MemoryShortageError, match=r"stage 'verify' ran out of memory .*Nothing was published"),
        shortages_explained("verify"),
    ):
        verify(tiny_tflite, features())


def test_the_runtimes_refusal_is_passed_on(tmp_path: Path) -> None:
    """A file that is no model is refused by the runtime in its own words."""
    with pytest.raises(VerificationError, match="not a TFLite model"):
        probe(b"no model", "predict", features(1), [1], tmp_path)


def test_strings_are_compared_with_the_references() -> None:
    """Strings are held against the Interpreter's, and other ones fail the verification."""
    rows = {"text": np.array([[b"a", b"\xff\x00"], [b"", b"b" * 300]], object)}
    artifact = golden("strings")
    assert verify(artifact, rows).num_rows == 2
    with pytest.raises(VerificationError, match="output 'echo': the shipped runtime gave other strings"):
        verify_module._compare("echo", rows["text"], b"")


def test_strings_travel_to_the_probe_and_back(tmp_path: Path) -> None:
    """The child gets the strings that it is given, row after row, and gives the outputs in V2's binary form."""
    rows = {"text": np.array([[b"a"], [b"\xff\x00"]], object)}
    outputs = probe(golden("growing"), "predict", rows, [2, 1], tmp_path)
    assert outputs == {"y": to_wire([b"a"] * 1000 + [b"\xff\x00"] * 1000 + [b"a"] * 1000)}
