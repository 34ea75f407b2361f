"""Text: a row of token numbers, of a fixed length, from Hugging Face's `tokenizers` and a `tokenizer.json`.

The document of an input:

    field             under which rows have the text
    tokenizer         name of the `tokenizer.json` among the assets; its own padding and truncation are not used
    length            of a row, with the tokens that the tokenizer adds
    padding           number that fills a row up, at its end
    truncation        the side that too long a text is cut on: "right" or "left"
    max_characters    of a text, those beyond are cut on that side before anything else: it bounds the time
    label             a column that rows may also have, or a list of them
    emits             "ids", "mask" (1 for tokens, 0 for what fills up) or "types" (of the segments)

Inputs that read the same field in the same way share what it was made into.
"""

from __future__ import annotations

import os
import struct
import sys
from binascii import a2b_base64
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from itertools import chain

from litelambda_serving.errors import (
    ManifestError,
    PayloadTooLargeError,
    RuntimeLibraryError,
    TensorError,
    UnsupportedError,
)
from litelambda_serving.preprocessing.base import Field, FieldError, Preprocessor, shown
from litelambda_serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litelambda_serving.tensor import TensorSpec

__all__ = ["DTYPES", "EMITS", "MAX_BYTES", "Text"]

DTYPES = ("int32", "int64", "float32")
"""What token numbers can be; float32 is Keras's own default for inputs, and holds every vocabulary exactly."""

MAX_BYTES = 1 << 26
"""Of the rows that are prepared at once: a text of two characters becomes as long a row as any."""

EMITS = {"ids": "ids", "mask": "attention_mask", "types": "type_ids"}
"""What an input can read of a text, and the library's name of it."""

_LIBRARY = os.path.join("tokenizers", "tokenizers.abi3.so")
_MAX_LENGTH = 1 << 16
_BLOCK_ROWS = 256  # the library takes some hundred bytes for each token of the rows that it makes at once


