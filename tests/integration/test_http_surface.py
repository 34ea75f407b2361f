"""What the handler answers beside JSON predictions: classify and regress, raw bodies, pictures, HEAD, CORS, OpenAPI."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from litelambda.common.paths import FUNCTIONS
from support.golden_store import golden, publish
from support.handler_client import EVENTS, load_module, send
from support.number_reading import number_reading  # noqa: F401 - all tests here run twice

ROWS = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
LABELS = ["cat", "dog", "fox"]
NPY = "application/x-npy"
RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"), labels=LABELS)
    publish(root, "pixels", data=golden("tiny_int8"), preprocessing={"x": {"scale": 1 / 255, "offset": 0.0}})
    publish(root, "quantized", data=golden("tiny_int8"), quantization={"scheme": "int8"})
    publish(root, "half", data=golden("dtype_float16"), quantization={"scheme": "int8"})
    publish(root, "double", data=golden("dtype_float64"), quantization={"scheme": "int8"})
    publish(root, "image", data=golden("image_2x3"), preprocessing={"image": {"scale": 1 / 255, "offset": -0.5}})
    publish(root, "raw", data=golden("tiny_int8_raw"))
    publish(root, "codes", data=golden("image_2x3_uint8"))
    for name in ("half_plus_two", "two_by_two", "scalar"):
        publish(root, name)
    publish(root, "int64", data=golden("dtype_int64"))
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store, "tiny").handler


def predictions(handler, name, rows=ROWS):
    return send(handler, "POST", f"/v1/models/{name}:predict", {"instances": rows}).json()["predictions"]


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def picture(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def test_classify(handler):
    """Each example gets all labels with their scores, in the model's order; what is missing comes from the context."""
    body = {"context": {"x": ROWS[1]}, "examples": [{"x": ROWS[0]}, {}]}
    answer = send(handler, "POST", "/v1/models/tiny:classify", body)
    expected = [
        [[label, score] for label, score in zip(LABELS, row, strict=True)] for row in predictions(handler, "tiny")
    ]
    assert (answer.status, answer.json()) == (200, {"results": expected})


def test_regress(handler):
    """One value an example, in the key `results`."""
    body = {"examples": [{"x": 1.0}, {"x": [2.0]}, {"x": 5}]}
    assert send(handler, "POST", "/v1/models/half_plus_two:regress", body).json() == {"results": [2.5, 3.0, 4.5]}
    body = {"examples": [{"a": [1, 2, 3], "b": 1}]}
    assert send(handler, "POST", "/v1/models/two_by_two:regress", body).json() == {"results": [7.0]}


@pytest.mark.parametrize("value", [True, [True]])
def test_examples_have_booleans_as_integers(handler, value):
    """A tf.Example has no booleans: they are 1 and 0 of an integer input, in examples and context, and in no other."""
    url = "/v1/models/two_by_two"
    for body in (
        {"examples": [{"a": [1, 2, 3], "b": value}]},
        {"context": {"b": value}, "examples": [{"a": [1, 2, 3]}]},
    ):
        assert send(handler, "POST", f"{url}:regress", body).json() == {"results": [7.0]}
    assert send(handler, "POST", "/v1/models/half_plus_two:regress", {"examples": [{"x": value}]}).status == 400
    assert send(handler, "POST", f"{url}:predict", {"instances": [{"a": [1, 2, 3], "b": True}]}).status == 400


def test_a_number_beyond_float32_is_refused(handler):
    """Where TensorFlow Serving would go on with an infinity; the largest float32 itself is taken."""
    for value, status in ((3.4028234e38, 200), (3.5e38, 400), (-1e39, 400), (10**400, 400)):
        answer = send(handler, "POST", "/v1/models/half_plus_two:predict", {"instances": [value]})
        assert answer.status == status
    assert "outside the range of float32" in answer.json()["error"]


@pytest.mark.parametrize(("model", "names"), [("tiny", LABELS), ("raw", ["0", "1", "2"])])
def test_the_best_classes_by_name(handler, model, names):
    """`top_k` names the best classes of each row, the best first, with the scores of a plain answer."""
    rows = ROWS if model == "tiny" else [[-128, 0, 5, 127], [3, 2, 1, 0]]
    body = {"instances": rows, "top_k": 2}
    url = f"/v1/models/{model}:predict"
    scores = np.array(send(handler, "POST", url, {"instances": rows}).json()["predictions"])
    expected = [
        [{"label": names[index], "score": row[index]} for index in np.argsort(-row, kind="stable")[:2]]
        for row in scores
    ]
    assert send(handler, "POST", url, body).json() == {"predictions": expected}
    columns = {"inputs": rows, "top_k": 2}
    assert send(handler, "POST", url, columns).json() == {"outputs": expected}


