"""An encoder from elsewhere, imported with its tokenizer: raw strings in, Keras' own embeddings out."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.commands.import_model import import_model
from litelambda.commands.import_text import complete_text
from litelambda.common.errors import UsageError
from litelambda.data.tokenizer_training import train_tokenizer
from litelambda.keras_tools.backend import load_keras
from support.odd_texts import odd_texts

keras = load_keras()
layers, ops = keras.layers, keras.ops

_LENGTH, _WIDTH, _VOCABULARY = 16, 32, 400
_INPUTS = {"ids": {"kind": "text", "emits": "ids"}, "mask": {"kind": "text", "emits": "mask"}}


@pytest.fixture(scope="module")
def tokenizer():
    """WordPiece with BERT's tokens at both ends, and a padding and truncation of its own that are not used."""
    made = Tokenizer.from_buffer(train_tokenizer("wordpiece", _VOCABULARY - 2, [each[:99] for each in odd_texts(300)]))
    made.add_special_tokens(["[CLS]", "[SEP]"])
    made.post_processor = processors.BertProcessing(*((each, made.token_to_id(each)) for each in ("[SEP]", "[CLS]")))
    made.enable_truncation(3)
    return made


def encoder(vocabulary):
    """MiniLM's layers, two of them and 32 wide, with random weights: attention over tokens, their mean, length 1."""
    keras.utils.set_random_seed(5)
    ids = keras.Input((_LENGTH,), name="ids", dtype="int32")
    mask = keras.Input((_LENGTH,), name="mask", dtype="int32")
    x = layers.Embedding(vocabulary, _WIDTH)(ids) + layers.Embedding(_LENGTH, _WIDTH)(ops.arange(_LENGTH))
    seen = ops.cast(mask, "float32")
    for _ in range(2):
        attention = layers.MultiHeadAttention(4, _WIDTH // 4)
        attended = attention(x, x, attention_mask=ops.cast(ops.expand_dims(mask, 1), "bool"))
        x = layers.LayerNormalization()(x + attended)
        x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(layers.Dense(2 * _WIDTH, activation="gelu")(x)))
    total = ops.sum(x * ops.expand_dims(seen, -1), axis=1)
    mean = total / ops.maximum(ops.sum(seen, axis=1, keepdims=True), 1.0)
    return keras.Model([ids, mask], layers.UnitNormalization(name="sentence")(mean))


def test_raw_strings_have_keras_own_embeddings(served_store, tokenizer, tmp_path):
    """Ids and mask come from one field, which is sent once, and what is answered is what Keras predicts on them."""
    store, address = served_store
    model = encoder(_VOCABULARY)
    model.save(tmp_path / "encoder.keras")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    import_model(
        tmp_path / "encoder.keras",
        "encoder",
        store,
        preprocessing=json.dumps(_INPUTS),
        tokenizer=tmp_path / "tokenizer.json",
    )
    texts = [
        "great film",
        "not a good film at all, but one with too many words for a row",
        "",
        "😀 שלום",
    ]
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    plain.no_truncation()
    cls, sep = (plain.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    ids, mask = np.zeros((2, len(texts), _LENGTH), np.int32)
    for row, text in enumerate(texts):
        found = [cls, *plain.encode(text, add_special_tokens=False).ids[: _LENGTH - 2], sep]
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    expected = model.predict({"ids": ids, "mask": mask}, verbose=0)
    body = json.dumps({"instances": texts}).encode()
    with urllib.request.urlopen(f"http://{address}/v1/models/encoder:predict", body) as answer:
        found = np.float32(json.load(answer)["predictions"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    entry = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    body = json.dumps({"inputs": [entry]}).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/encoder/infer", body) as answer:
        again = np.float32(json.load(answer)["outputs"][0]["data"])
    assert np.array_equal(again, found.ravel())


def tensor(name, dtype="int32", limits=(0, 9999)):
    return FlatbufferTensor(name, dtype, (-1, _LENGTH), None, limits)


@pytest.mark.parametrize(
    ("documents", "inputs", "problem"),
    [
        ({}, [tensor("ids"), tensor("mask")], "no input reads text. Of ids, mask, say which do with --preprocessing"),
        ({"ids": {"kind": "text", "length": 3}}, [tensor("ids")], "unknown key 'length': choose kind, emits, field"),
        ({"ids": {"kind": "text", "emits": "words"}}, [tensor("ids")], "'words' is not one of ids, mask, types"),
        ({"ids": {"kind": "text", "padding": "<none>"}}, [tensor("ids")], "no token '<none>' to fill rows up with"),
        ({}, [tensor("ids", "int8")], "int8 of shape .*expected one of int32, int64, float32"),
        ({}, [tensor("ids", limits=(0, 99))], "numbers up to 399, the model's table ends at 99"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tokenizer, tmp_path, documents, inputs, problem):
    """The input, and what to say in place of it."""
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    with pytest.raises(UsageError, match=problem):
        complete_text(documents, inputs, path)


def test_text_needs_its_tokenizer(tmp_path):
    """Without one, or with one that cannot be read, the option is named."""
    with pytest.raises(UsageError, match=r"give its tokenizer\.json with --tokenizer"):
        complete_text(_INPUTS, [tensor("ids"), tensor("mask")], None)
    with pytest.raises(UsageError, match=r"--tokenizer: .*none.json cannot be read"):
        complete_text(_INPUTS, [tensor("ids"), tensor("mask")], tmp_path / "none.json")
