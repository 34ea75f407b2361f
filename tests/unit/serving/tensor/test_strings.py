"""String tensors: in the runtime's memory, in JSON and in binary tensors, and what holds the runtime to its buffers."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st

from litelambda_serving import litert
from litelambda_serving.errors import LiteRtError, RequestError, TensorError
from litelambda_serving.litert import CompiledModel, string_buffers
from litelambda_serving.litert.string_buffers import MAX_OUTPUT_BYTES, encode_strings, read_strings
from litelambda_serving.tensor import DTYPES, DYNAMIC, TensorSpec, pack
from litelambda_serving.tensor.strings import from_json, from_wire, to_json, to_text, to_wire
from support.golden_store import golden

TEXT = TensorSpec("text", DTYPES["string"], (DYNAMIC, 2))
STRINGS = [b"red", b"", b"\xff\x00", "gr\u00fc\u00df".encode()]
some_strings = st.lists(st.binary(max_size=20), max_size=8)


@given(some_strings)
def test_every_form_gives_back_what_went_in(strings):
    """Runtime's memory, binary tensor and JSON hold any bytes."""
    count = len(strings)
    memory = memoryview(encode_strings(strings, count, "x") + b"what lies behind")
    assert read_strings(memory, count, "x") == strings
    assert from_wire(memoryview(to_wire(strings)), "x", count) == strings
    for name in ("label", "label_bytes"):
        values = json.loads(json.dumps(to_json(strings, name)))
        assert from_json(values, "x", True, TensorError) == strings


@given(some_strings, st.binary(max_size=40), st.integers(0, 9))
def test_damaged_memory_is_an_error_or_strings(strings, damage, count):
    """No number in a tensor's memory is followed out of it."""
    memory = bytearray(encode_strings(strings, len(strings), "x"))
    memory[: len(damage)] = damage
    try:
        found = read_strings(memoryview(bytes(memory).ljust(64, b"\0")), count, "x")
    except LiteRtError:
        return
    assert len(found) == count


@given(st.binary(max_size=40), st.integers(0, 9))
def test_damaged_binary_tensors_are_errors_or_strings(data, count):
    """A binary tensor is read to its end or refused."""
    with contextlib.suppress(TensorError):
        assert to_wire(from_wire(memoryview(data), "x", count)) == data


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"\1\0\0\0", 1, "incomplete string data for input 'x': it ends inside string 0"),
        (b"\0\0\0\0\1\0", 2, "it ends inside string 1"),
        (b"\xff\xff\xff\xffabc", 1, "ends inside string 0"),
        (b"\0\0\0\0", 2, "unexpected number of strings 1 for input 'x', expecting 2"),
        (b"", 1, "unexpected number of strings 0"),
    ],
)
def test_bad_binary_tensors_are_told_what_is_wrong(data, count, message):
    """Lengths beyond the data and another number of strings than the shape says."""
    with pytest.raises(TensorError, match=message):
        from_wire(memoryview(data), "x", count)


def test_json_text_and_base64_become_bytes():
    """Text is UTF-8, and an object with the only key b64 is what it decodes to, with or without its padding."""
    values = [["gr\u00fc\u00df", {"b64": "/wA="}], [{"b64": "/wA"}, ""]]
    tensor = pack(values, TEXT, (2, 2))
    assert (tensor.shape, tensor.data) == ((2, 2), [STRINGS[3], b"\xff\x00", b"\xff\x00", b""])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "JSON Value: 1 Type: Number is not of expected type: string"),
        (None, "Type: Null"),
        ({"b64": 1}, "Type: Object"),
        ({"b64": "aa", "more": 1}, "Type: Object"),
        ({"b64": "a*=="}, "Unable to base64 decode"),
        ({"b64": "a"}, "Unable to base64 decode"),
        ({"b64": "\u00fc\u00fc\u00fc\u00fc"}, "Unable to base64 decode"),
        ("\ud800", "not Unicode text"),
        (["a"], "Type: Array"),
    ],
)
def test_what_is_no_string_is_refused(value, message):
    """Other JSON values, other objects, what is no base64, and halves of characters."""
    with pytest.raises(TensorError, match=message):
        pack([[value, ""]], TEXT, (1, 2))


def test_json_answers_follow_the_name_and_the_bytes():
    """V1 answers base64 for names that end in _bytes and for what is no text; V2 says to ask for binary data."""
    assert to_json([b"a", b"\xff"], "label") == ["a", {"b64": "/w=="}]
    assert to_json([b"a"], "label_bytes") == [{"b64": "YQ=="}]
    assert to_text([STRINGS[3]], "label") == ["gr\u00fc\u00df"]
    with pytest.raises(RequestError, match="'label' holds bytes that are not UTF-8 text: request it with"):
        to_text([b"\xff"], "label")


def test_strings_equal_the_interpreters():
    """Strings of every length go in and out as in the reference runtime, run after run in the same model."""
    interpreter = Interpreter(model_content=golden("strings"))
    reference = interpreter.get_signature_runner("predict")
    with CompiledModel(golden("strings")) as model:
        names = [spec.name for spec in model.signatures["predict"].outputs]
        for row in (STRINGS[:2], STRINGS[2:], [b"x" * 5000, b"x" * 5000], [b"", b""], STRINGS[:2]):
            expected = reference(text=np.array([row], object))
            outputs = dict(zip(names, model.run("predict", [row]), strict=True))
            assert outputs["echo"] == outputs["echo_bytes"] == expected["echo"].ravel().tolist() == row
            assert outputs["same"] == expected["same"].tobytes()


