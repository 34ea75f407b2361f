"""The benchmark's model once more, signed and encrypted, with keys of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litelambda.bench.subject import Subject
from litelambda.publishing.encryption import SUFFIX, Encryption, make_key_file
from litelambda.store.signing import LocalSigner, make_key, one_line
from litelambda_serving.manifest import ENCRYPTED
from litelambda_serving.trust import SIGNATURE_NAME


@dataclass(frozen=True)
class Sealed:
    """A signed and encrypted version.

    Attributes:
        objects: store-relative keys to contents.
        settings: of a function that serves it, and nothing else.
    """

    objects: Mapping[str, bytes]
    settings: Mapping[str, str]


def seal(subject: Subject, folder: Path) -> Sealed:
    """Sign and encrypt a version.

    Args:
        subject: the version.
        folder: for the key files, which the function reads.
    """
    decryption, private = folder / "decryption.key", folder / "signing.pem"
    decryption.write_bytes(make_key_file())
    pem, public_key = make_key()
    private.write_bytes(pem)
    plain, place = subject.manifest, f"{subject.manifest.model}/{subject.manifest.version}"
    files = {plain.artifact + SUFFIX: subject.objects[subject.artifact_key]}
    files |= {name: subject.objects[f"{place}/{name}"] for name in plain.assets}
    encrypted = Encryption(str(decryption)).encrypt(plain.model, plain.version, files)
    pins = {
        name: {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "encoding": ENCRYPTED,
            "unpacked": plain.fields["files"][name.removesuffix(SUFFIX)],
        }
        for name, content in encrypted.files.items()
    }
    artifact = {"artifact": plain.artifact + SUFFIX, "files": pins, "encryption": encrypted.document}
    manifest = json.dumps({**plain.fields, **artifact}).encode()
    documents = {"manifest.json": manifest, SIGNATURE_NAME: LocalSigner(private).sign(manifest)}
    return Sealed(
        {f"{place}/{name}": content for name, content in {**encrypted.files, **documents}.items()},
        {
            "MODEL_MANIFEST_SHA256": hashlib.sha256(manifest).hexdigest(),
            "MODEL_PUBLIC_KEY": one_line(public_key),
            "MODEL_DECRYPTION_KEY": str(decryption),
        },
    )
