"""The deployed handler, from event to answer: what it says, what it refuses and what it loads."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litelambda.common.paths import FUNCTIONS
from litelambda_serving.errors import DigestError, ModelNotFoundError
from support.golden_store import golden, publish
from support.number_reading import number_reading  # noqa: F401 - all tests here run twice

EVENTS = Path(__file__).parents[1] / "events"
ROWS = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"), quantization={"scheme": "int8", "io": "float32"})
    publish(root, "half_plus_two", version=123)
    publish(root, "two_by_two")
    publish(root, "scalar")
    publish(root, "raw", data=golden("tiny_int8_raw"))
    return root


def load_handler(store, model="", **environment):
    """INIT, as Lambda does it: the environment first, then the import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_STORE", store.as_uri())
        patch.setenv("MODEL_NAME", model)
        for name, value in environment.items():
            patch.setenv(name, value)
        sys.modules.pop("predict", None)
        return importlib.import_module("predict").handler


@pytest.fixture(scope="module")
def handler(store):
    return load_handler(store, "tiny")


class Context:
    aws_request_id = "request-1"


def call(handler, method, path, body=None, **fields):
    """Send an HTTP API event; return status and decoded body."""
    event = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event["rawPath"] = path
    event["requestContext"]["http"]["method"] = method
    event["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
    answer = handler({**event, **fields}, Context())
    assert answer["headers"]["Content-Type"] == "application/json"
    return answer["statusCode"], json.loads(answer["body"])


def test_the_tutorials_model_answers_as_in_the_tutorial(handler):
    """TensorFlow Serving's half_plus_two, in its row and its columnar format."""
    assert call(handler, "POST", "/v1/models/half_plus_two:predict", {"instances": [1.0, 2.0, 5.0]}) == (
        200,
        {"predictions": [2.5, 3.0, 4.5]},
    )
    assert call(handler, "POST", "/v1/models/half_plus_two:predict", {"inputs": [1.0, 2.0, 5.0]}) == (
        200,
        {"outputs": [2.5, 3.0, 4.5]},
    )


def test_floats_keep_their_point(handler):
    """A whole float is written with `.0`, as a float."""
    event = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event |= {"rawPath": "/v1/models/half_plus_two:predict", "body": '{"instances": [2]}'}
    assert handler(event, Context())["body"] == '{"predictions":[3.0]}'


def test_nan_passes_through_a_float_model(handler):
    """NaN and infinities are legal tokens of this protocol, both ways."""
    event = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event |= {"rawPath": "/v1/models/half_plus_two:predict", "body": '{"instances": [NaN, Infinity]}'}
    assert handler(event, Context())["body"] == '{"predictions":[NaN,Infinity]}'


def test_rows_of_several_inputs_are_objects(handler):
    """Several inputs and outputs: an object per row in, an object per row out."""
    rows = [{"a": [1, 2, 3], "b": 1}, {"a": [4.0, 5.0, 6.0], "b": 2}]
    assert call(handler, "POST", "/v1/models/two_by_two:predict", {"instances": rows}) == (
        200,
        {"predictions": [{"total": 7.0, "twice": 2}, {"total": 17.0, "twice": 4}]},
    )
    columns = {"a": [[1, 2, 3]], "b": [1], "ignored": "yes"}
    assert call(handler, "POST", "/v1/models/two_by_two:predict", {"inputs": columns}) == (
        200,
        {"outputs": {"total": [7.0], "twice": [2]}},
    )


def test_a_named_row_of_a_single_input(handler):
    """An object per row is legal for one input too."""
    named = call(handler, "POST", "/v1/models/tiny:predict", {"instances": [{"x": row} for row in ROWS]})
    assert named == call(handler, "POST", "/v1/models/tiny:predict", {"instances": ROWS})


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 40, 77])
def test_any_number_of_rows_equals_them_one_by_one(handler, count):
    """However rows are batched inside, each gets the answer it would get alone."""
    rows = [[(7 * row + column) % 10 / 10 for column in range(4)] for row in range(count)]
    _, together = call(handler, "POST", "/v1/models/tiny:predict", {"instances": rows})
    alone = [
        call(handler, "POST", "/v1/models/tiny:predict", {"instances": [row]})[1]["predictions"][0] for row in rows
    ]
    assert together == {"predictions": alone}


