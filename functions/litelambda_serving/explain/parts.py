"""The parts of a row and their features: columns of a table, cells of a picture or tensor, words of a text."""

from __future__ import annotations

from itertools import pairwise
from math import isqrt, prod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litelambda_serving.tensor import TensorSpec

    Ranges = list[tuple[int, int]]  # of a row's elements, from and to

__all__ = ["CellPart", "ColumnPart", "Part", "TokenPart", "WordPart"]


class Part:
    """A field of a row, or an input of the model where callers send its own values.

    Attributes:
        size: number of features.
        grid: rows and columns of the features, where they lie on one; else None.
    """

    size: int
    grid: tuple[int, int] | None = None

    def render(self, coalitions: Sequence[bytes]) -> dict[str, list[Any]]:
        """By input, what the model reads with only some of the features, for each coalition."""
        raise NotImplementedError

    def attributions(self, values: Sequence[float]) -> dict[str, Any]:
        """Values of the features as answers have them, by name of the field."""
        raise NotImplementedError

    def errors(self, values: Sequence[float]) -> dict[str, Any]:
        """Standard errors of the features in the same form, but numbers alone."""
        return self.attributions(values)

    def places(self) -> list[dict[str, Any]]:
        """What each feature is: a `name`, with an `index` or `start` and `end`."""
        raise NotImplementedError

    def fold(self, elements: Mapping[str, Sequence[float]]) -> list[float]:
        """The value of each feature as the sum of its elements'; see `Subject.fold`."""
        raise NotImplementedError


class _ElementPart(Part):
    """Features that are elements of one input: what is absent has the baseline's."""

    def __init__(self, spec: TensorSpec, row: Any, baseline: Any, groups: list[Ranges]) -> None:
        self.spec = spec
        self.size = len(groups)
        self.groups = groups
        self._row, self._baseline = row, baseline

    def render(self, coalitions: Sequence[bytes]) -> dict[str, list[Any]]:
        """See `Part.render`."""
        return {self.spec.name: [self._mixed(coalition) for coalition in coalitions]}

    def fold(self, elements: Mapping[str, Sequence[float]]) -> list[float]:
        """See `Part.fold`."""
        values = elements[self.spec.name]
        return [sum(sum(values[start:end]) for start, end in group) for group in self.groups]

    def _mixed(self, coalition: bytes) -> Any:
        few = sum(coalition) * 2 < len(coalition)  # it is the rarer that is copied
        onto, source = (self._baseline, self._row) if few else (self._row, self._baseline)
        mixed: Any = bytearray(onto) if self.spec.dtype.itemsize else list(onto)
        step = self.spec.dtype.itemsize or 1
        for present, group in zip(coalition, self.groups, strict=True):
            if bool(present) is few:
                for start, end in group:
                    mixed[start * step : end * step] = source[start * step : end * step]
        return mixed


class ColumnPart(_ElementPart):
    """The columns of a table; a category's elements belong together."""

    def __init__(self, spec: TensorSpec, row: Any, baseline: Any, table: Any) -> None:
        ends = [0]
        for width in table.widths:
            ends.append(ends[-1] + width)
        super().__init__(spec, row, baseline, [[pair] for pair in pairwise(ends)])
        self._names = [field.name for field in table.fields]

    def attributions(self, values: Sequence[float]) -> dict[str, Any]:
        """See `Part.attributions`."""
        return dict(zip(self._names, values, strict=True))

    def places(self) -> list[dict[str, Any]]:
        """See `Part.places`."""
        return [{"name": name} for name in self._names]


class CellPart(_ElementPart):
    """Cells of a picture or of a tensor: its elements, or patches of them.

    The answer has a picture's cells as a grid over it, a pixel's channels added up; a tensor's nested as its row is,
    what belongs to a patch in equal parts on its elements.
    """

    def __init__(
        self, name: str, spec: TensorSpec, row: Any, baseline: Any, most: int | None, *, by_pixel: bool
    ) -> None:
        """Cut a row.

        Args:
            name: of the field or input.
            spec: the input.
            row: its bytes or strings.
            baseline: those of the baseline.
            most: number of cells; None for one for each element, or pixel.
            by_pixel: whether it is a picture.
        """
        self._name = name
        self._by_pixel = by_pixel
        self._shape = row_shape(spec)
        count, groups = cells_of(self._shape, spec.row_values if most is None else most, by_pixel=by_pixel)
        self.grid = count if len(count) == 2 else None
        super().__init__(spec, row, baseline, groups)

    def attributions(self, values: Sequence[float]) -> dict[str, Any]:
        """See `Part.attributions`."""
        if self._by_pixel and self.grid is not None:
            return {self._name: nested(values, self.grid)}
        spread = [0.0] * prod(self._shape)
        for value, group in zip(values, self.groups, strict=True):
            share = value / sum(end - start for start, end in group)
            for start, end in group:
                spread[start:end] = [share] * (end - start)
        return {self._name: nested(spread, self._shape)}

    def places(self) -> list[dict[str, Any]]:
        """See `Part.places`."""
        if self.size == prod(self._shape):
            return [{"name": self._name, "index": index} for index in _indexes(self._shape)]
        return [{"name": self._name, "index": index} for index in _indexes(self.grid or (self.size,))]


