"""Build the recipes that ship, serve each, and ask it over HTTP about every raw test row: README's table.

    .venv/bin/python docs/recipe_accuracy.py                     # all that build in minutes
    .venv/bin/python docs/recipe_accuracy.py penguins reviews    # these

Prints a line of Markdown per recipe: the float model's figure on the test rows, as Keras predicts, and that of the
artifact behind HTTP, counted here from its answers. They must be the manifest's.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda import build, load_recipe
from litelambda.common.paths import RECIPES
from litelambda.common.progress import open_reporter
from litelambda.data.dataset import Preprocessing, load_data
from litelambda.data.interactions import load_interactions
from litelambda.recipe.sections import InteractionsData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda.data.dataset import Dataset

QUICK = ("mnist_cnn", "penguins", "arrows", "reviews", "plays")
_ROWS_AT_ONCE = 100


def main(names: list[str]) -> None:
    """Print the table."""
    print("| recipe | float | served over HTTP |\n| --- | --- | --- |")
    for name in names or QUICK:
        recipe = load_recipe(RECIPES / f"{name}.toml")
        with tempfile.TemporaryDirectory() as store:
            result = build(recipe, store, open_reporter())
            ((figure, before),) = result.metrics["float"].items()
            expected = result.metrics["quantized"][figure]
            with_names = isinstance(recipe.data, InteractionsData)
            if with_names:
                interactions = load_interactions(recipe.data, recipe.folder)
                data, truths = interactions.users, [interactions.item_names[y] for y in interactions.users.test.y]
            else:
                data = load_data(recipe.data, recipe.folder)
                truths = data.test.y.tolist()
            answers = list(_ask(store, recipe.publish.name, list(raw_rows(data))))
        if with_names:
            hits = [truth in answer["items"] for truth, answer in zip(truths, answers, strict=True)]
        else:
            hits = [truth == int(np.argmax(answer)) for truth, answer in zip(truths, answers, strict=True)]
        served = float(np.mean(hits))
        if served != expected:
            sys.exit(f"{name}: {figure} over HTTP is {served}, the manifest has {expected}")
        print(f"| `{name}` | {figure} {before:.3f} | {served:.3f} |", flush=True)


def raw_rows(data: Dataset) -> Iterator[Any]:
    """The test rows as a client has them."""
    if data.raw_test is None:
        rows = data.test.x[:]
        if isinstance(data.preprocessing, Preprocessing):
            rows = np.rint(data.preprocessing.undo(rows)).astype(int)  # pixels
        yield from rows.tolist()
        return
    columns = data.raw_test(np.arange(len(data.test)))
    for values in zip(*columns.values(), strict=True):
        yield {name: _in_json(value) for name, value in zip(columns, values, strict=True)}


def _in_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.item() if isinstance(value, np.generic) else value


def _ask(store: str, model: str, rows: list[Any]) -> Iterator[Any]:
    """The prediction for each row."""
    with served(store, model) as url:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            body = json.dumps({"instances": rows[start : start + _ROWS_AT_ONCE]}).encode()
            request = urllib.request.Request(f"{url}/v1/models/{model}:predict", body)  # noqa: S310 - on loopback
            with urllib.request.urlopen(request) as response:  # noqa: S310 - as above
                yield from json.load(response)["predictions"]


@contextmanager
def served(store: str, model: str) -> Iterator[str]:
    """The address of `litelambda serve`."""
    command = [sys.executable, "-m", "litelambda", "serve", "--store", store, "--model", model, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - of this project
    try:
        said = next(line for line in server.stderr or () if " on http://" in line)
        yield said.partition(" on ")[2].split()[0].rstrip("/")
    finally:
        server.terminate()
        server.communicate()


if __name__ == "__main__":
    main(sys.argv[1:])
