"""OpenSSF model signing's bundle (v1) over a version: `model_signing verify key` checks it in a copy of its folder.

`litelambda_serving.trust.bundle` reads it, there and here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from litelambda.store.signing import pem_of
from litelambda_serving.artifact import MANIFEST_NAME
from litelambda_serving.trust import BUNDLE_NAME, SIGNATURE_NAME
from litelambda_serving.trust.bundle import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, encode_for_signing

if TYPE_CHECKING:
    from litelambda.store.signing import Signer

__all__ = ["make_bundle", "pinned_digests"]

_IGNORED = [name for each in (SIGNATURE_NAME, BUNDLE_NAME) for name in (each, f".{each}.lock")]
"""Other files of a version's folder: signatures, and what keeps their writers apart."""

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def pinned_digests(manifest: bytes) -> dict[str, str]:
    """The SHA-256 of every file of a version by its name, the manifest's own among them."""
    digests = {name: pin["sha256"] for name, pin in json.loads(manifest)["files"].items()}
    return {MANIFEST_NAME: hashlib.sha256(manifest).hexdigest(), **digests}


def make_bundle(manifest: bytes, signer: Signer) -> bytes:
    """Sign every file of a version, by what its manifest pins.

    Args:
        manifest: its bytes.
        signer: the key.

    Raises:
        PublishError: KMS refuses.
    """
    digests = dict(sorted(pinned_digests(manifest).items()))
    root = hashlib.sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        # The name is that of the folder.
        "subject": [{"name": str(json.loads(manifest)["version"]), "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": _IGNORED,
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()],
        },
    }
    payload = json.dumps(statement, separators=(",", ":")).encode()
    signature = signer.sign(encode_for_signing(payload))
    bundle = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(pem_of(signer.public_key())).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()
