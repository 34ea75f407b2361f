"""Keys that versions are signed with, on this machine or in KMS, and the signature over a manifest.

A signature is ECDSA with P-256 and SHA-256, DER: `openssl dgst -sha256 -verify KEY.pub.pem -signature
manifest.json.sig manifest.json` checks one. `litelambda_serving.trust` is the function's side of it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from litelambda.common.aws import aws_client
from litelambda.common.errors import PublishError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["KmsSigner", "LocalSigner", "Signer", "is_kms_key", "make_key", "one_line", "open_signer", "write_new"]

_PRIVATE = 0o600
_PUBLIC = 0o644


class Signer(Protocol):
    """A private key, which may not be here to be read."""

    def sign(self, document: bytes) -> bytes:
        """The signature of a document, DER."""

    def public_key(self) -> EllipticCurvePublicKey:
        """The key that checks what this one signs."""


class LocalSigner:
    """A key in a PEM file."""

    def __init__(self, path: Path) -> None:
        """Read the key.

        Raises:
            UsageError: it is not a private key of P-256 without a passphrase.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        expected = "expected a private key of P-256, PEM without a passphrase, as `litelambda keygen` makes it"
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{path} cannot be read ({error}): {expected}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UsageError(f"{path} holds a key of another kind: {expected}")
        self._key = key

    def sign(self, document: bytes) -> bytes:
        """The signature of a document."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(document, ECDSA(SHA256()))

    def public_key(self) -> EllipticCurvePublicKey:
        """The key that checks what this one signs."""
        return self._key.public_key()


class KmsSigner:
    """An asymmetric key of KMS (ECC_NIST_P256, SIGN_VERIFY), which never leaves it."""

    def __init__(self, arn: str) -> None:
        self._arn = arn

    def sign(self, document: bytes) -> bytes:
        """Have KMS sign a document's digest.

        Raises:
            PublishError: KMS refuses.
        """
        answer = self._call(
            "sign",
            Message=hashlib.sha256(document).digest(),
            MessageType="DIGEST",
            SigningAlgorithm="ECDSA_SHA_256",
        )
        return bytes(answer["Signature"])

    def public_key(self) -> EllipticCurvePublicKey:
        """Ask KMS for the key that checks what this one signs.

        Raises:
            UsageError: it is a key of another kind.
            PublishError: KMS refuses.
        """
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        key = load_der_public_key(self._call("get_public_key")["PublicKey"])
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UsageError(f"{self._arn} is a key of another kind: expected ECC_NIST_P256 for SIGN_VERIFY")
        return key

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return call_kms(self._arn, operation, **arguments)


def call_kms(arn: str, operation: str, **arguments: Any) -> dict[str, Any]:
    """Ask KMS to do something with a key.

    Raises:
        UsageError: this machine's AWS profile does not exist.
        PublishError: it refuses, or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = aws_client("kms", arn.split(":")[3])
    try:
        answer: dict[str, Any] = getattr(client, operation)(KeyId=arn, **arguments)
    except (BotoCoreError, ClientError) as error:
        raise PublishError(f"KMS does not use {arn}: {error}") from error
    return answer


def is_kms_key(text: str) -> bool:
    """Whether a key is named by the ARN of a key of KMS, or of an alias of one.

    >>> is_kms_key("arn:aws:kms:eu-west-1:111122223333:key/1234"), is_kms_key("release.pem")
    (True, False)
    """
    parts = text.split(":", 5)
    return len(parts) == 6 and parts[0] == "arn" and parts[2] == "kms" and parts[5].startswith(("key/", "alias/"))


def open_signer(key: str) -> Signer:
    """A key by its PEM file, or by its ARN in KMS.

    Raises:
        UsageError: the file does not exist, or holds something else.
    """
    return KmsSigner(key) if is_kms_key(key) else LocalSigner(Path(key).expanduser())


def make_key() -> tuple[bytes, EllipticCurvePublicKey]:
    """A new private key, PEM, and its public one."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), key.public_key()


def pem_of(key: EllipticCurvePublicKey) -> bytes:
    """A public key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def one_line(key: EllipticCurvePublicKey) -> str:
    """A public key as MODEL_PUBLIC_KEY takes it without a file: its compressed point, base64, 44 characters."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return base64.b64encode(key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)).decode()


def write_new(path: Path, content: bytes, *, is_secret: bool) -> None:
    """Write to a file that does not exist yet; what is secret only its owner may read.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE if is_secret else _PUBLIC)
    except FileExistsError:
        raise UsageError(f"{path} exists: it is not written over; name another file") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