def test_classes_that_reach_a_threshold(handler):
    """`threshold` names the classes with at least that score, all or the k best: none, one or several for a row."""
    url = "/v1/models/tiny:predict"
    scores = send(handler, "POST", url, {"instances": ROWS}).json()["predictions"]
    least = sorted(np.ravel(scores))[-3]
    for more, most in (({}, 3), ({"top_k": 1}, 1), ({"top_k": 100}, 3)):
        answer = send(handler, "POST", url, {"instances": ROWS, "threshold": least, **more}).json()["predictions"]
        for row, named in zip(scores, answer, strict=True):
            assert [each["score"] for each in named] == sorted((s for s in row if s >= least), reverse=True)[:most]
    assert send(handler, "POST", url, {"instances": ROWS, "threshold": 2}).json() == {"predictions": [[], []]}
    plain = send(handler, "POST", url, {"instances": ROWS, "threshold": None, "top_k": None})
    assert plain.json() == {"predictions": scores}


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("tiny", {"top_k": 0}, "'top_k' is 0: expected a number of classes from 1"),
        ("tiny", {"top_k": True}, "'top_k' is true: expected a number of classes from 1"),
        ("tiny", {"top_k": "2"}, "expected a number of classes from 1"),
        ("tiny", {"threshold": "0.5"}, "expected a finite number"),
        ("tiny", {"threshold": float("nan")}, "'threshold' is NaN: expected a finite number"),
        ("half_plus_two", {"top_k": 2}, "no output of this model has a score for each class: y: float32[-1]"),
        ("two_by_two", {"threshold": 0.5}, "no output of this model has a score for each class"),
    ],
)
def test_what_cannot_be_named(handler, model, more, message):
    """A number of classes or a threshold that is not one, and a model without classes, are refused before it runs."""
    body = {"instances": [{"a": [1, 2, 3], "b": 1}] if model == "two_by_two" else ROWS[:1], **more}
    answer = send(handler, "POST", f"/v1/models/{model}:predict", body)
    assert (answer.status, message in answer.json()["error"]) == (400, True), answer.body


@pytest.mark.parametrize(
    ("verb", "model", "body", "message"),
    [
        ("regress", "half_plus_two", {}, "When method is regress, key 'examples' is expected and was not found"),
        ("classify", "tiny", {}, "When method is classify, key 'examples' is expected and was not found"),
        ("classify", "tiny", {"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ("classify", "tiny", {"examples": []}, "'examples' value is an empty array"),
        ("classify", "tiny", {"examples": [1]}, "Example must be JSON object"),
        ("classify", "tiny", {"examples": [{}], "context": 1}, "Example must be JSON object"),
        ("classify", "tiny", {"examples": [{}]}, "Missing feature: x"),
        ("classify", "tiny", {"examples": [{"x": [1, 2]}]}, "Expecting tensor size: 4 but got: 2"),
        ("classify", "tiny", {"examples": [{"x": {"b64": "AA=="}}]}, ""),
        ("classify", "half_plus_two", {"examples": [{"x": 1}]}, "Expected Classification signature method_name"),
        ("regress", "tiny", {"examples": [{"x": ROWS[0]}]}, "Expected Regression signature method_name"),
        ("regress", "half_plus_two", {"examples": [{"x": 1}], "signature_name": "y"}, "not found in signature def"),
        ("regress", "scalar", {"examples": [{"x": 1}]}, "Expected Regression signature"),
        ("predict", "tiny", {"instances": [[{"b64": "AA=="}] * 4]}, "is not of expected type: float"),
    ],
)
def test_bad_examples(handler, verb, model, body, message):
    """The servers' own words for what is wrong."""
    answer = send(handler, "POST", f"/v1/models/{model}:{verb}", body)
    assert (answer.status, message in answer.json()["error"]) == (400, True), answer.body


@pytest.mark.parametrize("path", ["/v1/models/tiny:predict", "/v2/models/tiny/infer"])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (np.array(ROWS, "<f4").tobytes(), RAW),
        (npy(np.array(ROWS, "<f4")), NPY),
        (npy(np.array(ROWS, ">f4")), NPY),
        (npy(np.array(ROWS, "<f8")), "Application/X-NPY; charset=binary"),
    ],
)
def test_raw_tensors(handler, path, body, content_type):
    """Bytes and .npy files, in any byte order and wider types, give what their JSON gives."""
    answer = send(handler, "POST", path, body, {"Content-Type": content_type.lower()})
    assert answer.status == 200, answer.body
    fields = answer.json()
    values = fields["predictions"] if "predictions" in fields else fields["outputs"][0]["data"]
    assert np.ravel(values).tolist() == np.ravel(predictions(handler, "tiny")).tolist()


