"""The records of a CSV text, and where they end: at newlines outside quotes."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from litelambda_serving.scoring.formats import text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["first_record", "is_utf8", "records", "whole_records", "with_line_feeds"]


def records(data: bytes, first: int, delimiter: str = ",", *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells of each record; one cell that says why, where it is not CSV.

    Args:
        data: whole records.
        first: number of the first line.
        delimiter: what separates cells.
        strict: whether quotes that do not end, or end inside of a cell, are not CSV.
    """
    lines = (line.decode("utf-8", "surrogateescape") for line in io.BytesIO(data))
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    number = first
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = [f"not CSV: {error}"]
        if cells:
            yield number, cells
        number = first + reader.line_num


def is_utf8(cells: list[str]) -> bool:
    """Whether the bytes of cells were UTF-8: others are decoded as halves of surrogate pairs."""
    joined = "".join(cells)
    return joined.isascii() or not any("\udc80" <= character <= "\udcff" for character in joined)


def first_record(data: bytes, begin: int) -> int:
    """Where the first record ends: after the first newline outside quotes; 0 where there is none."""
    end = data.find(b"\n", begin) + 1
    inside = data.count(b'"', begin, end) % 2
    while end and inside:
        after = data.find(b"\n", end) + 1
        inside ^= data.count(b'"', end, after) % 2
        end = after
    return end


def whole_records(data: bytes) -> tuple[bytes, bytes]:
    """The whole records, up to the last newline outside quotes, and what follows them."""
    data = with_line_feeds(data)
    end = data.rfind(b"\n") + 1
    inside = data.count(b'"', 0, end) % 2
    while end and inside:
        before = data.rfind(b"\n", 0, end - 1) + 1
        inside ^= data.count(b'"', before, end) % 2
        end = before
    return data[:end], data[end:]


def with_line_feeds(data: bytes) -> bytes:
    """See `text.with_line_feeds`; what is inside quotes stays as it is."""
    if b"\r" not in data or b'"' not in data:
        return text.with_line_feeds(data)
    parts = data.split(b'"')
    last = len(parts) - 1
    for index in range(0, len(parts), 2):
        part = parts[index]
        # Of all but the last, a quote follows: no LF.
        parts[index] = text.with_line_feeds(part) if index == last else text.with_line_feeds(part + b'"')[:-1]
    return b'"'.join(parts)
