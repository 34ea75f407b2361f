"""A model that prepares numbers: raw values in every form of request and file become what numpy makes of them."""

from __future__ import annotations

import hashlib
import io
import json

import jsonschema
import numpy as np
import pytest

from litelambda import score
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.errors import DigestError, ManifestError
from litelambda_serving.store import open_store
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.number_reading import number_reading  # noqa: F401 - all tests here run twice

SCALE, OFFSET = [0.5, 0.01, 1 / 255, -3.0], [0.25, 0.0, -1.5, 7.0]
RAW = np.array([[0, 50, 255, 2], [1, 99, 3, 1], [2, 0, 128, 0]], np.float64)
SCALAR = {"kind": "numbers", "scale": 1 / 255, "offset": 0.0}
NPY = "application/x-npy"


def prepared(raw, scale=SCALE, offset=OFFSET):
    """What training made of raw values: float32 at each step."""
    values = raw.astype(np.float32) * np.asarray(scale, np.float32)
    return values + np.asarray(offset, np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The same flatbuffer three times: with a scaling per column, with one for all, and without."""
    root = tmp_path_factory.mktemp("store")
    by_column = {"x": {"kind": "numbers", "scale": SCALE, "offset": OFFSET}}
    publish(root, "raw", data=golden("tiny_int8"), format_version=2, preprocessing=by_column, labels=["a", "b", "c"])
    publish(root, "pixels", data=golden("tiny_int8"), format_version=2, preprocessing={"x": SCALAR})
    publish(root, "own", data=golden("tiny_int8"), labels=["a", "b", "c"])
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store, "own").handler


@pytest.fixture(scope="module")
def expected(handler):
    """The predictions for what numpy makes of the raw rows."""
    return predict(handler, "own", {"instances": prepared(RAW).tolist()})


def predict(handler, model, body):
    answer = send(handler, "POST", f"/v1/models/{model}:predict", body)
    assert answer.status == 200, answer.json()
    return answer.json().get("predictions") or answer.json()["outputs"]


def infer(handler, model, tensor, **parameters):
    body = {"parameters": parameters, "inputs": [tensor]}
    answer = send(handler, "POST", f"/v2/models/{model}/infer", body)
    assert answer.status == 200, answer.json()
    (output,) = answer.json()["outputs"]
    return np.reshape(output["data"], output["shape"]).tolist()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        {"instances": RAW.tolist()},
        {"instances": [{"x": row} for row in RAW.tolist()]},
        {"inputs": RAW.tolist()},
        {"inputs": {"x": RAW.tolist()}},
        {"instances": prepared(RAW).tolist(), "prepared": True},
        {"inputs": prepared(RAW).tolist(), "prepared": True},
        {"instances": RAW.tolist(), "prepared": False},
    ],
)
def test_json_of_tensorflow_serving(handler, expected, body):
    """Instances and inputs are raw values, unless the request says that they are prepared."""
    assert predict(handler, "raw", body) == expected


def test_classify_prepares_features(handler):
    """The features of examples are raw values too."""
    body = {"examples": [{"x": row} for row in RAW.tolist()]}
    raw = send(handler, "POST", "/v1/models/raw:classify", body).json()
    body = {"examples": [{"x": row} for row in prepared(RAW).tolist()]}
    assert raw == send(handler, "POST", "/v1/models/own:classify", body).json()
    assert raw == send(handler, "POST", "/v1/models/raw:classify", {**body, "prepared": True}).json()


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64", "UINT8"])
def test_v2_takes_raw_values_of_any_datatype(handler, expected, datatype):
    """The datatype is that of the raw values: it never says that they are prepared."""
    data = RAW.astype("int").reshape(-1).tolist()
    tensor = {"name": "x", "datatype": datatype, "shape": [3, 4], "data": data}
    assert infer(handler, "raw", tensor) == pytest.approx(np.array(expected))


def test_v2_takes_prepared_values_that_are_called_so(handler, expected):
    """The parameter `prepared` hands the tensor to the model as it is, in JSON and in binary form."""
    values = prepared(RAW)
    tensor = {"name": "x", "datatype": "FP32", "shape": [3, 4], "data": values.reshape(-1).tolist()}
    assert infer(handler, "raw", tensor, prepared=True) == expected
    described = {"name": "x", "datatype": "FP32", "shape": [3, 4], "parameters": {"binary_data_size": 48}}
    for data, said in ((values, True), (RAW.astype("<f4"), False)):
        head = json.dumps({"inputs": [described], "parameters": {"prepared": said}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        answer = send(handler, "POST", "/v2/models/raw/infer", head + data.tobytes(), headers)
        (output,) = answer.json()["outputs"]
        assert np.reshape(output["data"], output["shape"]).tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", ">i4"])
def test_an_array_is_raw(handler, expected, dtype):
    """A .npy of any dtype has raw values; its content type says so where they are prepared."""
    headers = {"Content-Type": NPY}
    answer = send(handler, "POST", "/v1/models/raw:predict", npy(RAW.astype(dtype)), headers)
    assert answer.json()["predictions"] == expected
    headers = {"Content-Type": f"{NPY}; prepared=true"}
    answer = send(handler, "POST", "/v1/models/raw:predict", npy(prepared(RAW)), headers)
    assert answer.json()["predictions"] == expected


def test_bytes_are_the_models_own_tensor(handler, expected):
    """An octet stream is the input itself, in every manifest version."""
    headers = {"Content-Type": "application/octet-stream"}
    answer = send(handler, "POST", "/v1/models/raw:predict", prepared(RAW).tobytes(), headers)
    assert answer.json()["predictions"] == expected


def test_one_scale_for_all(handler):
    """A scale of all values gives what numpy's float32 gives, to the bit."""
    raw = np.arange(256 * 4).reshape(-1, 4) % 256
    ours = predict(handler, "pixels", {"instances": raw.tolist()})
    assert ours == predict(handler, "own", {"instances": prepared(raw, 1 / 255, 0.0).tolist()})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": [[1, 2, 3]]}, "Expecting tensor size: 4 but got: 3"),
        ({"instances": [{"y": [1, 2, 3, 4]}]}, "instance 0: missing 'x' and unknown 'y': expected 'x'"),
        ({"instances": [{"x": [1, 2, 3, 4], "z": 1}]}, "instance 0: unknown 'z'"),
        ({"instances": [[1, 2, 3, "4"]]}, "is not of expected type: float32"),
        ({"instances": [[1, 2, 3, 3e38]]}, "outside the range of float32"),
        ({"inputs": {"x": 1}}, "expected a list of rows, got Number"),
        ({"instances": [[1, 2, 3, 4]], "prepared": "yes"}, "'prepared' must be true"),
    ],
)
def test_what_does_not_fit_is_named(handler, body, message):
    """A request that cannot be prepared is the client's fault, and says what was expected."""
    answer = send(handler, "POST", "/v1/models/raw:predict", body)
    assert answer.status == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [1] * 4}, "unexpected name in 'inputs'"),
        ({"name": "x", "datatype": "BYTES", "shape": [1, 4], "data": ["1"] * 4}, "expected datatype one of numbers"),
        ({"name": "x", "datatype": "BOOL", "shape": [1, 4], "data": [True] * 4}, "got BOOL"),
        ({"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1] * 3}, "unexpected shape for input 'x'"),
        ({"name": "x", "datatype": "FP99", "shape": [1, 4], "data": [1] * 4}, "expected datatype"),
    ],
)
def test_what_does_not_fit_is_named_in_v2(handler, tensor, message):
    """The same in the other protocol's words."""
    answer = send(handler, "POST", "/v2/models/raw/infer", {"inputs": [tensor]})
    assert answer.status == 400
    assert message in answer.json()["error"]


