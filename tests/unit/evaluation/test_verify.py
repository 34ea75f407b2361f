"""Verify: the shipped runtime against the reference Interpreter, and what is proven of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from litelambda.artifact import serving_process
from litelambda.artifact.flatbuffer import read_signatures
from litelambda.artifact.serving_process import ServedArtifact, serve_in_child
from litelambda.commands.imported import random_rows
from litelambda.common.child_process import call_in_child
from litelambda.common.errors import MemoryShortageError, VerificationError
from litelambda.common.memory_errors import shortages_explained
from litelambda.conversion.quantize import quantize
from litelambda.evaluation import verify as verify_module
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize
from litelambda_serving.servable import Binding
from litelambda_serving.tensor.strings import to_wire
from support.golden_store import golden


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


Served = dict[str, list[bytes]]


def altered(change: Callable[[Served], Served], when: Callable[[Sequence[int]], bool]) -> Any:
    """The real serve_in_child, whose answers are changed in some runs."""

    def fake(served: ServedArtifact, runs: Mapping[str, Any], sizes: Sequence[int]) -> Served:
        outputs = serve_in_child(served, runs, sizes)
        return change(outputs) if when(sizes) else outputs

    return fake


def always(sizes: Sequence[int]) -> bool:
    return bool(sizes)


def in_batches(sizes: Sequence[int]) -> bool:
    return set(sizes) != {1}


def each(change: Callable[[bytes], bytes], output: str = "") -> Callable[[Served], Served]:
    """A change of the bytes of each run of an output, or of all outputs."""
    return lambda outputs: {
        name: [change(data) for data in parts] if output in ("", name) else parts for name, parts in outputs.items()
    }


def with_one_bit_flipped(outputs: Served) -> Served:
    row = outputs["probabilities"][3]
    outputs["probabilities"][3] = bytes([row[0] ^ 1]) + row[1:]
    return outputs


def swapped(outputs: Served) -> Served:
    return dict(zip(outputs, list(outputs.values())[::-1], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_one_bit_flipped, r"'probabilities' differs .* on 1 of 30 rows, first row 3, by"),
        (each(lambda data: data[:-4]), "'probabilities': the shipped runtime returned 240 bytes, not 360"),
        (each(lambda data: bytes(len(data))), "'probabilities' differs .* on 30 of 30 rows"),
    ],
    ids=["a bit", "too few bytes", "zeros"],
)
def test_other_answers_are_refused(
    tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch, change: Callable[[Served], Served], message: str
) -> None:
    """A flipped bit, missing bytes or a runtime that returns zeros: the message names the output and says how much."""
    monkeypatch.setattr(verify_module, "serve_in_child", altered(change, always))
    with pytest.raises(VerificationError, match=message):
        verify(tiny_tflite, features(30))


def test_swapped_outputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each output is held against the reference's of its name, though all have the same shape."""
    noise = np.random.default_rng(2)
    rows = {name: noise.random((8, 2), dtype=np.float32) for name in ("left", "right")}
    artifact = golden("two_doubles")
    assert verify(artifact, rows).num_rows == 8
    monkeypatch.setattr(verify_module, "serve_in_child", altered(swapped, always))
    with pytest.raises(VerificationError, match="output 'left' differs"):
        verify(artifact, rows)


def test_a_serving_side_that_swaps_inputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is verified is the code that ships: a mistake of it is found, however right the runtime is."""
    rows = {"a": np.arange(1, 9, dtype=np.int32), "b": np.arange(9, 1, -1, dtype=np.int32)}
    real = Binding.__init__

    def swapping(self: Binding, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.inputs.reverse()

    monkeypatch.setattr(Binding, "__init__", swapping)
    monkeypatch.setattr(serving_process._PROCESS, "call", lambda function, *arguments: function(*arguments))
    with pytest.raises(VerificationError, match="output 'y' differs"):
        verify(golden("division"), rows)


def test_batches_with_other_bits_are_forbidden(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that change in company do not fail the build: the manifest says that they run one by one."""
    monkeypatch.setattr(verify_module, "serve_in_child", altered(each(lambda data: data[::-1]), in_batches))
    batching = verify(tiny_tflite, features(30)).batching
    assert batching == {
        "dynamic": False,
        "reason": "output 'probabilities': rows in a batch differ from rows one by one",
    }


def test_an_output_of_all_rows_is_held_against_the_reference_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that a request may have are proven one after the other; another sum forbids all but single rows."""
    rows = {"x": np.random.default_rng(2).random((40, 3), dtype=np.float32)}
    assert verify(golden("totals"), rows).batching["verified_sizes"][:32] == list(range(1, 33))
    first_rows = altered(each(lambda data: bytes(12), "total"), in_batches)
    monkeypatch.setattr(verify_module, "serve_in_child", first_rows)
    batching = verify(golden("totals"), rows).batching
    assert (batching["dynamic"], "output 'total'" in batching["reason"]) == (False, True)


def test_a_crash_in_batches_is_survived_and_forbidden(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the runtime dies on a resize, only its own process dies, and batches are forbidden."""

    def crash(outputs: Served) -> Served:
        raise VerificationError("the runtime crashed (SIGSEGV)")

    monkeypatch.setattr(verify_module, "serve_in_child", altered(crash, in_batches))
    assert verify(tiny_tflite, features(30)).batching == {"dynamic": False, "reason": "the runtime crashed (SIGSEGV)"}


