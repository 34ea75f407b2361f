"""Texts as people and programs send them, odd ones above all; the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from unicodedata import normalize

_WORDS = (
    "great",
    "film",
    "not",
    "good",
    "Überraschung",
    "naïve",
    "тест",
    "δοκιμή",
    "数据",
    "データ",
    "가나다",
    "שלום",
    "مرحبا",
)
_MARKS = (
    "!",
    "?",
    "…",
    "—",
    "\u2019",
    "[CLS]",
    "[PAD]",
    "##ing",
    "Ġ",
    "▁",
    "<s>",
    "</s>",
    "@",
    "#",
    "&amp;",
    "\\",
    '"',
)
_EMOJI = ("😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "👍🏽", "⌚️", "\U0001f9ff")
_CONTROLS = (
    "\x00",
    "\x01",
    "\x1b",
    "\x7f",
    "\x85",
    "\u200b",
    "\u200d",
    "\u202e",
    "\u2066",
    "\ufeff",
    "\ufffd",
    "\ufffe",
)
_SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028")


def odd_texts(count: int, seed: int = 0) -> list[str]:
    """So many texts: of every kind below, some empty, a few hundred thousand characters long."""
    rng = random.Random(seed)
    kinds: list[Callable[[random.Random], str]] = [
        _plain,
        _decomposed,
        _emoji,
        _controls,
        _any_plane,
        _bytes,
        _repeated,
    ]
    texts = ["", " ", "\x00", "\u0301", "a" * 300_000, "great film " * 30_000, "😀" * 100_000, "\n" * 100_000]
    return texts + [rng.choice(kinds)(rng) for _ in range(count - len(texts))]


def _joined(rng: random.Random, pieces: tuple[str, ...], most: int) -> str:
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, most)))


def _plain(rng: random.Random) -> str:
    return _joined(rng, _WORDS + _SPACES + _MARKS, 60)


def _decomposed(rng: random.Random) -> str:
    return normalize(rng.choice(("NFD", "NFC", "NFKD", "NFKC")), _joined(rng, (*_WORDS, "ﬁ", "Å", "한", "½", " "), 40))


def _emoji(rng: random.Random) -> str:
    return _joined(rng, (*_EMOJI, *_WORDS, " "), 30)


def _controls(rng: random.Random) -> str:
    return _joined(rng, (*_CONTROLS, *_WORDS, *_SPACES), 40)


def _any_plane(rng: random.Random) -> str:
    numbers = (rng.randrange(rng.choice((0x80, 0x3000, 0x10000, 0x110000))) for _ in range(rng.randint(1, 40)))
    return "".join(chr(number) for number in numbers if not 0xD800 <= number < 0xE000)


def _bytes(rng: random.Random) -> str:
    return rng.randbytes(rng.randint(0, 80)).decode(rng.choice(("utf-8", "latin-1", "utf-16-le")), "replace")


def _repeated(rng: random.Random) -> str:
    return _joined(rng, (*_WORDS, *_EMOJI, "a", "\u0301"), 2) * rng.randint(1, 200)