def test_a_scalar_model_answers_in_the_columnar_format(handler):
    """Without a batch dimension there are no rows, and the error says which format to use."""
    assert call(handler, "POST", "/v1/models/scalar:predict", {"inputs": 2.0}) == (200, {"outputs": 6.0})
    status, body = call(handler, "POST", "/v1/models/scalar:predict", {"instances": [2.0]})
    assert status == 400
    assert "depth 0" in body["error"] or "columnar" in body["error"] or "Array" in body["error"]


def test_raw_codes_go_over_the_wire_where_the_model_has_them(handler):
    """A model with int8 edges takes and gives codes."""
    status, body = call(handler, "POST", "/v1/models/raw:predict", {"instances": [[1, 2, 3, 4]]})
    assert status == 200
    assert all(type(code) is int for code in body["predictions"][0])


@pytest.mark.parametrize("path", ["", "/versions/1", "/versions/0", "/labels/latest"])
def test_versions_and_labels(handler, path):
    """A version, a label, nothing, or 0 (which clients send for nothing) all find version 1."""
    status, body = call(handler, "GET", f"/v1/models/tiny{path}")
    assert status == 200
    assert body == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
        "name": "tiny",
        "ready": True,
    }
    assert call(handler, "POST", f"/v1/models/tiny{path}:predict", {"instances": ROWS})[0] == 200


def test_metadata(handler):
    """The metadata is TensorFlow's, in snake case with doubled signature_def and sizes as strings."""
    status, body = call(handler, "GET", "/v1/models/half_plus_two/metadata")
    assert status == 200
    assert body["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_signature_names(handler):
    """The default signature answers to its own name and to TensorFlow's."""
    for name in ("", "serving_default", "predict"):
        body = {"instances": ROWS, "signature_name": name}
        assert call(handler, "POST", "/v1/models/tiny:predict", body)[0] == 200


def test_probes(handler):
    """The root and the health route answer without a model's name."""
    assert call(handler, "GET", "/") == (200, {"status": "alive"})
    status, body = call(handler, "GET", "/healthz")
    assert (status, body["status"]) == (200, "ok")
    assert "tiny" in body["models"]
    assert "tiny" in call(handler, "GET", "/v1/models")[1]["models"]


PREDICT = "/v1/models/tiny:predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/v1/foo", "{}", 400, "Malformed request: POST /v1/foo"),
        ("DELETE", "/v1/models/tiny", None, 400, "Malformed request: DELETE /v1/models/tiny"),
        ("POST", "/v1/models/tiny", "{}", 400, "Malformed request"),
        ("POST", "/v1/models/tiny:fly", "{}", 400, "Malformed request"),
        ("GET", "/v1/models/tiny/versions/x", None, 400, "Malformed request"),
        ("GET", "/v1/models/tiny/versions/-1", None, 400, "Malformed request"),
        ("GET", "/v1/models/tiny/versions/" + "9" * 50, None, 400, "Malformed request"),
        ("POST", "/", "{}", 400, "Malformed request"),
        ("GET", "/elsewhere", None, 400, "Malformed request"),
        ("GET", "/v1/models/nope", None, 404, "Servable not found for request: Latest(nope)"),
        ("GET", "/v1/models/tiny/versions/7", None, 404, "Servable not found for request: Specific(tiny, 7)"),
        ("GET", "/v1/models/tiny/labels/L", None, 400, "Unrecognized servable version label: L"),
        ("GET", "/v1/models/..%2f..%2fetc", None, 404, "Servable not found"),
        ("GET", "/v1/models/../tiny", None, 400, "Malformed request"),
        ("POST", PREDICT, "", 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, None, 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, "{", 400, "JSON Parse error"),
        ("POST", PREDICT, "\ud800", 400, "JSON Parse error"),
        ("POST", PREDICT, "[]", 400, "expected an object"),
        ("POST", PREDICT, "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("POST", PREDICT, {"instances": [], "inputs": []}, 400, "expecting only one of"),
        ("POST", PREDICT, {"instances": []}, 400, "non-empty list"),
        ("POST", PREDICT, {"instances": {}}, 400, "non-empty list"),
        ("POST", PREDICT, {"instances": [[1, 2, 3]]}, 400, "Expecting tensor size: 4 but got: 3"),
        ("POST", PREDICT, {"instances": [[1, 2, 3, 4], [1]]}, 400, "Expecting tensor size: 4 but got: 1"),
        ("POST", PREDICT, {"instances": [["a"] * 4]}, 400, "is not of expected type: float"),
        ("POST", PREDICT, {"instances": [{"y": [1, 2, 3, 4]}]}, 400, "exactly the inputs: x"),
        ("POST", PREDICT, {"inputs": {"y": []}}, 400, "Missing named input: x in 'inputs' object."),
        ("POST", PREDICT, {"inputs": []}, 400, "at least one row"),
        ("POST", PREDICT, '{"instances": [[NaN, 0, 0, 0]]}', 400, "NaN or an infinity"),
        ("POST", PREDICT, {"instances": ROWS, "signature_name": 3}, 400, "'signature_name' key must be a string"),
        ("POST", PREDICT, {"instances": ROWS, "signature_name": "x"}, 400, 'Serving signature name: "x" not found in'),
        ("POST", PREDICT, "[" * 10_000 + "]" * 10_000, 400, "nested too deeply"),
        ("POST", PREDICT, '{"instances":' + "[" * 10_000 + "]" * 10_000 + "}", 400, ""),
        ("POST", PREDICT, '{"instances": [[1e999, 0, 0, ' + "1" * 5000 + "]]}", 400, ""),
        ("POST", PREDICT, "A" * 7_000_000, 413, "score the file in batch"),
        ("POST", "/v1/models/two_by_two:predict", {"instances": [1]}, 400, "several inputs"),
        ("POST", "/v1/models/two_by_two:predict", {"instances": [{"a": [1, 2, 3], "b": 1}, 2]}, 400, "exactly"),
        ("POST", "/v1/models/two_by_two:predict", {"inputs": [1]}, 400, "several inputs"),
        ("POST", "/v1/models/two_by_two:predict", {"inputs": {"a": [[1, 2, 3]], "b": [1, 2]}}, 400, "disagree"),
    ],
)  # fmt: skip
def test_bad_requests_are_told_what_is_wrong(handler, method, path, body, status, message):
    """Every mistake of a client has its status and its words, in the protocol's form."""
    actual_status, answer = call(handler, method, path, body)
    assert (actual_status, list(answer)) == (status, ["error"])
    assert message in answer["error"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=12,
    ).flatmap(lambda value: st.sampled_from([value, {"instances": value}, {"inputs": value}, {"instances": [value]}]))
)
def test_no_json_gives_a_5xx(handler, body):
    """Whatever JSON a client sends, it is answered or told what is wrong with it."""
    status, answer = call(handler, "POST", PREDICT, body)
    assert status in (200, 400)
    assert ("error" in answer) == (status == 400)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_no_path_gives_a_5xx(handler, path, method):
    """Whatever path a client asks for, nothing is served that was not meant and nothing breaks."""
    for prefix in ("/", "/v1/", "/v1/models/", "/v1/models/tiny"):
        status, _ = call(handler, method, prefix + path, "{}")
        assert status in (200, 400, 404, 405, 501)


