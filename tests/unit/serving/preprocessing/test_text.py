"""Text becomes the numbers that Hugging Face's own library gives, padded and cut as the manifest says."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from litelambda.data.tokenizer_training import train_tokenizer
from litelambda_serving.errors import ManifestError, PayloadTooLargeError, ServingError
from litelambda_serving.preprocessing import RawInputs, open_preprocessor
from litelambda_serving.preprocessing.base import FieldError
from litelambda_serving.tensor import DTYPES, DYNAMIC, Tensor, TensorSpec, unpack_flat
from support.odd_texts import odd_texts

_MOST = 3000  # characters


@cache
def tokenizer_json(family: str) -> bytes:
    """A small tokenizer; WordPiece's adds tokens at both ends, as BERT's does."""
    data = train_tokenizer(family, 600, [text[:200] for text in odd_texts(500, seed=1)])  # type: ignore[arg-type]
    if family != "wordpiece":
        return data
    from tokenizers import processors

    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer.to_str().encode()


def document(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "text",
        "field": "text",
        "tokenizer": "tokenizer.json",
        "length": 16,
        "padding": 0,
        "max_characters": _MOST,
    } | fields


def spec(name: str = "ids", dtype: str = "int32", length: int = 16, rows: int = DYNAMIC) -> TensorSpec:
    return TensorSpec(name, DTYPES[dtype], (rows, length))


def opened(family: str = "wordpiece", **fields: Any) -> Any:
    return open_preprocessor(spec(), document(**fields), {"tokenizer.json": tokenizer_json(family)})


def as_array(tensor: Tensor) -> NDArray[Any]:
    return np.array(unpack_flat(tensor)).reshape(tensor.shape)


@pytest.mark.parametrize(
    ("family", "truncation", "count"),
    [("wordpiece", "right", 10_000), ("wordpiece", "left", 1000), ("bpe", "right", 1000), ("unigram", "left", 1000)],
)
def test_ten_thousand_odd_texts_become_the_librarys_own_numbers(family, truncation, count):
    """Emoji, NFD, right to left, NUL, controls, any bytes, 300,000 characters: as the library says, padded by numpy."""
    texts = odd_texts(count)
    plain = Tokenizer.from_buffer(tokenizer_json(family))
    ends = [plain.token_to_id("[CLS]"), plain.token_to_id("[SEP]")] if family == "wordpiece" else []
    room = 16 - len(ends)
    expected = np.full((len(texts), 16), 7)
    for row, text in zip(expected, texts, strict=True):
        read = text[:_MOST] if truncation == "right" else text[-_MOST:]
        ids = plain.encode(read, add_special_tokens=False).ids
        ids = ids[:room] if truncation == "right" else ids[-room:]
        ids = [*ends[:1], *ids, *ends[1:]]
        row[: len(ids)] = ids
    text = opened(family, truncation=truncation, padding=7)
    assert (as_array(text.prepare([texts])) == expected).all()
    one_by_one = [as_array(text.prepare([[each]])) for each in texts[:200]]
    assert (np.vstack(one_by_one) == expected[:200]).all()


def test_ids_mask_and_types_come_from_one_field():
    """Three inputs of three types read the same text, which is sent once."""
    names = {"ids": "int32", "mask": "int64", "types": "float32"}
    inputs = [spec(name, dtype) for name, dtype in names.items()]
    raw = RawInputs(
        inputs, {name: document(emits=name) for name in names}, {"tokenizer.json": tokenizer_json("wordpiece")}
    )
    assert list(raw.fields) == ["text"]
    reference = Tokenizer.from_buffer(tokenizer_json("wordpiece"))
    for texts in (["great film", "not good", ""], ["not good"]):
        tensors = {name: as_array(tensor) for name, tensor in raw.from_rows(texts).items()}
        for row, text in enumerate(texts):
            ids = reference.encode(text).ids
            assert tensors["ids"][row].tolist() == ids + [0] * (16 - len(ids))
            assert tensors["mask"][row].tolist() == [1] * len(ids) + [0] * (16 - len(ids))
        assert not tensors["types"].any()
    again = pickle.loads(pickle.dumps(raw)).from_rows(["film"])
    assert as_array(again["mask"]).sum() == len(reference.encode("film").ids)


@pytest.mark.parametrize(
    "row",
    ["great film", {"text": "great film"}, {"b64": base64.b64encode(b"great film").decode()}, b"great film"],
)
def test_a_text_is_the_same_however_it_came(row):
    """A string, an object with the field, TensorFlow Serving's base64, and the bytes of a file."""
    raw = RawInputs([spec()], {"ids": document()}, {"tokenizer.json": tokenizer_json("bpe")})
    ids = Tokenizer.from_buffer(tokenizer_json("bpe")).encode("great film").ids
    assert as_array(raw.from_rows([row])["ids"])[0].tolist() == ids + [0] * (16 - len(ids))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("half \ud83d", "character 5 is half of a surrogate pair"),
        (5, "expected text, got 5"),
        (None, "expected text, got null"),
        (["a"], "expected text, got a list"),
        (b"\xff", "not text in UTF-8"),
        ({"b64": "/w=="}, "not text in UTF-8"),
        ({"b64": "a"}, "nor its base64"),
        ({"b64": 1}, "nor its base64"),
    ],
)
def test_what_is_not_text_is_refused_by_field_and_row(value, reason):
    """The row that holds it is named, and what is wrong with it."""
    with pytest.raises(FieldError, match=reason) as caught:
        opened().prepare([["fine", value]])
    assert caught.value.row == 1
    assert "field 'text'" in str(caught.value)