def test_compressed_raw_tensors(handler):
    """A compressed tensor says so in its header, since any bytes may open one."""
    body = gzip.compress(np.array(ROWS, "<f4").tobytes())
    headers = {"Content-Type": RAW, "Content-Encoding": "gzip"}
    assert send(handler, "POST", "/v1/models/tiny:predict", body, headers).status == 200
    assert send(handler, "POST", "/v1/models/tiny:predict", body, {"Content-Type": RAW}).status == 400


@pytest.mark.parametrize("path", ["/v1/models/tiny:predict", "/v2/models/tiny/infer"])
def test_json_under_the_type_of_bytes(handler, path):
    """HTTP libraries call any bytes octet-stream: JSON under that name is JSON, a tensor that opens like it is not."""
    inputs = [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS}]
    body = json.dumps({"instances": ROWS} if "v1" in path else {"inputs": inputs}).encode()
    assert send(handler, "POST", path, body, {"Content-Type": RAW}).status == 200
    tensor = b"{   " + np.array(ROWS, "<f4").tobytes()[4:]
    assert send(handler, "POST", path, tensor, {"Content-Type": RAW}).status == 200


def test_one_row_needs_no_batch_dimension(handler):
    """A .npy file of one row's shape is one row."""
    answer = send(handler, "POST", "/v1/models/tiny:predict", npy(np.array(ROWS[0], "f4")), {"Content-Type": NPY})
    assert answer.json()["predictions"] == predictions(handler, "tiny", ROWS[:1])


@pytest.mark.parametrize(
    ("model", "body", "content_type", "message"),
    [
        ("tiny", b"", RAW, "0 bytes, expected a multiple of 16"),
        ("tiny", b"123", RAW, "3 bytes, expected a multiple of 16"),
        ("scalar", bytes(8), RAW, "8 bytes, expected 4"),
        ("two_by_two", bytes(16), RAW, "this one has "),
        ("tiny", b"no", NPY, "not a .npy file"),
        ("tiny", b"\x93NUMPY\x01\x00\xff\xff", NPY, "not a .npy file"),
        ("tiny", b"\x93NUMPY\x01\x00\x04\x00{1:(", NPY, "header cannot be read"),
        ("tiny", npy(np.array(["a"])), NPY, "header cannot be read, or holds no numbers"),
        ("tiny", npy(np.array([[1 + 2j] * 4])), NPY, "holds no numbers"),
        ("tiny", npy(np.zeros((2, 4), "f4"))[:-1], NPY, "but holds 31 bytes"),
        ("tiny", npy(np.zeros((2, 5), "f4")), NPY, "Expected [-1, 4], got [2, 5]"),
        ("tiny", npy(np.zeros((0, 4), "f4")), NPY, "Expected [-1, 4], got [0, 4]"),
        ("tiny", npy(np.zeros((4, 4), "f4", order="F")), NPY, "Fortran order"),
        ("int64", npy(np.zeros((1, 3), "f4")), NPY, "is not of expected type: int64"),
        ("tiny", b"GIF89a", "image/gif", "is not an image"),
        ("image", b"<svg/>", "image/svg+xml", "a file of the format SVG: expected PNG, JPEG, WebP, GIF or BMP"),
        ("tiny", picture(np.zeros((2, 2), "uint8")), "image/png", "is not an image"),
        ("image", b"\x89PNG\r\n\x1a\n", "image/png", "not a readable PNG file"),
        ("image", picture(np.zeros((2, 2, 3), "uint8"))[:45], "image/png", "not a readable PNG file"),
    ],
)
def test_bad_raw_bodies(handler, model, body, content_type, message):
    """A body that is not what its type says, or does not fit, is the client's fault and named."""
    answer = send(handler, "POST", f"/v1/models/{model}:predict", body, {"Content-Type": content_type})
    assert (answer.status, list(answer.json())) == (400, ["error"])
    assert message in answer.json()["error"]


