"""Explanations over HTTP: what each value of a row added to the output, as the caller's own fields have it."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from support.golden_store import golden, publish
from support.handler_client import load_module, send

ROWS = [[0.1, 0.9, 0.3, 0.5], [1, 2, 3, 4]]


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"), labels=["a", "b", "c"])
    return load_module(root, "tiny").handler


def explain(handler, instances, model="tiny", **parameters):
    """The explanation of each row."""
    answer = send(handler, "POST", f"/v1/models/{model}:explain", {"instances": instances, "parameters": parameters})
    assert answer.status == 200, answer.json()
    return answer.json()["explanations"]


def shapley_values(predict, row, target):
    """By the definition: the mean, over all orders, of what each value adds to what zeros give."""
    size = len(row)
    masks = list(itertools.product([0, 1], repeat=size))
    outputs = dict(zip(masks, np.array(predict((np.array(masks) * row).tolist()))[:, target], strict=True))
    values = np.zeros(size)
    for order in itertools.permutations(range(size)):
        mask = [0] * size
        for feature in order:
            before = outputs[tuple(mask)]
            mask[feature] = 1
            values[feature] += outputs[tuple(mask)] - before
    return values / math.factorial(size)


def test_the_answer_of_v1_is_kserves(handler):
    """Explanations stand beside the predictions, which are those of `:predict`."""
    predicted = send(handler, "POST", "/v1/models/tiny:predict", {"instances": ROWS}).json()
    answer = send(handler, "POST", "/v1/models/tiny:explain", {"instances": ROWS})
    assert list(answer.json()) == ["predictions", "explanations"]
    assert answer.json()["predictions"] == predicted["predictions"]
    first = answer.json()["explanations"][0]
    assert {name: first[name] for name in ("method", "baseline", "target", "label", "runs", "completeness_error")} == {
        "method": "shapley", "baseline": "zeros", "target": 2, "label": "c", "runs": 16, "completeness_error": 0.0,
    }  # fmt: skip
    assert first["output"] == predicted["predictions"][0][2]
    zeros = send(handler, "POST", "/v1/models/tiny:predict", {"instances": [[0] * 4]}).json()["predictions"][0]
    assert first["baseline_output"] == pytest.approx(zeros[2], abs=1e-6)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_few_features_have_their_exact_shapley_values(handler, target):
    """Every coalition is run, so that the values are those of the definition."""

    def predict(rows):
        return send(handler, "POST", "/v1/models/tiny:predict", {"instances": rows}).json()["predictions"]

    for row, found in zip(ROWS, explain(handler, ROWS, target=target), strict=True):
        expected = shapley_values(predict, row, target)
        np.testing.assert_allclose(found["attributions"]["x"], expected, rtol=1e-5, atol=1e-6)


def test_v2_has_an_output_more(handler):
    """Below `/v2` an explanation is JSON in an output of BYTES, in JSON and in binary form."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": ROWS}
    body = {"inputs": [tensor], "parameters": {"target": "b", "top_k": 1}}
    answer = send(handler, "POST", "/v2/models/tiny/explain", body)
    assert answer.status == 200, answer.json()
    probabilities, explanation = answer.json()["outputs"]
    assert (explanation["name"], explanation["datatype"], explanation["shape"]) == ("explanation", "BYTES", [2])
    found = [json.loads(text) for text in explanation["data"]]
    assert found == explain(handler, ROWS, target="b", top_k=1)
    assert found[1]["output"] == probabilities["data"][4]
    asked = {**body, "outputs": [{"name": "explanation", "parameters": {"binary_data": True}}]}
    answer = send(handler, "POST", "/v2/models/tiny/explain", asked)
    start = int(answer.headers["inference-header-content-length"]) + 4  # a string follows its length
    size = int.from_bytes(answer.body[start - 4 : start], "little")
    assert json.loads(answer.body[start : start + size]) == found[0]
