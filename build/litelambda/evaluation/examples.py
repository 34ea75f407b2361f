"""Examples: the test rows that an artifact answers worst, as people can look at them.

A picture becomes a PNG, a row of a table its columns by name, a text its beginning.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from litelambda.data.scaling import Preprocessing
from litelambda.evaluation.calibration import probabilities
from litelambda.evaluation.evaluate import predicted_classes, predicted_labels

_LEAST_SIDE = 8  # of what is a picture, and not a short series of numbers
_MOST_SIDE = 128
_MOST_TEXT = 400
_MOST_FIELDS = 24
_MOST_CELL = 80
_WHITE = 255


def worst_examples(data: Dataset, outputs: NDArray[Any], from_logits: bool, count: int) -> list[dict[str, Any]]:
    """The test rows that are answered worst: the surest wrong answers, then the least sure right ones.

    Args:
        data: from the data stage.
        outputs: the artifact's, of all test rows.
        from_logits: whether they are logits.
        count: how many rows.

    Returns:
        Each with its `row` in the test split, `true` and `answer` (class numbers, lists of them, or values), `wrong`,
        the `confidence` where there is one, and what it `shows`: {"picture": base64 of a PNG}, {"text": …} or
        {"fields": {name: value}}.
    """
    described, badness = _described(data, outputs, from_logits)
    return _examples(data, described, np.argsort(-badness, kind="stable")[:count])


def typical_examples(data: Dataset, outputs: NDArray[Any], from_logits: bool, count: int) -> list[dict[str, Any]]:
    """The test rows that are answered best, of different classes where there are some; see `worst_examples`."""
    described, badness = _described(data, outputs, from_logits)
    order = np.argsort(badness, kind="stable")
    if data.labels is not None:
        _, first = np.unique(data.test.y[order], axis=0, return_index=True)
        order = order[np.sort(first)]
    return _examples(data, described, order[:count])


def _examples(data: Dataset, described: Any, rows: NDArray[Any]) -> list[dict[str, Any]]:
    shown = show_rows(data, rows)
    return [{"row": int(row), **described(int(row)), "shows": each} for row, each in zip(rows, shown, strict=True)]


def _described(data: Dataset, outputs: NDArray[Any], from_logits: bool) -> tuple[Any, NDArray[np.float64]]:
    """What to say of a row, and how badly each row is answered."""
    true = data.test.y
    if data.labels is None:
        spread = np.maximum(true.std(axis=0, dtype=np.float64), 1e-12)
        badness = np.abs((outputs.astype(np.float64) - true) / spread).max(axis=1)
        return lambda row: {"true": true[row].tolist(), "answer": outputs[row].tolist(), "wrong": True}, badness
    likely = probabilities(outputs, from_logits, multi_label=data.multi_label)
    if data.multi_label:
        named, right = predicted_labels(outputs, from_logits), true > 0.5
        wrong = (named != right).sum(axis=1).astype(np.float64)
        distance = np.abs(likely - true).max(axis=1) if likely is not None else 0.0

        def sets(row: int) -> dict[str, Any]:
            answer, truth = np.flatnonzero(named[row]).tolist(), np.flatnonzero(right[row]).tolist()
            return {"true": truth, "answer": answer, "wrong": bool(wrong[row])}

        return sets, wrong + distance
    found = predicted_classes(outputs, from_logits)
    confidence = likely.max(axis=1) if likely is not None else np.full(len(found), 0.5)
    is_wrong = found != true

    def one(row: int) -> dict[str, Any]:
        said = {"confidence": float(confidence[row])} if likely is not None else {}
        return {"true": int(true[row]), "answer": int(found[row]), "wrong": bool(is_wrong[row]), **said}

    return one, np.where(is_wrong, 1 + confidence, 1 - confidence)


def show_rows(data: Dataset, rows: NDArray[Any]) -> list[dict[str, Any]]:
    """Test rows as people can look at them."""
    form = data.preprocessing
    kind = form.document["kind"] if isinstance(form, RawForm) else "numbers"
    if not len(rows):
        return []
    if kind in ("table", "text") and data.raw_test is not None:
        columns = data.raw_test(rows)
        return [_columns({name: values[at] for name, values in columns.items()}, kind) for at in range(len(rows))]
    values = data.test.x[np.asarray(rows)]
    shape = tuple(form.document["shape"]) if kind == "image" and isinstance(form, RawForm) else data.source_shape
    values = values.reshape(len(values), *shape) if shape else values
    values = _undone(form, values)
    if is_picture(values.shape[1:]):
        return [{"picture": _png(each)} for each in values]
    return [{"fields": {str(at): f"{value:.6g}" for at, value in enumerate(_first(each))}} for each in values]


def raw_values(data: Dataset, rows: NDArray[Any]) -> NDArray[Any]:
    """Rows of numbers as clients send them: before they were normalized, in the shape that the model reads."""
    return _undone(data.preprocessing, data.test.x[np.asarray(rows)])


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether rows of this shape are shown as pictures.

    >>> is_picture((28, 28)), is_picture((32, 32, 3)), is_picture((784,)), is_picture((5, 3))
    (True, True, False, False)
    """
    sides, channels = shape[:2], shape[2:]
    return len(sides) == 2 and min(sides) >= _LEAST_SIDE and channels in ((), (1,), (3,))


def _undone(form: Preprocessing | RawForm | None, values: NDArray[Any]) -> NDArray[np.float64]:
    """The values as they were before normalization."""
    if isinstance(form, RawForm):
        form = Preprocessing(form.document.get("scale", 1.0), form.document.get("offset", 0.0))
    return form.undo(values) if form is not None else values.astype(np.float64)


def _png(pixels: NDArray[np.float64]) -> str:
    """A picture; values that are not those of pixels are stretched from black to white."""
    from PIL import Image

    low, high = float(pixels.min()), float(pixels.max())
    if low < -0.5 or high > _WHITE + 0.5 or high <= 1.5:
        low, high = (0.0, 1.0) if low >= 0 and high <= 1.5 else (low, high)
        pixels = (pixels - low) * (_WHITE / max(high - low, 1e-12))
    content = np.clip(np.round(pixels), 0, _WHITE).astype(np.uint8)
    picture = Image.fromarray(content[..., 0] if content.shape[2:] == (1,) else content)
    picture.thumbnail((_MOST_SIDE, _MOST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _columns(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if kind == "text":
        return {"text": _cut(" ".join(map(str, row.values())), _MOST_TEXT)}
    shown = list(row.items())[:_MOST_FIELDS]
    return {"fields": {name: "missing" if value is None else _cut(str(value), _MOST_CELL) for name, value in shown}}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _first(values: NDArray[Any]) -> Any:
    return values.ravel()[:_MOST_FIELDS].tolist()