def bodies_of(rows, datatype):
    """A tensor in every form that there is: protocol, body and headers."""
    size = {"binary_data_size": rows.nbytes}
    inputs = [{"name": "x", "shape": rows.shape, "datatype": datatype, "parameters": size}]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    yield "v1", json.dumps({"inputs": rows.tolist()}), {}
    yield "v2", head + rows.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
    for protocol in ("v1", "v2") if datatype != "FP16" else ("v1",):  # half floats are answered in binary only
        yield protocol, rows.tobytes(), {"Content-Type": RAW}
        yield protocol, npy(rows), {"Content-Type": NPY}
        yield protocol, npy(rows.astype(rows.dtype.newbyteorder(">"))), {"Content-Type": NPY}
        yield protocol, npy(rows.astype("<f8")), {"Content-Type": NPY}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("model", "dtype", "datatype"), [
    ("quantized", "<f4", "FP32"), ("half", "<f2", "FP16"), ("double", "<f8", "FP64"),
])  # fmt: skip
def test_what_a_quantized_model_has_no_code_for_is_refused_in_every_body(handler, model, dtype, datatype, value):
    """NaN and infinities are 400 as JSON, bytes, .npy of any type, and V2's binary tensors; what is finite passes."""
    rows = np.zeros((1, 4 if model == "quantized" else 3), dtype)
    for status in (200, 400):
        for protocol, body, headers in bodies_of(rows, datatype):
            path = f"/v1/models/{model}:predict" if protocol == "v1" else f"/v2/models/{model}/infer"
            answer = send(handler, "POST", path, body, headers)
            assert answer.status == status, (path, headers, answer.body)
            assert status == 200 or "NaN or an infinity" in answer.json()["error"]
        rows[0, 2] = value


def test_the_largest_doubles_are_finite(handler):
    """Two values whose sum is over the range are finite all the same."""
    rows = np.array([[1.7e308, 1.7e308, 0.0]])
    for body, headers in ((json.dumps({"inputs": rows.tolist()}), {}), (rows.tobytes(), {"Content-Type": RAW})):
        assert send(handler, "POST", "/v1/models/double:predict", body, headers).status == 200


def numbers_of(body):
    """All numbers of a JSON document but those of its frame, as they are written."""
    found = []
    json.loads(body, parse_float=lambda text: found.append(text) or float(text))
    return found


def test_float32_answers_have_the_shortest_digits(handler):
    """Each number gives the float32 that the model gave, bit for bit, in the digits that numpy gives it."""
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype("f4")
    inputs = [{"name": "x", "shape": rows.shape, "datatype": "FP32", "data": rows.tolist()}]
    binary = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = send(handler, "POST", "/v2/models/tiny/infer", binary)
    outputs = np.frombuffer(answer.body[int(answer.headers["inference-header-content-length"]) :], "f4")
    examples = {"examples": [{"x": row} for row in rows.tolist()]}
    for path, body in (
        ("/v1/models/tiny:predict", {"instances": rows.tolist()}),
        ("/v1/models/tiny:predict", {"inputs": rows.tolist()}),
        ("/v1/models/tiny:classify", examples),
        ("/v2/models/tiny/infer", {"inputs": inputs}),
    ):
        texts = numbers_of(send(handler, "POST", path, body).body)
        assert np.array_equal(np.array(texts, "f4"), outputs), path
        assert [float(text) for text in texts] == [float(str(value)) for value in outputs], path