@pytest.mark.parametrize(
    "event",
    [
        {"key1": "value1"},
        None,
        [],
        "x",
        {"requestContext": None},
        {"version": "2.0", "path": "/", "method": "GET", "requestContext": {"serviceNetworkArn": "arn"}},  # VPC Lattice
        {"requestContext": {"eventType": "CONNECT", "connectionId": "x"}},  # WebSocket
        {"type": "TOKEN", "methodArn": "arn", "authorizationToken": "x"},
    ],
)
def test_an_event_of_another_kind_is_answered_not_raised(handler, event):
    """A test event from the console, or another service's, gets a 400 that names the events it takes."""
    for context in (Context(), None):
        answer = handler(event, context)
        assert answer["statusCode"] == 400
        assert "not an HTTP event" in json.loads(answer["body"])["error"]


def test_internals_stay_in_the_log(store, tmp_path, capsys):
    """A damaged model is a 500 without internals on the wire, and with them in the log."""
    publish(tmp_path, "damaged", data=golden("tiny_int8"))
    path = tmp_path / "damaged/1/model.tflite"
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    handler = load_handler(tmp_path)
    assert call(handler, "POST", "/v1/models/damaged:predict", {"instances": ROWS}) == (
        500,
        {"error": "internal error (request request-1)"},
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any(line.get("level") == "ERROR" and "the manifest pins" in line["message"] for line in lines)


def test_a_flatbuffer_that_is_not_as_its_manifest_says_is_refused(tmp_path):
    """Right digests do not help a manifest that describes another model."""
    signatures = {"predict": {"inputs": [], "outputs": []}}
    publish(tmp_path, "liar", data=golden("tiny_int8"), signatures=signatures)
    assert call(load_handler(tmp_path), "GET", "/v1/models/liar")[0] == 500


def test_a_request_is_one_json_line(handler, capsys):
    """A request's line names route, model, version, status and time, and holds no payload."""
    call(handler, "POST", PREDICT, {"instances": [[0.12345, 0.2, 0.3, 0.4]]})
    (line,) = capsys.readouterr().out.splitlines()
    assert "0.12345" not in line
    fields = json.loads(line)
    assert (fields["Route"], fields["Model"], fields["Version"], fields["status"]) == ("predict", "tiny", "1", 200)
    assert fields["request_id"] == "request-1"


@pytest.mark.parametrize("namespace", ["", "litelambda"])
def test_a_log_level_drops_request_lines(store, tmp_path, capsys, namespace):
    """Above INFO, with metrics or without, requests that did not fail write nothing, and a broken model does."""
    publish(tmp_path, "broken", data=golden("tiny_int8"))
    (tmp_path / "broken/1/model.tflite").write_bytes(b"")
    handler = load_handler(tmp_path, METRICS_NAMESPACE=namespace, LOG_LEVEL="WARNING")
    for path in ("/", "/v1/models/nope"):
        call(handler, "GET", path)
    assert capsys.readouterr().out == ""
    call(handler, "GET", "/v1/models/broken")
    *_, line = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["message"], line["status"], line["ServerError"]) == ("request", 500, 1)
    assert ("_aws" in line) == bool(namespace)


