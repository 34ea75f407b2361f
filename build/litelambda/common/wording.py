"""Nouns that agree with a number, and tables of plain text."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "epoch"), counted(1200, "epoch")
        ('1 epoch', '1,200 epochs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows of equally many cells, each column as wide as its longest one.

    Args:
        rows: the cells, the headings first.
        right: the columns that stand flush right, by their places.

    Example:
        >>> print(columns([("size", "ms"), ("512 MB", "7")], right=[1]))
        size    ms
        512 MB   7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
