"""Encrypted files, opened while they arrive, in memory alone; docs/how-to/sign-and-encrypt.md has their format.

    "LITEENC1" | bytes of a chunk (4, big endian) | nonce prefix (7) | chunk … | last chunk

A chunk is AES-256-GCM's ciphertext and its tag. Its nonce is the prefix, its number (4 bytes, big endian) and whether
it is the last (1 byte); it authenticates the header and the file's place in the store: chunks that were flipped,
swapped, cut off, or taken from another file are refused before anything of them is used.

Imported only for a version that is encrypted. Encrypting is the toolchain's part.
"""

from __future__ import annotations

from binascii import Error, a2b_base64

from litelambda_serving.background import Background
from litelambda_serving.errors import ManifestError, TrustError
from litelambda_serving.trust.libcrypto import NONCE_BYTES, TAG_BYTES, AesGcm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.trust import Trust

__all__ = ["DataKey", "Decrypter", "context_of", "place_of"]

MAGIC = b"LITEENC1"
HEADER_BYTES = len(MAGIC) + 4 + 7
KEY_BYTES = 32
_MAX_CHUNK_BYTES = 16 * 1024 * 1024


def context_of(model: str, version: int) -> dict[str, str]:
    """What a data key is bound to: KMS's encryption context."""
    return {"litelambda:model": model, "litelambda:version": str(version)}


def place_of(model: str, version: int, file: str = "") -> bytes:
    """What a chunk is bound to, and without a file what a data key under a key file is."""
    return f"{model}/{version}/{file}".encode()


class DataKey:
    """The key of a version's files, on its way from KMS or from under a key file."""

    def __init__(self, manifest: Manifest, trust: Trust | None) -> None:
        """Start to open it.

        Args:
            manifest: of the version; its `encryption` has the key, encrypted.
            trust: the store's; has the key file.

        Raises:
            ManifestError: `encryption` is damaged.
            TrustError: this function has no key for it.
        """
        self._where = f"version {manifest.version} of {manifest.model}"
        fields = manifest.fields["encryption"]
        key, wrapped = _text(fields, "key"), _bytes(fields, "data_key")
        if trust is not None and trust.data_key:
            self._key = Background(bytes, trust.data_key)
        elif key.startswith("arn:"):
            from litelambda_serving.artifact.kms import decrypt

            self._key = Background(decrypt, wrapped, key, context_of(manifest.model, manifest.version))
        elif trust is not None and trust.decryption_key:
            place = place_of(manifest.model, manifest.version)
            self._key = Background(_unwrap, trust.decryption_key, wrapped, place, self._where)
        else:
            raise TrustError(f"{self._where} is encrypted with a key file: set MODEL_DECRYPTION_KEY to it")
        self._manifest = manifest

    def decrypter(self, file: str) -> Decrypter:
        """What opens one file of the version.

        Raises:
            TrustError: the data key cannot be opened.
            StoreUnavailableError: KMS does not answer.
        """
        manifest, key = self._manifest, self._key.result()
        if len(key) != KEY_BYTES:
            raise TrustError(f"the data key of {self._where} has {len(key)} bytes, expected {KEY_BYTES}")
        place = place_of(manifest.model, manifest.version, file)
        return Decrypter(AesGcm(key), place, manifest.files[file].size_bytes)


class Decrypter:
    """Opens one file, piece by piece as it arrives."""

    def __init__(self, cipher: AesGcm, place: bytes, size_bytes: int) -> None:
        """Wait for its first byte.

        Args:
            cipher: with the data key.
            place: see `place_of`.
            size_bytes: of the encrypted file, as the manifest pins it: says which chunk must be the last.

        Raises:
            TrustError: so short is not even an empty file.
        """
        self._cipher = cipher
        self._place = place
        self._left = size_bytes
        self._header = b""
        self._sealed_bytes = 0
        self._number = 0
        self._rest = b""
        if size_bytes < HEADER_BYTES + TAG_BYTES:
            raise self._refusal(f"has {size_bytes} bytes, too few for an encrypted file")

    def __call__(self, data: Buffer) -> Iterator[memoryview]:
        """What the next bytes hold, each piece until the next one is asked for.

        Raises:
            TrustError: a chunk is not what was encrypted, or not in its place.
        """
        view, position = memoryview(data), 0
        if self._rest:  # what a chunk lacks comes first: the other bytes stay where they are
            wanted = (min(self._sealed_bytes, self._left) if self._header else HEADER_BYTES) - len(self._rest)
            position = max(0, min(wanted, len(view)))
            started = self._rest + bytes(view[:position])
            self._rest = b""
            if wanted > position:
                self._rest = started
                return
            if self._header:
                yield self._next(memoryview(started))
            else:
                self._read_header(started)
        elif len(view) >= HEADER_BYTES and not self._header:
            self._read_header(bytes(view[:HEADER_BYTES]))
            position = HEADER_BYTES
        while self._header and self._left:
            size = min(self._sealed_bytes, self._left)
            if len(view) - position < size:
                break
            yield self._next(view[position : position + size])
            position += size
        self._rest = bytes(view[position:])
        if self._header and self._rest and not self._left:
            raise self._refusal("has more bytes than it should")

    def _read_header(self, header: bytes) -> None:
        chunk_bytes = int.from_bytes(header[len(MAGIC) : len(MAGIC) + 4], "big")
        if not header.startswith(MAGIC) or not 0 < chunk_bytes <= _MAX_CHUNK_BYTES:
            raise self._refusal("does not begin as an encrypted file does")
        self._header = header
        self._sealed_bytes = chunk_bytes + TAG_BYTES
        self._left -= HEADER_BYTES

    def _next(self, sealed: memoryview) -> memoryview:
        is_last = len(sealed) == self._left
        nonce = self._header[-7:] + self._number.to_bytes(4, "big") + bytes([is_last])
        plain = self._cipher.open(nonce, sealed, self._header + self._place)
        if plain is None:
            raise self._refusal(f"cannot be decrypted: chunk {self._number} was changed, or the key is another")
        self._number += 1
        self._left -= len(sealed)
        return plain

    def _refusal(self, reason: str) -> TrustError:
        return TrustError(f"{self._place.decode()} {reason}")


def _unwrap(path: str, wrapped: bytes, place: bytes, where: str) -> bytes:
    try:
        with open(path, "rb") as file:
            key = a2b_base64(file.read(4096))
    except (OSError, Error) as error:
        raise TrustError(f"MODEL_DECRYPTION_KEY: {path} cannot be read: {error}") from error
    if len(key) != KEY_BYTES:
        raise TrustError(f"MODEL_DECRYPTION_KEY: {path} has {len(key)} bytes in base64, expected {KEY_BYTES}")
    data_key = AesGcm(key).open(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], place)
    if data_key is None:
        raise TrustError(
            f"MODEL_DECRYPTION_KEY does not open {where}: it was encrypted with another key, or as another version"
        )
    return bytes(data_key)


def _text(fields: Any, name: str) -> str:
    value = fields.get(name) if isinstance(fields, dict) else None
    if type(value) is not str:
        raise ManifestError(f"manifest field encryption: expected {name} as text, got {str(value)[:40]}")
    return value


def _bytes(fields: Any, name: str) -> bytes:
    try:
        return a2b_base64(_text(fields, name), strict_mode=True)
    except (Error, ValueError) as error:
        raise ManifestError(f"manifest field encryption: {name} is not base64: {error}") from error
