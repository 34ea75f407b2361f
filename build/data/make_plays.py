"""Make plays.csv: listeners, the artists they played, and what is known of both; made up, the same every time.

    .venv/bin/python build/data/make_plays.py build/data/plays.csv

Taste has six dimensions. A listener's is that of their age group and country, and their own; an artist's that of the
genre, and their own. A play is drawn with a probability that grows with the dot product of both and with the artist's
popularity, so that it is partly chance. No real person is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

LISTENERS, ARTISTS, PLAYS_EACH, DIMENSIONS = 600, 400, 20, 6
AGES = ["12-17", "18-24", "25-39", "40-59", "60+"]
COUNTRIES = ["br", "de", "in", "jp", "ng", "us"]
GENRES = ["blues", "choral", "dub", "folk", "funk", "house", "jazz", "metal", "pop", "soul"]
TASTE, POPULARITY = 3.0, 0.6
"""How much of a play is taste, and how much the artist's popularity."""


def make_plays(seed: int = 7) -> list[str]:
    """The lines of the file, the header first."""
    random = np.random.default_rng(seed)
    age, country = random.integers(len(AGES), size=LISTENERS), random.integers(len(COUNTRIES), size=LISTENERS)
    genre = random.integers(len(GENRES), size=ARTISTS)
    of_age, of_country, of_genre = (random.normal(size=(len(each), DIMENSIONS)) for each in (AGES, COUNTRIES, GENRES))
    listener = (of_age[age] + of_country[country] + random.normal(size=(LISTENERS, DIMENSIONS))) / np.sqrt(3)
    artist = (of_genre[genre] + random.normal(size=(ARTISTS, DIMENSIONS))) / np.sqrt(2)
    liking = TASTE * listener @ artist.T / np.sqrt(DIMENSIONS) + POPULARITY * random.normal(size=ARTISTS)
    chance = liking + random.gumbel(size=liking.shape)  # the largest are a sample without replacement
    played = np.argsort(-chance, axis=1)[:, :PLAYS_EACH]
    lines = [
        f"l{who:03},{AGES[age[who]]},{COUNTRIES[country[who]]},a{what:03},{GENRES[genre[what]]}"
        for who, row in enumerate(played)
        for what in sorted(row)
    ]
    return ["listener,age,country,artist,genre", *lines]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(make_plays()) + "\n", encoding="utf-8")
