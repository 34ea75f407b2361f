"""Texts are read from CSV, JSON Lines and folders as they are, and what they become is fitted on the training rows."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from litelambda.common.errors import DataError, RecipeError
from litelambda.data.dataset import load_data
from litelambda.recipe.load import load_recipe

_RECIPE = """
[model]
builder = "text"
[data]
format = "text"
length = 8
{data}
[train]
loss = "sparse_categorical_crossentropy"
[publish]
name = "tiny"
"""
_ROWS = [(f"text {number}, {word} \u2028 line\r\nnext", word) for number, word in enumerate(["yes", "no"] * 10)]


def load(folder, data, *overrides):
    path = folder / "recipe.toml"
    path.write_text(_RECIPE.format(data=data))
    recipe = load_recipe(path, overrides)
    return load_data(recipe.data, recipe.folder)


def write_csv(path, delimiter=",", header="label{}text"):
    lines = [header.format(delimiter), *(f'{label}{delimiter}"{text}"' for text, label in _ROWS)]
    path.write_bytes("\ufeff".encode() + "\n".join(lines).encode())


def write_jsonl(path):
    lines = (json.dumps({"text": text, "label": label, "more": [1]}) for text, label in _ROWS)
    path.write_text("\n\n".join(lines))


def write_folders(path):
    for number, (text, label) in enumerate(_ROWS):
        file = path / label / "more" / f"{number:02}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.csv", write_csv),
        ("rows.tsv", lambda path: write_csv(path, "\t")),
        ("rows.txt", lambda path: write_csv(path, ";")),
        ("rows.jsonl", write_jsonl),
        ("rows", write_folders),
    ],
)
def test_texts_are_the_same_from_every_form(tmp_path, name, write):
    """Line ends, separators of lines that are none, quotes and a byte order mark do not change a text."""
    write(tmp_path / name)
    data = load(tmp_path, f'path = "{name}"')
    assert data.labels == ["no", "yes"]
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert data.train.x.dtype == "int32"
    (column,) = data.raw_test(range(4)).values()
    assert {*column} <= {text for text, _ in _ROWS}
    reference = Tokenizer.from_buffer(data.preprocessing.assets["tokenizer.json"])
    for row, text in zip(data.test.x, column, strict=True):
        ids = reference.encode(text).ids[:8]
        assert row.tolist() == ids + [0] * (8 - len(ids))


def test_splits_are_files_of_their_names(tmp_path):
    """train, validation and test in one folder are not split again; the tokenizer knows only the first."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\n" + "ab ab,1\ncd cd,2\n" * 10)
    (folder / "test.jsonl").write_text('{"text": "ef ef", "label": 1}\n' * 3)
    data = load(tmp_path, 'path = "set"\nvalidation_split = 0.0')
    assert (len(data.train), len(data.test)) == (20, 3)
    tokenizer = Tokenizer.from_buffer(data.preprocessing.assets["tokenizer.json"])
    assert (data.test.x[:, 0] == tokenizer.token_to_id("[UNK]")).all()


