"""Trains a tokenizer on the training rows' texts: the same texts give the same `tokenizer.json`, byte for byte.

Hugging Face's trainers number some tokens in the order of their hash tables, which differs from run to run: what they
leave open is decided here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from litelambda.common.errors import DataError
from litelambda.common.wording import counted

Family = Literal["wordpiece", "bpe", "unigram"]

PADDING, UNKNOWN = "[PAD]", "[UNK]"
_SPECIAL = [PADDING, UNKNOWN]
_ALPHABET_SHARE = 4  # of the vocabulary, at most one token in so many is a character
_SCORE_DIGITS = 6  # of Unigram's scores, whose last digits depend on the order of additions
_SCORE_STEP = 0.0001  # of the characters that its training dropped, from each to the next
_NEVER = -100.0  # the score of what no text contains


def train_tokenizer(family: Family, vocabulary_size: int, texts: Sequence[str]) -> bytes:
    """Train a tokenizer, with the padding token as number 0.

    Args:
        family: "wordpiece" in lower case and without accents, as BERT's; "bpe" of bytes, as GPT-2's; "unigram" of
            characters in NFKC, as SentencePiece's.
        vocabulary_size: tokens, with those for padding and for what is unknown.
        texts: to train on.

    Returns:
        Its `tokenizer.json`.

    Raises:
        DataError: the texts are too few for a vocabulary.
    """
    tokenizer = _untrained(family)
    try:
        document = _TRAIN[family](tokenizer, vocabulary_size, texts)
    except Exception as error:  # the library raises bare ones
        raise DataError(
            f"data.tokenizer: {family} cannot be trained on {counted(len(texts), 'text')}: {error}"
        ) from error
    if len(document["model"]["vocab"]) <= len(_SPECIAL):
        raise DataError(f"data.tokenizer: {family} finds nothing to train on in {counted(len(texts), 'text')}")
    # A text that has "[PAD]" in it has these characters, not the padding.
    document["added_tokens"] = []
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _untrained(family: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    if family == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer, tokenizer.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif family == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer, tokenizer.decoder = normalizers.NFC(), decoders.ByteLevel()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer, tokenizer.decoder = normalizers.NFKC(), decoders.Metaspace()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _train_wordpiece(tokenizer: Any, size: int, texts: Sequence[str]) -> dict[str, Any]:
    from tokenizers import trainers

    alphabet = _alphabet(tokenizer, texts, size)
    # As special tokens, all characters have numbers before the trainer meets them in the order of its hash table.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*_SPECIAL, *alphabet, *(f"##{character}" for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    return _trained(tokenizer, trainer, texts)


def _train_bpe(tokenizer: Any, size: int, texts: Sequence[str]) -> dict[str, Any]:
    from tokenizers import pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(tokenizer, trainer, texts)


def _train_unigram(tokenizer: Any, size: int, texts: Sequence[str]) -> dict[str, Any]:
    from tokenizers import trainers

    alphabet = {" ", *_alphabet(tokenizer, texts, size)}
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=_SPECIAL, unk_token=UNKNOWN, show_progress=False)
    normalized = map(tokenizer.normalizer.normalize_str, texts)
    document = _trained(
        tokenizer,
        trainer,
        ("".join(each if each in alphabet else " " for each in text) for text in normalized),
    )
    pieces = [(piece, score) for piece, score in document["model"]["vocab"] if piece not in _SPECIAL]
    low = min((score for _, score in pieces), default=0.0)
    # Characters that the training dropped come back with scores in the order of a hash table, from the lowest on.
    band = low + _SCORE_STEP * len(alphabet)
    scores = {piece: low if len(piece) == 1 and score < band else score for piece, score in pieces}
    found = [(piece, round(score, _SCORE_DIGITS)) for piece, score in scores.items()]
    document["model"]["vocab"] = [(piece, _NEVER) for piece in _SPECIAL] + sorted(
        found, key=lambda each: (-each[1], each[0])
    )
    return document


_TRAIN = {"wordpiece": _train_wordpiece, "bpe": _train_bpe, "unigram": _train_unigram}


def _trained(tokenizer: Any, trainer: Any, texts: Iterable[str]) -> dict[str, Any]:
    tokenizer.train_from_iterator(texts, trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


def _alphabet(tokenizer: Any, texts: Sequence[str], size: int) -> list[str]:
    """The most frequent characters, as many as the vocabulary has room for."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            counts.update(word)
    most = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(most[: max(1, size // _ALPHABET_SHARE)])
