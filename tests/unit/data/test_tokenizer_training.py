"""Tokenizers are trained the same way every time, and what they add to a vocabulary cannot be written in a text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer

from litelambda.common.errors import DataError
from litelambda.data.tokenizer_training import train_tokenizer
from support.odd_texts import odd_texts


@pytest.mark.parametrize("family", ["wordpiece", "bpe", "unigram"])
def test_the_same_texts_give_the_same_tokenizer_in_another_process(family):
    """Hash tables have another order in every process; the file is the same, byte for byte."""
    texts = [text[:100] for text in odd_texts(400)]
    script = (
        "import sys, json; from litelambda.data.tokenizer_training import train_tokenizer\n"
        f"sys.stdout.buffer.write(train_tokenizer({family!r}, 700, json.load(sys.stdin)))"
    )
    found = train_tokenizer(family, 700, texts)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script], check=False, input=json.dumps(texts).encode(), capture_output=True
        )
        assert done.stdout == found, done.stderr.decode()


@pytest.mark.parametrize("family", ["wordpiece", "bpe", "unigram"])
def test_a_vocabulary_is_as_large_as_asked_and_never_pads_by_itself(family):
    """Number 0 fills rows up: no text, not even its name, has it."""
    tokenizer = Tokenizer.from_buffer(train_tokenizer(family, 700, [text[:100] for text in odd_texts(400)]))
    assert 690 <= tokenizer.get_vocab_size() <= 700  # Unigram leaves room for pieces that are named as these
    assert tokenizer.token_to_id("[PAD]") == 0
    for text in ("[PAD]", "a [PAD][PAD] b", "[pad]", *odd_texts(200)[8:]):
        assert 0 not in tokenizer.encode(text).ids, text


@pytest.mark.parametrize("family", ["wordpiece", "bpe", "unigram"])
def test_words_of_the_training_texts_are_found_again(family):
    """What was trained on decodes to itself, up to case."""
    texts = ["a great film about whales", "not a good film at all"] * 30
    tokenizer = Tokenizer.from_buffer(train_tokenizer(family, 300, texts))
    ids = tokenizer.encode("a great film about whales").ids
    assert len(ids) < 25
    assert tokenizer.decode(ids).strip() == "a great film about whales"


def test_too_little_text_is_refused_in_the_recipes_words():
    """A vocabulary cannot be made of nothing."""
    with pytest.raises(DataError, match=r"data.tokenizer: unigram finds nothing to train on in 1 text"):
        train_tokenizer("unigram", 100, [""])
