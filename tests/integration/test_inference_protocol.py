"""The Open Inference Protocol (V2) through the deployed handler: JSON, binary tensors, extensions and every refusal."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from importlib.metadata import version

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import litelambda
from support.golden_store import golden, publish
from support.handler_client import Context, load_module, send
from support.number_reading import number_reading  # noqa: F401 - all tests here run twice

ROWS = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
INFER = "/v2/models/tiny/infer"
LENGTH = "Inference-Header-Content-Length"
LABELS = ["cat", "dog", "fox"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"), quantization={"scheme": "int8", "io": "float32"}, labels=LABELS)
    for name in ("half_plus_two", "two_by_two", "scalar"):
        publish(root, name)
    publish(root, "unbatched", data=golden("tiny_int8"), batching={"dynamic": False})
    for dtype in ("bool", "float16", "int8", "int64", "uint64", "float64"):
        publish(root, dtype, data=golden(f"dtype_{dtype}"))
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store, "tiny", MODEL_CONTROL="explicit").handler


def tiny_input(rows=ROWS, **fields):
    return {"name": "x", "shape": [len(rows), 4], "datatype": "FP32", "data": rows, **fields}


def binary_request(inputs, data, **fields):
    """JSON with tensors behind it, and its header."""
    document = json.dumps({"inputs": inputs, **fields}).encode()
    return document + data, {LENGTH: str(len(document))}


def read_binary(answer):
    """JSON and binary part of a response."""
    length = int(answer.headers[LENGTH.lower()])
    return json.loads(answer.body[:length]), answer.body[length:]


def test_health(handler):
    """Live and ready, with and without a trailing slash below the server's own path."""
    assert send(handler, "GET", "/v2/health/live").json() == {"live": True}
    assert send(handler, "GET", "/v2/health/ready").json() == {"ready": True, "live": True}
    assert send(handler, "GET", "/v2/").json() == send(handler, "GET", "/v2").json()


def test_server_metadata(handler):
    """The server names itself, the toolchain's version and what it speaks beyond the protocol."""
    body = send(handler, "GET", "/v2").json()
    assert body["name"] == "litelambda"
    assert body["version"] == litelambda.__version__ == version("litelambda")
    assert {"binary_tensor_data", "classification", "statistics"} <= set(body["extensions"])


@pytest.mark.parametrize("path", ["/v2/models/tiny", "/v2/models/tiny/versions/1", "/v2/models/tiny/versions/latest"])
def test_model_metadata(handler, path):
    """A model's inputs and outputs, by name, number or alias."""
    assert send(handler, "GET", path).json() == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "tflite",
        "parameters": {"labels": LABELS},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert send(handler, "GET", path + "/ready").json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize("data", [ROWS, [value for row in ROWS for value in row]])
