"""What texts become: the tokenizer, given or trained on the training rows, and how rows are padded and cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litelambda.common.errors import DataError
from litelambda.common.extras import require_extra
from litelambda.data.raw_form import RawForm
from litelambda.data.tokenizer_training import train_tokenizer
from litelambda.recipe.sections import TextData, TrainedTokenizer, resolve_path

TOKENIZER_NAME = "tokenizer.json"
_PADDING_NAMES = ("[PAD]", "<pad>", "<PAD>")
_LEAST_CHARACTERS = 4096
_CHARACTERS_PER_TOKEN = 64


def fit_form(settings: TextData, folder: Path, texts: Sequence[str]) -> RawForm:
    """What texts become.

    Args:
        settings: the recipe's `data`.
        folder: the recipe's, which a tokenizer's path is relative to.
        texts: of the training rows.

    Raises:
        DataError: the tokenizer cannot be read or trained, or has no token to fill rows up with.
        UsageError: the library is not installed.
    """
    require_extra("text")
    given = settings.tokenizer
    if isinstance(given, TrainedTokenizer):
        tokenizer = train_tokenizer(given.train, given.vocabulary_size, texts)
    else:
        path = resolve_path(given, folder)
        if not path.is_file():
            raise DataError(f"data.tokenizer: the file {path} does not exist")
        tokenizer = path.read_bytes()
    size, padding = read_tokenizer(tokenizer, settings.padding)
    document = {
        "kind": "text",
        "field": settings.text,
        "label": settings.label,
        "tokenizer": TOKENIZER_NAME,
        "length": settings.length,
        "padding": padding,
        "truncation": settings.truncation,
        "max_characters": most_characters(settings.length),
        "vocabulary_size": size,
    }
    return RawForm(document, (settings.length,), "int32", {TOKENIZER_NAME: tokenizer})


def most_characters(length: int) -> int:
    """How many characters of a text are looked at for a row of so many tokens."""
    return max(_LEAST_CHARACTERS, _CHARACTERS_PER_TOKEN * length)


def read_tokenizer(data: bytes, padding: str | None) -> tuple[int, int]:
    """The largest number of a tokenizer's tokens plus one, and the number that fills rows up.

    Args:
        data: a `tokenizer.json`.
        padding: the token that fills rows up; None for the tokenizer's own.

    Raises:
        DataError: it cannot be read, or has no such token.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare ones
        raise DataError(f"data.tokenizer is not a tokenizer.json of Hugging Face's: {str(error)[:200]}") from error
    own: dict[str, Any] = json.loads(data).get("padding") or {}
    names = [padding] if padding else [own["pad_token"]] if "pad_token" in own else _PADDING_NAMES
    number = next((found for name in names if (found := tokenizer.token_to_id(name)) is not None), None)
    if number is None:
        raise DataError(
            f"the tokenizer has no token {' or '.join(map(repr, names))} to fill rows up with: name one in data.padding"
        )
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1, number