class Text(Preprocessor):
    """Prepares an input from texts.

    Attributes:
        emits: what the input reads, one of `EMITS`.
    """

    def __init__(self, spec: TensorSpec, document: Mapping[str, Any], assets: Mapping[str, bytes]) -> None:
        """Read the tokenizer.

        Raises:
            ManifestError: a setting is missing or wrong, or the tokenizer does not fit the model.
            UnsupportedError: the library `tokenizers` is not in the package.
            RuntimeLibraryError: it is for another machine.
        """
        super().__init__(spec)
        self.fields = (Field(_setting(document, "field", str), "text"),)
        label = document.get("label", ())
        self.ignored = frozenset([label] if type(label) is str else label)
        emits = self.emits = document.get("emits", "ids")
        if emits not in EMITS:
            raise ManifestError(f"emits: {str(emits)[:40]!r} is not one of {', '.join(EMITS)}")
        self._attribute = EMITS[emits]
        settings = _read_settings(document, assets)
        length = settings[1]
        if spec.dtype.name not in DTYPES or spec.shape[1:] != (length,):
            raise ManifestError(
                f"the input is {spec.dtype.name} of shape {list(spec.shape)}: expected one of {', '.join(DTYPES)}, in "
                f"rows of length, {length}"
            )
        self._encoder = _open_encoder(settings, self._attribute)
        last = max(self._encoder.num_tokens - 1, document["padding"])
        if emits == "ids" and spec.limits is not None and last > spec.limits[1]:
            raise ManifestError(
                f"{document['tokenizer']} and the padding have numbers up to {last}, the model's table ends at "
                f"{spec.limits[1]}: this is another model's tokenizer"
            )

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        """See `Preprocessor.prepare`.

        Raises:
            PayloadTooLargeError: so many rows that they would take more than `MAX_BYTES`.
        """
        (values,) = columns
        spec, field = self.spec, self.fields[0].name
        if not spec.batched and len(values) != spec.shape[0]:
            raise TensorError(f"field {field!r}: {len(values)} rows, the model takes exactly {spec.shape[0]}")
        row_bytes = spec.shape[1] * spec.dtype.itemsize
        if len(values) * row_bytes > MAX_BYTES:
            raise PayloadTooLargeError(
                f"field {field!r}: {len(values):,} texts at once, at most {MAX_BYTES // row_bytes:,} are taken"
            )
        texts = tuple([value if type(value) is str else self._text(value, row) for row, value in enumerate(values)])
        try:
            data = self._encoder.encode(texts, self._attribute)
        except TypeError:  # of the library, which takes only what UTF-8 can hold
            raise self._not_unicode(texts) from None
        if spec.dtype.name != "int32":
            data = struct.pack(f"<{len(data) // 4}{spec.dtype.format}", *memoryview(data).cast("i"))
        return Tensor(spec.dtype, spec.shape_of(len(texts)), data)

    def tokens(self, text: str) -> list[tuple[str, int, int]]:
        """The tokens of a text that the model reads, with those that the tokenizer adds: each, and where it stands."""
        return [(token, start, end) for token, start, end, _ in self._encoder.spans(text)]

    def words(self, text: str) -> list[tuple[int, int]]:
        """Where each word of a text that the model reads begins and ends, as the tokenizer cuts it."""
        words: dict[int, tuple[int, int]] = {}
        for _, start, end, word in self._encoder.spans(text):
            if word is not None:
                words[word] = words.get(word, (start, end))[0], end
        spaces = [(start, end, text[start:end]) for start, end in words.values()]
        cut = [(end - len(word.lstrip()), start + len(word.rstrip())) for start, end, word in spaces]
        return [(start, end) for start, end in cut if start < end]

    def _text(self, value: Any, row: int) -> str:
        """Text out of the bytes of a file, or out of the base64 that TensorFlow Serving's clients send."""
        try:
            if type(value) is dict and value.keys() == {"b64"}:
                value = a2b_base64(value["b64"], strict_mode=True)
            if type(value) is bytes:
                return value.decode()
        except (TypeError, ValueError):
            raise FieldError(self.fields[0].name, row, "it is not text in UTF-8, nor its base64") from None
        raise FieldError(self.fields[0].name, row, f"expected text, got {shown(value)}")

    def _not_unicode(self, texts: Sequence[str]) -> FieldError:
        for row, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                reason = f"character {error.start} is half of a surrogate pair, which is not text"
                return FieldError(self.fields[0].name, row, reason)
        raise AssertionError("the library refused text that UTF-8 can hold")


def _read_settings(document: Mapping[str, Any], assets: Mapping[str, bytes]) -> tuple[bytes, int, int, int, str]:
    """How texts become rows: the tokenizer, length, padding, most characters, and the side to cut on."""
    name = _setting(document, "tokenizer", str)
    if name not in assets:
        raise ManifestError(f"tokenizer: {name[:60]!r} is not among the assets {', '.join(assets) or '(none)'}")
    length, padding, most = (_setting(document, key, int) for key in ("length", "padding", "max_characters"))
    if not 0 < length <= _MAX_LENGTH or padding < 0 or most < 1:
        raise ManifestError(
            f"length {length}, padding {padding}, max_characters {most}: expected 1 to {_MAX_LENGTH}, at least 0 and "
            "at least 1"
        )
    truncation = document.get("truncation", "right")
    if truncation not in ("right", "left"):
        raise ManifestError(f"truncation: {str(truncation)[:40]!r} is not right or left")
    return assets[name], length, padding, most, truncation