class _TextPart(Part):
    """Pieces of a text."""

    def __init__(self, field: str, places: list[tuple[str, int, int]]) -> None:
        self._field = field
        self._places = places
        self.size = len(places)

    def attributions(self, values: Sequence[float]) -> dict[str, Any]:
        """See `Part.attributions`."""
        pieces = zip(self._places, values, strict=True)
        return {
            self._field: [
                {"token": token, "start": start, "end": end, "attribution": value}
                for (token, start, end), value in pieces
            ]
        }

    def errors(self, values: Sequence[float]) -> dict[str, Any]:
        """See `Part.errors`."""
        return {self._field: list(values)}

    def places(self) -> list[dict[str, Any]]:
        """See `Part.places`."""
        return [{"name": token, "start": start, "end": end} for token, start, end in self._places]


class WordPart(_TextPart):
    """The words of a text, as its tokenizer cuts them: an absent one is left out, with the space that follows it."""

    def __init__(self, field: str, text: str, preprocessors: Mapping[str, Any]) -> None:
        """Cut a text.

        Args:
            field: its name.
            text: as the caller sent it.
            preprocessors: of the inputs that read the field.
        """
        words = next(iter(preprocessors.values())).words(text)
        super().__init__(field, [(text[start:end], start, end) for start, end in words])
        self._preprocessors = preprocessors
        starts = [start for start, _ in words]
        self._before = text[: starts[0]] if starts else text
        self._pieces = [text[start:end] for start, end in pairwise([*starts, len(text)])]
        self._text = text

    def render(self, coalitions: Sequence[bytes]) -> dict[str, list[Any]]:
        """See `Part.render`."""
        texts = [self._kept(coalition) for coalition in coalitions]
        made = {}
        for name, preprocessor in self._preprocessors.items():
            data, step = preprocessor.prepare([texts]).data, preprocessor.spec.row_bytes
            made[name] = [data[start : start + step] for start in range(0, len(data), step)]
        return made

    def _kept(self, coalition: bytes) -> str:
        if all(coalition):
            return self._text
        kept = [piece for piece, present in zip(self._pieces, coalition, strict=True) if present]
        return (self._before + "".join(kept)).rstrip()


class TokenPart(_TextPart):
    """The tokens of a text, those included that its tokenizer adds; for methods that reach into the model."""

    def __init__(self, field: str, text: str, preprocessors: Mapping[str, Any]) -> None:
        """See `WordPart`."""
        super().__init__(field, next(iter(preprocessors.values())).tokens(text))
        self._inputs = [name for name, preprocessor in preprocessors.items() if preprocessor.emits == "ids"]

    def fold(self, elements: Mapping[str, Sequence[float]]) -> list[float]:
        """See `Part.fold`: an element for each token."""
        return [sum(elements[name][place] for name in self._inputs) for place in range(self.size)]


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The sizes of one row: without the batch, or the 1 that stands in its place."""
    return spec.shape[1:] if spec.batched or spec.shape[:1] == (1,) else spec.shape


def cells_of(shape: Sequence[int], most: int, *, by_pixel: bool) -> tuple[tuple[int, ...], list[Ranges]]:
    """Cut a row into cells: how many there are along each dimension that is cut, and each cell's elements.

    Args:
        shape: of the row.
        most: number of cells.
        by_pixel: whether a pixel's channels stay together even where there are few elements.

    >>> cells_of((4, 4), 4, by_pixel=False)[1][1]
    [(2, 4), (6, 8)]
    """
    total = prod(shape)
    sizes = [size for size in shape if size != 1]
    if not by_pixel and total <= most and len(sizes) != 2:
        return (total,), [[(place, place + 1)] for place in range(total)]
    if len(sizes) < 2:
        count = min(total, most)
        edges = _edges(total, count)
        return (count,), [[pair] for pair in pairwise(edges)]
    height, width = sizes[:2]
    depth = total // (height * width)
    rows, columns = _counts(height, width, most)
    across = list(pairwise(_edges(width, columns)))
    groups = []
    for top, bottom in pairwise(_edges(height, rows)):
        for left, right in across:
            lines = [line * width for line in range(top, bottom)]
            groups.append([((line + left) * depth, (line + right) * depth) for line in lines])
    return (rows, columns), groups


def nested(values: Sequence[Any], shape: Sequence[int]) -> Any:
    """Flat values as nested lists of a shape; of no dimension the value itself."""
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [list(values[start : start + size]) for start in range(0, len(values), size)]
    return list(values)


def _counts(height: int, width: int, most: int) -> tuple[int, int]:
    """How many rows and columns of cells there are."""
    if height * width <= most:
        return height, width
    side = max(isqrt(most), 1)
    if width < side:
        return max(most // width, 1), width
    return (height, max(most // height, 1)) if height < side else (side, side)


def _edges(size: int, count: int) -> list[int]:
    return [place * size // count for place in range(count + 1)]


def _indexes(shape: Sequence[int]) -> list[list[int]]:
    indexes: list[list[int]] = [[]]
    for size in shape:
        indexes = [[*index, place] for index in indexes for place in range(size)]
    return indexes
