"""Models of pictures: files and raw pixels have the same answers in every form of a request and of a batch."""

from __future__ import annotations

import base64
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.odd_pictures import PICTURES, REFUSED, pixels, with_orientation

SCALE, OFFSET = [0.5, 1.0, 0.25], [0.0, -10.0, 3.0]
DOCUMENT = {"kind": "image", "field": "photo", "resize": "bicubic", "fit": "crop", "scale": SCALE, "offset": OFFSET}
FILES = {
    "turned.jpg": with_orientation(Image.fromarray(pixels(40, 30, 3, 1)), 6),
    **{name: PICTURES[name] for name in ("alpha.png", "gray_16_bit.png", "lossy.webp", "animated.gif", "palette.bmp")},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    fields = {"format_version": 2, "preprocessing": {"image": DOCUMENT}}
    publish(root, "photos", data=golden("image_2x3"), **fields)
    return root


@pytest.fixture(scope="module")
def handler(store):
    return load_module(store).handler


def expected_pixels(data: bytes) -> np.ndarray:
    """A file's pixels as the manifest says, by Pillow's own functions."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return np.asarray(ImageOps.fit(canvas.convert("RGB"), (3, 2), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def answers(handler):
    """By file, what the model answers to the values that numpy makes of its pixels."""
    found = {}
    for name, data in FILES.items():
        values = expected_pixels(data).astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)
        body = {"prepared": True, "instances": [values.tolist()]}
        found[name] = send(handler, "POST", "/v1/models/photos:predict", body).json()["predictions"][0]
    return found


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_files_in_every_request(handler, answers):
    """An image body, base64 in JSON, by itself or by name, and V2's BYTES in both forms have the same answers."""
    for name, data in FILES.items():
        body = send(handler, "POST", "/v1/models/photos:predict", data, {"Content-Type": "image/jpeg"})
        assert body.json()["predictions"] == [answers[name]], name
    rows = [{"b64": text_of(data)} for data in FILES.values()]
    for instances in (rows, [{"photo": row} for row in rows]):
        found = send(handler, "POST", "/v1/models/photos:predict", {"instances": instances})
        assert found.json()["predictions"] == list(answers.values())
    columns = send(handler, "POST", "/v1/models/photos:predict", {"inputs": {"photo": rows}})
    assert columns.json()["outputs"] == list(answers.values())
    texts = [text_of(data) for data in FILES.values()]
    entry = {"name": "photo", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    found = send(handler, "POST", "/v2/models/photos/infer", {"inputs": [entry]}).json()["outputs"][0]["data"]
    assert found == np.ravel(list(answers.values())).tolist()
    content = b"".join(len(data).to_bytes(4, "little") + data for data in FILES.values())
    entry = {**entry, "parameters": {"binary_data_size": len(content)}}
    del entry["data"]
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    found = send(handler, "POST", "/v2/models/photos/infer", head + content, headers).json()["outputs"][0]["data"]
    assert found == np.ravel(list(answers.values())).tolist()


def test_raw_pixels_in_every_request(handler, answers):
    """Nested whole numbers, a .npy of bytes, and V2's UINT8 and FP32 of the model's size are raw pixels."""
    raw = np.stack([expected_pixels(data) for data in FILES.values()])
    wanted = list(answers.values())
    found = send(handler, "POST", "/v1/models/photos:predict", {"instances": raw.tolist()})
    assert found.json()["predictions"] == wanted
    for values in (raw, raw.astype(np.int64)):
        stream = io.BytesIO()
        np.save(stream, values)
        headers = {"Content-Type": "application/x-npy"}
        found = send(handler, "POST", "/v1/models/photos:predict", stream.getvalue(), headers)
        assert found.json()["predictions"] == wanted
    for datatype in ("UINT8", "FP32", "INT64"):
        entry = {"name": "photo", "datatype": datatype, "shape": list(raw.shape), "data": raw.tolist()}
        found = send(handler, "POST", "/v2/models/photos/infer", {"inputs": [entry]}).json()["outputs"][0]["data"]
        assert found == np.ravel(wanted).tolist()


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ({"b64": text_of(REFUSED["truncated.jpg"][0])}, "field 'photo', row 0: not a readable JPEG file"),
        ({"b64": text_of(REFUSED["bomb.png"][0])}, "field 'photo', row 0: the picture has 30000 x 30000 pixels"),
        ({"b64": "no base64"}, "field 'photo', row 0: 'b64' is not base64"),
        ({"photo": "a.jpg"}, 'expected a picture as {"b64": "…"}, or its pixels in the model\'s shape, got \'a.jpg\''),
        ({"photo": None}, "got a missing value"),
        ({"image": {"b64": ""}}, "missing 'photo' and unknown 'image'"),
        ([[[0.5, 0, 0]] * 3] * 2, "pixels are whole numbers from 0 to 255"),
        ([[[256, 0, 0]] * 3] * 2, "outside the range of uint8"),
        ([[[1, 2, 3]] * 3], "Expecting tensor size: 2 but got: 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_a_picture_is_refused(handler, instance, reason):
    """The message names the field, the row and what is wrong, also for values that were scaled by the client."""
    answer = send(handler, "POST", "/v1/models/photos:predict", {"instances": [instance]})
    assert answer.status == 400
    assert reason in answer.json()["error"]


@pytest.mark.parametrize("value", [0.5, -1, 256, 1e300])
def test_numbers_that_are_not_pixels_are_refused_in_v2(handler, value):
    """FP64 may hold anything: what is not a whole number from 0 to 255 is refused, not rounded."""
    entry = {"name": "photo", "datatype": "FP64", "shape": [1, 2, 3, 3], "data": [value] * 18}
    answer = send(handler, "POST", "/v2/models/photos/infer", {"inputs": [entry]})
    assert (answer.status, "pixels are whole numbers from 0 to 255" in answer.json()["error"]) == (400, True)


def test_a_picture_body_that_is_too_large_is_413(handler):
    """An image body beyond the memory's limit is too large; a damaged one is a bad request."""
    for name, status in (("bomb.png", 413), ("truncated.png", 400), ("phone.heic", 400)):
        data, reason = REFUSED[name]
        answer = send(handler, "POST", "/v1/models/photos:predict", data, {"Content-Type": "image/png"})
        assert (answer.status, reason in answer.json()["error"]) == (status, True)


def test_without_the_decoder_the_answer_names_the_remedy(handler, monkeypatch):
    """A package without the decoder says how to add it; raw pixels are answered all the same."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    for body, headers in ((FILES["alpha.png"], {"Content-Type": "image/png"}), (None, {})):
        row = {"b64": text_of(FILES["alpha.png"])}
        answer = send(handler, "POST", "/v1/models/photos:predict", body or {"instances": [row]}, headers)
        assert (answer.status, "`--with images`" in answer.json()["error"]) == (501, True)
    raw = [[[1, 2, 3]] * 3] * 2
    assert send(handler, "POST", "/v1/models/photos:predict", {"instances": [raw]}).status == 200


def scored(store, source, output, **fields):
    run_job(Job(source, output.as_uri(), model="photos", **fields), ModelSource(store.as_uri()))
    return [json.loads(line) for line in output.read_bytes().splitlines()]


def test_files_and_pixels_in_batch(store, answers, tmp_path):
    """A folder, JSON Lines of base64 or of pixels, .npy and .npz have the same answers as requests."""
    wanted = {name: answers[name] for name in sorted(answers)}
    (tmp_path / "in").mkdir()
    for name, data in FILES.items():
        (tmp_path / "in" / name).write_bytes(data)
    rows = scored(store, (tmp_path / "in").as_uri() + "/", tmp_path / "folder.jsonl")
    assert {row["file"]: row["prediction"] for row in rows} == wanted
    raw = np.stack([expected_pixels(FILES[name]) for name in wanted])
    lines = [{"photo": {"b64": text_of(FILES[name])}, "name": name} for name in wanted]
    (tmp_path / "files.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "pixels.jsonl").write_text("\n".join(map(json.dumps, raw.tolist())))
    np.save(tmp_path / "bytes.npy", raw)
    np.save(tmp_path / "wide.npy", raw.astype(np.int32))
    np.savez(tmp_path / "bytes.npz", image=raw)
    for name in ("files.jsonl", "pixels.jsonl", "bytes.npy", "wide.npy", "bytes.npz"):
        rows = scored(store, (tmp_path / name).as_uri(), tmp_path / f"{name}.out")
        assert [row["prediction"] for row in rows] == list(wanted.values()), name


def test_bad_files_in_batch_are_bad_rows(store, answers, tmp_path):
    """Each hostile file is a bad row with its reason, and the others are scored."""
    (tmp_path / "in").mkdir()
    for name, (data, _reason) in REFUSED.items():
        (tmp_path / "in" / f"{name}.png").write_bytes(data)
    (tmp_path / "in" / "good.png").write_bytes(FILES["alpha.png"])
    source = (tmp_path / "in").as_uri() + "/"
    (row,) = scored(store, source, tmp_path / "out.jsonl", tolerated_bad=1.0)
    assert row == {"file": "good.png", "prediction": answers["alpha.png"]}
    bad = map(json.loads, (tmp_path / "out.errors.jsonl").read_bytes().splitlines())
    reasons = {row["file"].removesuffix(".png"): row["reason"] for row in bad}
    assert reasons.keys() == REFUSED.keys()
    assert all(REFUSED[name][1] in reason for name, reason in reasons.items())
    with pytest.raises(SchemaError, match="images hold raw values"):
        scored(store, source, tmp_path / "prepared.jsonl", prepared=True)


def test_a_files_pixels_are_left_out(handler):
    """Of a picture in a file, each pixel as it was prepared; those left out are black."""
    raw = expected_pixels(FILES["palette.bmp"]).astype(int)
    without = []
    for place in np.ndindex(2, 3):
        changed = raw.copy()
        changed[place] = 0
        without.append(changed.tolist())
    body = {"instances": [raw.tolist(), *without]}
    whole, *others = send(handler, "POST", "/v1/models/photos:predict", body).json()["predictions"]
    picture = {"b64": text_of(FILES["palette.bmp"])}
    body = {"instances": [picture], "parameters": {"method": "leave_one_out", "baseline": "zeros"}}
    (found,) = send(handler, "POST", "/v1/models/photos:explain", body).json()["explanations"]
    expected = np.reshape(
        [np.ravel(whole)[found["target"]] - np.ravel(other)[found["target"]] for other in others], (2, 3)
    )
    np.testing.assert_allclose(found["attributions"]["photo"], expected, rtol=1e-4, atol=1e-5)
    raw_body = send(handler, "POST", "/v2/models/photos/explain", FILES["palette.bmp"], {"Content-Type": "image/bmp"})
    by_default = json.loads(raw_body.json()["outputs"][-1]["data"][0])
    assert (by_default["method"], by_default["baseline"]) == ("occlusion", "blurred")