TABLE = {
    "kind": "table",
    "label": "species",
    "columns": [
        {"name": "mass", "type": "number", "missing": 4.0},
        {"name": "island", "type": "category", "vocabulary": ["Dream", "Biscoe", "Torgersen"]},
    ],
}
ROW = {"mass": 1.5, "island": "Biscoe"}


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"instances": [ROW]}, True),
        ({"instances": [{**ROW, "species": "Adelie"}]}, True),
        ({"instances": [{**ROW, "mass": None}]}, True),
        ({"instances": [[1.5, "Biscoe"]]}, True),
        ({"inputs": {"mass": [1.5], "island": ["Biscoe"]}}, True),
        ({"instances": [[1.5, 0, 1, 0]], "prepared": True}, True),
        ({"instances": [{"mass": 1.5}]}, False),
        ({"instances": [{**ROW, "color": "red"}]}, False),
        ({"instances": [{"mass": "heavy", "island": "Biscoe"}]}, False),
        ({"instances": [[1.5, 0, 1, 0]]}, False),
        ({"instances": [ROW], "prepared": True}, False),
    ],
)
def test_openapi_describes_raw_values(tmp_path_factory, body, fits):
    """What the document says of a request is what the handler takes, with names of columns and gaps."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "m", data=golden("tiny_int8"), format_version=2, preprocessing={"x": TABLE})
    handler = load_module(root, "m").handler
    schemas = send(handler, "GET", "/openapi.json").json()["components"]["schemas"]
    assert jsonschema.Draft202012Validator(schemas["m.PredictRequest"]).is_valid(body) == fits
    assert (send(handler, "POST", "/v1/models/m:predict", body).status == 200) == fits
    metadata = send(handler, "GET", "/v2/models/m").json()
    assert [each["name"] for each in metadata["raw_inputs"]] == ["mass", "island"]
    jsonschema.Draft202012Validator(schemas["ModelMetadata"]).validate(metadata)
    tensors = [
        {"name": "island", "datatype": "BYTES", "shape": [1], "data": ["Biscoe"]},
        {"name": "mass", "datatype": "FP64", "shape": [1, 1], "data": [1.5]},
    ]
    for inputs, status in ((tensors, 200), (tensors[:1], 400)):
        assert jsonschema.Draft202012Validator(schemas["m.InferRequest"]).is_valid({"inputs": inputs}) == (
            status == 200
        )
        assert send(handler, "POST", "/v2/models/m/infer", {"inputs": inputs}).status == status


def test_files_of_every_format_have_raw_values(store, tmp_path, expected):
    """CSV, JSON Lines, .npy and .npz are scored as requests are answered; `prepared` is for the model's own values."""
    header = "x_0,x_1,x_2,x_3\n"
    lines = "".join(",".join(map(repr, row)) + "\n" for row in RAW.tolist())
    (tmp_path / "rows.csv").write_text(header + lines)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RAW.tolist()))
    for dtype in ("float32", "float64", "uint8"):
        np.save(tmp_path / f"{dtype}.npy", RAW.astype(dtype))
        np.savez(tmp_path / f"{dtype}.npz", x=RAW.astype(dtype))
    np.save(tmp_path / "own.npy", prepared(RAW))
    for path in sorted(tmp_path.iterdir()):
        output = tmp_path / f"{path.name}.out.jsonl"
        score(path, output, model="raw", store=store, workers=1, prepared=path.name == "own.npy")
        scored = [json.loads(line)["prediction"] for line in output.read_text().splitlines()]
        assert scored == pytest.approx(np.array(expected), rel=1e-6), path.name


