"""Models with string tensors through the deployed handler: both protocols, text and bytes, and every refusal."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litelambda_serving.tensor.strings import from_wire, to_wire
from support.golden_store import golden, publish
from support.handler_client import load_module, send

ONE_BY_ONE = {"dynamic": False, "reason": "operators on strings keep the shape of the run before"}
LENGTH = "Inference-Header-Content-Length"
PREDICT, INFER = "/v1/models/strings:predict", "/v2/models/strings/infer"
BINARY = b"\xff\x00\xfe"
ALL_BINARY = {"parameters": {"binary_data_output": True}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for name in ("strings", "lookup", "labelled"):
        publish(root, name, batching=ONE_BY_ONE)
    publish(root, "growing")
    publish(root, "keyed_division", warm_up={"b": 1}, batching=ONE_BY_ONE)
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store, "strings").handler


def b64(value):
    return {"b64": base64.b64encode(value).decode()}


def post(handler, path, body, headers=None):
    answer = send(handler, "POST", path, body, headers)
    assert answer.status == 200, answer.body
    return answer.json()


def infer_binary(handler, path, inputs, tail, **fields):
    """JSON with tensors behind it; the answer's JSON and what is behind it."""
    document = json.dumps({"inputs": inputs, **fields}).encode()
    answer = send(handler, "POST", path, document + tail, {LENGTH: str(len(document))})
    assert answer.status == 200, answer.body
    length = int(answer.headers[LENGTH.lower()])
    return json.loads(answer.body[:length]), answer.body[length:]


def test_rows_of_strings(handler):
    """Text goes in and out as text; an output named …_bytes is answered in base64."""
    rows = [["red", "red"], ["gr\u00fcn", ""]]
    expected = [
        {"same": True, "echo": ["red", "red"], "echo_bytes": [[b64(b"red"), b64(b"red")]]},
        {"same": False, "echo": ["gr\u00fcn", ""], "echo_bytes": [[b64("gr\u00fcn".encode()), b64(b"")]]},
    ]
    assert post(handler, PREDICT, {"instances": rows}) == {"predictions": expected}
    assert post(handler, PREDICT, {"instances": [{"text": row} for row in rows]}) == {"predictions": expected}


def test_columns_of_binary_values(handler):
    """Bytes that are no text go in as base64, and come out so whatever the output's name."""
    for inputs in ([[b64(BINARY), "x"]], {"text": [[b64(BINARY), "x"]]}):
        outputs = post(handler, PREDICT, {"inputs": inputs})["outputs"]
        assert outputs["echo"] == [[b64(BINARY), "x"]]
        assert outputs["echo_bytes"] == [[[b64(BINARY), b64(b"x")]]]
        assert outputs["same"] == [False]


def test_binary_values_are_rows_of_the_only_input(handler):
    """An object whose only key is b64 is a value, where a row is a string, and no row of inputs by name."""
    body = {"instances": [{"word": b64(b"blue"), "step": 10}, {"word": "red", "step": 20}]}
    assert post(handler, "/v1/models/lookup:predict", body) == {"predictions": [13, 21]}
    growing = "/v1/models/growing:predict"
    assert post(handler, growing, {"instances": [[b64(b"a")], ["b"]]})["predictions"][0] == ["a"] * 1000
    assert send(handler, "POST", growing, {"instances": [b64(b"a")]}).status == 400  # a row is a list of one
    assert b"depth 1" in send(handler, "POST", growing, {"instances": [b64(b"a")]}).body


def test_a_classifier_that_names_the_class(handler):
    """Numbers in, scores and a label out; classes are those of the scores."""
    rows = [[0.9, 0.1, 0.5, 0.2], [0.0, 0.3, 0.9, 0.1], [0.5, 0.5, 0.5, 0.5]]
    predictions = post(handler, "/v1/models/labelled:predict", {"instances": rows})["predictions"]
    for row in predictions:
        assert row["label"] == ("cat", "dog", "fox")[row["probabilities"].index(max(row["probabilities"]))]
    classified = post(handler, "/v1/models/labelled:classify", {"examples": [{"x": row} for row in rows]})["results"]
    assert [[score for _, score in row] for row in classified] == [row["probabilities"] for row in predictions]


def test_strings_are_no_scores(handler):
    """A model whose outputs of that shape hold strings neither classifies nor regresses, and V2 ranks none of them."""
    for verb in ("classify", "regress"):
        answer = send(handler, "POST", f"/v1/models/growing:{verb}", {"examples": [{"text": "a"}]})
        assert (answer.status, b"no output of the model has the shape" in answer.body) == (400, True)
    entry = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}
    body = {"inputs": [entry], "outputs": [{"name": "echo", "parameters": {"classification": 1}}]}
    assert b"expected one value for each class" in send(handler, "POST", INFER, body).body


def test_examples_with_strings(handler):
    """A feature is text or base64, of the example or of the context."""
    body = {"examples": [{"word": b64(b"green")}, {"word": "nope"}], "context": {"step": 0}}
    assert post(handler, "/v1/models/lookup:regress", body) == {"results": [2, -1]}


