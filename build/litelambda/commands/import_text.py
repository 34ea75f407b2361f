"""`--tokenizer` of an import: the inputs of a model that reads text, such as an encoder's ids and attention mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.common.errors import DataError, UsageError
from litelambda.common.extras import require_extra
from litelambda.data.text_form import TOKENIZER_NAME, most_characters, read_tokenizer
from litelambda_serving.errors import ManifestError
from litelambda_serving.preprocessing import open_preprocessor
from litelambda_serving.tensor import DTYPES, TensorSpec

Documents = Mapping[str, Mapping[str, Any]]

_SETTINGS = ("kind", "emits", "field", "truncation", "padding", "max_characters")


def complete_text(
    documents: Documents, inputs: Sequence[FlatbufferTensor], tokenizer: Path | None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Complete what the caller says of text inputs, and check it against the model.

    Args:
        documents: by input, `{"kind": "text", "emits": "mask"}` and the like, in part; others stay as they are. Without
            any, a model of one input reads the numbers of tokens.
        inputs: of the model.
        tokenizer: a `tokenizer.json`.

    Returns:
        The manifest's `preprocessing`, and the files that it names.

    Raises:
        UsageError: the tokenizer is missing or not needed, or a setting does not fit the input.
    """
    if tokenizer is not None and not documents and len(inputs) == 1:
        documents = {inputs[0].name: {"kind": "text"}}
    texts = [name for name, document in documents.items() if document.get("kind") == "text"]
    if tokenizer is None:
        if texts:
            raise UsageError(f"input {texts[0]!r} reads text: give its tokenizer.json with --tokenizer")
        return dict(documents), {}
    if not texts:
        names = ", ".join(each.name for each in inputs)
        raise UsageError(
            f"--tokenizer: no input reads text. Of {names}, say which do with --preprocessing "
            f'\'{{"{inputs[0].name}": {{"kind": "text", "emits": "ids"}}}}\'; emits is ids, mask or types'
        )
    require_extra("text")
    try:
        data = tokenizer.read_bytes()
    except OSError as error:
        raise UsageError(f"--tokenizer: {tokenizer} cannot be read: {error.strerror}") from error
    tensors = {each.name: each for each in inputs}
    completed = {
        name: _completed(tensors[name], document, data) if name in texts else document
        for name, document in documents.items()
    }
    return completed, {TOKENIZER_NAME: data}


def _completed(tensor: FlatbufferTensor, document: Mapping[str, Any], tokenizer: bytes) -> dict[str, Any]:
    if unknown := sorted(document.keys() - set(_SETTINGS)):
        raise UsageError(
            f"--preprocessing of input {tensor.name!r}: unknown key {unknown[0]!r}: choose {', '.join(_SETTINGS)}"
        )
    try:
        size, padding = read_tokenizer(tokenizer, document.get("padding"))
    except DataError as error:
        raise UsageError(f"--tokenizer: {error}") from error
    length = tensor.shape[-1] if tensor.shape else 0
    defaults = {"field": "text", "emits": "ids", "truncation": "right", "max_characters": most_characters(length)}
    fixed = {"tokenizer": TOKENIZER_NAME, "length": length, "padding": padding, "vocabulary_size": size}
    completed = {**defaults, **document, **fixed}
    spec = TensorSpec(tensor.name, DTYPES[tensor.dtype], tensor.shape)
    spec.limits = tensor.limits
    try:
        open_preprocessor(spec, completed, {TOKENIZER_NAME: tokenizer})
    except ManifestError as error:
        raise UsageError(f"--preprocessing: {error}") from error
    return completed
