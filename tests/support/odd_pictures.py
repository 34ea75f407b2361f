"""Pictures of every kind that people have, and files that only say they are pictures."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["PICTURES", "REFUSED", "encoded", "pixels", "png_chunk", "with_orientation"]


def pixels(height: int, width: int, channels: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray[Any, Any]:
    """Random pixels; without a last dimension where there is one channel."""
    found = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)
    return found.squeeze(-1) if channels == 1 else found


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_orientation(image: Image.Image, number: int, kind: str = "JPEG", **options: Any) -> bytes:
    """A file whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(image, kind, exif=exif.tobytes(), **options)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rows(values: np.ndarray[Any, Any]) -> bytes:
    """PNG's unfiltered rows of big-endian values."""
    return b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)


_GRAY = Image.fromarray(pixels(9, 7, 1, 1))
_RGB = Image.fromarray(pixels(9, 7, 3, 2))
_RGBA = Image.fromarray(pixels(9, 7, 4, 3))
_LA = Image.merge("LA", _RGBA.split()[2:])
_PALETTE = _RGB.quantize(16)
_FRAMES = [Image.fromarray(pixels(9, 7, 1, seed)).convert("P") for seed in (4, 5, 6)]
_JPEG = encoded(_RGB, "JPEG")

PICTURES: dict[str, bytes] = {
    "gray.png": encoded(_GRAY, "PNG"),
    "rgb.png": encoded(_RGB, "PNG"),
    "alpha.png": encoded(_RGBA, "PNG"),
    "gray_alpha.png": encoded(_LA, "PNG"),
    "one_bit.png": encoded(_GRAY.convert("1"), "PNG"),
    "palette.png": encoded(_PALETTE, "PNG"),
    "palette_transparent.png": encoded(_PALETTE, "PNG", transparency=3),
    "palette_alphas.png": encoded(_PALETTE, "PNG", transparency=bytes(range(0, 256, 16))),
    "transparent_color.png": encoded(_RGB, "PNG", transparency=_RGB.getpixel((2, 3))),
    "gray_16_bit.png": _png(7, 9, 16, 0, _rows(pixels(9, 7, 1, 7, np.uint16))),
    "rgb_16_bit.png": _png(7, 9, 16, 2, _rows(pixels(9, 7, 3, 8, np.uint16).reshape(9, 21))),
    "interlaced_bits.png": _png(7, 9, 4, 0, b"".join(b"\0" + bytes(range(row, row + 4)) for row in range(9))),
    "rgb.jpg": _JPEG,
    "gray.jpg": encoded(_GRAY, "JPEG"),
    "progressive.jpg": encoded(_RGB, "JPEG", progressive=True),
    "cmyk.jpg": encoded(_RGB.convert("CMYK"), "JPEG"),
    "lossy.webp": encoded(_RGB, "WEBP"),
    "lossless_alpha.webp": encoded(_RGBA, "WEBP", lossless=True),
    "animated.webp": encoded(_RGB, "WEBP", save_all=True, append_images=[_RGB.rotate(180)]),
    "animated.gif": encoded(_FRAMES[0], "GIF", save_all=True, append_images=_FRAMES[1:]),
    "transparent.gif": encoded(_PALETTE, "GIF", transparency=2),
    "rgb.bmp": encoded(_RGB, "BMP"),
    "palette.bmp": encoded(_GRAY, "BMP"),
    "one_pixel.png": encoded(_RGB.crop((0, 0, 1, 1)), "PNG"),
    "tall.png": encoded(Image.fromarray(pixels(400, 2, 3, 9)), "PNG"),
    "no_name.exe": encoded(_RGB, "PNG"),
    "polyglot.jpg": _JPEG + b"PK\x03\x04 and a zip",
    "bad_exif.jpg": encoded(_RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
}
"""Files that are read, by name."""

_BOMB = _png(30_000, 30_000, 1, 0, bytes(3751) * 100)
_LARGE_WEBP = b"RIFF\x32\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xfe\x3f\0" * 2 + b"VP8L\0\0\0\0"

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"not a picture at all", "no picture of a known format"),
    "html.jpg": (b"<!doctype html><title>404</title>", "no picture of a known format"),
    "truncated.jpg": (_JPEG[: len(_JPEG) * 2 // 3], "not a readable JPEG file"),
    "truncated.png": (PICTURES["rgb.png"][:-40], "not a readable PNG file"),
    "truncated.webp": (PICTURES["lossy.webp"][:60], "not a readable WebP file"),
    "truncated.gif": (PICTURES["transparent.gif"][:80], "not a readable GIF file"),
    "truncated.bmp": (PICTURES["rgb.bmp"][:100], "not a readable BMP file"),
    "magic_alone.jpg": (b"\xff\xd8\xff", "not a readable JPEG file"),
    "magic_alone.png": (b"\x89PNG\r\n\x1a\n", "not a readable PNG file"),
    "magic_alone.bmp": (b"BM", "not a readable BMP file"),
    "corrupt.png": (PICTURES["rgb.png"][:60] + b"\0\0" + PICTURES["rgb.png"][62:], "not a readable PNG file"),
    "bomb.png": (_BOMB, "30000 x 30000 pixels, over the limit of"),
    "bomb.gif": (b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2", "over the limit of"),
    "bomb.bmp": (PICTURES["rgb.bmp"][:18] + struct.pack("<ii", 60_000, 60_000) + PICTURES["rgb.bmp"][26:], "over the"),
    "bomb.jpg": (
        _JPEG.replace(struct.pack(">HH", 9, 7), b"\xff\xff\xff\xff", 1),
        "65535 x 65535 pixels, over the limit",
    ),
    "bomb.webp": (_LARGE_WEBP, "16383 x 16383 pixels, over the limit of"),
    "no_height.png": (_png(7, 0, 8, 0, b""), "not a readable PNG file"),
    "odd_depth.png": (_png(7, 9, 3, 0, bytes(90)), "not a readable PNG file"),
    "transparent_16_bit.png": (
        PICTURES["gray_16_bit.png"][:33] + png_chunk(b"tRNS", b"\1\2") + PICTURES["gray_16_bit.png"][33:],
        "16-bit gray with a transparent value",
    ),
    "float.tif": (encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), "a file of the format TIFF"),
    "rgb.tif": (encoded(_RGB, "TIFF"), "a file of the format TIFF"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "a file of the format SVG"),
    "drawing_xml.svg": (b'<?xml version="1.0"?>\n<svg/>', "a file of the format SVG"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a file of the format HEIC"),
    "photo.avif": (b"\0\0\0\x18ftypavif\0\0\0\0", "a file of the format AVIF"),
    "film.mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0", "a file of the format video"),
    "scan.pdf": (b"%PDF-1.7\n", "a file of the format PDF"),
    "icon.ico": (encoded(_RGB, "ICO", sizes=[(7, 7)]), "a file of the format icon"),
    "riff.webp": (b"RIFF\x04\0\0\0WEBP", "not a readable WebP file"),
    "photo.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a file of the format JPEG 2000"),
}
"""Files that are refused, and a part of the reason."""
