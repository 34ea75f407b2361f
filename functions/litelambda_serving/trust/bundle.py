"""OpenSSF model signing's bundle (v1), `model.sig`: a second form of signature, which covers every file of a version.

It is a DSSE envelope around an in-toto statement that lists the files with their digests. What the function needs of
them is the manifest's, which pins the rest. Imported where a version has this signature and not `manifest.json.sig`.

Source: sigstore/model-transparency `model_signing/_signing`, secure-systems-lab/dsse `protocol.md`.
"""

from __future__ import annotations

from binascii import a2b_base64

from litelambda_serving.errors import TrustError
from litelambda_serving.json_codec import loads
from litelambda_serving.trust.libcrypto import verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PAYLOAD_TYPE", "PREDICATE_TYPE", "STATEMENT_TYPE", "encode_for_signing", "signed_digests"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def encode_for_signing(payload: bytes) -> bytes:
    """What a DSSE envelope's signature is over.

    >>> encode_for_signing(b"{}")
    b'DSSEv1 28 application/vnd.in-toto+json 2 {}'
    """
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def signed_digests(bundle: bytes, public_keys: tuple[bytes, ...], where: str) -> dict[str, str]:
    """The SHA-256 of each file that a bundle signs, by its name.

    Args:
        bundle: its bytes.
        public_keys: of those who may sign, DER.
        where: its URL, for messages.

    Raises:
        TrustError: it is not a bundle of files' SHA-256 digests, or no key of these has signed it.
    """
    try:
        envelope = loads(bundle)["dsseEnvelope"]
        payload, signatures = a2b_base64(envelope["payload"]), envelope["signatures"]
        is_known = envelope["payloadType"] == PAYLOAD_TYPE and len(signatures) == 1
        signature = a2b_base64(signatures[0]["sig"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrustError(
            f"{where} is not a bundle of model signing: {type(error).__name__}: {error}", "invalid"
        ) from error
    if not is_known or not any(verify(key, signature, encode_for_signing(payload)) for key in public_keys):
        raise TrustError(
            f"{where} is not signed with MODEL_PUBLIC_KEY: it was changed, or signed with another key", "invalid"
        )
    try:
        return _digests(loads(payload))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrustError(
            f"{where} signs something else than files: {type(error).__name__}: {error}", "invalid"
        ) from error


def _digests(statement: Any) -> dict[str, str]:
    kinds = (statement["_type"], statement["predicateType"], statement["predicate"]["serialization"]["method"])
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE, "files"):
        raise ValueError(f"its kind is {', '.join(map(str, kinds))}"[:200])
    resources = statement["predicate"]["resources"]
    digests = {each["name"]: each["digest"] for each in resources if each["algorithm"] == "sha256"}
    if len(digests) != len(resources):
        raise ValueError("a file is named twice, or its digest is not SHA-256")
    return digests
