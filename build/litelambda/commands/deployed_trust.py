"""What a signed or an encrypted version asks of the stack that is to serve it, before anything is built for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from litelambda.common.errors import UsageError
from litelambda.store.copies import Version, signatures_of
from litelambda.store.reading import open_reader
from litelambda_serving.artifact import fetch_manifest
from litelambda_serving.errors import TrustError
from litelambda_serving.trust import Trust

__all__ = ["check_trust", "key_parameters"]


def key_parameters(version: Version, given: Mapping[str, str], deployed: Mapping[str, str]) -> dict[str, str]:
    """The parameters that let the function decrypt a version; none where it is not encrypted.

    A stack that had a key keeps it then: earlier versions of the function, to go back to, may still need it.

    Args:
        version: to be deployed.
        given: parameters that the user sets.
        deployed: those of the stack.

    Raises:
        UsageError: it is encrypted with a key that the function would not have.
    """
    encryption = version.fields.get("encryption")
    if encryption is None:
        return {}
    name, key = f"{version.model}:{version.number}", str(encryption.get("key"))
    if not key.startswith("arn:"):
        raise UsageError(
            f"{name} is encrypted with a key file, which a deployed function does not have: build or import it with "
            "`--encrypt ARN`, a key of KMS"
        )
    if (other := given.get("ModelKeyArn", key)) != key:
        raise UsageError(f"{name} is encrypted with {key}, expected {other or 'no encryption'}: leave out ModelKeyArn")
    if (before := deployed.get("ModelKeyArn")) and before != key:
        print(
            f"deploy: note: the function may no longer decrypt with {before}: `litelambda rollback` to a version of it "
            "whose model has that key fails",
            file=sys.stderr,
        )
    return {"ModelKeyArn": key}


def check_trust(version: Version, values: Mapping[str, str]) -> None:
    """Refuse a version that the function would refuse: not signed with its key, or older than it accepts.

    Args:
        version: to be deployed.
        values: all parameters, as they will be.

    Raises:
        UsageError: it would; the message says how to sign it.
        SettingsError: ModelPublicKey or ModelMinimumVersion is impossible.
    """
    key, minimum = values["ModelPublicKey"], values["ModelMinimumVersion"]
    name = f"{version.model}:{version.number}"
    trust = Trust.from_environment({"MODEL_PUBLIC_KEY": key, "MODEL_MINIMUM_VERSION": minimum})
    try:
        trust.check_version(version.model, version.number)
    except TrustError as error:
        raise UsageError(f"{error}. Deploy a later one, or lower ModelMinimumVersion={minimum}") from error
    if not key:
        if signatures_of(version):
            print(
                f"deploy: note: {name} is signed, and the function does not ask for signatures: to have it refuse "
                "other models, set ModelPublicKey to what `litelambda keygen` printed",
                file=sys.stderr,
            )
        return
    reader = open_reader(version.store.url)
    reader.trust = trust
    try:
        fetch_manifest(reader, version.model, version.number)
    except TrustError as error:
        raise UsageError(
            f"{error}. Run `litelambda sign {name} --store {version.store.url} --key KEY.pem` with the private key of "
            f"ModelPublicKey={key}"
        ) from error
