"""What users of ovmsclient, a TensorFlow Serving REST client, do, unchanged."""

import numpy as np
from ovmsclient import make_http_client
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError


def check_predict(address):
    client = make_http_client(address)
    answer = client.predict({"x": np.array([1.0, 2.0, 5.0], np.float32)}, "half_plus_two")
    assert np.array_equal(answer, [2.5, 3.0, 4.5])
    answer = client.predict({"x": [1.0]}, "half_plus_two", model_version=123)
    assert np.array_equal(answer, [2.5])


def check_several_inputs_and_outputs(address):
    client = make_http_client(address)
    answer = client.predict({"a": np.array([[1, 2, 3]], np.float32), "b": np.array([4], np.int32)}, "two_by_two")
    assert {name: np.asarray(value).tolist() for name, value in answer.items()} == {"total": [10.0], "twice": [8]}


def check_strings(address):
    client = make_http_client(address)
    answer = client.predict({"text": [["red", "red"], ["blue", ""]]}, "strings")
    assert np.asarray(answer["echo"]).tolist() == [["red", "red"], ["blue", ""]]
    assert np.asarray(answer["same"]).tolist() == [True, False]


def check_status(address):
    client = make_http_client(address)
    status = client.get_model_status("half_plus_two")
    assert status[123]["state"] == "AVAILABLE"
    assert status[123]["error_code"] == 0


def check_metadata(address):
    client = make_http_client(address)
    metadata = client.get_model_metadata("tiny")
    assert metadata["model_spec"]["version"] == "2"
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["outputs"]["probabilities"]["tensor_shape"]["dim"]] == ["-1", "3"]


def check_errors(address):
    client = make_http_client(address)
    for call, kind in (
        (lambda: client.get_model_status("nope"), ModelNotFoundError),
        (lambda: client.predict({"x": [[1.0]]}, "nope"), ModelNotFoundError),
        (lambda: client.predict({"x": [[1.0]]}, "tiny"), InvalidInputError),
        (lambda: client.predict({"y": [[1.0]]}, "tiny"), InvalidInputError),
    ):
        try:
            call()
        except kind as error:
            assert str(error)
        else:
            raise AssertionError("no error was raised")
