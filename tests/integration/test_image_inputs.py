"""One rule for images: what an image input is, and what a pixel becomes, online and in batch."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from litelambda_serving.bodies.images import check_image_size, decode_image, image_size
from litelambda_serving.errors import RequestError
from litelambda_serving.manifest import Manifest
from litelambda_serving.preprocessing.pixels import pixel_values
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from litelambda_serving.tensor import DTYPES, Quantization, TensorSpec
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.scoring_files import make_store

ONE = {"scale": 1 / 255, "offset": -0.5}
EACH = {"scale": [0.1] * 4, "offset": [0.0] * 4}


@pytest.mark.parametrize(
    ("dtype", "shape", "preprocessing", "size"),
    [
        ("float32", (-1, 28, 28), None, (28, 28, 1)),
        ("float32", (-1, 28, 20, 1), ONE, (28, 20, 1)),
        ("float16", (1, 28, 20, 3), None, (28, 20, 3)),
        ("uint8", (-1, 5, 6, 4), None, (5, 6, 4)),
        ("int64", (-1, 5, 6, 3), None, (5, 6, 3)),
        ("float32", (-1, 784), ONE, (28, 28, 1)),
        ("float32", (-1, 12), {"scale": 2}, (2, 2, 3)),
        ("float32", (-1, 4), None, None),
        ("float32", (-1, 9), None, None),
        ("float32", (-1, 16), None, None),
        ("float32", (-1, 4), EACH, None),
        ("float32", (-1, 5), ONE, None),
        ("float32", (-1, 5, 6, 2), ONE, None),
        ("float32", (-1, 5, 6, 3), {"scale": [1, 1, 1], "offset": 0}, (5, 6, 3)),
        ("float32", (-1, 5, 6, 4), {"scale": [1, 1, 1], "offset": 0}, None),
        ("float32", (-1,), ONE, None),
        ("float32", (-1, 2, 5, 6, 3), None, None),
        ("bool", (-1, 5, 6), None, None),
        ("string", (-1, 5, 6), None, None),
        ("float32", (-1, 5, 6), {"offset": 1.0}, None),
        ("float32", (-1, 5, 6), {"scale": "2"}, None),
    ],
)
def test_what_an_image_input_is(dtype, shape, preprocessing, size):
    """Numbers with a height and a width are; a table's row is not, though its columns be a square number."""
    spec = TensorSpec("x", DTYPES[dtype], shape)
    assert image_size(spec, preprocessing) == size
    if size is None:
        with pytest.raises(RequestError, match="is not an image"):
            check_image_size(spec, preprocessing)


@pytest.mark.parametrize("scaling", [ONE, {"scale": 0.0173, "offset": -2.1179}, {"scale": 3.3, "offset": 0.1}])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_pixels_are_scaled_as_in_training(dtype, scaling):
    """Each of the 256 values is numpy's in float32, bit for bit, as a build scales its training rows."""
    values = b"".join(pixel_values(TensorSpec("x", DTYPES[dtype], (-1, 2, 2)), scaling))
    raw = np.arange(256, dtype=np.uint8)
    wanted = raw.astype(np.float32) * np.float32(scaling["scale"])
    wanted += np.float32(scaling["offset"])
    np.testing.assert_array_equal(np.frombuffer(values, dtype), wanted.astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "quantization", "preprocessing", "wanted"),
    [
        ("uint8", None, None, np.arange(256)),
        ("int8", None, None, np.arange(256) - 128),
        ("int32", None, None, np.arange(256)),
        ("int8", (1 / 255, -128), {"scale": 1 / 255}, np.arange(256) - 128),
        ("uint8", (2 / 255, 128), {"scale": 2 / 255, "offset": -1.0}, np.arange(256) + 0.5),
        ("int8", (1.0, 0), {"scale": 1.0, "offset": 0.0}, np.minimum(np.arange(256), 127)),
    ],
)
def test_codes_of_pixels(dtype, quantization, preprocessing, wanted):
    """Integer inputs take the pixels, or the codes of what preprocessing makes of them, within their range."""
    spec = TensorSpec("x", DTYPES[dtype], (-1, 2, 2), quantization and Quantization(*quantization))
    codes = np.frombuffer(b"".join(pixel_values(spec, preprocessing)), dtype).astype(float)
    assert len(codes) == 256
    assert np.abs(codes - wanted).max() <= 0.5


def picture(size, channels, kind="PNG", seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], channels), np.uint8).squeeze()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", np.float32), ("uint8", np.uint8)])
def test_each_channel_has_its_own_scale(dtype, wanted):
    """Lists in the manifest's preprocessing are for red, green and blue: numpy's answer, online and in batch."""
    scaling = {"scale": [0.5, 1.0, 2.0], "offset": [0.0, 10.0, -20.0]}
    spec = TensorSpec("x", DTYPES[dtype], (-1, 2, 3, 3))
    content = picture((3, 2), 3)
    manifest = Manifest()
    manifest.fields = {"preprocessing": {"x": scaling}}
    found = np.frombuffer(decode_image(content, spec, manifest, None)["x"].data, dtype).reshape(2, 3, 3)
    raw = np.asarray(Image.open(io.BytesIO(content))).astype(np.float32)
    expected = raw * np.float32(scaling["scale"]) + np.float32(scaling["offset"])
    if dtype == "uint8":
        expected = np.round(expected).clip(0, 255)
    np.testing.assert_array_equal(found, expected.astype(wanted))