def test_more_rows_than_memory_is_planned_for_are_refused():
    """A text of nothing takes a whole row: how many are taken is said."""
    with pytest.raises(PayloadTooLargeError, match=r"1,048,577 texts at once, at most 1,048,576 are taken"):
        opened().prepare([[""] * ((1 << 20) + 1)])


def test_a_model_of_one_row_takes_one_text():
    """Where the model has no batch dimension, its number of rows is the number of texts."""
    one = open_preprocessor(spec(rows=1), document(), {"tokenizer.json": tokenizer_json("bpe")})
    assert one.prepare([["film"]]).shape == (1, 16)
    with pytest.raises(ServingError, match="2 rows, the model takes exactly 1"):
        one.prepare([["film", "film"]])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"field": ""}, "field: expected a name"),
        ({"tokenizer": "vocab.txt"}, r"'vocab.txt' is not among the assets tokenizer.json"),
        ({"length": "16"}, "length: expected a number, got '16'"),
        ({"length": 17}, r"shape \[-1, 16\]: expected .* rows of length, 17"),
        ({"length": 0}, "length 0"),
        ({"padding": -1}, "padding -1"),
        ({"max_characters": 0}, "max_characters 0"),
        ({"truncation": "middle"}, "'middle' is not right or left"),
        ({"emits": "words"}, "'words' is not one of ids, mask, types"),
        ({"tokenizer": "broken.json"}, "cannot be used by tokenizers 0"),
    ],
)
def test_a_wrong_setting_is_a_fault_of_the_manifest(changes, reason):
    """The model is not loaded, and the message names the setting."""
    assets = {"tokenizer.json": tokenizer_json("bpe"), "broken.json": b"{}"}
    with pytest.raises(ManifestError, match=reason):
        open_preprocessor(spec(), document(**changes), assets)


def test_another_models_tokenizer_is_refused():
    """Tokens beyond the model's table are found when it is loaded, not when the first request has one."""
    limited = spec()
    limited.limits = (0, 500)
    with pytest.raises(ManifestError, match="have numbers up to 599, the model's table ends at 500"):
        open_preprocessor(limited, document(), {"tokenizer.json": tokenizer_json("bpe")})


def test_without_the_library_the_package_option_is_named():
    """A function that was packaged without it fails when it loads the model, in words that say what to do."""
    script = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p] + [sys.argv[1]]\n"
        "from litelambda_serving.preprocessing import open_preprocessor\n"
        "from litelambda_serving.tensor import DTYPES, TensorSpec\n"
        "document = {'field': 't', 'kind': 'text', 'tokenizer': 't', 'length': 2, 'padding': 0, 'max_characters': 9}\n"
        "open_preprocessor(TensorSpec('ids', DTYPES['int32'], (-1, 2)), document, {'t': b''})"
    )
    from litelambda.common.paths import FUNCTIONS

    done = subprocess.run(
        [sys.executable, "-S", "-c", script, str(FUNCTIONS)], check=False, capture_output=True, text=True
    )
    assert "UnsupportedError: the model reads text" in done.stderr
    assert "--with text" in done.stderr