@pytest.mark.parametrize("digits", [310, 400, 4299, 5000, 100_000])
@pytest.mark.parametrize("model", ["tiny", "quantized", "half", "double", "int64"])
def test_integers_of_any_length_are_the_clients_fault(handler, model, digits):
    """A number that no type holds is 400 in every protocol, wherever a number may be."""
    width = 4 if model in ("tiny", "quantized") else 3
    number = "1" + "0" * (digits - 1)
    row = "[" + ",".join(["1"] * (width - 1)) + f",{number}]"
    datatype = {"half": "FP16", "double": "FP64", "int64": "INT64"}.get(model, "FP32")
    tensor = f'"name": "x", "datatype": "{datatype}"'
    shapes = f'{{"inputs": [{{{tensor}, "shape": [%s, {width}], %s}}]}}'
    for path, body in (
        (f"v1/models/{model}:predict", f'{{"instances": [{row}]}}'),
        (f"v1/models/{model}:predict", f'{{"inputs": [[-{row[1:]}]}}'),
        (f"v1/models/{model}:classify", f'{{"examples": [{{"x": {row}}}]}}'),
        (f"v1/models/{model}:regress", f'{{"examples": [{{"x": {row}}}]}}'),
        (f"v2/models/{model}/infer", shapes % (1, f'"data": {row}')),
        (f"v2/models/{model}/infer", shapes % (1, f'"data": [{row}]')),
        (f"v2/models/{model}/infer", shapes % (number, '"data": [1]')),
        (f"v2/models/{model}/infer", shapes % (number, '"parameters": {"binary_data_size": 4}')),
        (f"v2/models/{model}/infer", shapes % (1, f'"parameters": {{"binary_data_size": {number}}}')),
    ):
        answer = send(handler, "POST", f"/{path}", body)
        assert answer.status == 400, (path, body[:100], answer.body[:300])
        assert len(answer.body) < 1000


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_preprocessed_as_the_manifest_says(handler, kind):
    """Pixels become scale * pixel + offset, in the model's size and order of channels."""
    pixels = np.full((2, 3, 3), (10, 128, 250), "uint8")
    encoded = picture(pixels, kind)
    decoded = np.asarray(Image.open(io.BytesIO(encoded)))
    answer = send(handler, "POST", "/v1/models/image:predict", encoded, {"Content-Type": f"image/{kind.lower()}"})
    assert answer.status == 200, answer.body
    expected = predictions(handler, "image", [(decoded / 255 - 0.5).tolist()])
    assert answer.json()["predictions"] == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("model", "dims", "format"),
    [("image", [2, 3, 3], "FORMAT_NHWC"), ("codes", [2, 3, 3], "FORMAT_NHWC"), ("pixels", [4], "FORMAT_NONE")],
)
def test_the_configuration_names_images(handler, model, dims, format):  # noqa: A002 - Triton's word
    """Triton's clients of images look for height, width and channels there, without the batch."""
    config = send(handler, "GET", f"/v2/models/{model}/config").json()
    assert (config["max_batch_size"], config["input"][0]["dims"], config["input"][0]["format"]) == (32, dims, format)


def test_a_picture_is_resized_and_converted(handler):
    """A larger gray picture serves an RGB model of another size."""
    gray = np.full((20, 30), 77, "uint8")
    answer = send(handler, "POST", "/v2/models/image/infer", picture(gray), {"Content-Type": "image/png"})
    expected = predictions(handler, "image", [np.full((2, 3, 3), 77 / 255 - 0.5).tolist()])
    assert answer.json()["outputs"][0]["data"] == pytest.approx(expected[0], abs=1e-6)


def test_a_flat_input_with_known_pixels_takes_a_square_picture(handler):
    """Four values are two by two gray pixels where the manifest says what pixels mean."""
    gray = np.array([[0, 51], [102, 255]], "uint8")
    answer = send(handler, "POST", "/v1/models/pixels:predict", picture(gray), {"Content-Type": "image/png"})
    assert answer.json()["predictions"] == predictions(handler, "pixels", [[0.0, 0.2, 0.4, 1.0]])


def test_raw_codes_take_pixels_as_they_are(handler):
    """An input of uint8 codes without preprocessing gets the pixels themselves, by its scale."""
    pixels = np.arange(18, dtype="uint8").reshape(2, 3, 3)
    answer = send(handler, "POST", "/v1/models/codes:predict", picture(pixels), {"Content-Type": "image/png"})
    assert answer.json()["predictions"] == predictions(handler, "codes", [pixels.tolist()])


def test_a_picture_bomb_is_refused_before_it_unfolds(handler):
    """A picture of a hundred million pixels in a few kilobytes costs no memory."""
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    answer = send(handler, "POST", "/v1/models/image:predict", buffer.getvalue(), {"Content-Type": "image/png"})
    assert (answer.status, "the limit of 67108864" in answer.json()["error"]) == (413, True)