def test_a_manifest_of_a_kind_that_is_not_known_is_refused(tmp_path):
    """A newer kind of preprocessing is not served as if there were none."""
    publish(tmp_path, "m", data=golden("tiny_int8"), format_version=2, preprocessing={"x": {"kind": "sound"}})
    with pytest.raises(ManifestError, match="kind 'sound' is not one of numbers, table, image, text"):
        load_module(tmp_path, "m")


def test_assets_are_fetched_and_pinned(tmp_path):
    """A file that preprocessing reads comes with the model, and not at all where its bytes are not those pinned."""
    data, words = golden("tiny_int8"), b'["red", "green"]'
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in (("model.tflite", data), ("words.json", words))
    }
    preprocessing = {"x": SCALAR}
    publish(tmp_path, "m", data=data, format_version=2, preprocessing=preprocessing, files=files, assets=["words.json"])
    path = tmp_path / "m" / "1" / "words.json"
    path.write_bytes(words)
    assert fetch_artifact(open_store(tmp_path.as_uri()), "m").assets == {"words.json": words}
    path.write_bytes(words.replace(b"red", b"red"[::-1]))
    with pytest.raises(DigestError, match=r"words\.json has SHA-256"):
        fetch_artifact(open_store(tmp_path.as_uri()), "m")
