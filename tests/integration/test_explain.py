"""Explanations over HTTP: what each value of a row added to the output, as the caller's own fields have it."""

from __future__ import annotations

import itertools
import json
import math

import jsonschema
import numpy as np
import pytest

from support.flatbuffer_surgery import with_weights
from support.golden_store import GOLDEN, golden, publish
from support.handler_client import Context, load_module, send

SHAP = json.loads((GOLDEN / "shapley.json").read_text())
ROWS = [[0.1, 0.9, 0.3, 0.5], [1, 2, 3, 4]]


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"), labels=["a", "b", "c"])
    mean = {"baseline": {"x": SHAP["baseline"]}}
    for name in ("shapley", "shapley_int8"):
        publish(root, name, data=golden(name), explain=mean)
    publish(root, "shuffled", data=shuffled(golden("shapley")), explain=mean)
    publish(root, "image", data=golden("image_2x3"))
    publish(root, "one_row", data=golden("one_row"))
    publish(root, "four_rows", data=golden("four_rows"))
    publish(root, "strings", data=golden("strings"))
    publish(root, "whole", data=golden("whole"))
    publish(root, "mobilenet", data=golden("mobilenet"))
    return load_module(root, "tiny").handler


def shuffled(data):
    """A model with its first weights in another order."""
    return with_weights(data, np.random.default_rng(1).permutation)


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


def rank_correlation(first, second):
    """Spearman's, of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return np.corrcoef(*ranks)[0, 1]


@pytest.mark.parametrize(("runs", "least"), [(None, 0.9), (2048, 0.95)])
@pytest.mark.parametrize("model", ["shapley", "shapley_int8"])
def test_sampled_shapley_values_are_shaps(handler, model, runs, least):
    """In 1,024 and 2,048 runs, of 16,384 coalitions: the ranks and the sum of SHAP's exact values for Keras' model."""
    correlations = []
    for target in range(3):
        for row, found in enumerate(explain(handler, SHAP["rows"], model, target=target, max_runs=runs)):
            expected = np.array(SHAP["values"])[row, :, target]
            values, errors = np.array(found["attributions"]["x"]), np.array(found["standard_errors"]["x"])
            correlations.append(rank_correlation(values, expected))
            np.testing.assert_allclose(values, expected, atol=0.04 if model == "shapley" else 0.05)
            difference = SHAP["outputs"][row][target] - SHAP["baseline_outputs"][target]
            assert values.sum() == pytest.approx(difference, abs=1e-4 if model == "shapley" else 0.05)
            if model == "shapley":
                assert np.mean(np.abs(values - expected) <= 3 * errors + 1e-6) >= 0.85
            assert (found["completeness_error"], found["baseline"], found["runs"] <= (runs or 1024)) == (
                0,
                "mean",
                True,
            )
    assert min(correlations) >= least
    assert np.mean(correlations) >= 0.98


def test_more_runs_come_closer(handler):
    """The error shrinks with the budget, and the standard errors say so."""
    expected = np.array(SHAP["values"])[0, :, 1]
    errors, said = [], []
    for runs in (60, 600, 6000):
        (found,) = explain(handler, SHAP["rows"][:1], "shapley", target=1, max_runs=runs)
        assert found["runs"] <= runs
        errors.append(np.abs(np.array(found["attributions"]["x"]) - expected).max())
        said.append(np.mean(found["standard_errors"]["x"]))
    assert errors[0] > 2 * errors[2]
    assert said[0] > said[1] > said[2]


@pytest.mark.parametrize("method", ["shapley", "leave_one_out", "rise"])
def test_another_models_explanations_differ(handler, method):
    """The randomization check: with shuffled weights, the features rank otherwise."""
    found = [
        [each["attributions"]["x"] for each in explain(handler, SHAP["rows"], model, method=method, target=0)]
        for model in ("shapley", "shuffled")
    ]
    assert np.mean([rank_correlation(*pair) for pair in zip(*found, strict=True)]) < 0.5


@pytest.mark.parametrize("method", ["shapley", "rise"])
def test_the_seed_decides(handler, method):
    """The same request has the same answer, whatever rows come with it; another seed has another."""
    asked = {"method": method, "max_runs": 100}
    first, second = explain(handler, SHAP["rows"][:2], "shapley", **asked)
    assert explain(handler, SHAP["rows"][1:2], "shapley", **asked) == [second]
    (other,) = explain(handler, SHAP["rows"][:1], "shapley", **asked, seed=1)
    assert other["attributions"] != first["attributions"]


def test_rise_ranks_as_shapley_does_where_features_add_up(handler):
    """Of a mean, each value's share; the standard errors cover what is left."""
    row = np.arange(18.0).reshape(2, 3, 3).tolist()
    (found,) = explain(handler, [row], "image", method="rise", target=1, max_runs=2000)
    values, errors = (np.array(found[name]["image"]) for name in ("attributions", "standard_errors"))
    expected = np.zeros((2, 3, 3))
    expected[..., 1] = np.array(row)[..., 1] / 6
    assert values.shape == (2, 3, 3)
    assert (np.abs(values - expected) <= 4 * errors).mean() >= 0.9
    assert np.abs(values - expected).max() < 0.5