def test_json_both_ways(handler, data):
    """Nested or flat data in, flat data out, the id echoed, the version named; the same numbers as in V1."""
    body = {"id": "17", "inputs": [tiny_input(data=data)]}
    answer = send(handler, "POST", INFER, body)
    fields = answer.json()
    assert answer.status == 200
    assert {key: fields[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "tiny", "model_version": "1", "id": "17",
    }  # fmt: skip
    (output,) = fields["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, 3])
    predictions = send(handler, "POST", "/v1/models/tiny:predict", {"instances": ROWS}).json()["predictions"]
    assert output["data"] == [value for row in predictions for value in row]


def test_binary_both_ways(handler):
    """With binary tensors in and out the same numbers come, as bytes behind the JSON."""
    data = np.array(ROWS, "<f4").tobytes()
    parameters = {"binary_data_size": len(data)}
    entry = {"name": "x", "shape": [2, 4], "datatype": "FP32", "parameters": parameters}
    body, headers = binary_request([entry], data, parameters={"binary_data_output": True})
    answer = send(handler, "POST", INFER, body, headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    fields, rest = read_binary(answer)
    (output,) = fields["outputs"]
    assert output == {
        "name": "probabilities", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24},
    }  # fmt: skip
    expected = send(handler, "POST", INFER, {"inputs": [tiny_input()]}).json()["outputs"][0]["data"]
    assert np.frombuffer(rest, "<f4").tolist() == expected


def test_json_and_binary_mix(handler):
    """One input in JSON and one in bytes; one output in bytes against the request's default and one in JSON."""
    b = np.array([1, 2], "<i4").tobytes()
    inputs = [
        {"name": "b", "shape": [2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
        {"name": "a", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]},
    ]
    outputs = [{"name": "twice", "parameters": {"binary_data": False}}, {"name": "total"}]
    body, headers = binary_request(inputs, b, outputs=outputs, parameters={"binary_data_output": True})
    fields, rest = read_binary(send(handler, "POST", "/v2/models/two_by_two/infer", body, headers))
    assert [output["name"] for output in fields["outputs"]] == ["twice", "total"]
    assert fields["outputs"][0]["data"] == [2, 4]
    assert np.frombuffer(rest, "<f4").tolist() == [7.0, 17.0]


def test_only_requested_outputs(handler):
    """What was not asked for does not come."""
    body = {
        "inputs": [
            {"name": "a", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
            {"name": "b", "shape": [1], "datatype": "INT32", "data": [1]},
        ],
        "outputs": [{"name": "twice"}],
    }
    (output,) = send(handler, "POST", "/v2/models/two_by_two/infer", body).json()["outputs"]
    assert output == {"name": "twice", "datatype": "INT32", "shape": [1], "data": [2]}


@pytest.mark.parametrize("headers", [{LENGTH: "0"}, {"Content-Type": "application/octet-stream"}])
def test_a_raw_body_is_the_only_input(handler, headers):
    """With a header length of 0 the body is the tensor and all outputs are binary; by content type they are JSON."""
    answer = send(handler, "POST", INFER, np.array(ROWS, "<f4").tobytes(), headers)
    assert answer.status == 200, answer.body
    expected = send(handler, "POST", INFER, {"inputs": [tiny_input()]}).json()["outputs"][0]["data"]
    if LENGTH in headers:
        assert np.frombuffer(read_binary(answer)[1], "<f4").tolist() == expected
    else:
        assert answer.json()["outputs"][0]["data"] == expected


def test_a_raw_body_that_looks_like_gzip_is_taken_as_it_is(handler):
    """Any bytes may open a tensor, those of gzip's magic number too."""
    data = b"\x1f\x8b\x08\x00" + np.array(ROWS, "<f4").tobytes()[4:]
    answer = send(handler, "POST", INFER, data, {"Content-Type": "application/octet-stream", LENGTH: "0"})
    assert answer.status == 200


def test_scalars(handler):
    """A model without dimensions takes shape [] and, from clients that cannot say it, [1]."""
    for shape in ([], [1]):
        entry = {"name": "x", "shape": shape, "datatype": "FP32", "data": [2.0]}
        (output,) = send(handler, "POST", "/v2/models/scalar/infer", {"inputs": [entry]}).json()["outputs"]
        assert (output["shape"], output["data"]) == ([], [6.0])


@pytest.mark.parametrize(
    ("dtype", "datatype", "values"),
    [
        ("bool", "BOOL", [True, False, True]),
        ("int8", "INT8", [-128, 0, 127]),
        ("int64", "INT64", [-(2**63), 0, 2**63 - 1]),
        ("uint64", "UINT64", [0, 1, 2**64 - 1]),
        ("float64", "FP64", [1e300, -0.1, 0.0]),
    ],
)
def test_datatypes_round_trip(handler, dtype, datatype, values):
    """Each datatype comes out as it went in, in JSON and in bytes."""
    entry = {"name": "x", "shape": [1, 3], "datatype": datatype}
    path = f"/v2/models/{dtype}/infer"
    answer = send(handler, "POST", path, {"inputs": [{**entry, "data": values}]}).json()["outputs"][0]
    assert (answer["datatype"], answer["shape"], answer["data"]) == (datatype, [3, 1], values)
    data = np.array(values, dtype).tobytes()
    body, headers = binary_request(
        [{**entry, "parameters": {"binary_data_size": len(data)}}], data, parameters={"binary_data_output": True}
    )
    assert read_binary(send(handler, "POST", path, body, headers))[1] == data


def test_half_floats_are_bytes_only(handler):
    """FP16 has no JSON form, in or out; its bytes travel."""
    data = np.array([1.5, -2, 0], "<f2").tobytes()
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP16"}
    path = "/v2/models/float16/infer"
    answer = send(handler, "POST", path, {"inputs": [{**entry, "data": [1, 2, 3]}]})
    assert (answer.status, "FP16" in answer.json()["error"]) == (400, True)
    sized = [{**entry, "parameters": {"binary_data_size": 6}}]
    body, headers = binary_request(sized, data)
    assert send(handler, "POST", path, body, headers).status == 400
    body, headers = binary_request(sized, data, parameters={"binary_data_output": True})
    assert read_binary(send(handler, "POST", path, body, headers))[1] == data


def test_nan_is_null_in_json(handler):
    """JSON has no word for NaN and infinities, so V2 says null."""
    entry = {"name": "x", "shape": [3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
    body, headers = binary_request([entry], np.array([np.nan, np.inf, 2], "<f4").tobytes())
    answer = send(handler, "POST", "/v2/models/half_plus_two/infer", body, headers)
    assert answer.json()["outputs"][0]["data"] == [None, None, 3.0]


def test_classification(handler):
    """The best classes as value:index:label, in JSON and as length-prefixed bytes; more than there are gives all."""
    request = {"inputs": [tiny_input()], "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}]}
    (output,) = send(handler, "POST", INFER, request).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    scores = send(handler, "POST", "/v1/models/tiny:predict", {"instances": ROWS}).json()["predictions"]
    for row, text in enumerate(output["data"][::2]):
        value, index, label = text.split(":")
        assert int(index) == int(np.argmax(scores[row]))
        assert label == LABELS[int(index)]
        assert float(value) == pytest.approx(max(scores[row]), abs=1e-6)
    request["outputs"][0]["parameters"] = {"classification": 9, "binary_data": True}
    fields, rest = read_binary(send(handler, "POST", INFER, request))
    assert fields["outputs"][0]["shape"] == [2, 3]
    (length,) = struct.unpack_from("<I", rest)
    assert rest[4 : 4 + length].decode().count(":") == 2


@pytest.mark.parametrize(
    ("model", "max_batch_size", "inputs", "outputs"),
    [
        ("tiny", 32, [("x", "TYPE_FP32", [4])], [("probabilities", "TYPE_FP32", [3])]),
        ("half_plus_two", 0, [("x", "TYPE_FP32", [-1])], [("y", "TYPE_FP32", [-1])]),
        ("scalar", 0, [("x", "TYPE_FP32", [])], [("y", "TYPE_FP32", [])]),
        ("unbatched", 0, [("x", "TYPE_FP32", [-1, 4])], [("probabilities", "TYPE_FP32", [-1, 3])]),
    ],
)
def test_config(handler, model, max_batch_size, inputs, outputs):
    """As Triton's: with a batch size, dims leave the batch out; without proven batches it is 0, and dims are whole.

    Triton has no tensor of no dims: a batch of bare values is one dimension of any size.
    """
    config = send(handler, "GET", f"/v2/models/{model}/config").json()
    assert config["max_batch_size"] == max_batch_size
    for tensors, expected in ((config["input"], inputs), (config["output"], outputs)):
        assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in tensors] == expected


def test_statistics_count_as_tritons(handler):
    """Every part of a request is counted with it, whatever protocol it came by; together they took the whole time."""
    url = "/v2/models/half_plus_two"
    send(handler, "GET", url)
    requests = [
        (f"{url}/infer", {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}),
        ("/v1/models/half_plus_two:predict", {"instances": [1.0]}),
        ("/v1/models/half_plus_two:regress", {"examples": [{"x": 1}]}),
    ]
    parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    for path, body in requests:
        (before,) = (entry["inference_stats"] for entry in send(handler, "GET", f"{url}/stats").json()["model_stats"])
        assert send(handler, "POST", path, body).status == 200
        (after,) = (entry["inference_stats"] for entry in send(handler, "GET", f"{url}/stats").json()["model_stats"])
        assert [after[part]["count"] - before[part]["count"] for part in parts] == [1] * 5
        spent = {part: after[part]["ns"] - before[part]["ns"] for part in parts}
        assert spent.pop("success") == sum(spent.values())
        assert min(spent[part] for part in ("compute_input", "compute_infer", "compute_output")) > 0


def test_config_and_statistics(handler):
    """Triton's extensions count what was run."""
    before = send(handler, "GET", "/v2/models/tiny/stats").json()["model_stats"][0]
    send(handler, "POST", INFER, {"inputs": [tiny_input()]})
    after = send(handler, "GET", "/v2/models/tiny/versions/1/stats").json()["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert {entry["name"] for entry in send(handler, "GET", "/v2/models/stats").json()["model_stats"]} >= {"tiny"}


def test_repository(store):
    """The index lists the store; load and unload change what is in memory, and nothing else."""
    handler = load_module(store, "tiny", MODEL_CONTROL="explicit").handler
    index = {entry["name"]: entry for entry in send(handler, "POST", "/v2/repository/index", "").json()}
    assert index["tiny"] == {"name": "tiny", "version": "1", "state": "READY", "reason": "", "aliases": ["latest"]}
    assert index["scalar"]["state"] == "UNAVAILABLE"
    ready = send(handler, "POST", "/v2/repository/index", {"ready": True}).json()
    assert [entry["name"] for entry in ready] == ["tiny"]
    assert send(handler, "POST", "/v2/repository/models/scalar/load", "").status == 200
    assert send(handler, "POST", "/v2/repository/models/tiny/unload", "").status == 200
    ready = send(handler, "POST", "/v2/repository/index", {"ready": True}).json()
    assert [entry["name"] for entry in ready] == ["scalar"]
    assert send(handler, "POST", INFER, {"inputs": [tiny_input()]}).status == 200
    for verb in ("load", "unload"):
        unknown = send(handler, "POST", f"/v2/repository/models/nope/{verb}", "")
        assert (unknown.status, f"failed to {verb} 'nope'" in unknown.json()["error"]) == (404, True)


def test_a_load_cannot_override_what_the_store_has(handler):
    """A configuration or files sent along are refused by name; null is none, and other parameters do not matter."""
    url = "/v2/repository/models/tiny/load"
    for parameters in ({"config": '{"max_batch_size": 16}'}, {"file:1/model.tflite": "AAAA"}):
        answer = send(handler, "POST", url, {"parameters": parameters})
        assert (
            answer.status,
            f"failed to load 'tiny': overriding {next(iter(parameters))}" in answer.json()["error"],
        ) == (501, True)
    assert send(handler, "POST", url, {"parameters": {"config": None, "other": 1}}).status == 200
    assert send(handler, "POST", url, "{").status == 400


def test_null_is_absence(handler):
    """Clients that write every field of a type, as pydantic's model_dump() does, are answered as without the nulls."""
    nulls = {"content_type": None, "headers": None, "binary_data": None, "classification": None}
    plain = send(handler, "POST", INFER, {"inputs": [tiny_input()]})
    for fields in (
        {"id": None, "parameters": None, "outputs": None},
        {"parameters": {"signature_name": None, "binary_data_output": None, "explain": None, **nulls}},
        {"outputs": [{"name": "probabilities", "parameters": None}]},
        {"outputs": [{"name": "probabilities", "parameters": nulls}]},
    ):
        for parameters in (None, nulls, {"shared_memory_region": None, "binary_data_size": None}):
            body = {"inputs": [tiny_input(parameters=parameters)], **fields}
            answer = send(handler, "POST", INFER, body)
            assert (answer.status, answer.json()) == (200, plain.json()), body
    data = np.array(ROWS, "<f4").tobytes()
    body, headers = binary_request([tiny_input(data=None, parameters={"binary_data_size": len(data)})], data)
    assert send(handler, "POST", INFER, body, headers).json() == plain.json()
    assert send(handler, "POST", "/v2/repository/index", {"ready": None}).status == 200


def test_null_is_no_value(handler):
    """Of what a request needs, null is as much as nothing, and in a tensor it is no number."""
    assert send(handler, "POST", INFER, {"inputs": None}).status == 400
    for fields in (
        {"name": None},
        {"shape": None},
        {"datatype": None},
        {"data": None},
        {"data": [[0.1, None, 0.3, 0.4]]},
    ):
        assert send(handler, "POST", INFER, {"inputs": [tiny_input(**fields)]}).status == 400


@pytest.mark.parametrize(("encoding", "pack", "unpack"), [
    ("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress),
])  # fmt: skip
def test_compression_both_ways(handler, encoding, pack, unpack):
    """Compressed requests are read; answers are compressed when they are asked to be, large and good, never in br."""
    rows = [[(i + j) % 10 / 10 for j in range(4)] for i in range(500)]
    data = np.array(rows, "<f4").tobytes()
    entry = {"name": "x", "shape": [500, 4], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    body, headers = binary_request([entry], data, parameters={"binary_data_output": True})
    headers |= {"Content-Encoding": encoding, "Accept-Encoding": f"br, {encoding};q=0.5"}
    answer = send(handler, "POST", INFER, pack(body), headers)
    assert (answer.status, answer.headers["content-encoding"]) == (200, encoding)
    answer.body = unpack(answer.body)
    assert len(read_binary(answer)[1]) == 500 * 3 * 4
    for refused in ({"Accept-Encoding": "br"}, {"Accept-Encoding": f"{encoding};q=0"}, {}):
        plain = send(handler, "POST", INFER, body, {LENGTH: headers[LENGTH], **refused})
        assert "content-encoding" not in plain.headers
    # A gateway that decompressed and left the header.
    assert send(handler, "POST", INFER, body, headers).status == 200
    for path in ("/v2/models/tiny", "/v2", "/v2/models/nope"):
        assert "content-encoding" not in send(handler, "GET", path, None, {"Accept-Encoding": encoding}).headers


def binary(shape=(2, 4), size=32, data=bytes(32), header=None, **fields):
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}, **fields}
    body, headers = binary_request([entry], data)
    return body, {LENGTH: header} if header is not None else headers


def classified(count):
    return {"name": "probabilities", "parameters": {"classification": count}}


def deep(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ({}, "expected 1 inputs but got 0: x missing"),
        ({"inputs": 3}, "'inputs' must be a list"),
        ({"inputs": [3]}, "'inputs' must be a list"),
        ({"inputs": [{}]}, "unexpected name"),
        ({"inputs": [tiny_input(name="y")]}, "the model has x"),
        ({"inputs": [tiny_input(), tiny_input()]}, "more than once"),
        ({"inputs": [tiny_input(datatype="FP64")]}, "expected datatype FP32, got 'FP64'"),
        ({"inputs": [tiny_input(datatype=["FP32"])]}, "expected datatype FP32"),
        ({"inputs": [tiny_input(shape=[2])]}, "Expected [-1, 4], got [2]"),
        ({"inputs": [tiny_input(shape=[2, 5])]}, "Expected [-1, 4], got [2, 5]"),
        ({"inputs": [tiny_input(shape=[-1, 4])]}, "'shape' must be a list of sizes"),
        ({"inputs": [tiny_input(shape=[2.0, 4])]}, "'shape' must be a list of sizes"),
        ({"inputs": [tiny_input(shape=[True, 4])]}, "'shape' must be a list of sizes"),
        ({"inputs": [tiny_input(shape="24")]}, "'shape' must be a list of sizes"),
        ({"inputs": [tiny_input(shape=[0, 4], data=[])]}, "at least one row"),
        ({"inputs": [tiny_input(shape=[2**62, 4])]}, "Expecting tensor size"),
        ({"inputs": [tiny_input(shape=[2**62, 4], data=[1.0])]}, "values for shape"),
        ({"inputs": [tiny_input(shape=[10**400, 4], data=[1.0])]}, ""),
        ({"inputs": [tiny_input(shape=[3, 4])]}, "Expecting tensor size: 3 but got: 2"),
        ({"inputs": [tiny_input(data=[1, 2])]}, "expected 8 values for shape [2, 4], got 2"),
        ({"inputs": [tiny_input(data=["a"] * 8)]}, "is not of expected type: float32"),
        ({"inputs": [tiny_input(data={"b64": "AAAA"})]}, "expected 'data', a list"),
        ({"inputs": [tiny_input(data=None)]}, "expected 'data', a list"),
        ({"inputs": [tiny_input(data=[[float("nan")] * 4] * 2)]}, "NaN or an infinity"),
        ({"inputs": [tiny_input(parameters=3)]}, "'parameters' of 'x'"),
        ({"inputs": [tiny_input()], "parameters": []}, "'parameters' must be an object"),
        ({"inputs": [tiny_input()], "id": 3}, "'id' must be a string"),
        ({"inputs": [tiny_input()], "outputs": [{"name": "y"}]}, "the model has probabilities"),
        ({"inputs": [tiny_input()], "outputs": [{"name": "probabilities"}] * 2}, "more than once"),
        ({"inputs": [tiny_input()], "outputs": "all"}, "'outputs' must be a list"),
        ({"inputs": [tiny_input()], "parameters": {"binary_data_output": 1}}, "must be true or false"),
        ({"inputs": [tiny_input()], "parameters": {"signature_name": []}}, "must be one of predict"),
        ({"inputs": [tiny_input()], "parameters": deep(101)}, "nested more than 100"),
        ({"inputs": [tiny_input(parameters=deep(101))]}, "nested more than 100"),
        ({"inputs": [tiny_input()], "outputs": [classified(-1)]}, "must be a number of classes"),
        ({"inputs": [tiny_input()], "outputs": [classified("1")]}, "must be a number of classes"),
        ("[" * 10_000 + "]" * 10_000, ""),
        ('{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":' + "[" * 10_000 + "]" * 10_000 + "}]}", ""),
    ],
)  # fmt: skip
def test_bad_json_is_told_what_is_wrong(handler, body, message):
    """Every mistake is a 400 with its words, in the protocol's form."""
    answer = send(handler, "POST", INFER, body)
    assert (answer.status, list(answer.json())) == (400, ["error"])
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_parts", "message"),
    [
        (binary(header="x"), "Inference-Header-Content-Length is 'x'"),
        (binary(header="-1"), "Inference-Header-Content-Length is '-1'"),
        (binary(header="1.5"), "Inference-Header-Content-Length is '1.5'"),
        (binary(header="9" * 30), "Inference-Header-Content-Length"),
        (binary(header="100000"), "at most the body's"),
        (binary(header="5"), "not JSON"),
        (binary(header="0"), "expected a multiple of 16"),
        (binary(data=bytes(31)), "unexpected size for input 'x', expecting 1 additional bytes"),
        (binary(data=bytes(33)), "unexpected additional input data"),
        (binary(size=31), "unexpected total byte size 31 for input 'x', expecting 32"),
        (binary(size=-1), "'binary_data_size' must be"),
        (binary(size="32"), "'binary_data_size' must be"),
        (binary(size=True), "'binary_data_size' must be"),
        (binary(shape=[2**62, 4]), "unexpected total byte size 32"),
        (binary(shape=[2**62, 4], size=2**66), "expecting 73786976294838206432 additional bytes"),
        (binary(data_field=1, data=bytes(0), size=32), "expecting 32 additional bytes"),
    ],
)
def test_bad_binary_is_told_what_is_wrong(handler, request_parts, message):
    """Sizes that do not add up are named, and nothing is allocated by what a client claims."""
    body, headers = request_parts
    answer = send(handler, "POST", INFER, body, headers)
    assert (answer.status, list(answer.json())) == (400, ["error"])
    assert message in answer.json()["error"]


def test_bad_bools_are_refused(handler):
    """A byte that is neither true nor false never reaches the runtime."""
    entry = {"name": "x", "shape": [1, 3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
    body, headers = binary_request([entry], b"\x00\x01\x02")
    answer = send(handler, "POST", "/v2/models/bool/infer", body, headers)
    assert (answer.status, "neither 0 nor 1" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/nope/ready", 404),
        ("POST", "/v2/models/nope/infer", 404),
        ("GET", "/v2/models/tiny/versions/7", 404),
        ("GET", "/v2/models/tiny/versions/nope", 404),
        ("GET", "/v2/models/tiny/versions/" + "9" * 40, 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v2/models/%2e%2e/ready", 404),
        ("GET", "/v2/models/..", 404),
        ("GET", "/v2/models/my%20model", 404),
        ("GET", "/v2/models/%00", 404),
        ("GET", "/v2/models/%ff%fe", 404),
        ("GET", "/v2/models/" + "a" * 5000, 404),
        ("POST", "/v2/repository/models/..%2f..%2f/load", 404),
        ("GET", "/v2/models/", 400),
        ("GET", "/v2/models/tiny/nothing", 400),
        ("GET", "/v2/nothing", 400),
        ("GET", "/v2/health/sick", 400),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/models/tiny/infer", 405),
        ("POST", "/v2/models/tiny", 405),
        ("DELETE", "/v2/models/tiny", 405),
        ("PUT", "/v2", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/models/tiny/explain", 405),
        ("POST", "/v2/models/tiny/generate", 501),
        ("POST", "/v2/models/tiny/generate_stream", 501),
        ("GET", "/v2/models/tiny/trace/setting", 501),
        ("GET", "/v2/trace/setting", 501),
        ("POST", "/v2/logging", 501),
        *(
            (method, f"/v2/{kind}sharedmemory{region}/{verb}", 501)
            for kind in ("system", "cuda")
            for region in ("", "/region/r")
            for method, verb in (("GET", "status"), ("POST", "register"), ("POST", "unregister"))
        ),
    ],
)
def test_paths_and_methods(handler, method, path, status):
    """Unknown models are 404, unknown paths 400, wrong methods 405 with the right ones, reserved routes 501."""
    answer = send(handler, method, path, "{}")
    assert (answer.status, list(answer.json())) == (status, ["error"])
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v2/models/nope", "Request for unknown model: 'nope' is not found"),
        ("/v2/models/nope/ready", "Request for unknown model: 'nope' is not found"),
        ("/v2/models/tiny/versions/7", "Request for unknown model: 'tiny' version 7 is not found"),
        ("/v2/models/tiny/versions/canary/stats", "Request for unknown model: 'tiny' version canary is not found"),
    ],
)
def test_unknown_models_are_told_in_tritons_words(handler, path, message):
    """Triton's own example clients compare them."""
    answer = send(handler, "GET", path)
    assert (answer.status, answer.json()) == (404, {"error": message})


def test_reserved_parameters(handler):
    """Explanations and shared memory are refused as not supported, not ignored."""
    asked = send(handler, "POST", INFER, {"inputs": [tiny_input()], "parameters": {"explain": True}})
    assert (asked.status, "not supported" in asked.json()["error"]) == (501, True)
    entry = tiny_input(parameters={"shared_memory_region": "r"})
    assert send(handler, "POST", INFER, {"inputs": [entry]}).status == 501


def test_a_model_that_cannot_be_loaded_is_not_ready(tmp_path):
    """A damaged artifact is a 503 to who asks for readiness, and keeps its reason to the log."""
    publish(tmp_path, "damaged", data=golden("tiny_int8"))
    path = tmp_path / "damaged/1/model.tflite"
    path.write_bytes(path.read_bytes()[:-1])
    answer = send(load_module(tmp_path).handler, "GET", "/v2/models/damaged/ready")
    assert (answer.status, answer.json()["ready"]) == (503, False)
    assert "SHA" not in answer.body.decode()


def test_an_answer_too_large_is_refused_before_it_is_made(handler):
    """Three numbers a row come of one byte each here: the request's rows decide, not the memory they would take."""
    data = bytes(4 * 1_400_000)
    # As an event: a server has no limit, and would stream.
    answer = send(handler, "POST", "/v2/models/half_plus_two/infer", data, {LENGTH: "0"}, Context())
    assert (answer.status, "score the file in batch" in answer.json()["error"]) == (413, True)


def test_rows_beyond_the_time_limit_are_given_up(tmp_path):
    """A request that would outlast the function is told to be smaller, in time."""
    publish(tmp_path, "one_by_one", data=golden("tiny_int8"), batching={"dynamic": False, "reason": "test"})
    handler = load_module(tmp_path).handler
    body = np.zeros((200_000, 4), "<f4").tobytes()
    answer = send(handler, "POST", "/v2/models/one_by_one/infer", body, {LENGTH: "0"}, Context(milliseconds=600))
    assert (answer.status, "take longer than a request may" in answer.json()["error"]) == (413, True)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["name", "shape", "datatype", "data", "parameters", "binary_data_size", "classification", "binary_data", "x"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {"inputs": JSON_VALUES | st.lists(st.fixed_dictionaries(
            {"name": st.just("x"), "datatype": st.just("FP32") | JSON_VALUES},
            optional={"shape": st.just([1, 4]) | JSON_VALUES, "data": JSON_VALUES, "parameters": JSON_VALUES},
        ), max_size=2)},
        optional={"outputs": JSON_VALUES, "parameters": JSON_VALUES, "id": JSON_VALUES},
    ) | JSON_VALUES,
    st.binary(max_size=20),
    st.none() | st.integers(-5, 300) | st.text(max_size=4),
)  # fmt: skip
def test_no_request_gives_a_5xx(handler, body, tail, header):
    """Whatever a client sends, in JSON or behind it, it is answered or told what is wrong."""
    document = json.dumps(body).encode()
    length = len(document) if header is None else header
    answer = send(handler, "POST", INFER, document + tail, {LENGTH: str(length)})
    assert answer.status in (200, 400, 501)
    if LENGTH.lower() not in answer.headers:
        assert ("error" in answer.json()) == (answer.status != 200)


@settings(max_examples=200)
@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]))
def test_no_path_gives_a_5xx(handler, path, method):
    """Whatever path a client asks for, nothing is served that was not meant and nothing breaks."""
    for prefix in ("/v2", "/v2/models/", "/v2/models/tiny/", "/v2/repository/", "/"):
        assert send(handler, method, prefix + path, "{}").status in (200, 204, 400, 404, 405, 501)
