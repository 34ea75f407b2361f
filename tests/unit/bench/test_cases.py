"""The requests of `bench warm`: the same rows in each form, read back by the handler's own codecs."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.bench.subject import Subject, load_subject, make_rows
from litelambda.bench.warm.cases import make_cases, read_v2
from litelambda.common.errors import BenchError
from support.golden_store import publish

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """The tiny model: four floats in, three out."""
    publish(tmp_path, "tiny_int8")
    return load_subject(tmp_path.as_uri(), "tiny_int8")


def test_every_form_has_every_number_of_rows(subject: Subject) -> None:
    """Three forms by two numbers of rows, named after both."""
    cases = make_cases(subject, (1, 2), "m_")
    assert [case.name for case in cases] == [
        "m_json_1_row", "m_binary_1_row", "m_raw_1_row", "m_json_2_rows", "m_binary_2_rows", "m_raw_2_rows",
    ]  # fmt: skip
    assert [case.num_rows for case in cases] == [1, 1, 1, 2, 2, 2]


def test_all_forms_carry_the_same_numbers(subject: Subject) -> None:
    """The binary bodies are the JSON's rows as float32, with and without JSON in front."""
    (row,) = make_rows(subject.inputs, 1)
    expected = np.array([row], "<f4").tobytes()
    json_event, v2_event, raw_event = (json.loads(case.event) for case in make_cases(subject, (1,)))
    assert json.loads(json_event["body"]) == {"prepared": True, "instances": [row]}
    body = base64.b64decode(v2_event["body"])
    length = int(v2_event["headers"]["inference-header-content-length"])
    (described,) = json.loads(body[:length])["inputs"]
    assert (described["datatype"], described["shape"]) == ("FP32", [1, 4])
    assert body[length:] == expected
    assert base64.b64decode(raw_event["body"]) == expected
    assert raw_event["headers"]["inference-header-content-length"] == "0"


def test_a_model_with_several_inputs_has_no_raw_form(tmp_path: Path) -> None:
    """One body cannot be two tensors."""
    publish(tmp_path, "two_by_two")
    names = [case.name for case in make_cases(load_subject(tmp_path.as_uri(), "two_by_two"), (1,))]
    assert names == ["json_1_row", "binary_1_row"]


def test_a_binary_answer_is_read_by_output() -> None:
    """Shapes and types come from the JSON in front, values from the bytes behind it."""
    data = np.array([[1.5, -2.0]], "<f4").tobytes()
    described = {"name": "y", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    document = json.dumps({"outputs": [described]}).encode()
    answer = {
        "statusCode": 200, "isBase64Encoded": True, "body": base64.b64encode(document + data).decode(),
        "headers": {"Inference-Header-Content-Length": str(len(document))},
    }  # fmt: skip
    assert read_v2(answer, "someone") == {"y": [[1.5, -2.0]]}


@pytest.mark.parametrize("answer", [{"statusCode": 500, "body": "no"}, {"statusCode": 200, "body": "{}"}, "text"])
def test_a_wrong_answer_is_not_timed(answer: Any) -> None:
    """An error is fast: it must not pass for a prediction."""
    with pytest.raises(BenchError, match="someone answered"):
        read_v2(answer, "someone")
