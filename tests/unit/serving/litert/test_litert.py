"""The ctypes binding, held against real flatbuffers and against ai_edge_litert's own Interpreter."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from litelambda_serving import litert
from litelambda_serving.errors import LiteRtError, RuntimeLibraryError
from litelambda_serving.litert import CompiledModel
from litelambda_serving.tensor import DTYPES, DYNAMIC
from support.golden_store import golden

FIXED_SIZE = [name for name, dtype in DTYPES.items() if dtype.itemsize]


def random_rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, size=(count, 4)).astype("float32")


def test_signatures_are_read_from_the_flatbuffer():
    """Names, dtypes, shapes and the affine schemes of raw tensors are what the converter wrote."""
    with CompiledModel(golden("tiny_int8_raw")) as model:
        signature = model.signatures["predict"]
    (x,), (y,) = signature.inputs, signature.outputs
    assert (x.name, x.dtype.name, x.shape) == ("x", "int8", (DYNAMIC, 4))
    assert (y.name, y.dtype.name, y.shape) == ("probabilities", "int8", (DYNAMIC, 3))
    assert y.quantization.scale == 1 / 256
    assert y.quantization.zero_point == -128


def test_equals_the_interpreter_bit_for_bit():
    """An int8 model's outputs are the reference runtime's, exactly."""
    data, rows = golden("tiny_int8"), random_rows(200)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    with CompiledModel(data) as model:
        for row in rows:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
            interpreter.invoke()
            expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes()
            assert model.run("predict", [row.tobytes()]) == [expected]


@pytest.mark.parametrize("name", FIXED_SIZE)
def test_every_fixed_size_dtype_goes_in_and_out(name):
    """The bytes of each dtype come out of a reshape as they went in."""
    dtype = DTYPES[name]
    data = struct.pack(f"<3{dtype.format}", *([True, False, True] if name == "bool" else [1, 2, 3]))
    with CompiledModel(golden(f"dtype_{name}")) as model:
        assert model.signatures["predict"].inputs[0].dtype is dtype
        assert model.run("predict", [data]) == [data]


def test_several_inputs_and_outputs_keep_their_names():
    """Tensors are in the signature's own order, which the specs tell."""
    with CompiledModel(golden("two_by_two")) as model:
        signature = model.signatures["predict"]
        values = {"a": struct.pack("<3f", 1, 2, 3), "b": struct.pack("<i", 10)}
        outputs = model.run("predict", [values[spec.name] for spec in signature.inputs])
        named = dict(zip((spec.name for spec in signature.outputs), outputs, strict=True))
    assert named == {"total": struct.pack("<f", 16), "twice": struct.pack("<i", 20)}


def test_batches_equal_single_rows_in_any_order_of_sizes():
    """Growing and shrinking, a batch gives exactly what its rows give one by one."""
    rows = random_rows(64)
    with CompiledModel(golden("tiny_int8")) as model:
        single = [model.run("predict", [row.tobytes()])[0] for row in rows]
        for size in (2, 64, 3, 1, 32, 5, 64):
            assert model.run("predict", [rows[:size].tobytes()], size) == [b"".join(single[:size])]


def test_a_stale_output_size_is_refused_before_it_corrupts_memory():
    """A model whose output does not follow the batch cannot be run in batches, and still runs row by row."""
    with CompiledModel(golden("dynamic_flatten")) as model:
        with pytest.raises(LiteRtError, match="run its rows one by one"):
            model.run("predict", [bytes(64 * 5)], 5)
        assert len(model.run("predict", [bytes(64)])[0]) == 12


def test_outputs_that_are_no_tensors_of_their_own_are_filled():
    """A key that comes back as it came and two outputs on one tensor have their values, at every size of a batch."""
    with CompiledModel(golden("keyed")) as model, CompiledModel(golden("twins")) as twins:
        for size in (1, 2, 8, 3, 1):
            x = np.random.default_rng(size).normal(size=(size, 3)).astype("float32")
            keys = struct.pack(f"<{size}q", *range(7, 7 + size))
            assert model.run("predict", [keys, x.tobytes()], size) == [keys, (2 * x).tobytes()]
            assert twins.run("predict", [x.tobytes()], size) == [(2 * x).tobytes()] * 2


def test_no_output_shows_what_was_in_memory_before():
    """What the runtime would leave as it is is zero: the memory of an output is cleared before its first run."""
    with CompiledModel(golden("totals")) as model:
        for size in (64, 1, 64, 1):  # each takes the memory that the one before it gave back
            views = model.runner("predict", size).outs.views
            assert not any(bytes(view).strip(b"\0") for view in views)
            for view in views:
                view[:] = b"\xff" * len(view)


def test_what_is_computed_after_strings_runs_in_batches():
    """Growing and shrinking, numbers whose shapes the runtime only learns while it runs are those of the rows."""
    with CompiledModel(golden("after_strings")) as model:
        for size in (1, 2, 8, 3, 32, 1):
            texts = [b"text %d" % row for row in range(size)]
            x = np.arange(3 * size, dtype="float32")
            assert model.run("predict", [texts, x.tobytes()], size) == [texts, (x * 2.5).tobytes()]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_result(threads):
    """The threads option reaches the runtime and the answer stays the same."""
    row = random_rows(1)
    with CompiledModel(golden("tiny_int8"), num_threads=threads) as model:
        assert len(model.run("predict", [row.tobytes()])[0]) == 12