@pytest.mark.parametrize(
    ("method", "path", "status", "counts"),
    [
        ("GET", "/", 200, (0, 0)),
        ("GET", "/v1/models/nope", 404, (1, 0)),
        ("POST", "/v2/models/tiny/generate", 501, (1, 0)),
        ("GET", "/v1/models/broken", 500, (0, 1)),
    ],
)
def test_metrics_tell_faults_of_clients_from_ours(tmp_path, capsys, method, path, status, counts):
    """What the protocols have and this service has not is asked for by a client, and is no fault of ours."""
    publish(tmp_path, "tiny", data=golden("tiny_int8"))
    publish(tmp_path, "broken", data=golden("tiny_int8"))
    (tmp_path / "broken/1/model.tflite").write_bytes(b"")
    assert call(load_handler(tmp_path), method, path, "{}")[0] == status
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line.get("ClientError", 0), line.get("ServerError", 0)) == counts
    assert line["level"] == ("ERROR" if counts[1] else "INFO")


def test_debug_traces_init(store, capsys):
    """At DEBUG, INIT says where its time went."""
    load_handler(store, "tiny", LOG_LEVEL="DEBUG")
    (line,) = capsys.readouterr().out.splitlines()
    spans = json.loads(line)
    assert spans["message"] == "init"
    assert {"settings_and_store_ms", "runtime_ms", "waited_for_store_ms", "model_ms", "total_ms"} <= spans.keys()


def test_a_missing_model_fails_init(store):
    """A function whose model is not there does not come up, and says why."""
    with pytest.raises(ModelNotFoundError, match="nope"):
        load_handler(store, "nope")


def test_a_wrong_pin_fails_init(store):
    """A function whose model was changed does not come up."""
    with pytest.raises(DigestError):
        load_handler(store, "tiny", MODEL_VERSION="1", MODEL_MANIFEST_SHA256="0" * 64)


FORBIDDEN = {"numpy", "boto3", "botocore", "tensorflow", "pydantic", "aws_lambda_powertools", "keras", "requests"}


@pytest.mark.parametrize("model", ["", "tiny"])
def test_init_loads_nothing_heavy(store, model):
    """INIT, model included, imports none of the packages that make cold starts slow."""
    script = "import predict, sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(FUNCTIONS),
        "MODEL_STORE": store.as_uri(),
        "MODEL_NAME": model,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert not FORBIDDEN & set(json.loads(output))


def test_init_leaves_the_rest_for_later(store):
    """Protocols, decoders and whatever else only some requests need are imported by the first request that does."""
    script = "import predict, sys, json; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(FUNCTIONS), "MODEL_STORE": store.as_uri(), "MODEL_NAME": "tiny"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    later = (
        "access",
        "asgi",
        "audit",
        "custom_code",
        "servable.",
        "bodies",
        "inference_protocol",
        "models.refresh",
        "models.shadow",
        "openapi",
        "page",
        "scoring",
        "server_settings",
        "tfserving.",
        "turns",
    )
    loaded = json.loads(done.stdout)
    assert "litelambda_serving.tfserving" in loaded
    loaded = [name for name in loaded if name.startswith(tuple(f"litelambda_serving.{each}" for each in later))]
    assert loaded == []