def test_without_pillow_pictures_are_not_offered(handler, monkeypatch):
    """A deployment without an image decoder says so, as 501."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    answer = send(handler, "POST", "/v1/models/image:predict", b"x", {"Content-Type": "image/png"})
    assert (answer.status, "`--with images`" in answer.json()["error"]) == (501, True)


@settings(max_examples=200)
@given(st.binary(max_size=80), st.sampled_from([RAW, NPY, "image/png", "image/jpeg", "image/x", "application/json"]),
       st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x1f\x8b"]))  # fmt: skip
def test_no_raw_body_gives_a_5xx(handler, tail, content_type, head):
    """Whatever bytes come under whatever type, they are answered or told what is wrong."""
    for model in ("tiny", "image", "int64"):
        answer = send(handler, "POST", f"/v1/models/{model}:predict", head + tail, {"Content-Type": content_type})
        assert answer.status in (200, 400)


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/openapi.json", "/v1/models", "/v1/models/tiny", "/v2", "/v2/models/tiny"]
)
def test_head_is_get_without_its_body(handler, path):
    """HEAD answers with the status, the type and the length of GET, and nothing in the body."""
    head, get = send(handler, "HEAD", path), send(handler, "GET", path)
    assert (head.status, head.headers["content-type"], head.body) == (200, get.headers["content-type"], b"")
    assert int(head.headers["content-length"]) == len(get.body) > 0


@pytest.mark.parametrize(("path", "status"), [("/v1/models/nope", 404), ("/v1/models/tiny:predict", 405)])
def test_head_of_an_error_has_no_body_either(handler, path, status):
    """An error's text is as long as GET's, and is left out."""
    head, get = send(handler, "HEAD", path), send(handler, "GET", path)
    assert (head.status, get.status, head.body) == (status, status, b"")
    assert abs(int(head.headers["content-length"]) - len(get.body)) <= 1  # one message names the method


@pytest.mark.parametrize("separator", [":", "%3A", "%3a"])
@pytest.mark.parametrize("verb", ["predict", "classify", "regress", "explain"])
def test_a_verb_has_its_method(handler, verb, separator):
    """Only POST predicts; the colon may be percent-encoded, as some HTTP libraries send it."""
    path = f"/v1/models/tiny{separator}{verb}"
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = send(handler, method, path)
        assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert send(handler, "OPTIONS", path).headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("path", ["/v1/models/tiny%3Apredict", "/v1/models/tiny/versions/1%3apredict"])
def test_a_percent_encoded_colon_predicts(handler, path):
    """The path means what it means with a colon."""
    answer = send(handler, "POST", path, {"instances": ROWS})
    assert (answer.status, answer.json()["predictions"]) == (200, predictions(handler, "tiny"))


def test_a_byte_order_mark_before_json_is_skipped(handler):
    """PowerShell and Windows' editors put one there; under any type, and in both protocols."""
    body = b"\xef\xbb\xbf" + json.dumps({"instances": ROWS}).encode()
    for content_type in ("application/json", RAW):
        answer = send(handler, "POST", "/v1/models/tiny:predict", body, {"Content-Type": content_type})
        assert (answer.status, answer.json()) == (200, {"predictions": predictions(handler, "tiny")})
    rows = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": ROWS}
    assert (
        send(handler, "POST", "/v2/models/tiny/infer", b"\xef\xbb\xbf" + json.dumps({"inputs": [rows]}).encode()).status
        == 200
    )


@pytest.mark.parametrize("path", ["/v1/models/tiny:predict", "/v2/models/tiny/infer"])
def test_media_types_have_no_case(handler, path):
    """`Application/Octet-Stream` is a tensor's bytes, as in small letters."""
    body = np.array(ROWS, np.float32).tobytes()
    spelled, plain = (send(handler, "POST", path, body, {"Content-Type": kind}) for kind in (RAW.title(), RAW))
    assert (spelled.status, spelled.json()) == (200, plain.json())


