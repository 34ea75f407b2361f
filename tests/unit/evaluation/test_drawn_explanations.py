"""What a page draws of an explanation."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litelambda.evaluation.drawn_explanations import drawn


def test_columns_become_bars_the_strongest_first() -> None:
    """Eight at most; values of a tensor have their place as a name."""
    found = drawn({"age": 0.1, "bill": -0.5, "plan": 0.2}, {"fields": {}}, ())
    assert found == {"bars": [["bill", -0.5], ["plan", 0.2], ["age", 0.1]]}
    many = drawn({"x": [[float(row * 5 + column) for column in range(5)] for row in range(3)]}, {"fields": {}}, ())
    assert many["bars"][0] == ["x[2, 4]", 14.0]
    assert len(many["bars"]) == 8


def test_words_become_marks() -> None:
    """Strengths are shares of the strongest; tokens that stand for no text have none."""
    tokens = [
        {"token": "good", "start": 0, "end": 4, "attribution": 0.2},
        {"token": "bad", "start": 5, "end": 8, "attribution": -0.4},
        {"token": "[SEP]", "start": None, "end": None, "attribution": 0.1},
        {"token": "", "start": 8, "end": 8, "attribution": 0.1},
    ]
    assert drawn({"text": tokens}, {"text": "good bad"}, ()) == {"marks": [[0, 4, 0.5], [5, 8, -1.0]]}
    assert drawn({"text": []}, {"text": ""}, ()) == {"bars": []}


def png(side: int) -> str:
    """A gray picture."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([[1.0, 0.0], [0.0, -1.0]], ()),
        ([1.0, 0.0, 0.0, -1.0], (2, 2)),
        ([[[[1.0, 0.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[-0.5, -0.5]]]], ()),
    ],
)
def test_pictures_are_drawn_over(values: Any, shape: tuple[int, ...]) -> None:
    """Red where it is for the answer, blue where against, the picture in gray elsewhere; flat values in their shape."""
    found = drawn({"image": values}, {"picture": png(8)}, shape)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["picture"]))).convert("RGB")).astype(int)
    assert pixels.shape == (112, 112, 3)
    first, second, last = pixels[10, 10], pixels[10, 100], pixels[100, 100]
    assert first[0] > first[2] + 100
    assert last[2] > last[0] + 100
    assert max(second) - min(second) < 10
