"""The optional parts of the predict function's package: what `litelambda package --with` adds for models that need it.

Only the files are shipped that the function imports, or that those load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["PARTS", "Part", "PartName"]

PartName = Literal["images", "text"]


@dataclass(frozen=True)
class Part:
    """Files of some wheels.

    Attributes:
        lock: the file in `requirements/` that pins the wheels.
        budget_bytes: what it may add to the zip.
        files: a regular expression of the paths that ship.
        rust: name of the wheel where it is a Rust library: it has no license file, and lists what is linked into it.
    """

    lock: str
    budget_bytes: int
    files: str
    rust: str = ""

    def has(self, path: Path) -> bool:
        """Whether a file of the wheels, by its path in them, is part of it."""
        return re.fullmatch(self.files, path.as_posix()) is not None


# Pillow without fonts, color management, AVIF, Tk, and the formats that are not read.
_PILLOW_MODULES = (
    "__init__|_binary|_deprecate|_imaging|_util|_version|_webp|BmpImagePlugin|ExifTags|GifImagePlugin|GimpGradientFile"
    "|GimpPaletteFile|Image|ImageChops|ImageColor|ImageFile|ImageMath|ImageMode|ImageOps|ImagePalette|ImageSequence"
    "|JpegImagePlugin|JpegPresets|PaletteFile|PngImagePlugin|TiffImagePlugin|TiffTags|WebPImagePlugin"
)
_PILLOW_LIBRARIES = "jpeg|lzma|openjp2|sharpyuv|tiff|webp|webpdemux|webpmux|Xau|xcb|zstd"

PARTS: dict[PartName, Part] = {
    "images": Part(
        "images.txt",
        3_600_000,
        rf"PIL/({_PILLOW_MODULES})(\.py|\.cpython-.*\.so)|pillow\.libs/lib({_PILLOW_LIBRARIES})-.*",
    ),
    # The compiled module alone: the Python package around it is not imported.
    "text": Part("text.txt", 3_000_000, r"tokenizers/tokenizers\.abi3\.so", rust="tokenizers"),
}
"""The parts by name."""