@pytest.mark.parametrize("data", [["a", "b", "gr\u00fcn", ""], [["a", "b"], ["gr\u00fcn", ""]]], ids=["flat", "nested"])
def test_bytes_in_json(handler, data):
    """BYTES are JSON strings in V2, flat or nested, and flat on the way back."""
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 2], "data": data}]}
    outputs = {output["name"]: output for output in post(handler, INFER, body)["outputs"]}
    assert outputs["echo"] == {
        "name": "echo",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["a", "b", "gr\u00fcn", ""],
    }
    assert outputs["echo_bytes"]["shape"] == [2, 1, 2]
    assert outputs["same"]["data"] == [False, False]


def test_binary_bytes_both_ways(handler):
    """Each string is a little-endian uint32 and so many bytes, in and out, between other tensors."""
    strings = [BINARY, b"", b"x" * 300, BINARY]
    tail = to_wire(strings)
    assert tail[:7] == b"\3\0\0\0" + BINARY
    entry = {"name": "text", "datatype": "BYTES", "shape": [2, 2], "parameters": {"binary_data_size": len(tail)}}
    document, behind = infer_binary(handler, INFER, [entry], tail, **ALL_BINARY)
    sizes = [output["parameters"]["binary_data_size"] for output in document["outputs"]]
    assert [output["name"] for output in document["outputs"]] == ["same", "echo", "echo_bytes"]
    assert sizes == [2, len(tail), len(tail)]
    assert behind == b"\0\0" + tail + tail
    lookup = [
        {"name": "word", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 15}},
        {"name": "step", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    tail = to_wire([b"red", b"blue"]) + struct.pack("<2q", 10, 20)
    _, behind = infer_binary(handler, "/v2/models/lookup/infer", lookup, tail, **ALL_BINARY)
    assert behind == struct.pack("<2q", 11, 23)


def test_what_json_cannot_say_is_sent_as_binary(handler):
    """V2's JSON cannot express bytes that are not text: the error names the output and the remedy."""
    tail = to_wire([BINARY, b""])
    entry = {"name": "text", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": len(tail)}}
    document = json.dumps({"inputs": [entry], "outputs": [{"name": "echo"}]}).encode()
    answer = send(handler, "POST", INFER, document + tail, {LENGTH: str(len(document))})
    assert (answer.status, "'echo' holds bytes that are not UTF-8 text" in answer.json()["error"]) == (400, True)


def test_batches_of_strings_are_cut_and_joined(handler):
    """Rows run in the proven batches and what is left one by one: every row's strings are its own."""
    words = [f"w{number}" for number in range(11)]
    body = {"instances": [[word] for word in words]}
    assert post(handler, "/v1/models/growing:predict", body)["predictions"] == [[word] * 1000 for word in words]


def test_metadata_of_both_protocols(handler):
    """DT_STRING and BYTES."""
    signature = send(handler, "GET", "/v1/models/strings/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert signature["serving_default"]["inputs"]["text"]["dtype"] == "DT_STRING"
    model = send(handler, "GET", "/v2/models/strings").json()
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 2]}]
    assert send(handler, "GET", "/v2/models/strings/config").json()["input"][0]["data_type"] == "TYPE_STRING"


def test_openapi_describes_strings(handler):
    """Text or base64 in V1, text in V2, and no raw bodies for a string input."""
    document = send(handler, "GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    row = schemas["strings.PredictRequest"]["oneOf"][0]["properties"]["instances"]["anyOf"][1]["items"]
    assert (row["minItems"], row["items"]["anyOf"][0]) == (2, {"type": "string"})
    assert row["items"]["anyOf"][1]["required"] == ["b64"]
    (entry,) = schemas["strings.InferRequest"]["properties"]["inputs"]["items"]["oneOf"]
    assert entry["properties"]["data"]["anyOf"][1] == {"type": "array", "items": {"type": "string"}}
    content = document["paths"][PREDICT]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [["a", 1]]}, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"instances": [["a"]]}, "Expecting tensor size: 2 but got: 1"),
        ({"instances": ["a"]}, "depth 1"),
        ({"instances": [["a", {"b64": "?"}]]}, "Unable to base64 decode"),
        ({"instances": [["a", "\ud800"]]}, "not Unicode text"),
        ({"inputs": {"b64": "YQ=="}}, "expected a list of rows, got Object"),
    ],
)
def test_bad_values_are_told_what_is_wrong(handler, body, message):
    """What TensorFlow Serving refuses is refused, in its words."""
    answer = send(handler, "POST", PREDICT, body)
    assert (answer.status, message in answer.json()["error"]) == (400, True), answer.body


