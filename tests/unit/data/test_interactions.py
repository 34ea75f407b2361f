"""Interactions: who chose what, read from CSV, numbered as requests are, split by the seed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from litelambda.common.errors import DataError
from litelambda.data.interactions import load_interactions
from litelambda.recipe.sections import InteractionsData

LINES = ["who,land,what,kind,stars"] + [
    f"u{row % 12},{'de' if row % 2 else 'fr'},i{row % 7},{'odd' if row % 7 % 2 else 'even'},{row % 5 + 1}"
    for row in range(120)
]


def load(folder, lines=LINES, **options):
    """A file of these lines, loaded."""
    (folder / "clicks.csv").write_text("\n".join(lines) + "\n")
    settings = {"format": "interactions", "path": "clicks.csv", "user": ["who", "land"], "item": "what", **options}
    return load_interactions(InteractionsData(**settings), folder)


def test_rows_are_what_requests_become(tmp_path):
    """The rows of the user's side are those that the manifest's preprocessing makes of their raw values."""
    data = load(tmp_path, item_features=["kind"])
    users = data.users
    raw = users.raw_test(np.arange(len(users.test)))
    np.testing.assert_array_equal(users.preprocessing.prepare(raw), users.test.x)
    assert (users.test.x.dtype, data.user_sizes) == (np.int32, [13, 3])  # one more for those that are unknown
    unknown = users.preprocessing.prepare({"who": ["new", None], "land": ["de", "xx"]})
    assert unknown.tolist() == [[12, 0], [12, 2]]


def test_the_catalogue_has_a_row_for_each_item(tmp_path):
    """Its number, and the number of each of its features; a target is the number of an item's name."""
    data = load(tmp_path, item_features=["kind"])
    assert data.item_names == [f"i{number}" for number in range(7)]
    assert data.item_rows.tolist() == [[number, number % 2] for number in range(7)]
    assert data.item_sizes == [7, 2]
    pairs = data.pairs.train
    np.testing.assert_array_equal(pairs.x[:, 2:], data.item_rows[pairs.y])


def test_the_seed_makes_the_splits(tmp_path):
    """The same seed holds out the same interactions, another one others; none is in two splits."""
    first, again, other = (load(tmp_path, seed=seed).users for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)
    assert (len(first.train), len(first.validation), len(first.test)) == (86, 10, 24)


def test_only_what_was_wanted_counts(tmp_path):
    """With a label, lines below the threshold are left out."""
    data = load(tmp_path, label="stars", positive_from=4)
    splits = (data.users.train, data.users.validation, data.users.test)
    assert sum(map(len, splits)) == sum(int(line[-1]) >= 4 for line in LINES[1:])


def test_large_vocabularies_are_files(tmp_path):
    """A vocabulary of more than a hundred names does not burden the manifest."""
    lines = ["who,land,what"] + [f"user {row},de,i{row % 3}" for row in range(400)]
    form = load(tmp_path, lines).users.preprocessing
    column = form.to_json()["columns"][0]
    assert "vocabulary" not in column
    assert len(json.loads(form.assets[column["vocabulary_file"]])) == 288  # of the training rows


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (LINES, {"user": ["whom"]}, "has no column whom; it has who, land, what, kind, stars"),
        (LINES, {"label": "kind"}, "line 2: 'even' in column 'kind' is not a number"),
        (LINES, {"label": "stars", "positive_from": 9.0}, "no interaction that was wanted"),
        ([*LINES, "u1,de,i1,even,1"], {"item_features": ["kind"]}, "item 'i1' has the kind"),
        ([*LINES, "u1,de,,odd,1"], {}, "line 122: column 'what' is empty"),
        ([*LINES, "u1,de"], {}, "line 122: expected 5 fields"),
        ([*LINES, "u1,de,i1,odd,1,2"], {}, "line 122: expected 5 fields"),
        (LINES[:3], {}, "neither part may be empty"),
    ],
)
def test_bad_files_are_refused(tmp_path, lines, options, message):
    """A file that lacks a column or a value, or contradicts itself, is refused with the line."""
    with pytest.raises(DataError, match=re.escape(message)):
        load(tmp_path, lines, **options)


def test_a_missing_file_is_named(tmp_path):
    """A path that leads nowhere is refused with the recipe's key."""
    settings = InteractionsData(format="interactions", path="none.csv", user=["who"], item="what")
    with pytest.raises(DataError, match="there is no data set at"):
        load_interactions(settings, tmp_path)