def test_a_body_nobody_can_decompress_is_415(handler):
    """The answer names what can be."""
    answer = send(handler, "POST", "/v1/models/tiny:predict", b"x", {"Content-Encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


def test_below_a_base_path(store):
    """With BASE_PATH set, paths with it and without answer alike, and the description says where it is."""
    handler = load_module(store, BASE_PATH="/ml/v1/").handler
    for base in ("", "/ml/v1"):
        assert send(handler, "GET", f"{base}/v1/models/tiny").status == 200
        assert send(handler, "GET", base + "/").json() == {"status": "alive"}
        document = send(handler, "GET", f"{base}/openapi.json").json()
        assert document["servers"] == [{"url": base or "/"}]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/v1/models/tiny", "GET, HEAD, OPTIONS"),
        ("/v1/models/tiny:predict", "POST, OPTIONS"),
        ("/v2/models/tiny/infer", "POST, OPTIONS"),
        ("/v2/repository/index", "POST, OPTIONS"),
    ],
)
def test_options_names_the_methods(handler, path, allowed):
    """OPTIONS is a 204 with the path's methods, and without CORS says nothing to browsers."""
    answer = send(handler, "OPTIONS", path)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allowed, b"")
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_cors(store):
    """With an origin set, preflights, answers and errors all carry it; a single one makes caches keep them apart."""
    handler = load_module(store, CORS_ALLOW_ORIGIN="https://app.example").handler
    for method, path in (("OPTIONS", "/v2/models/tiny/infer"), ("GET", "/v2"), ("GET", "/v2/models/nope")):
        headers = send(handler, method, path).headers
        assert (headers["access-control-allow-origin"], headers["vary"]) == ("https://app.example", "Origin")
        assert "Inference-Header-Content-Length" in headers["access-control-allow-headers"]
        assert "Inference-Header-Content-Length" in headers["access-control-expose-headers"]
    rows = {"instances": ROWS * 200}
    answer = send(handler, "POST", "/v1/models/tiny:predict", rows, {"Accept-Encoding": "gzip"})
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding, Origin")
    anyone = load_module(store, CORS_ALLOW_ORIGIN="*").handler
    assert send(anyone, "GET", "/").headers["access-control-allow-origin"] == "*"


def test_openapi_leaves_out_what_cannot_be_read(tmp_path):
    """Other models are described all the same."""
    publish(tmp_path, "tiny", data=golden("tiny_int8"))
    publish(tmp_path, "damaged", data=golden("tiny_int8"))
    (tmp_path / "damaged/1/manifest.json").write_text("{")
    paths = send(load_module(tmp_path, "tiny").handler, "GET", "/openapi.json").json()["paths"]
    assert "/v1/models/tiny:predict" in paths
    assert "/v1/models/damaged:predict" not in paths


def test_openapi_describes_every_model_of_the_store(handler):
    """The document has a model's routes and real shapes, loaded or not."""
    document = send(handler, "GET", "/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for model in ("tiny", "two_by_two", "scalar", "image"):
        assert "post" in document["paths"][f"/v1/models/{model}:predict"]
        assert "post" in document["paths"][f"/v2/models/{model}/infer"]
    schemas = document["components"]["schemas"]
    row = schemas["image.PredictRequest"]["oneOf"][0]["properties"]["instances"]["anyOf"][1]["items"]
    sizes = []
    while row["type"] == "array":
        assert row["minItems"] == row["maxItems"]
        sizes.append(row["minItems"])
        row = row["items"]
    assert (sizes, row["type"]) == ([2, 3, 3], "number")
    assert "instances" not in json.dumps(schemas["scalar.PredictRequest"]["required"])
    assert send(handler, "POST", "/openapi.json").status == 405


WORST = """
import json, sys
import predict
body = sys.argv[1] % ",".join([sys.argv[2]] * ((6 * 1024 * 1024 - 500) // (len(sys.argv[2]) + 1)))
event = json.load(open(sys.argv[3]))
event |= {"rawPath": sys.argv[4], "body": body}
status = predict.handler(event, None)["statusCode"]
# getrusage would answer the parent's peak, where that was higher: it is inherited through fork.
peak_kb = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([status, peak_kb]))
"""


@pytest.mark.parametrize("unit", ["[[[[]]]]", '{"a":[]}'])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/tiny:predict", '{"instances":[%s]}'),
        ("/v2/models/tiny/infer", '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%s]}]}'),
        ("/v2/models/tiny/infer", '{"inputs":[],"parameters":{"a":[%s]}}'),
    ],
)
def test_the_worst_json_fits_the_default_memory(store, path, body, unit):
    """The largest body there can be, all of it tiny containers, takes less than the function's default memory."""
    environment = {**os.environ, "PYTHONPATH": str(FUNCTIONS), "MODEL_STORE": store.as_uri(), "LOG_LEVEL": "ERROR",
                   "METRICS_NAMESPACE": ""}  # fmt: skip
    event = str(EVENTS / "http_api_v2_predict.json")
    done = subprocess.run(
        [sys.executable, "-c", WORST, body, unit, event, path],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    status, peak_kb = json.loads(done.stdout.splitlines()[-1])
    assert status == 400
    assert peak_kb < 400 * 1024
