"""The system's libcrypto (OpenSSL 3) through ctypes: ECDSA signatures, and AES-256-GCM.

Lambda's Amazon Linux 2023 has it, as Python's own `_hashlib` and `_ssl` are linked to it: loading it takes some
milliseconds, the package `cryptography` a hundred. What it is asked for is checked here to the last return code.
"""

from __future__ import annotations

import ctypes

from litelambda_serving.errors import RuntimeLibraryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

__all__ = ["AesGcm", "verify"]

TAG_BYTES = 16
NONCE_BYTES = 12

_NAME = "libcrypto.so.3"
_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SET_TAG = 0x11  # EVP_CTRL_AEAD_SET_TAG of openssl/evp.h

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "d2i_PUBKEY": (_POINTER, (_POINTER, _POINTER, ctypes.c_long)),
    "EVP_PKEY_free": (None, (_POINTER,)),
    "EVP_sha256": (_POINTER, ()),
    "EVP_MD_CTX_new": (_POINTER, ()),
    "EVP_MD_CTX_free": (None, (_POINTER,)),
    "EVP_DigestVerifyInit": (_INT, (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER)),
    "EVP_DigestVerify": (_INT, (_POINTER, ctypes.c_char_p, _SIZE, ctypes.c_char_p, _SIZE)),
    "ERR_clear_error": (None, ()),
    "EVP_aes_256_gcm": (_POINTER, ()),
    "EVP_CIPHER_CTX_new": (_POINTER, ()),
    "EVP_CIPHER_CTX_free": (None, (_POINTER,)),
    "EVP_CIPHER_CTX_ctrl": (_INT, (_POINTER, _INT, _INT, ctypes.c_char_p)),
    "EVP_DecryptInit_ex": (_INT, (_POINTER, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_char_p)),
    "EVP_DecryptUpdate": (_INT, (_POINTER, _POINTER, _POINTER, ctypes.c_char_p, _INT)),
    "EVP_DecryptFinal_ex": (_INT, (_POINTER, _POINTER, _POINTER)),
}
_loaded: ctypes.CDLL | None = None


def verify(public_key: bytes, signature: bytes, document: bytes) -> bool:
    """Whether a signature is that of a key over a document.

    Args:
        public_key: SubjectPublicKeyInfo, DER.
        signature: ECDSA with SHA-256, DER.
        document: what was signed.

    Raises:
        RuntimeLibraryError: this machine has no libcrypto.
    """
    library = _library()
    start = ctypes.c_char_p(public_key)  # d2i moves it behind the key
    key = library.d2i_PUBKEY(None, ctypes.byref(start), len(public_key))
    context = library.EVP_MD_CTX_new()
    try:
        if not key or not context:
            return False
        if library.EVP_DigestVerifyInit(context, None, library.EVP_sha256(), None, key) != 1:
            return False
        # 1 alone is a good signature: 0 is a bad one, and less than 0 an error.
        return bool(library.EVP_DigestVerify(context, signature, len(signature), document, len(document)) == 1)
    finally:
        library.EVP_MD_CTX_free(context)
        library.EVP_PKEY_free(key)
        library.ERR_clear_error()  # Python's own ssl reads the same queue


class AesGcm:
    """Decryption with one key of AES-256-GCM."""

    def __init__(self, key: bytes) -> None:
        """Set up a key of 32 bytes.

        Raises:
            RuntimeLibraryError: this machine has no libcrypto, or it has no AES-256-GCM.
        """
        self._library = _library()
        self._room = ctypes.create_string_buffer(1)
        self._context = self._library.EVP_CIPHER_CTX_new()
        cipher = self._library.EVP_aes_256_gcm()
        if len(key) != 32 or self._library.EVP_DecryptInit_ex(self._context, cipher, None, key, None) != 1:
            raise RuntimeLibraryError(f"{_NAME} does not take a key of {len(key)} bytes for AES-256-GCM")

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.EVP_CIPHER_CTX_free(self._context)

    def open(self, nonce: bytes, sealed: Buffer, associated: bytes) -> memoryview | None:
        """What was sealed, until the next call; None where a bit of it, the nonce, the key or `associated` is another.

        Args:
            nonce: 12 bytes.
            sealed: ciphertext and tag.
            associated: what was authenticated with it.
        """
        library, context = self._library, self._context
        size = len(memoryview(sealed)) - TAG_BYTES
        if size < 0 or len(nonce) != NONCE_BYTES:
            return None
        data = bytes(sealed)
        if len(self._room) < size:
            self._room = ctypes.create_string_buffer(size)
        plain = self._room
        count = ctypes.c_int()
        written = ctypes.byref(count)
        good = (
            library.EVP_DecryptInit_ex(context, None, None, None, nonce) == 1
            and library.EVP_DecryptUpdate(context, None, written, associated, len(associated)) == 1
            and library.EVP_DecryptUpdate(context, plain, written, data, size) == 1
            and count.value == size
            and library.EVP_CIPHER_CTX_ctrl(context, _SET_TAG, TAG_BYTES, data[size:]) == 1
            and library.EVP_DecryptFinal_ex(context, None, written) == 1
        )
        if not good:
            library.ERR_clear_error()
            return None
        return memoryview(plain).cast("B")[:size]


def _library() -> ctypes.CDLL:
    global _loaded  # noqa: PLW0603 - loaded once, by the first that needs it
    if _loaded is None:
        library = _open()
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _loaded = library
    return _loaded


def _open() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_NAME)
    except OSError:
        pass
    try:
        import _hashlib  # where Python brings its own libcrypto, its symbols are found through what is linked to it

        library = ctypes.CDLL(_hashlib.__file__)
        library.EVP_DigestVerify  # noqa: B018 - raises where it is not there
    except (ImportError, AttributeError, OSError) as error:
        raise RuntimeLibraryError(
            f"{_NAME} (OpenSSL 3) cannot be loaded, which checks signatures and decrypts models: {error}. Install "
            "OpenSSL 3, or a Python that is linked to it"
        ) from error
    return library