@pytest.mark.parametrize(
    "data",
    [b"", b"abc" * 100, golden("tiny_int8")[:1000], golden("tiny_int8")[:-40], b"\0\0\0\0TFL3" + bytes(200)],
    ids=["empty", "text", "cut short", "cut at its end", "magic only"],
)
def test_what_is_no_model_is_an_error(data):
    """Bytes that are not a whole TFLite file raise; they never crash."""
    with pytest.raises(LiteRtError):
        CompiledModel(data)


def test_mutated_models_never_crash():
    """Random damage either raises or loads: the process survives, in a subprocess to make sure of it."""
    script = """
import random, sys
from support.golden_store import golden
from litelambda_serving.errors import LiteRtError
from litelambda_serving.litert import CompiledModel
data, random = golden("tiny_int8"), random.Random(0)
for _ in range(300):
    damaged = bytearray(data)
    for _ in range(random.choice((1, 4, 32))):
        damaged[random.randrange(len(data))] = random.randrange(256)
    try:
        CompiledModel(bytes(damaged)).close()
    except LiteRtError:
        pass
print("survived")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert result.stdout.strip() == "survived", result.stderr[-2000:]


def test_an_operator_the_runtime_lacks_is_an_error():
    """A model with a TensorFlow-only operator says so instead of answering."""
    with CompiledModel(golden("unsupported_op")) as model, pytest.raises(LiteRtError, match="operator"):
        model.run("predict", [bytes(16)])


@pytest.mark.parametrize(
    ("key", "inputs", "batch", "message"),
    [
        ("nope", [bytes(16)], None, "no signature 'nope'; the model has predict"),
        ("predict", [], None, "takes 1 inputs, got 0"),
        ("predict", [bytes(15)], None, "takes 16 bytes, got 15"),
        ("predict", [bytes(16)], 2, "takes 32 bytes, got 16"),
    ],
)
def test_wrong_calls_are_errors(key, inputs, batch, message):
    """A wrong signature, number or size of inputs never reaches native code."""
    with CompiledModel(golden("tiny_int8")) as model, pytest.raises(LiteRtError, match=message):
        model.run(key, inputs, batch)


def test_a_model_without_a_batch_dimension_takes_no_batch():
    """Rows cannot be added where the flatbuffer has no place for them."""
    with CompiledModel(golden("scalar")) as model:
        assert model.run("predict", [struct.pack("<f", 2)]) == [struct.pack("<f", 6)]
        with pytest.raises(LiteRtError, match="no batch dimension"):
            model.run("predict", [struct.pack("<f", 2)], 2)


def test_a_closed_model_does_not_run():
    """Closing twice is harmless, running afterwards an error."""
    model = CompiledModel(golden("tiny_int8"))
    model.close()
    model.close()
    with pytest.raises(LiteRtError, match="closed"):
        model.run("predict", [bytes(16)])


def test_any_buffer_is_taken_and_released():
    """Bytes, memoryviews and mutable buffers are loaded in place, held while the model lives, and given back."""
    data = bytearray(golden("tiny_int8"))
    model = CompiledModel(memoryview(data))
    with pytest.raises(BufferError):
        data.append(0)
    model.close()
    data.append(0)


def test_loading_and_closing_does_not_leak():
    """Two hundred models come and go in the memory of a few."""
    data = golden("tiny_int8")

    def resident_kb() -> int:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc on this system to read the resident memory from")

    def cycle(times: int) -> None:
        for _ in range(times):
            with CompiledModel(data) as model:
                model.run("predict", [bytes(64)], 4)
        gc.collect()

    cycle(50)
    before = resident_kb()
    cycle(200)
    assert resident_kb() - before < 4096


def test_calls_from_several_threads_queue():
    """One model answers eight threads at once, each with its own answer."""
    rows = random_rows(400)
    with CompiledModel(golden("tiny_int8")) as model:
        expected = [model.run("predict", [row.tobytes()]) for row in rows]
        actual: list = [None] * len(rows)

        def work(start: int) -> None:
            for index in range(start, len(rows), 8):
                size = random.choice((1, 2))
                data = rows[index].tobytes() * size
                actual[index] = [part[:12] for part in model.run("predict", [data], size)]

        threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert actual == expected


def test_a_missing_library_says_what_to_do(monkeypatch, tmp_path):
    """Without the runtime's library, the error names the two places it is looked for in."""
    monkeypatch.setattr(litert, "__file__", str(tmp_path / "litelambda_serving" / "litert" / "__init__.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(RuntimeLibraryError, match="litelambda package"):
        litert.find_library()


def test_another_platform_is_refused(monkeypatch):
    """Where LiteRT has no C library, the error says where it has one."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(RuntimeLibraryError, match="Linux and macOS"):
        litert.find_library()


def test_a_library_of_another_kind_is_refused(tmp_path):
    """A file that is no LiteRT library for this machine is named, with what to do."""
    path = tmp_path / "libLiteRt.so"
    path.write_bytes(b"not ELF")
    with pytest.raises(RuntimeLibraryError, match="not a LiteRT runtime for this machine"):
        litert._Library(str(path))


def test_struct_layouts_are_those_of_the_c_headers():
    """The sizes that LiteRT's headers assert."""
    assert ctypes.sizeof(litert._Layout) == 68
    assert ctypes.sizeof(litert._RankedTensorType) == 72
    assert ctypes.sizeof(litert._PerTensorQuantization) == 16
    assert ctypes.sizeof(litert._EnvironmentOptions) == 2 * 24