def test_a_model_that_cannot_compute_with_zeros_gets_a_first_run_that_works() -> None:
    """Division fails on zeros: the manifest says ones; rows that divide by zero prove nothing and are left out."""
    rows = {"a": np.arange(8, dtype=np.int32), "b": np.array([1, 0, 2, 3] * 2, np.int32)}
    verified = verify(golden("division"), rows)
    assert (verified.num_rows, verified.warm_up) == (6, {"a": 1, "b": 1})


def test_the_first_run_is_on_a_row_of_the_models_own_where_ones_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values come into the manifest; without any that works, a function could not start: it is refused."""
    candidates = verify_module._warm_ups

    def without_ones(*arguments: Any) -> Iterator[dict[str, Any]]:
        return (each for each in candidates(*arguments) if 1 not in each.values())

    monkeypatch.setattr(verify_module, "_warm_ups", without_ones)
    rows = {"a": np.array([9, 8], np.int32), "b": np.array([4, 5], np.int32)}
    assert verify(golden("division"), rows).warm_up == {"a": [9], "b": [4]}
    monkeypatch.setattr(verify_module, "_MAX_WARM_UP_VALUES", 1)
    with pytest.raises(VerificationError, match=r"fails on zeros.* could not start"):
        verify(golden("division"), rows)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("whole", "the model has no batch"),
        ("scalar", "the model has no batch"),
        ("four_rows", "the model takes exactly 4 rows at once"),
    ],
)
def test_models_without_an_open_batch_are_verified_as_they_are(name: str, reason: str) -> None:
    """First dimensions may differ from input to input: each run takes what its inputs take."""
    (signature,) = read_signatures(golden(name))
    rows = random_rows(signature.inputs, 16)
    assert verify(golden(name), rows).batching == {"dynamic": False, "reason": reason}


def test_a_model_of_one_row_takes_any_number_whatever_it_was_made_of() -> None:
    """A batch of exactly one is an open batch of rows that run one by one; of more, it stays what it is."""
    (x,) = verify(golden("dtype_float32"), {"x": np.ones((2, 3), np.float32)}).signature.inputs
    assert x.shape == (1, 3)  # its output has no batch of one: it is a whole tensor
    (x,) = verify(golden("one_row"), {"x": np.ones(3, np.float32)}).signature.inputs
    assert x.shape == (-1,)


def test_what_the_graph_tells_is_in_the_signature() -> None:
    """Row numbers of a table, directly or cast; outputs that are one tensor; outputs that are always the same."""
    names = ("table", "wide_table", "twins", "constant", "division", "remainder")
    found = {name: read_signatures(golden(name))[0] for name in names}
    assert found["table"].inputs[0].to_json()["range"] == [0, 4]
    assert found["wide_table"].inputs[0].to_json()["range"] == [0, 4]
    assert [tensor.same_as for tensor in found["twins"].outputs] == ["", "a"]
    assert [(tensor.name, tensor.constant) for tensor in found["constant"].outputs] == [("c", True), ("y", False)]
    assert all(tensor.limits is None for tensor in found["division"].inputs)
    # The smallest integer modulo -1 ends the process: it is out of range for what is divided.
    assert [tensor.limits for tensor in found["remainder"].inputs] == [(1 - 2**31, 2**31 - 1), None]


def test_too_little_memory_says_nothing_of_the_model(tiny_tflite: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel ended the runtime, the build fails for want of memory: batches are not forbidden for that."""

    def dying(function: Callable[..., Any], served: ServedArtifact, runs: Any, sizes: Sequence[int]) -> Any:
        if len(set(sizes)) > 1:
            return call_in_child(exec, "import os; os.kill(os.getpid(), 9)")
        return call_in_child(function, served, runs, sizes)

    monkeypatch.setattr(serving_process._PROCESS, "call", dying)
    with (
        pytest.raises(MemoryShortageError, match=r"stage 'verify' ran out of memory .*Nothing was published"),
        shortages_explained("verify"),
    ):
        verify(tiny_tflite, features())


def test_the_runtimes_refusal_is_passed_on() -> None:
    """A file that is no model is refused by the runtime in its own words."""
    (signature,) = read_signatures(golden("tiny_int8"))
    with pytest.raises(VerificationError, match="not a TFLite model"):
        serve_in_child(ServedArtifact(b"no model", signature), {"x": np.zeros((1, 1, 4), np.float32)}, [1])


def test_strings_are_compared_with_the_references() -> None:
    """Strings are held against the Interpreter's, and other ones fail the verification."""
    rows = {"text": np.array([[b"a", b"\xff\x00"], [b"", b"b" * 300]], object)}
    artifact = golden("strings")
    assert verify(artifact, rows).num_rows == 2
    with pytest.raises(VerificationError, match="output 'echo': the shipped runtime returned other strings"):
        verify_module._compare("echo", rows["text"], b"")


def test_strings_travel_to_the_child_and_back() -> None:
    """The child gets the strings that it is given, row after row, and gives the outputs in V2's binary form."""
    (signature,) = read_signatures(golden("growing"))
    runs = {"text": np.array([[[b"a"]], [[b"\xff\x00"]]], object)}
    outputs = serve_in_child(ServedArtifact(golden("growing"), signature), runs, [2, 1])
    assert outputs == {"y": [to_wire([b"a"] * 1000 + [b"\xff\x00"] * 1000), to_wire([b"a"] * 1000)]}
