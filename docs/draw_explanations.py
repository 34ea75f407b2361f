"""Draw docs/images/explained-*: what three recipes go by for ten digits, ten penguins and ten sentences.

    .venv/bin/python docs/draw_explanations.py           # builds the recipes into a scratch store first
    .venv/bin/python docs/draw_explanations.py models    # explains what is in a store already

Asks `litelambda serve` for explanations with the default method of each kind of data.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from litelambda import build, load_recipe
from litelambda.common.paths import PROJECT, RECIPES
from litelambda.common.progress import open_reporter
from litelambda.data.dataset import load_data
from recipe_accuracy import raw_rows, served

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = PROJECT / "docs" / "images"
FOR, AGAINST = (200, 40, 30), (30, 90, 200)
_ZOOM, _GAP, _WIDTH = 4, 8, 122
_STYLE = 'font-family="sans-serif" font-size="13"'


def main(stores: list[str]) -> None:
    """Draw all three."""
    with tempfile.TemporaryDirectory() as scratch:
        store = stores[0] if stores else scratch
        for name, draw in (("mnist_cnn", _draw_digits), ("penguins", _draw_table), ("reviews", _draw_sentences)):
            recipe = load_recipe(RECIPES / f"{name}.toml")
            if not stores:
                build(recipe, store, open_reporter())
            data = load_data(recipe.data, recipe.folder)
            rows, truths = list(raw_rows(data)), [(data.labels or [])[label] for label in data.test.y]
            chosen = [truths.index(label) for label in data.labels or []]
            chosen = [*chosen, *(place for place in range(len(rows)) if place not in chosen)][:10]
            with served(store, name) as url:
                body = json.dumps({"instances": [rows[place] for place in chosen]}).encode()
                request = urllib.request.Request(f"{url}/v1/models/{name}:explain", body)  # noqa: S310 - on loopback
                with urllib.request.urlopen(request) as response:  # noqa: S310 - as above
                    found = json.load(response)["explanations"]
            for place, explanation in zip(chosen, found, strict=True):
                print(f"{truths[place]}: {json.dumps({**explanation, 'attributions': None})}")
            draw([rows[place] for place in chosen], [truths[place] for place in chosen], found)


def _draw_digits(rows: list[Any], _truths: list[str], found: list[Any]) -> None:
    """Each digit, and below it what speaks for it in red and against it in blue."""
    tiles = []
    for row, explanation in zip(rows, found, strict=True):
        digit = 255 - np.asarray(row, np.uint8).reshape(28, 28, 1).repeat(3, 2)
        attributions = np.asarray(next(iter(explanation["attributions"].values()))).reshape(28, 28)
        faint = 255 - (255 - digit.astype(float)) * 0.15
        tiles.append(np.concatenate([_framed(digit), _framed(_colored(attributions, faint))]))
    image = Image.fromarray(np.concatenate(tiles, 1))
    image.quantize(64).save(IMAGES / "explained-digits.png", optimize=True)


def _colored(values: NDArray[Any], ground: NDArray[Any]) -> NDArray[Any]:
    strength = np.clip(np.abs(values) / np.quantile(np.abs(values), 0.995), 0, 1)[..., None]
    color = np.where(values[..., None] > 0, FOR, AGAINST)
    return (ground * (1 - strength) + color * strength).astype(np.uint8)


def _framed(picture: NDArray[Any]) -> NDArray[Any]:
    zoomed = picture.astype(np.uint8).repeat(_ZOOM, 0).repeat(_ZOOM, 1)
    framed: NDArray[Any] = np.pad(zoomed, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    return framed


def _draw_table(rows: list[Any], truths: list[str], found: list[Any]) -> None:
    """A line for each penguin, a cell for each column, in the color of its attribution."""
    names = list(rows[0])
    parts = [_text(160 + _WIDTH * at, 16, name.replace("_", " ")) for at, name in enumerate(names)]
    for line, (row, truth, explanation) in enumerate(zip(rows, truths, found, strict=True)):
        top = 24 + 24 * line
        parts.append(_text(4, top + 16, _title(truth, explanation)))
        attributions = explanation["attributions"]
        largest = max(map(abs, attributions.values()))
        for at, name in enumerate(names):
            parts.append(_box(156 + _WIDTH * at, top, _WIDTH - 2, 22, attributions[name] / largest))
            parts.append(_text(160 + _WIDTH * at, top + 16, _shown(row[name])))
    _save("explained-rows.svg", 156 + _WIDTH * len(names), 24 + 24 * len(rows), parts)


def _draw_sentences(rows: list[Any], truths: list[str], found: list[Any]) -> None:
    """Each sentence, its tokens in the color of their attributions."""
    parts, widest = [], 0
    for line, (row, truth, explanation) in enumerate(zip(rows, truths, found, strict=True)):
        text, top, left = row["text"], 26 * line, 150
        parts.append(_text(4, top + 18, _title(truth, explanation)))
        pieces = [each for each in explanation["attributions"]["text"] if each["end"] > each["start"]]
        largest = max(abs(each["attribution"]) for each in pieces)
        before = 0
        for each in pieces:
            left += 5 * (text[before : each["start"]].count(" "))
            piece, before = text[each["start"] : each["end"]], each["end"]
            width = round(7.6 * len(piece)) + 2
            parts.append(_box(left, top + 2, width, 22, each["attribution"] / largest))
            parts.append(f'<text x="{left + 1}" y="{top + 18}" textLength="{width - 2}">{escape(piece)}</text>')
            left += width
        widest = max(widest, left)
    _save("explained-sentences.svg", widest + 4, 26 * len(rows), parts)


def _title(truth: str, explanation: Any) -> str:
    """The class that is explained, the model's output for it, and the true one where that is another."""
    wrong = "" if truth == explanation["label"] else f" ✗ {truth}"
    return f"{explanation['label']} {explanation['output']:.2f}{wrong}"


def _shown(value: Any) -> str:
    if value is None:
        return "—"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(left: int, top: int, text: str) -> str:
    return f'<text x="{left}" y="{top}">{escape(text)}</text>'


def _box(left: int, top: int, width: int, height: int, strength: float) -> str:
    color = "#{:02x}{:02x}{:02x}".format(*(FOR if strength > 0 else AGAINST))
    place = f'x="{left}" y="{top}" width="{width}" height="{height}"'
    return f'<rect {place} fill="{color}" fill-opacity="{abs(strength) * 0.6:.2f}"/>'


def _save(name: str, width: int, height: int, parts: list[str]) -> None:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_STYLE}>'
    ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    (IMAGES / name).write_text("\n".join([head, ground, *parts, "</svg>", ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