class _Encoder:
    """Makes rows of texts.

    Attributes:
        settings: what it was made from.
        attributes: what inputs read of a text; where there are several, the last result is kept for the next of them.
        num_tokens: of the tokenizer, with those that were added to its vocabulary.
    """

    def __init__(self, settings: tuple[bytes, int, int, int, str]) -> None:
        self.settings = settings
        data, self._length, padding, self._most, truncation = settings
        self._cut = slice(self._most) if truncation == "right" else slice(-self._most, None)
        self.attributes: set[str] = set()
        library = _load_native()
        try:
            tokenizer = library.Tokenizer.from_buffer(data)
            tokenizer.enable_truncation(self._length, direction=truncation)
            tokenizer.enable_padding(length=self._length, pad_id=padding)
            tokenizer.encode("warm up")
        except Exception as error:  # the library raises bare ones
            raise ManifestError(
                f"the tokenizer cannot be used by tokenizers {library.__version__}: {str(error)[:200]}"
            ) from error
        self.num_tokens: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self._tokenizer = tokenizer
        self._last: tuple[tuple[str, ...], dict[str, bytes]] = ((), {})

    def encode(self, texts: tuple[str, ...], attribute: str) -> bytes:
        """What an input reads of texts, as int32.

        Raises:
            TypeError: a text holds a lone surrogate.
        """
        seen, found = self._last  # read at once: other threads replace it
        if attribute in found and seen == texts:
            return found[attribute]
        found = self._encode(texts)
        if len(found) > 1:
            self._last = texts, found
        return found[attribute]

    def spans(self, text: str) -> list[tuple[str, int, int, int | None]]:
        """Each token of a text but those that fill up, where it begins and ends, and the number of its word."""
        cut = text[self._cut] if len(text) > self._most else text
        skipped = len(text) - len(cut) if self._cut.start else 0
        row = self._tokenizer.encode(cut)
        return [
            (token, start + skipped * (word is not None), end + skipped * (word is not None), word)
            for token, (start, end), word, real in zip(
                row.tokens, row.offsets, row.word_ids, row.attention_mask, strict=True
            )
            if real
        ]

    def _encode(self, texts: Sequence[str]) -> dict[str, bytes]:
        most, cut = self._most, self._cut
        found: dict[str, list[bytes]] = {attribute: [] for attribute in self.attributes}
        for start in range(0, len(texts), _BLOCK_ROWS):
            block = [text if len(text) <= most else text[cut] for text in texts[start : start + _BLOCK_ROWS]]
            # One text does not wait for the library's threads.
            one = len(block) == 1
            rows = [self._tokenizer.encode(block[0])] if one else self._tokenizer.encode_batch_fast(block)
            code = f"<{self._length * len(rows)}i"
            for attribute, parts in found.items():
                values = chain.from_iterable([getattr(row, attribute) for row in rows])
                parts.append(struct.pack(code, *values))
        return {attribute: b"".join(parts) for attribute, parts in found.items()}


_newest: _Encoder | None = None  # which the other inputs of its model share


def _open_encoder(settings: tuple[bytes, int, int, int, str], attribute: str) -> _Encoder:
    global _newest  # noqa: PLW0603 - one encoder is kept, of whichever model was opened last
    encoder = _newest
    if encoder is None or encoder.settings != settings:
        encoder = _newest = _Encoder(settings)
    encoder.attributes.add(attribute)
    return encoder


def _load_native() -> Any:
    """The library's extension module, without the Python package around it."""
    for entry in sys.path:
        path = os.path.join(entry or ".", _LIBRARY)
        if os.path.exists(path):
            loader = ExtensionFileLoader("tokenizers", path)
            try:
                module = loader.create_module(ModuleSpec("tokenizers", loader, origin=path))
                loader.exec_module(module)
            except ImportError as error:
                raise RuntimeLibraryError(
                    f"{path} is not for this machine ({os.uname().machine}): {error}. Package for the function's "
                    "architecture, or install tokenizers for this one."
                ) from error
            return module
    raise UnsupportedError(
        "the model reads text, and Hugging Face's tokenizers is not installed: deploy a package that was made with "
        "`litelambda package --with text`, or install 'litelambda[text]'"
    )


def _setting(document: Mapping[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if type(value) is not kind or value == "":
        raise ManifestError(f"{key}: expected {'a number' if kind is int else 'a name'}, got {shown(value)}")
    return value
