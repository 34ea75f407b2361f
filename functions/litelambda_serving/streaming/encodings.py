"""The bodies of answers that leave in parts: the bytes of the buffered ones, and JSON Lines.

Columns come output by output. The first of them leaves while rows run; the others wait, in a file where they are large.
"""

from __future__ import annotations

from math import prod

from litelambda_serving.json_codec import dumps
from litelambda_serving.streaming import BLOCK_BYTES, cut, nbytes
from litelambda_serving.streaming.kept import Kept
from litelambda_serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from litelambda_serving.streaming import Blocks

    Documents = Callable[[dict[str, Tensor]], list[str]]
    Texts = Callable[[str, Tensor], list[str]]

__all__ = ["binary_columns", "columns", "lines", "rows"]


def rows(blocks: Blocks, documents: Documents, texts: Texts | None) -> Iterator[str]:
    """`{"predictions": […]}`.

    Args:
        blocks: outputs of some rows after the other.
        documents: the JSON of each row of a block.
        texts: the JSON of each entry of a tensor; None where a row is short, whatever the tensors are.
    """
    before = '{"predictions":['
    for outputs in blocks:
        for piece in _row_pieces(outputs, documents, texts, ","):
            yield before + piece
            before = ""
        before = ","
    yield "]}"


def lines(blocks: Blocks, documents: Documents, texts: Texts | None) -> Iterator[str]:
    """A line for each row, of what `rows` has for it; see there."""
    for outputs in blocks:
        yield from _row_pieces(outputs, documents, texts, "\n")
        yield "\n"


def _row_pieces(outputs: dict[str, Tensor], documents: Documents, texts: Texts | None, between: str) -> Iterator[str]:
    """The rows of a block; those too large to be in memory as text come in pieces."""
    if texts is None or sum(map(nbytes, outputs.values())) <= BLOCK_BYTES:
        yield between.join(documents(outputs))
        return
    count = next(iter(outputs.values())).shape[0]
    for row in range(count):
        before = between if row else ""
        for place, (name, tensor) in enumerate(outputs.items()):
            if len(outputs) > 1:
                before += ("," if place else "{") + dumps(name) + ":"
            for piece in _entries(name, cut(tensor, row, 1), texts):
                yield before + piece
                before = ""
        if len(outputs) > 1:
            yield "}"


def _entries(name: str, tensor: Tensor, texts: Texts) -> Iterator[str]:
    """The entries of a tensor's first dimension with commas between them, in pieces."""
    count = tensor.shape[0]
    each = nbytes(tensor) // (count or 1)
    if each <= BLOCK_BYTES or len(tensor.shape) == 1:
        step = max(1, BLOCK_BYTES // (each or 1))
        for start in range(0, count, step):
            yield ("," if start else "") + ",".join(texts(name, cut(tensor, start, step)))
        return
    for place in range(count):
        entry = cut(tensor, place, 1)
        before = ",[" if place else "["
        for piece in _entries(name, Tensor(entry.dtype, entry.shape[1:], entry.data), texts):
            yield before + piece
            before = ""
        yield "]"


def columns(
    blocks: Blocks,
    names: Sequence[str],
    opening: Callable[[str, Tensor], str],
    ending: str,
    texts: Texts,
    *,
    flat: bool = False,
) -> Iterator[str]:
    """Whole outputs, one after the other.

    Args:
        blocks: outputs of some rows after the other.
        names: of the outputs, in order.
        opening: what comes before the values of an output, of which it is given some rows.
        ending: what comes after all.
        texts: the JSON of each entry of a tensor, or all of them as one text.
        flat: whether the values of all rows are one list.
    """
    for name, is_first, tensor in _by_output(blocks, names):
        before = opening(name, tensor) if is_first else ","
        if flat:
            tensor = Tensor(tensor.dtype, (prod(tensor.shape),), tensor.data)  # noqa: PLW2901 - the same values
        for piece in _entries(name, tensor, texts):
            yield before + piece
            before = ""
    yield ending


def binary_columns(blocks: Blocks, names: Sequence[str], head: bytes) -> Iterator[bytes]:
    """The bytes of whole outputs, one after the other, after what describes them."""
    for _, _, tensor in _by_output(blocks, names):
        yield head + bytes(tensor.data)
        head = b""


def _by_output(blocks: Blocks, names: Sequence[str]) -> Iterator[tuple[str, bool, Tensor]]:
    """Rows of the first output as they come, then those of each other one: name, whether they are its first, values."""
    first, kept = True, {name: Kept() for name in names[1:]}
    for outputs in blocks:
        for name, others in kept.items():
            others.add(outputs[name])
        yield names[0], first, outputs[names[0]]
        first = False
    for name, others in kept.items():
        first = True
        for tensor in others.blocks():
            yield name, first, tensor
            first = False
