"""Encrypting a version: its files with a data key, the data key with a key of KMS or a key file.

docs/how-to/sign-and-encrypt.md describes the format byte by byte; `litelambda_serving.artifact.decryption` reads it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.common.errors import UsageError
from litelambda.store.signing import call_kms, is_kms_key
from litelambda_serving.artifact.decryption import MAGIC, context_of, place_of

if TYPE_CHECKING:
    from litelambda.recipe.load import Recipe  # needs the `build` extra, which `litelambda bench` does not

__all__ = ["Encrypted", "Encryption", "make_key_file", "open_encryption"]

SUFFIX = ".enc"
_CHUNK_BYTES = 64 * 1024
_KEY_BYTES = 32


@dataclass(frozen=True)
class Encrypted:
    """A version's files, encrypted.

    Attributes:
        data_key: what they are encrypted with.
        document: the manifest's `encryption`.
        files: contents by name.
    """

    data_key: bytes
    document: dict[str, str]
    files: dict[str, bytes]


def open_encryption(recipe: Recipe) -> Encryption | None:
    """What a recipe's versions are encrypted with; None where they are not."""
    key = recipe.publish.encrypt
    return Encryption(key if key.startswith("arn:") else str(recipe.resolve(key))) if key else None


class Encryption:
    """A key that data keys are encrypted with."""

    def __init__(self, key: str) -> None:
        """Open a key.

        Args:
            key: the ARN of a key of KMS, or a file that `litelambda keygen --encryption` made.

        Raises:
            UsageError: the file does not exist, or holds something else.
        """
        self._arn = key if is_kms_key(key) else ""
        self._key = b"" if self._arn else _read_key(Path(key).expanduser())

    def encrypt(self, model: str, version: int, files: Mapping[str, bytes]) -> Encrypted:
        """Encrypt files with a new data key.

        Raises:
            PublishError: KMS refuses.
        """
        if self._arn:
            context = context_of(model, version)
            answer = call_kms(self._arn, "generate_data_key", KeySpec="AES_256", EncryptionContext=context)
            data_key, wrapped, name = answer["Plaintext"], answer["CiphertextBlob"], str(answer["KeyId"])
        else:
            data_key, name = os.urandom(_KEY_BYTES), "file"
            nonce = os.urandom(12)
            wrapped = nonce + _aes_gcm(self._key).encrypt(nonce, data_key, place_of(model, version))
        document = {"key": name, "data_key": base64.b64encode(wrapped).decode()}
        sealed = {file: seal(data_key, place_of(model, version, file), content) for file, content in files.items()}
        return Encrypted(data_key, document, sealed)


def seal(data_key: bytes, place: bytes, content: bytes) -> bytes:
    """Encrypt one file, chunk by chunk.

    Args:
        data_key: of the version.
        place: of the file.
        content: its bytes.
    """
    cipher = _aes_gcm(data_key)
    prefix = os.urandom(7)
    header = MAGIC + _CHUNK_BYTES.to_bytes(4, "big") + prefix
    starts = range(0, max(len(content), 1), _CHUNK_BYTES)
    chunks = [
        cipher.encrypt(
            prefix + number.to_bytes(4, "big") + bytes([number == len(starts) - 1]),
            content[start : start + _CHUNK_BYTES],
            header + place,
        )
        for number, start in enumerate(starts)
    ]
    return b"".join([header, *chunks])


def make_key_file() -> bytes:
    """The content of a new key file: 32 random bytes, base64."""
    return base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n"


def _read_key(path: Path) -> bytes:
    expected = "expected a file that `litelambda keygen --encryption` made, or the ARN of a key of KMS"
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): {expected}") from error
    if len(key) != _KEY_BYTES:
        raise UsageError(f"{path} holds {len(key)} bytes: {expected}")
    return key


def _aes_gcm(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
