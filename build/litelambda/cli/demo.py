"""`make demo`: the main job from a recipe to an answer over HTTP, by the commands that a user would type."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from litelambda.common.errors import LitelambdaError
from litelambda.common.paths import DEFAULT_STORE
from litelambda.recipe.load import load_recipe
from litelambda.store.artifact_store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda.store.artifact_store import FetchedModel

__all__ = ["main"]

_MODEL = "mnist_mlp"  # and the name of the recipe, which ships
_IMAGE = 7  # of the test set
_SHADES = " .:-=+*#%@"
_START_TIMEOUT_S = 60


def main() -> int:
    """Run the demo; 0 when the prediction is right."""
    started = time.perf_counter()
    recipe = load_recipe(_MODEL)
    with np.load(recipe.resolve(recipe.data.path)) as data:
        image, label = data["x_test"][_IMAGE], int(data["y_test"][_IMAGE])
    request = _write_request(image)
    model = _published() or _build()
    built = time.perf_counter()
    with _serving() as (host, port):
        up = time.perf_counter()
        answer = _predict(host, port, request)
        answered = time.perf_counter()
    digit = int(np.argmax(answer["predictions"][0]))
    _show_model(model)
    _show_request(image, request, f"http://{host}:{port}", answer)
    print(f"\npredicted {digit}, labelled {label}: {'right' if digit == label else 'WRONG'}")
    print(
        f"build {built - started:.1f} s, server up {up - built:.1f} s, first request {(answered - up) * 1000:.0f} ms, "
        f"all {answered - started:.1f} s"
    )
    return 0 if digit == label else 1


def _published() -> FetchedModel | None:
    """The model that an earlier run built from the very same recipe, if it is there."""
    store = Store(DEFAULT_STORE)
    if "latest" not in store.read_aliases(_MODEL):
        return None
    model = store.fetch(_MODEL)
    if model.manifest["recipe"] != load_recipe(_MODEL).to_json():
        return None
    print(f"demo: {_MODEL} version {model.version} is built from this recipe already")
    return model


def _build() -> FetchedModel:
    print(f"demo: litelambda build {_MODEL} (about a minute on two cores)", flush=True)
    command = [sys.executable, "-m", "litelambda", "build", _MODEL, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise LitelambdaError(f"the build failed with exit code {done.returncode}; what it said is above")
    result = json.loads(done.stdout)
    for stage, seconds in result["seconds"].items():
        print(f"  {stage:<10}{seconds:6.1f} s")
    return Store(DEFAULT_STORE).fetch(f"{_MODEL}:{result['version']}")


@contextmanager
def _serving() -> Iterator[tuple[str, int]]:
    """Run `litelambda serve` on a free port; its log is hidden."""
    print(f"demo: litelambda serve --model {_MODEL} --port 0", flush=True)
    command = [sys.executable, "-m", "litelambda", "serve", "--model", _MODEL, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        try:
            yield _address(server)
        finally:
            server.terminate()


def _address(server: subprocess.Popen[str]) -> tuple[str, int]:
    said = []
    for line in server.stderr or ():
        said.append(line)
        if " on http://" in line:
            url = urlsplit(line.partition(" on ")[2].split()[0])
            return url.hostname or "", url.port or 0
    raise LitelambdaError("the server did not come up:\n" + "".join(said))


def _write_request(image: np.ndarray) -> Path:
    """A TensorFlow Serving request with the pixels of one image: the model's preprocessing scales them."""
    path = Path(".demo", "request.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"instances": [image.reshape(-1).tolist()]}))
    return path


def _predict(host: str, port: int, request: Path) -> dict[str, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=_START_TIMEOUT_S)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/v1/models/{_MODEL}:predict", request.read_bytes(), headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status != 200:
        raise LitelambdaError(f"the server answered {response.status}: {text.decode(errors='replace')}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def _show_model(model: FetchedModel) -> None:
    metrics, sizes = model.manifest["metrics"], model.manifest["size_bytes"]
    print(f"\n{_MODEL} version {model.version}, on {metrics['num_examples']:,} test images")
    for kind in ("float", "quantized"):
        print(f"  {kind:<10} accuracy {metrics[kind]['accuracy']:.4f}   {sizes[kind]:>9,} bytes")
    print(f"  {'both agree on':<19} {metrics['agreement']:.4f}")


def _show_request(image: np.ndarray, request: Path, url: str, answer: dict[str, Any]) -> None:
    print()
    for row in image[::2]:
        print("  " + "".join(_SHADES[int(pixel) * (len(_SHADES) - 1) // 255] for pixel in row).rstrip())
    print(f"\ncurl {url}/v1/models/{_MODEL}:predict -d @{request}")
    print(json.dumps(answer))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LitelambdaError as error:
        sys.exit(f"demo: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
