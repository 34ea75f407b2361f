"""The stored form of an artifact: uncompressed, zlib or xz, whichever a function has in memory soonest.

The choice is arithmetic on sizes, not a measurement, so that the same artifact is always stored the same way. Its
constants were measured with CPython on int8 weights of 0 to 95 % zeros: the time of zlib is proportional to the
unpacked size, that of xz to the packed size.
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from dataclasses import dataclass
from typing import Any

from litelambda.recipe.sections import Publish
from litelambda_serving.artifact import ARTIFACT_NAME

_ZLIB_OUT_BYTES_PER_S = 250e6
_XZ_IN_BYTES_PER_S = 12e6
_IMPORT_S = {"none": 0.0, "zlib": 0.0005, "xz": 0.0006}
_SUFFIXES = {"none": "", "zlib": ".z", "xz": ".xz"}
_LITERAL_CONTEXTS = (0, 1, 3)  # 3 is xz's default, for text; int8 weights are often smaller without a context


@dataclass(frozen=True)
class Stored:
    """An artifact in its stored form.

    Attributes:
        name: of the file.
        content: its bytes.
        encoding: none, zlib or xz.
        ready_ms: fetch and unpack, as computed, by encoding.
        pin: its entry in the manifest, besides digest and size.
    """

    name: str
    content: bytes
    encoding: str
    ready_ms: dict[str, float]
    pin: dict[str, Any]


def store_form(artifact: bytes, settings: Publish) -> Stored:
    """Compress an artifact as the recipe says, or in the form that is ready soonest at its bandwidth.

    Args:
        artifact: the flatbuffer.
        settings: the recipe's `publish` section.

    >>> store_form(bytes(100_000), Publish(name="zeros")).encoding
    'xz'
    >>> store_form(bytes(100_000), Publish(name="zeros", stored="none")).name
    'model.tflite'
    """
    forms = {"none": artifact, "zlib": _zlib(artifact), "xz": _xz(artifact)}
    bandwidth = settings.bandwidth_mb_per_s * 1e6
    ready = {
        "none": len(artifact) / bandwidth,
        "zlib": len(forms["zlib"]) / bandwidth + len(artifact) / _ZLIB_OUT_BYTES_PER_S,
        "xz": len(forms["xz"]) / bandwidth + len(forms["xz"]) / _XZ_IN_BYTES_PER_S,
    }
    ready_ms = {encoding: round(1000 * (seconds + _IMPORT_S[encoding]), 3) for encoding, seconds in ready.items()}
    encoding = min(ready_ms, key=ready_ms.__getitem__) if settings.stored == "auto" else settings.stored
    pin: dict[str, Any] = {}
    if encoding != "none":
        unpacked = {"sha256": hashlib.sha256(artifact).hexdigest(), "size_bytes": len(artifact)}
        pin = {"encoding": encoding, "unpacked": unpacked}
    return Stored(ARTIFACT_NAME + _SUFFIXES[encoding], forms[encoding], encoding, ready_ms, pin)


def stored_size(artifact: bytes) -> int:
    """The bytes of the smallest stored form."""
    return min(len(artifact), len(_zlib(artifact)), len(_xz(artifact)))


def _zlib(artifact: bytes) -> bytes:
    packed = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED):
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        packed.append(packer.compress(artifact) + packer.flush())
    return min(packed, key=len)


def _xz(artifact: bytes) -> bytes:
    packed = []
    for context in _LITERAL_CONTEXTS:
        bits = 0 if context < 3 else 2
        chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": context, "lp": 0, "pb": bits}]
        packed.append(lzma.compress(artifact, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=chain))
    return min(packed, key=len)
