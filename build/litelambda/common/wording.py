"""Nouns that agree with a number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "epoch"), counted(1200, "epoch")
        ('1 epoch', '1,200 epochs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
