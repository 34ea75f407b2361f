"""What users of tritonclient's synchronous HTTP client do, unchanged."""

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

ROWS = np.array([[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]], np.float32)


def make_input(binary=True, rows=ROWS):
    tensor = triton.InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except InferenceServerException as error:
        return error
    raise AssertionError("no error was raised")


def check_health(address):
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("my model")


def check_metadata(address):
    client = triton.InferenceServerClient(address)
    server = client.get_server_metadata()
    assert server["name"] == "litelambda"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("tiny")
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    config = client.get_model_config("tiny")
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def check_infer_binary_is_the_default(address):
    client = triton.InferenceServerClient(address)
    result = client.infer("tiny", [make_input()], request_id="17")
    assert result.as_numpy("probabilities").shape == (2, 3)
    assert result.get_response()["id"] == "17"
    assert result.get_response()["model_version"] == "2"
    assert "binary_data_size" in result.get_output("probabilities")["parameters"]


def check_json_and_binary_agree(address):
    client = triton.InferenceServerClient(address)
    expected = client.infer("tiny", [make_input()]).as_numpy("probabilities")
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
            result = client.infer("tiny", [make_input(binary_in)], outputs=outputs)
            assert np.array_equal(result.as_numpy("probabilities"), expected)


def check_versions(address):
    client = triton.InferenceServerClient(address)
    for version in ("1", "2"):
        result = client.infer("tiny", [make_input()], model_version=version)
        assert result.get_response()["model_version"] == version


def check_several_inputs_and_outputs(address):
    client = triton.InferenceServerClient(address)
    a = triton.InferInput("a", [2, 3], "FP32").set_data_from_numpy(np.array([[1, 2, 3], [4, 5, 6]], np.float32))
    b = triton.InferInput("b", [2], "INT32").set_data_from_numpy(np.array([1, 2], np.int32), binary_data=False)
    result = client.infer("two_by_two", [a, b])
    assert result.as_numpy("total").tolist() == [7.0, 17.0]
    assert result.as_numpy("twice").tolist() == [2, 4]
    only = client.infer("two_by_two", [a, b], outputs=[triton.InferRequestedOutput("twice")])
    assert only.as_numpy("total") is None


def check_datatypes(address):
    client = triton.InferenceServerClient(address)
    for name, datatype in (("bool", "BOOL"), ("float16", "FP16"), ("int8", "INT8"), ("uint8", "UINT8"),
                           ("int64", "INT64"), ("float64", "FP64")):  # fmt: skip
        values = np.array([[0, 1, 1]], name)
        tensor = triton.InferInput("x", [1, 3], datatype).set_data_from_numpy(values)
        answer = client.infer(f"dtype_{name}", [tensor]).as_numpy("y")
        assert answer.dtype == values.dtype
        assert answer.ravel().tolist() == values.ravel().tolist()


def check_strings(address):
    client = triton.InferenceServerClient(address)
    text = np.array([["red", "gr\u00fcn"], ["", "red"]], object)
    as_bytes = np.array([[b"red", "gr\u00fcn".encode()], [b"", b"red"]], object)
    for values in (text, as_bytes):
        for binary_in in (True, False):
            for binary_out in (True, False):
                tensor = triton.InferInput("text", [2, 2], "BYTES").set_data_from_numpy(values, binary_data=binary_in)
                outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("echo", "same")]
                result = client.infer("strings", [tensor], outputs=outputs)
                answer = result.as_numpy("echo")
                assert answer.shape == (2, 2)
                assert answer.tolist() == (as_bytes if binary_out else text).tolist()
                assert result.as_numpy("same").tolist() == [False, False]
    binary = np.array([[b"\xff\x00", b"\x80" * 1000]], object)
    tensor = triton.InferInput("text", [1, 2], "BYTES").set_data_from_numpy(binary)
    assert client.infer("strings", [tensor]).as_numpy("echo").tolist() == binary.tolist()
    label = client.infer("labelled", [make_input()]).as_numpy("label")
    assert set(label.tolist()) <= {b"cat", b"dog", b"fox"}
    assert client.get_model_config("strings")["input"][0]["data_type"] == "TYPE_STRING"


def check_classification(address):
    client = triton.InferenceServerClient(address)
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        answer = client.infer("tiny", [make_input()], outputs=outputs).as_numpy("probabilities")
        assert answer.shape == (2, 2)
        first = answer[0][0].decode() if isinstance(answer[0][0], bytes) else answer[0][0]
        value, index, label = first.split(":")
        assert 0 <= float(value) <= 1
        assert label == ["cat", "dog", "fox"][int(index)]


def check_compression_both_ways(address):
    client = triton.InferenceServerClient(address)
    rows = np.tile(ROWS, (400, 1))
    expected = client.infer("tiny", [make_input(rows=rows)]).as_numpy("probabilities")
    for algorithm in ("gzip", "deflate"):
        for binary in (True, False):
            result = client.infer(
                "tiny",
                [make_input(binary, rows)],
                outputs=[triton.InferRequestedOutput("probabilities", binary_data=binary)],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert np.array_equal(result.as_numpy("probabilities"), expected)


def check_async_requests(address):
    client = triton.InferenceServerClient(address, concurrency=4)
    pending = [client.async_infer("tiny", [make_input()]) for _ in range(8)]
    answers = [request.get_result().as_numpy("probabilities") for request in pending]
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def check_offline_bodies(address):
    body, length = triton.InferenceServerClient.generate_request_body([make_input()])
    assert length
    client = triton.InferenceServerClient(address)
    response = client._post(  # as the documentation's raw example does
        "v2/models/tiny/infer", body, {"Inference-Header-Content-Length": length}, None
    )
    length = response.get("Inference-Header-Content-Length")
    result = triton.InferenceServerClient.parse_response_body(response.read(), header_length=int(length))
    assert result.as_numpy("probabilities").shape == (2, 3)


def check_errors(address):
    client = triton.InferenceServerClient(address)
    assert error_of(client.infer, "nope", [make_input()]).status() == "404"
    error = error_of(client.infer, "tiny", [make_input(rows=ROWS[:, :3])])
    assert error.status() == "400"
    assert "Expected [-1, 4], got [2, 3]" in error.message()
    error = error_of(client.infer, "tiny", [make_input()], outputs=[triton.InferRequestedOutput("nope")])
    assert "probabilities" in error.message()
    assert error_of(client.get_model_metadata, "my model").status() == "404"


def check_statistics(address):
    client = triton.InferenceServerClient(address)
    before = client.get_inference_statistics("tiny", "2")["model_stats"][0]["inference_count"]
    client.infer("tiny", [make_input()])
    assert client.get_inference_statistics("tiny")["model_stats"][0]["inference_count"] == before + 2
    assert client.get_inference_statistics()["model_stats"]


def check_repository(address):
    client = triton.InferenceServerClient(address)
    index = client.get_model_repository_index()
    states = {(entry["name"], entry["version"]): entry["state"] for entry in index}
    assert states["tiny", "2"] == "READY"
    assert ("half_plus_two", "123") in states
    client.load_model("half_plus_two")
    client.unload_model("half_plus_two")
    assert client.is_model_ready("half_plus_two")
