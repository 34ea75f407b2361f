"""Whether a version may be served: signed by a key that this function trusts, and not older than it accepts.

The signature is an object next to the manifest, `manifest.json.sig`: the ECDSA signature (P-256, SHA-256, DER) of the
manifest's bytes, as `openssl dgst -sha256 -sign` makes it. The manifest pins every file, names its model and its
version: what is signed cannot be changed, moved to another version or given to another model. Where there is none, a
bundle of OpenSSF model signing, `model.sig`, is as good.

Imported only where one of `TRUST_SETTINGS` is set. Signing is the toolchain's part.
"""

from __future__ import annotations

import os

from litelambda_serving.errors import SettingsError, TrustError
from litelambda_serving.settings import TRUST_SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BUNDLE_NAME", "MAX_BUNDLE_BYTES", "MAX_SIGNATURE_BYTES", "SIGNATURE_NAME", "Trust", "read_public_keys",
]  # fmt: skip

BUNDLE_NAME = "model.sig"
MAX_BUNDLE_BYTES = 1024 * 1024
SIGNATURE_NAME = "manifest.json.sig"
MAX_SIGNATURE_BYTES = 128

_TASK_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_EXPECTED = "expected a public key of P-256, as `litelambda keygen` prints it, or a PEM file of such keys"

# SubjectPublicKeyInfo of P-256 (RFC 5480), but for the point: uncompressed (65 bytes) and compressed (33 bytes).
_POINT_PREFIXES = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"): (65, (4,)),
    bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200"): (33, (2, 3)),
}


class Trust:
    """What a function accepts.

    Attributes:
        public_keys: of those who may sign, DER; empty where signatures are not asked for.
        minimum_versions: by model, the oldest version that is served; "" stands for all other models.
        decryption_key: path of the file with the key of encrypted models, "" for none.
        data_key: of the one version that is read, where it is known already; b"" where it is not.
    """

    __slots__ = ("data_key", "decryption_key", "minimum_versions", "public_keys")

    def __init__(
        self,
        public_keys: tuple[bytes, ...] = (),
        minimum_versions: Mapping[str, int] | None = None,
        decryption_key: str = "",
        data_key: bytes = b"",
    ) -> None:
        self.public_keys = public_keys
        self.minimum_versions = minimum_versions or {}
        self.decryption_key = decryption_key
        self.data_key = data_key

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Trust:
        """Read the function's settings.

        Raises:
            SettingsError: one of them is impossible; a function without a usable key trusts nothing.
        """
        public_key, minimum, decryption = (environment.get(name, "").strip() for name in TRUST_SETTINGS)
        return cls(
            read_public_keys(public_key) if public_key else (),
            _minimum_versions(minimum),
            packaged_path("MODEL_DECRYPTION_KEY", decryption) if decryption else "",
        )

    def check_version(self, model: str, version: int) -> None:
        """Refuse a version that is older than this function accepts.

        Raises:
            TrustError: it is.
        """
        minimum = self.minimum_versions.get(model, self.minimum_versions.get("", 0))
        if version < minimum:
            raise TrustError(
                f"version {version} of {model} is older than version {minimum}, the oldest that MODEL_MINIMUM_VERSION "
                "allows: it was rolled back"
            )

    def check_signature(self, document: bytes, signature: bytes, where: str) -> None:
        """Refuse a manifest that no trusted key has signed.

        Args:
            document: the manifest's bytes.
            signature: the bytes next to it.
            where: its URL, for messages.

        Raises:
            TrustError: the signature is of another key, or of other bytes.
        """
        from litelambda_serving.trust.libcrypto import verify

        if not any(verify(key, signature, document) for key in self.public_keys):
            raise TrustError(
                f"the signature of {where} is not one of MODEL_PUBLIC_KEY over these bytes: the manifest was changed, "
                "or signed with another key",
                "invalid",
            )

    def check_bundle(self, sha256: str, bundle: bytes, where: str) -> None:
        """Refuse a manifest that no trusted key has signed, by a bundle of OpenSSF model signing.

        Args:
            sha256: the manifest's digest, hex.
            bundle: the bytes next to it.
            where: their URL, for messages.

        Raises:
            TrustError: the bundle is of another key, or does not sign this manifest.
        """
        from litelambda_serving.trust.bundle import signed_digests

        if signed_digests(bundle, self.public_keys, where).get("manifest.json") != sha256:
            raise TrustError(f"{where} signs another manifest: this one was changed", "invalid")


def packaged_path(name: str, value: str) -> str:
    """The file that a setting names, absolute or in the package.

    Raises:
        SettingsError: there is none.
    """
    path = os.path.join(_TASK_ROOT, value)
    if not os.path.isfile(path):
        raise SettingsError(f"{name} is {value[:80]!r}, but {path[:200]} is not a file")
    return path


def read_public_keys(value: str) -> tuple[bytes, ...]:
    """Public keys, DER.

    Args:
        value: PEM; or points in base64, separated by commas, as `litelambda keygen` prints them; or the path of a file
            of either, absolute or in the package.

    Raises:
        SettingsError: a key is not one of P-256.
    """
    if _BEGIN not in value and not all(_is_point(part) for part in value.split(",")):
        path = packaged_path("MODEL_PUBLIC_KEY", value)
        try:
            with open(path, encoding="ascii") as file:
                value = file.read(65536)
        except (OSError, ValueError) as error:
            raise SettingsError(f"MODEL_PUBLIC_KEY: {path} cannot be read ({error}): {_EXPECTED}") from error
    parts = value.strip().split(",")
    if _BEGIN in value:
        parts = [part.partition(_END)[0] for part in value.split(_BEGIN)[1:]]
    return tuple(_public_key(part) for part in parts)


def _is_point(text: str) -> bool:
    return len(text) == 44 and text[0] == "A"


def _public_key(text: str) -> bytes:
    from binascii import Error, a2b_base64

    try:
        key = a2b_base64("".join(text.split()), strict_mode=True)
    except (Error, ValueError) as error:
        raise SettingsError(f"MODEL_PUBLIC_KEY is not base64 ({error}): {_EXPECTED}") from error
    if len(key) == 33:
        key = next(reversed(_POINT_PREFIXES)) + key
    for prefix, (size, forms) in _POINT_PREFIXES.items():
        if key.startswith(prefix) and len(key) == len(prefix) + size and key[len(prefix)] in forms:
            return key
    raise SettingsError(f"MODEL_PUBLIC_KEY holds a key of another kind ({len(key)} bytes): {_EXPECTED}")


def _minimum_versions(value: str) -> dict[str, int]:
    found = {}
    for part in filter(None, value.split(",")):
        model, _, number = part.rpartition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 1 << 53:
            raise SettingsError(
                f"MODEL_MINIMUM_VERSION is {value[:80]!r}, expected a version, or versions by model: fruit=3,digits=7"
            )
        found[model] = int(number)
    return found