def test_a_window_is_moved_over_a_picture(handler):
    """Each cell has the mean of what the windows over it take away, a share for each of their cells."""
    picture = np.zeros((32, 32, 3))
    picture[8:16, 16:24] = 1.0
    (found,) = explain(handler, [picture.tolist()], "mobilenet", max_runs=60)
    assert (found["method"], found["baseline"]) == ("occlusion", "zeros")
    cells = 7
    edges = [place * 32 // cells for place in range(cells + 1)]
    windows = list(itertools.product(range(cells - 1), repeat=2))
    hidden = []
    for top, left in windows:
        changed = picture.copy()
        changed[edges[top] : edges[top + 2], edges[left] : edges[left + 2]] = 0
        hidden.append(changed.tolist())
    answer = send(handler, "POST", "/v1/models/mobilenet:predict", {"instances": [picture.tolist(), *hidden]})
    whole, *outputs = np.array(answer.json()["predictions"])[:, found["target"]]
    sums, counts = np.zeros((cells, cells)), np.zeros((cells, cells))
    for (top, left), output in zip(windows, outputs, strict=True):
        sums[top : top + 2, left : left + 2] += (whole - output) / 4
        counts[top : top + 2, left : left + 2] += 1
    values = np.array(found["attributions"]["image"])
    assert (values.shape, found["runs"]) == ((32, 32, 3), len(windows) + 2)
    for row, column in itertools.product(range(cells), repeat=2):
        cut = values[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        assert cut.sum() == pytest.approx((sums / counts)[row, column], abs=1e-5)
        assert np.ptp(cut) == 0


def test_a_model_of_one_row(handler):
    """A third party's model that takes one row at a time is explained like any other."""
    (found,) = explain(handler, [4.0], "one_row")
    assert (found["attributions"], found["target"]) == ({"x": 2.0}, "y")


def test_an_explanations_runs_are_counted_as_such(handler):
    """In the statistics one prediction, the runs that the explanation took, and the time in them."""

    def statistics():
        (found,) = send(handler, "GET", "/v2/models/shapley/stats").json()["model_stats"]
        return found["execution_count"], found["inference_count"], found["inference_stats"]

    explain(handler, SHAP["rows"][:1], "shapley", max_runs=20)
    runs, predictions, before = statistics()
    (found,) = explain(handler, SHAP["rows"][:1], "shapley", method="rise", max_runs=3000)
    more, one_more, after = statistics()
    assert one_more == predictions + 1
    assert found["runs"] / 32 <= more - runs <= found["runs"] + 1
    taken = {name: after[name]["ns"] - before[name]["ns"] for name in ("success", "compute_infer")}
    assert taken["compute_infer"] > taken["success"] / 2


def test_vertex_names(handler):
    """Clients of Vertex AI read the same figures under its names."""
    (found,) = explain(handler, ROWS[:1])
    (vertex,) = explain(handler, ROWS[:1], format="vertex")
    assert vertex == {
        "attributions": [
            {
                "baselineOutputValue": found["baseline_output"],
                "instanceOutputValue": found["output"],
                "featureAttributions": found["attributions"],
                "outputIndex": [2],
                "outputDisplayName": "c",
                "outputName": "probabilities",
                "approximationError": 0.0,
            }
        ]
    }


@pytest.mark.parametrize(
    ("parameters", "fits"),
    [
        ({"method": "rise", "target": "b", "baseline": "zeros", "max_runs": 50, "seed": 3, "top_k": 1}, True),
        ({"baseline": {"instance": [1, 2, 3, 4]}, "target": 0, "format": "vertex"}, True),
        ({"method": ""}, False),
        ({"method": "integrated_gradients"}, False),
        ({"baseline": {"instance": None}}, False),
        ({"max_runs": 1}, False),
        (3, False),
    ],
)
def test_openapi_describes_explanations(handler, parameters, fits):
    """What the document allows is answered, in the form that it says; what it does not is refused."""
    document = send(handler, "GET", "/openapi.json").json()
    body = {"instances": ROWS, "parameters": parameters}
    answer = send(handler, "POST", "/v1/models/tiny:explain", body)
    names = ("tiny.ExplainRequest", "tiny.ExplainResponse")
    request, response = (
        jsonschema.Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"}) for name in names
    )
    assert (request.is_valid(body), answer.status == 200) == (fits, fits)
    assert response.is_valid(answer.json()) == fits
    assert {"/v1/models/tiny:explain", "/v2/models/tiny/explain"} <= document["paths"].keys()
    assert not {"/v1/models/whole:explain", "/v1/models/four_rows:explain"} & document["paths"].keys()


@pytest.mark.parametrize(
    ("model", "body", "status", "reason"),
    [
        ("tiny", {"inputs": ROWS}, 400, "Missing 'instances' key"),
        ("tiny", {"instances": ROWS, "parameters": []}, 400, "'parameters' must be an object"),
        ("tiny", {"instances": ROWS, "parameters": {"steps": 3}}, 400, "parameter 'steps' is not known"),
        ("tiny", {"instances": ROWS, "parameters": {"method": "lime"}}, 400, "shapley, occlusion, rise"),
        ("tiny", {"instances": ROWS, "parameters": {"target": 3}}, 400, "has the indexes 0 to 2"),
        ("tiny", {"instances": ROWS, "parameters": {"target": "z"}}, 400, "expected one of a, b, c"),
        ("tiny", {"instances": ROWS, "parameters": {"target": 1.5}}, 400, "the index of a class, or its label"),
        ("tiny", {"instances": ROWS, "parameters": {"output": "logits"}}, 400, "its outputs are probabilities"),
        ("tiny", {"instances": ROWS, "parameters": {"max_runs": 10**6}}, 400, "a whole number from 2 to 10000"),
        ("tiny", {"instances": ROWS, "parameters": {"seed": -1}}, 400, "a whole number from 0"),
        ("tiny", {"instances": ROWS, "parameters": {"top_k": 0}}, 400, "a whole number from 1"),
        ("tiny", {"instances": ROWS, "parameters": {"format": "xml"}}, 400, "expected one of litelambda, vertex"),
        ("tiny", {"instances": ROWS, "parameters": {"baseline": "mean"}}, 400, "the model's manifest has no mean"),
        ("tiny", {"instances": ROWS, "parameters": {"baseline": "blurred"}}, 400, "it is not a picture"),
        ("tiny", {"instances": ROWS, "parameters": {"baseline": [0]}}, 400, "mean, missing, zeros, blurred"),
        ("tiny", {"instances": ROWS, "parameters": {"baseline": {"instance": [1]}}}, 400, "parameter 'baseline'"),
        ("tiny", {"instances": ROWS[:1] * 101}, 413, "101 rows to explain, at most 100"),
        ("four_rows", {"instances": [[1.0] * 6] * 4}, 501, "takes exactly 4 rows at once"),
        ("strings", {"instances": [["a", "b"]]}, 400, "no output of the model has numbers"),
    ],
)
def test_what_cannot_be_explained_is_said(handler, model, body, status, reason):
    """Every option that does not fit has its own words, and nothing is run in vain."""
    answer = send(handler, "POST", f"/v1/models/{model}:explain", body)
    assert (answer.status, reason in answer.json()["error"]) == (status, True), answer.json()


def test_the_deadline_and_the_answers_size(handler):
    """More runs than there is time for, and more attributions than an answer holds, are refused with a remedy."""
    picture = np.zeros((32, 32, 3)).tolist()
    body = {"instances": [picture] * 5, "parameters": {"method": "rise", "max_runs": 10_000}}
    answer = send(handler, "POST", "/v1/models/mobilenet:explain", body, context=Context(700))
    assert (answer.status, "Lower max_runs" in answer.json()["error"]) == (413, True)
    picture = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).round(1).tolist()
    body = {"instances": [picture] * 20, "parameters": {"method": "leave_one_out", "max_runs": 3, "target": 0}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litelambda_serving.explain.answers.MAX_RESPONSE_BYTES", 100_000)
        answer = send(handler, "POST", "/v1/models/mobilenet:explain", body)
        assert (answer.status, "set top_k" in answer.json()["error"]) == (413, True)
        body["parameters"]["top_k"] = 1
        assert send(handler, "POST", "/v1/models/mobilenet:explain", body).status == 200