@pytest.mark.parametrize(
    ("fields", "tail", "message"),
    [
        ({"shape": [1, 2], "data": ["a", 1]}, b"", "Type: Number is not of expected type: string"),
        ({"shape": [1, 2], "data": ["a", {"b64": "YQ=="}]}, b"", "Type: Object is not of expected type: string"),
        ({"shape": [1, 2], "data": ["a"]}, b"", "expected 2 values"),
        ({"shape": [1, 2], "parameters": {"binary_data_size": 9}}, to_wire([b"ab"]), "expecting 3 additional bytes"),
        ({"shape": [1, 2], "parameters": {"binary_data_size": 6}}, to_wire([b"ab"]), "unexpected number of strings 1"),
        ({"shape": [1, 2], "parameters": {"binary_data_size": 5}}, b"\2\0\0\0a", "incomplete string data"),
        ({"shape": [1, 2], "parameters": {"binary_data_size": 8}}, bytes(9), "unexpected additional input data: 1"),
        ({"shape": [10**15, 2], "parameters": {"binary_data_size": 8}}, bytes(8), "unexpected number of strings 2"),
    ],
)
def test_bad_bytes_are_told_what_is_wrong(handler, fields, tail, message):
    """Lengths, numbers of strings and kinds of values that do not fit."""
    document = json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", **fields}]}).encode()
    answer = send(handler, "POST", INFER, document + tail, {LENGTH: str(len(document))})
    assert (answer.status, message in answer.json()["error"]) == (400, True), answer.body


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/x-npy", "image/png"])
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_raw_bodies_have_no_form_for_strings(handler, path, kind):
    """A body that is one tensor is refused with the way to send strings."""
    answer = send(handler, "POST", path, b"\x93NUMPY text", {"Content-Type": kind})
    assert (answer.status, "holds strings, which a raw body cannot express" in answer.json()["error"]) == (400, True)


def test_answers_that_cannot_be_sent(handler, capsys):
    """Strings that no response holds are a 413; those that not even a run may give, an error of the model, logged."""
    growing = "/v1/models/growing:predict"
    answer = send(handler, "POST", growing, {"instances": [["x" * 10_000]]})
    assert (answer.status, "over the" in answer.json()["error"]) == (413, True)
    capsys.readouterr()
    assert send(handler, "POST", growing, {"instances": [["x" * 40_000]]}).status == 500
    assert "a string output of one run takes at most 33554432 bytes" in capsys.readouterr().out
    assert post(handler, growing, {"instances": [["x"]]}) == {"predictions": [["x"] * 1000]}


def test_values_that_an_operator_refuses_beside_strings(handler):
    """Whose fault a failed run is: the row's, by its input, although a string output may fail for its size as well."""
    path = "/v1/models/keyed_division:predict"
    rows = [{"key": "a", "a": 7, "b": 2}, {"key": "b", "a": 1, "b": 0}]
    answer = send(handler, "POST", path, {"instances": rows})
    assert (answer.status, answer.json()["error"]) == (
        400, "input 'b', row 1: an operator of the model refuses these values"
    )  # fmt: skip
    assert post(handler, path, {"instances": rows[:1]}) == {"predictions": [{"key": ["a"], "y": 3}]}


def test_a_shadow_of_strings_is_compared(tmp_path, capsys):
    """Two versions agree where their strings are the same."""
    publish(tmp_path, "strings", 1, batching=ONE_BY_ONE)
    publish(tmp_path, "strings", 2, golden("strings"), batching=ONE_BY_ONE)
    aliases = json.loads((tmp_path / "strings/aliases.json").read_text())
    aliases["shadow"] = {"latest": 1}
    (tmp_path / "strings/aliases.json").write_text(json.dumps(aliases))
    handler = load_module(tmp_path, "strings").handler
    post(handler, PREDICT, {"instances": [["a", "b"], ["c", "c"]]})
    fields = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (fields["ShadowRows"], fields["ShadowDisagreements"]) == (2, 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([b64(b"a"), {"b64": "?"}]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["text", "b64"]), children),
    max_leaves=8,
)


@given(json_values, st.sampled_from(["instances", "inputs"]))
@settings(max_examples=80)
def test_no_json_gives_a_5xx(handler, value, form):
    """Whatever stands for the strings, the answer is a prediction or the client's fault."""
    assert send(handler, "POST", PREDICT, {form: value}).status in (200, 400)
    assert send(handler, "POST", PREDICT, {form: [value]}).status in (200, 400)


@given(st.binary(max_size=40), st.integers(0, 4), st.integers(0, 60))
@settings(max_examples=80)
def test_no_binary_tensor_gives_a_5xx(handler, tail, rows, size):
    """Whatever stands behind the JSON, the answer is an inference or the client's fault."""
    entry = {"name": "text", "datatype": "BYTES", "shape": [rows, 2], "parameters": {"binary_data_size": size}}
    document = json.dumps({"inputs": [entry], **ALL_BINARY}).encode()
    answer = send(handler, "POST", INFER, document + tail, {LENGTH: str(len(document))})
    assert answer.status in (200, 400), answer.body
    if answer.status == 200:
        assert answer.body.endswith(to_wire(from_wire(memoryview(tail), "text", rows * 2)))
