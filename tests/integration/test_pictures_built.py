"""A folder of pictures from files to raw requests: the build's accuracy, to the last row, over HTTP and in batch."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from litelambda.commands.build import build
from litelambda.common.progress import Reporter
from litelambda.data.dataset import load_data
from litelambda.recipe.load import load_recipe
from litelambda_serving.asgi import Application
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from support import server
from support.handler_client import load_module
from support.odd_pictures import encoded, with_orientation

pytestmark = pytest.mark.slow

LABELS = ("left", "right", "top")
BACKGROUND = (0, 0, 0)
RECIPE = """
[model]
builder = "mlp"
hidden = [16]
[data]
format = "images"
path = "set"
image_size = [10, 8]
color = "grayscale"
fit = "crop"
background = [0, 0, 0]
normalize = "0-1"
reshape = [80]
validation_split = 0
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.005 }
epochs = 6
[gate]
max_accuracy_drop = 0.2
[publish]
name = "sides"
"""


def make_picture(label: str, seed: int) -> Image.Image:
    """A noisy gray picture with one bright side; a few have too little of it to be told from others."""
    rng = np.random.default_rng(seed)
    height, width = (int(size) for size in rng.integers(16, 40, 2))
    values = rng.integers(0, 110, (height, width))
    bright = {"left": np.s_[:, : width // 2], "right": np.s_[:, width // 2 :], "top": np.s_[: height // 2]}[label]
    values[bright] += int(rng.choice([10, 60, 120]))
    return Image.fromarray(values.astype(np.uint8))


def make_file(label: str, number: int) -> tuple[str, bytes]:
    """The picture in one of the forms that people have it in: its name's ending, and its content."""
    image = make_picture(label, number)
    kind = number % 6
    if kind < 2:  # a phone's: stored on its side or upside down
        turned = image.transpose((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180)[kind])
        return "jpg", with_orientation(turned.convert("RGB"), (6, 3)[kind], quality=95)
    if kind == 2:  # white paper of which the picture is the opacity
        paper = Image.new("L", image.size, 255)
        return "png", encoded(Image.merge("LA", (paper, image)), "PNG")
    if kind == 3:
        return "png", encoded(Image.fromarray(np.asarray(image).astype(np.uint16) * 256 + 77), "PNG")
    if kind == 4:
        return "webp", with_orientation(image.convert("RGB").transpose(Image.Transpose.ROTATE_270), 8, "WEBP")
    return "gif", encoded(image, "GIF", save_all=True, append_images=[ImageOps.invert(image)])


def independent(data: bytes) -> np.ndarray[Any, Any]:
    """The pixels of a file by Pillow's and numpy's own functions."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, BACKGROUND)
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas.convert("RGB")
    return np.asarray(ImageOps.fit(image.convert("L"), (8, 10), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of pictures: its store, its test files by name, the accuracy of its build, and the recipe."""
    folder = tmp_path_factory.mktemp("sides")
    files = {}
    for part, numbers in (("train", range(90)), ("test", range(1000, 1024))):
        for label in LABELS:
            (folder / "set" / part / label).mkdir(parents=True)
            for number in numbers:
                ending, data = make_file(label, number)
                name = f"{label}/{number}.{ending}"
                (folder / "set" / part / name).write_bytes(data)
                if part == "test":
                    files[name] = data
    (folder / "set" / "train" / "top" / "cut.jpg").write_bytes(make_file("top", 0)[1][:200])
    (folder / "sides.toml").write_text(RECIPE)
    recipe = load_recipe(folder / "sides.toml")
    result = build(recipe, (folder / "store").as_uri(), Reporter())
    return SimpleNamespace(
        store=folder / "store",
        set=folder / "set",
        files=dict(sorted(files.items())),
        accuracy=result.metrics["quantized"]["accuracy"],
        recipe=recipe,
    )


@pytest.fixture(scope="module")
def port(sides: SimpleNamespace) -> Any:
    with server.running(Application(load_module(sides.store))) as port:
        yield port