def test_a_given_tokenizer_travels_as_it_is(tmp_path):
    """Its bytes are the version's, its padding token fills rows up, and its own truncation is not used."""
    from litelambda.data.tokenizer_training import train_tokenizer

    tokenizer = Tokenizer.from_buffer(train_tokenizer("bpe", 300, [text for text, _ in _ROWS]))
    tokenizer.add_special_tokens(["<fill>"])
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "own.json"))
    write_csv(tmp_path / "rows.csv")
    overrides = ["data.tokenizer=own.json", "data.padding=<fill>", "data.truncation=left"]
    data = load(tmp_path, 'path = "rows.csv"', *overrides)
    assert data.preprocessing.assets["tokenizer.json"] == (tmp_path / "own.json").read_bytes()
    document = data.preprocessing.to_json()
    assert document["padding"] == tokenizer.token_to_id("<fill>") == document["vocabulary_size"] - 1
    tokenizer.no_truncation()
    (column,) = data.raw_test(range(4)).values()
    for row, text in zip(data.test.x, column, strict=True):
        assert row.tolist() == tokenizer.encode(text).ids[-8:]


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_rows_that_are_streamed_are_the_same(tmp_path, streaming):
    """Tokenized when they are read, or once: the numbers do not differ."""
    write_csv(tmp_path / "rows.csv")
    first = load(tmp_path, 'path = "rows.csv"')
    again = load(tmp_path, f'path = "rows.csv"\nstreaming = {streaming}')
    assert again.streamed == (streaming == "true")
    assert (again.train.x[:] == first.train.x).all()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "is empty: expected a header line with 'text' and 'label'"),
        ("a.csv", b"body,label\nx,y\n", r"has no columns 'text' and 'label' .*its header is 'body,label"),
        ("a.csv", b"text,label,text\nx,y,z\n", "the header names a column twice"),
        ("a.csv", b"text,label\na,b,c\n", "line 2: 3 cells, the header has 2"),
        ("a.csv", b'text,label\n"a\n\nb,c\n', "line 2: not CSV: unexpected end of data"),
        ("a.csv", b"text,label\na,x\nb,\n", "line 3: 'label' has no value"),
        ("a.csv", b"text,label\n" + b"a" * 200_000 + b",x\n", "field larger than field limit .*JSON Lines hold any"),
        ("a.csv", "text,label\nä,b\n".encode("latin-1"), "not text in UTF-8.*save it as UTF-8"),
        ("a.csv", "text,label\nä,b\n".encode("utf-16"), "not text in UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": "b"\n', "line 1: not JSON"),
        ("a.jsonl", b'["a", "b"]\n', "line 1: expected an object with 'text' and 'label'"),
        ("a.jsonl", b'\n{"text": 5, "label": "b"}\n', "line 2: 'text' is int, expected a text"),
        ("a.jsonl", b'{"label": "b"}\n', "line 1: 'text' is NoneType"),
        ("a.jsonl", b'{"text": "a", "label": null}\n', "line 1: 'label' has no value"),
        ("a.jsonl", b'{"text": "a", "label": ["b"]}\n', "line 1: 'label' has no value"),
        ("a.jsonl", b'{"text": "a", "label": true}\n', "line 1: 'label' has no value"),
        ("a.jsonl", b'{"text": "\\ud800", "label": "b"}\n', "line 1: 'text' has half of a surrogate pair at 0"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "line 1: not JSON"),
    ],
)
def test_a_broken_file_is_refused_by_line(tmp_path, name, content, problem):
    """What is wrong, where, and what to do; nothing is left out in silence."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load(tmp_path, f'path = "{name}"')


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("data.tokenizer=none.json", "data.tokenizer: the file .*none.json does not exist"),
        ("data.tokenizer=rows.csv", "data.tokenizer is not a tokenizer.json"),
        ("data.padding=<fill>", "no token '<fill>' to fill rows up with: name one in data.padding"),
        ("data.task=regression", "'label' is not a number: 'yes'"),
    ],
)
def test_a_setting_that_does_not_fit_the_data_is_named(tmp_path, setting, problem):
    """The recipe's key and what was found."""
    write_csv(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=problem):
        load(tmp_path, 'path = "rows.csv"', setting, *(["train.loss=mse"] if "task" in setting else []))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ('data.normalize="0-1"', "data.format = 'text' has neither"),
        ('data={format = "npz", path = "a.npz"}', "model.builder: 'text' needs data.format = 'text', not 'npz'"),
        ("train.augmentation={noise = 0.1}", "train.augmentation: changes numbers"),
        ("data.tokenizer={train = 'wordpeace'}", "data.tokenizer.train: .*did you mean 'wordpiece'"),
    ],
)
def test_keys_that_contradict_each_other_are_named(tmp_path, setting, problem):
    """Before anything is read."""
    with pytest.raises(RecipeError, match=problem):
        load(tmp_path, 'path = "rows.csv"', setting)
