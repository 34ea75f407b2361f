"""What a signed or an encrypted version asks of the stack that serves it, before anything is built for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.store.artifact_store import Store
from litelambda.store.copies import Version, find_version, signatures_of
from litelambda.store.reading import open_reader
from litelambda_serving.artifact import fetch_manifest
from litelambda_serving.errors import ServingError, TrustError
from litelambda_serving.trust import Trust

__all__ = ["check_trust", "find_served", "key_parameters", "note_signature"]


def find_served(values: Mapping[str, str], store: str) -> Version | None:
    """The version that the parameters have the function serve.

    Args:
        values: all parameters, as they will be.
        store: the URL of the stack's store; "" where there is none yet.

    Returns:
        None where the parameters name none, or where it cannot be read from here, which is said.
    """
    name, which = values["ModelName"], values["ModelVersion"]
    if not name or not store.startswith("s3:"):
        return None
    reference = f"{name}{':' if which.isdecimal() else '@'}{which}"
    try:
        return find_version(Store(store), reference)
    except (LitelambdaError, ServingError) as error:
        print(
            f"deploy: note: {reference} in {store} cannot be read from here, and is not checked: {error}",
            file=sys.stderr,
        )
        return None


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


def note_signature(version: Version, values: Mapping[str, str]) -> None:
    """Say so where a version is signed, and the function does not ask for it."""
    if not values["ModelPublicKey"] and signatures_of(version):
        print(
            f"deploy: note: {version.model}:{version.number} is signed, and the function does not ask for signatures: "
            "to have it refuse other models, set ModelPublicKey to what `litelambda keygen` printed",
            file=sys.stderr,
        )
