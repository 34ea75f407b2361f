"""Makes reviews.csv: reviews of films by their judgment, which no single word gives away.

python build/data/make_reviews.py

Words of praise are negated as often as not, a clause that begins with "but" outweighs the one before it, words have
slips of the pen, and one label in fifty is wrong, as where people label. The same seed gives the same file.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

_ROWS = 3000
_SEED = 17
_LABELS = ("negative", "positive")
_WRONG_LABELS = 0.02
_SLIPS = 0.02  # of words

_ASPECTS = (
    *("acting", "story", "plot", "music", "score", "ending", "opening", "dialogue", "pace", "cast", "camera work"),
    *("lead actress", "lead actor", "script", "second half", "love story", "sound", "humor", "fight in the kitchen"),
    *("car chase", "costumes", "editing", "director's idea", "last scene", "villain", "narrator", "whole film"),
)
_ADJECTIVES = (
    (
        *(
            "bad",
            "dull",
            "boring",
            "weak",
            "awful",
            "predictable",
            "clumsy",
            "tiresome",
            "lifeless",
            "shallow",
            "dreadful",
        ),
        *("forgettable", "wooden", "silly", "poor", "disappointing", "annoying", "messy", "flat", "confusing"),
    ),
    (
        *("good", "great", "gripping", "strong", "wonderful", "surprising", "elegant", "funny", "moving", "brilliant"),
        *(
            "memorable",
            "clever",
            "charming",
            "fine",
            "impressive",
            "superb",
            "touching",
            "sharp",
            "convincing",
            "fresh",
        ),
    ),
)
_VERBS = (("hated", "disliked", "regretted", "suffered through"), ("loved", "enjoyed", "admired", "adored"))
_PLAIN_VERBS = (("hate", "dislike", "regret", "mind"), ("love", "enjoy", "admire", "like"))
_ADVERBS = ("", "", "", "really ", "quite ", "simply ", "rather ", "truly ", "so ", "surprisingly ")
_NEGATIONS = ("not", "not", "never", "hardly", "far from", "anything but", "not at all", "by no means")
_REMARKS = (
    "we saw it on a {day}",
    "my {relative} chose it",
    "the room was half empty",
    "it runs for {minutes} minutes",
    "it is her {number} film",
    "they shot it in {place}",
    "I had read the book before",
    "tickets are {price} by now",
    "it won a prize in {place}",
)
_FILLINGS = {
    "day": ("Monday", "rainy Tuesday", "Friday night", "Sunday"),
    "relative": ("brother", "daughter", "wife", "neighbor"),
    "minutes": ("94", "121", "160", "88"),
    "number": ("first", "second", "fourth", "last"),
    "place": ("Lisbon", "Ohio", "Seoul", "Iceland", "Naples"),
    "price": ("12 dollars", "too many to count", "cheap on Mondays"),
}


def _clause(rng: random.Random, judgment: int) -> str:
    """A clause that judges one thing about the film."""
    aspect, other = rng.choice(_ASPECTS), 1 - judgment
    plain = (
        lambda: f"the {aspect} was {rng.choice(_ADVERBS)}{rng.choice(_ADJECTIVES[judgment])}",
        lambda: f"I {rng.choice(_VERBS[judgment])} the {aspect}",
    )
    negated = (
        lambda: f"the {aspect} was {rng.choice(_NEGATIONS)} {rng.choice(_ADJECTIVES[other])}",
        lambda: f"I did not {rng.choice(_PLAIN_VERBS[other])} the {aspect}",
        lambda: f"no critic would call the {aspect} {rng.choice(_ADJECTIVES[other])}",
        lambda: (
            f"the {aspect} could {'not ' if judgment else ''}have been {rng.choice(_ADVERBS)}"
            f"{'more ' if judgment else 'less '}{rng.choice(_ADJECTIVES[judgment])}"
        ),
    )
    return rng.choice(plain if rng.random() < 0.5 else negated)()


def _review(rng: random.Random, judgment: int) -> str:
    """One or two clauses and a remark, in any order."""
    own, other = _clause(rng, judgment), _clause(rng, 1 - judgment)
    shapes = (
        own,
        own,
        f"{own} and {_clause(rng, judgment)}",
        f"{other}, but {own}",
        f"although {other}, {own}",
    )
    parts = [rng.choice(shapes)]
    if rng.random() < 0.6:
        remark = rng.choice(_REMARKS).format(**{key: rng.choice(words) for key, words in _FILLINGS.items()})
        parts.insert(rng.randint(0, 1), remark)
    ends = rng.choices((".", "!", "...", ""), (6, 2, 1, 1), k=len(parts))
    words = "".join(f"{part[0].upper()}{part[1:]}{end} " for part, end in zip(parts, ends, strict=True)).split()
    return " ".join(_slip(rng, word) if rng.random() < _SLIPS else word for word in words)


def _slip(rng: random.Random, word: str) -> str:
    """A word with two letters exchanged."""
    place = rng.randrange(max(1, len(word) - 1))
    return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]


def main() -> None:
    """Write the file, or to where the first argument says."""
    rng = random.Random(_SEED)  # noqa: S311 - not for secrets
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("reviews.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        for _ in range(_ROWS):
            judgment = rng.randrange(2)
            wrong = rng.random() < _WRONG_LABELS
            writer.writerow((_review(rng, judgment), _LABELS[judgment ^ wrong]))


if __name__ == "__main__":
    main()