@pytest.fixture(scope="module")
def answers(sides: SimpleNamespace, port: int) -> list[list[float]]:
    """What the model answers to numpy's values of the test files, sent as its own."""
    values = [independent(data).reshape(-1).astype(np.float32) * np.float32(1 / 255) for data in sides.files.values()]
    body = {"prepared": True, "instances": [row.tolist() for row in values]}
    return send(port, "/v1/models/sides:predict", body)["predictions"]


def send(port: int, path: str, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> Any:
    """A request over HTTP, and its answer's JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _headers, answer = server.send(port, "POST", path, data, dict(headers))
    assert status == 200, answer
    return json.loads(answer)


def accuracy(sides: SimpleNamespace, predictions: list[list[float]]) -> float:
    found = [LABELS[int(np.argmax(row))] for row in predictions]
    return float(np.mean([name.startswith(label + "/") for name, label in zip(sides.files, found, strict=True)]))


def test_training_has_the_pixels_of_an_independent_decoder(sides: SimpleNamespace) -> None:
    """Test rows of the build are numpy's values of the files, in memory and streamed; the broken file is named."""
    expected = np.stack([independent(data).reshape(-1) for data in sides.files.values()])
    for streaming in (False, True):
        data = load_data(sides.recipe.data.model_copy(update={"streaming": streaming}), sides.recipe.folder)
        assert data.streamed is streaming
        np.testing.assert_array_equal(data.test.x[:], expected.astype(np.float32) * np.float32(1 / 255))
        assert "1 of 343 images cannot be read" in data.describe()
        assert "cut.jpg: not a readable JPEG file" in data.describe()


def test_the_manifest_has_the_rules(sides: SimpleNamespace) -> None:
    """All that it takes from a file to the input is written down."""
    manifest = json.loads((sides.store / "sides" / "1" / "manifest.json").read_bytes())
    rules = {"resize": "bilinear", "fit": "crop", "background": [0, 0, 0], "scale": 1 / 255, "offset": 0.0}
    wanted = {"kind": "image", "field": "image", "shape": [10, 8, 1], **rules}
    assert (manifest["format_version"], manifest["preprocessing"]) == (2, {"input": wanted})


def test_requests_have_the_builds_accuracy(sides: SimpleNamespace, port: int, answers: list[list[float]]) -> None:
    """Bodies, base64 and V2's BYTES of the raw files are predicted as in the build, row by row."""
    assert accuracy(sides, answers) == sides.accuracy
    bodies = [
        send(port, "/v1/models/sides:predict", data, (("Content-Type", "image/*"),))["predictions"][0]
        for data in sides.files.values()
    ]
    assert bodies == answers
    rows = [{"image": {"b64": base64.b64encode(data).decode()}} for data in sides.files.values()]
    assert send(port, "/v1/models/sides:predict", {"instances": rows})["predictions"] == answers
    texts = [row["image"]["b64"] for row in rows]
    entry = {"name": "image", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
    found = send(port, "/v2/models/sides/infer", {"inputs": [entry]})["outputs"][0]["data"]
    assert found == np.ravel(answers).tolist()


def test_batches_have_the_builds_accuracy(sides: SimpleNamespace, answers: list[list[float]], tmp_path: Path) -> None:
    """A folder of the raw files, JSON Lines of base64 and a .npy of pixels are scored as in the build, row by row."""
    lines = [json.dumps({"b64": base64.b64encode(data).decode()}) for data in sides.files.values()]
    (tmp_path / "files.jsonl").write_text("\n".join(lines))
    np.save(tmp_path / "pixels.npy", np.stack([independent(data) for data in sides.files.values()]))
    sources = [
        f"{(sides.set / 'test').as_uri()}/",
        *((tmp_path / name).as_uri() for name in ("files.jsonl", "pixels.npy")),
    ]
    for number, source in enumerate(sources):
        output = tmp_path / f"{number}.out"
        run_job(Job(source, output.as_uri(), model="sides"), ModelSource(sides.store.as_uri()))
        rows = [json.loads(line) for line in output.read_bytes().splitlines()]
        assert [row["prediction"] for row in rows] == answers
        if number == 0:
            assert [row["file"] for row in rows] == list(sides.files)
            assert np.mean([row["file"].startswith(row["label"] + "/") for row in rows]) == sides.accuracy