def test_numbers_and_strings_mix():
    """A table lookup with a number beside it, and a label beside its scores."""
    with CompiledModel(golden("lookup")) as model:
        order = [spec.name for spec in model.signatures["predict"].inputs]
        for word, found in ((b"red", 1), (b"blue", 3), (b"mauve", -1), (b"", -1)):
            inputs = {"word": [word], "step": struct.pack("<q", 10)}
            assert model.run("predict", [inputs[name] for name in order]) == [struct.pack("<q", found + 10)]
    with CompiledModel(golden("labelled")) as model:
        probabilities, label = model.run("predict", [struct.pack("<4f", 0.9, 0.1, 0.5, 0.2)])
        scores = struct.unpack("<3f", probabilities)
        assert label == [(b"cat", b"dog", b"fox")[scores.index(max(scores))]]


def test_batches_of_strings():
    """Growing and shrinking batches give the strings that single rows give."""
    with CompiledModel(golden("growing")) as model:
        for size in (1, 3, 8, 2, 1):
            words = [b"%d" % number for number in range(size)]
            (output,) = model.run("predict", [words], size)
            assert output == [word for word in words for _ in range(1000)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([[b"a"]], "input 'text' takes 2 strings, got 1"),
        ([[]], "takes 2 strings, got 0"),
        ([bytes(16)], "takes a list of strings, got bytes"),
    ],
)
def test_other_strings_than_the_shape_says_never_reach_the_runtime(inputs, message):
    """An operator trusts the number of strings: it is held against the shape before the run."""
    with CompiledModel(golden("strings")) as model, pytest.raises(LiteRtError, match=message):
        model.run("predict", inputs)
    with CompiledModel(golden("tiny_int8")) as model, pytest.raises(LiteRtError, match="got a list"):
        model.run("predict", [[b"a"]])


def test_an_output_over_the_bound_fails_the_run_and_touches_no_memory():
    """In a process that the smallest overrun would end: a bound far below what the model wants, many times."""
    script = """
from support.golden_store import golden
from litelambda_serving.litert import string_buffers
from litelambda_serving.errors import LiteRtError
from litelambda_serving.litert import CompiledModel
string_buffers.MAX_OUTPUT_BYTES = 4 * 1002 + 100
string_buffers._AMPLE_BYTES = 4 * 1024 * 1024
with CompiledModel(golden("growing")) as model:
    for length in range(0, 2000, 20):
        try:
            assert model.run("predict", [[b"x" * length]]) == [[b"x" * length] * 1000] and length == 0
        except LiteRtError as error:
            assert length and "at most 4108 bytes" in str(error), error
print("alive")
"""
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "MALLOC_PERTURB_": "165"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.stdout == "alive\n", done.stderr[-2000:]
    assert "Output buffer too small: allocated 4108" in done.stderr


def test_a_model_goes_on_after_an_output_that_was_too_large():
    """Up to the bound an output is read, over it the run fails, and the next one works; memory is given back."""
    with CompiledModel(golden("growing")) as model:
        (output,) = model.run("predict", [[b"x" * 2000]])
        assert output == [b"x" * 2000] * 1000
        with pytest.raises(LiteRtError, match="a string output of one run takes at most"):
            model.run("predict", [[b"x" * (MAX_OUTPUT_BYTES // 1000)]])
        assert model.run("predict", [[b"y"]]) == [[b"y"] * 1000]
    with pytest.raises(LiteRtError, match="closed"):
        model.run("predict", [[b"y"]])


def test_a_tensor_that_the_runtime_left_empty_is_an_error(monkeypatch):
    """Strings of an earlier run are never taken for this one's."""
    with CompiledModel(golden("strings")) as model:
        model.run("predict", [[b"a", b"b"]])
        monkeypatch.setattr(litert.SignatureRunner, "run", lambda _: None)
        with pytest.raises(LiteRtError, match="output 'echo' has 0 strings, its shape says 2"):
            model.run("predict", [[b"c", b"d"]])


def test_strings_larger_than_a_tensor_can_be(monkeypatch):
    """The runtime counts bytes in 31 bits."""
    monkeypatch.setattr(string_buffers, "_MAX_TENSOR_BYTES", 20)
    assert len(encode_strings([b"1234"], 1, "x")) == 16
    with pytest.raises(LiteRtError, match="takes at most 20 bytes, got 21"):
        encode_strings([b"123456789"], 1, "x")


@pytest.mark.parametrize(("model", "loaded"), [("tiny_int8", False), ("strings", True)])
def test_models_without_strings_load_nothing_for_them(model, loaded):
    """What strings need is imported with the first model that has them."""
    script = (
        "import sys; from support.golden_store import golden; from litelambda_serving.litert import CompiledModel\n"
        f"with CompiledModel(golden({model!r})) as model:\n"
        "    specs = model.signatures['predict'].inputs\n"
        "    model.run('predict', [bytes(s.row_bytes) if s.dtype.itemsize else [b''] * s.row_values for s in specs])\n"
        "later = ('litelambda_serving.tensor.strings', 'litelambda_serving.litert.string_buffers')\n"
        "print(any(name in sys.modules for name in later))"
    )
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"{loaded}\n"
