"""Pickles of processes that are not trusted: data comes through, what would run does not."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.data_pickles import load_data
from litelambda.common.errors import GateError
from litelambda.evaluation.source_process import Answers
from litelambda_serving.errors import LiteRtError, MethodNotAllowedError

ANSWERING = """
import sys
class Call:
    def __reduce__(self):
        import os
        return os.mkdir, ({path!r},)
sys.modules["__main__"].Connection.send = (
    lambda pipe, _answer, call=Call(): pipe.send_bytes(__import__("pickle").dumps(call))
)
"""


class Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._called = (function, arguments)

    def __reduce__(self) -> Any:
        return self._called


def test_data_comes_through() -> None:
    """Arrays of numbers and of bytes, data classes of this project, its errors with what they know, paths."""
    answers = Answers({"y": np.arange(6, dtype=np.int8).reshape(2, 3)}, [0, 1], {2: "why"})
    read = load_data(pickle.dumps((answers, Path("a/b"), {"set"}, np.float32(1.5), b"x"), protocol=5))
    assert np.array_equal(read[0].outputs["y"], answers.outputs["y"])
    assert (read[0].answered, read[0].refused, read[1:]) == ([0, 1], {2: "why"}, (Path("a/b"), {"set"}, 1.5, b"x"))
    failed = LiteRtError("no")
    failed.rows = range(2, 4)
    assert load_data(pickle.dumps(failed)).rows == range(2, 4)
    words, half = load_data(pickle.dumps((np.array([b"a", None], object), np.ones(2, ml_dtypes.bfloat16))))
    assert words.tolist() == [b"a", None]
    assert half.dtype == ml_dtypes.bfloat16
    gate, method = load_data(pickle.dumps((GateError("worse"), MethodNotAllowedError("no", "GET"))))
    assert (type(gate), str(gate), method.allowed) == (GateError, "worse", "GET")


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (Call(os.system, "true"), "posix.system"),
        (Call(eval, "1"), "builtins.eval"),
        (Call(getattr, "a", "upper"), "builtins.getattr"),
        (Call(ChildProcess), "litelambda.common.child_process.ChildProcess"),
        (Call(load_data, b""), "litelambda.common.data_pickles.load_data"),
        (np.array([Call(os.system, "true")], object), "posix.system"),
    ],
    ids=["system", "eval", "getattr", "class", "function", "in an array"],
)
def test_what_would_run_is_refused(made: object, named: str) -> None:
    """By name, before it is called; within an array as well."""
    with pytest.raises(pickle.UnpicklingError, match=f"{named} is not data"):
        load_data(pickle.dumps(made))


def test_a_name_in_our_modules_is_not_ours() -> None:
    """Neither what a module imports, nor an attribute of an attribute."""
    for module, name in [
        ("litelambda.common.child_process", "subprocess.Popen"),
        ("litelambda.common.child_process", "Connection"),
        ("litelambda.common.paths", "Path"),
        ("litelambda_evil", "Data"),
    ]:
        pickled = pickle.PROTO + b"\x04" + b"".join(
            pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name)
        ) + pickle.STACK_GLOBAL + pickle.STOP  # fmt: skip
        with pytest.raises(pickle.UnpicklingError, match="is not data"):
            load_data(pickled)


@given(st.binary(max_size=60))
def test_a_damaged_pickle_has_one_error(damaged: bytes) -> None:
    """Whatever bytes come: an object or this error."""
    with suppress(pickle.UnpicklingError):
        load_data(b"\x80\x04" + damaged)


def test_a_child_that_answers_with_a_call_is_ended(tmp_path: Path) -> None:
    """Its answer is not read, the call fails, and another child answers the next one."""
    with ChildProcess() as child:
        with pytest.raises(ChildCrashError, match=r"its answer is not read: posix\.mkdir is not data") as caught:
            child.call(exec, ANSWERING.format(path=str(tmp_path / "made")))
        assert not caught.value.for_memory
        assert not (tmp_path / "made").exists()
        assert child.call(abs, -1) == 1