MODELS = {
    "pixels": ("tiny_int8", {"preprocessing": {"x": ONE}}, (2, 2)),
    "image": ("image_2x3", {"preprocessing": {"image": {"scale": 1 / 127.5, "offset": -1.0}}}, (3, 2)),
    "raw": ("image_2x3", {}, (3, 2)),
    "codes": ("image_2x3_uint8", {}, (3, 2)),
    "scaled": ("image_2x3_uint8", {"preprocessing": {"image": {"scale": 1 / 300, "offset": 0.1}}}, (3, 2)),
    "table": ("tiny_int8", {}, (2, 2)),
    "columns": ("tiny_int8", {"preprocessing": {"x": EACH}}, (2, 2)),
    "raw_table": ("tiny_int8_raw", {}, (2, 2)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    for name, (data, fields, _size) in MODELS.items():
        publish(root, name, data=golden(data), **fields)
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store).handler


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("resize", [False, True])
def test_the_same_picture_online_and_in_batch(store, handler, tmp_path, model, channels, kind, resize):
    """A picture is predicted with the same answer, bit for bit, or is refused for the same reason, in both."""
    _data, _fields, size = MODELS[model]
    data = picture((9, 7) if resize else size, channels, kind)
    online = send(handler, "POST", f"/v1/models/{model}:predict", data, {"Content-Type": f"image/{kind.lower()}"})
    (tmp_path / f"a.{kind.lower()}").write_bytes(data)
    output = tmp_path / "out.jsonl"
    job = Job((tmp_path / f"a.{kind.lower()}").as_uri(), output.as_uri(), model=model, resize=resize)
    if "table" in model or model == "columns":
        assert (online.status, "is not an image" in online.json()["error"]) == (400, True)
        with pytest.raises(SchemaError) as caught:
            run_job(job, ModelSource(store.as_uri()))
        assert str(caught.value) == online.json()["error"]
        return
    assert online.status == 200, online.body
    run_job(job, ModelSource(store.as_uri()))
    prediction = json.loads(output.read_bytes())["prediction"]
    assert np.array_equal(np.float32(prediction), np.float32(online.json()["predictions"][0]))


@pytest.mark.parametrize("raised", [KeyError("x"), TypeError("x"), OverflowError(), RuntimeError("x"), IndexError()])
def test_whatever_the_decoder_raises_is_a_bad_row(tmp_path, monkeypatch, raised):
    """A damaged file makes it raise nearly anything: its row is bad, and no other."""
    models = make_store(tmp_path / "store", "image_2x3")
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.png").write_bytes(picture((3, 2), 3))
    to_bytes, calls = Image.Image.tobytes, []

    def failing(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise raised
        return to_bytes(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "tobytes", failing)
    output = tmp_path / "out.jsonl"
    job = Job((tmp_path / "in").as_uri() + "/", output.as_uri(), model="image_2x3", tolerated_bad=0.5)
    summary = run_job(job, models).summary
    assert (summary["rows_out"], summary["rows_bad"]) == (1, 1)
    assert b"not a readable PNG file: " in (tmp_path / "out.errors.jsonl").read_bytes()


COLUMNS = {"scale": [0.1, 0.02, 3.0, 1 / 7], "offset": [0.0, -1.0, 0.3, 5.0]}


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<i8", "<u8"])
@pytest.mark.parametrize("scaling", [ONE, {"scale": 0.0173, "offset": 0.0}, COLUMNS])
def test_the_same_integers_online_and_in_batch(tmp_path, dtype, scaling):
    """A .npy of integers for a float input is raw values in both, scaled in float32 as numpy does; floats are not."""
    publish(tmp_path / "store", "m", data=golden("tiny_int8"), preprocessing={"x": scaling})
    handler = load_module(tmp_path / "store").handler
    raw = np.random.default_rng(2).integers(0, 200, (20, 4)).astype(dtype)
    scaled = raw.astype(np.float32) * np.float32(scaling["scale"]) + np.float32(scaling["offset"])
    answers = []
    for number, rows in enumerate((raw, scaled)):
        stream = io.BytesIO()
        np.save(stream, rows)
        answer = send(handler, "POST", "/v1/models/m:predict", stream.getvalue(), {"Content-Type": "application/x-npy"})
        answers.append(np.float32(answer.json()["predictions"]))
        (tmp_path / f"{number}.npy").write_bytes(stream.getvalue())
        job = Job((tmp_path / f"{number}.npy").as_uri(), (tmp_path / f"{number}.out").as_uri(), model="m")
        run_job(job, ModelSource((tmp_path / "store").as_uri()))
        lines = (tmp_path / f"{number}.out").read_bytes().splitlines()
        answers.append(np.float32([json.loads(line)["prediction"] for line in lines]))
    plain = send(handler, "POST", "/v1/models/m:predict", {"instances": scaled.tolist()}).json()["predictions"]
    for answer in answers:
        np.testing.assert_array_equal(answer, np.float32(plain))
