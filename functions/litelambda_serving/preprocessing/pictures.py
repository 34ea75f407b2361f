"""Files of pictures: their bytes become pixels of one size, for training, requests and batch scoring alike.

The format is that of the content, whatever a name or a content type says. The picture is turned as its EXIF orientation
says; 16-bit gray becomes 8-bit as 16-bit color does, by its high bytes; what is transparent shows the background; then
all becomes gray or RGB, and is resized once. Pillow does the work: it is imported here alone, and only where it is
packaged.
"""

from __future__ import annotations

import os
from io import BytesIO

from litelambda_serving.errors import MalformedRequestError, PayloadTooLargeError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

__all__ = ["FITS", "FORMATS", "MODES", "RESAMPLING", "PictureDecoder", "load_decoder", "max_pixels", "size_of"]

FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP")
"""What is read; of an animation the first frame."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of the pixels of so many channels."""

RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Pillow's number of each filter; all but nearest smooth what they make smaller."""

FITS = ("stretch", "crop", "pad")
"""How a picture of another shape fits the model's: all of it stretched, its middle, or all of it on the background."""

_BYTES_PER_PIXEL = 32  # of the function's memory; decoding takes at most half: three copies of 4 bytes, JPEG's buffers
_MB_ELSEWHERE = 2048  # assumed on a machine that is not a function

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "icon",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"<svg": "SVG",
    b"<?xml": "SVG or other XML",
}
_ORIENTATION = 274  # EXIF's tag
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Pillow's number of the transposition that undoes each EXIF orientation."""

_ON_THEIR_SIDE = (2, 4, 5, 6)
"""Those that make width of height."""

_MODES_READ = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_NO_DECODER = (
    "this deployment has no decoder of pictures: package the function with `--with images` (the parameter "
    "PackageWith=images of the stack), or send the pixels as numbers"
)


def load_decoder() -> None:
    """Import what decodes the usual formats, so that no request pays for it; nothing where it is not packaged."""
    try:
        from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin  # noqa: F401 - the last reads EXIF
    except ImportError:
        return


def max_pixels() -> int:
    """How many pixels a picture may have in the memory of this function.

    A small file can unfold to any number of pixels.
    """
    memory_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return ((int(memory_mb) if memory_mb.isdecimal() else _MB_ELSEWHERE) << 20) // _BYTES_PER_PIXEL


class PictureDecoder:
    """Turns files into pixels of one size.

    Attributes:
        height, width, channels: of what comes out.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        resize: str = "bilinear",
        fit: str = "stretch",
        background: tuple[int, int, int] | None = None,
        *,
        exact: bool = False,
    ) -> None:
        """Choose the rules.

        Args:
            size: height, width and channels of the pixels.
            resize: one of `RESAMPLING`.
            fit: one of `FITS`.
            background: red, green and blue behind what is transparent or padded; None leaves transparency out of
                account, and pads with black.
            exact: whether pictures of another size are refused.
        """
        self.height, self.width, self.channels = size
        self._filter = RESAMPLING[resize]
        self._fit = fit
        self._background = background
        self._exact = exact

    def decode(self, data: Buffer) -> bytes:
        """The pixels of a file: row-major, channels last, a byte for each.

        Args:
            data: the content of the file.

        Raises:
            MalformedRequestError: it is not a picture that is read here, or is damaged; the message says which.
            PayloadTooLargeError: it has more pixels than `max_pixels`.
            UnsupportedError: the package has no decoder.
        """
        pixels: bytes = _guarded(data, self._decode)
        return pixels

    def _decode(self, image: Any) -> bytes:
        return self._fitted(self._flat(_upright(image))).tobytes()  # type: ignore[no-any-return]

    def _flat(self, image: Any) -> Any:
        """The picture in the model's channels, without transparency."""
        mode = MODES[self.channels]
        if image.mode[:4] == "I;16":
            image = _high_bytes(image)
        elif image.mode not in _MODES_READ:
            raise MalformedRequestError(f"its pixels are of mode {image.mode}: save it as 8-bit gray or RGB")
        if image.has_transparency_data and mode != "RGBA":
            image = image.convert("RGBA")
            if self._background is not None:
                canvas = _blank(image.size, self._background)
                canvas.paste(image, mask=image)
                image = canvas
        return image if image.mode == mode else image.convert(mode)

    def _fitted(self, image: Any) -> Any:
        """The picture in the model's height and width."""
        size = (self.width, self.height)
        if image.size == size:
            return image
        if self._exact:
            raise MalformedRequestError(f"{image.width} x {image.height} pixels, the model takes {size[0]} x {size[1]}")
        if self._fit == "crop":
            return image.resize(size, self._filter, box=_middle(image.size, size))
        if self._fit == "pad":
            inner = _inside(image.size, size)
            canvas = _blank(size, self._background or (0, 0, 0)).convert(image.mode)
            place = (round((size[0] - inner[0]) * 0.5), round((size[1] - inner[1]) * 0.5))
            canvas.paste(image if inner == image.size else image.resize(inner, self._filter), place)
            return canvas
        return image.resize(size, self._filter)


def size_of(data: Buffer) -> tuple[int, int]:
    """Height and width of a file's picture, as it stands upright; its pixels are not decoded.

    Raises:
        MalformedRequestError, PayloadTooLargeError, UnsupportedError: see `PictureDecoder.decode`.
    """
    size: tuple[int, int] = _guarded(data, lambda image: image.size[:: 1 if _turn(image) in _ON_THEIR_SIDE else -1])
    return size


def _guarded(data: Buffer, read: Any) -> Any:
    """What `read` makes of the opened picture."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UnsupportedError(_NO_DECODER) from error
    try:
        kind = _format_of(bytes(memoryview(data)[:1024]))
        with _open(kind, data) as image:
            _check_size(*image.size)
            return read(image)
    except (MalformedRequestError, PayloadTooLargeError, UnsupportedError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise PayloadTooLargeError(f"the picture has more pixels than the limit of {max_pixels()}") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything: the client's fault
        raise MalformedRequestError(f"not a readable {kind} file: {_reason(error)}") from error


def _format_of(head: bytes) -> str:
    """The format of a file that is read here.

    Raises:
        MalformedRequestError: it has another one.
    """
    if not head:
        raise MalformedRequestError("the file is empty")
    kind = next((kind for start, kind in _STARTS.items() if head.startswith(start)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "WebP"
    elif head[4:8] == b"ftyp":
        kind = "AVIF" if head[8:12] in (b"avif", b"avis") else "HEIC" if head[8:11] in (b"hei", b"mif") else "video"
    elif b"<svg" in head and not kind:
        kind = "SVG"
    if kind not in FORMATS:
        found = f"a file of the format {kind}" if kind else "no picture of a known format"
        raise MalformedRequestError(f"{found}: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return kind


def _open(kind: str, data: Buffer) -> Any:
    """The picture, its pixels not yet decoded; each format's module is imported with its first file."""
    stream = BytesIO(data)
    if kind == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(stream)
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile(stream)
    if kind == "WebP":
        from PIL.WebPImagePlugin import WebPImageFile

        _check_size(*_webp_size(stream.getvalue()[:30]))  # it allocates its canvas when it is opened
        return WebPImageFile(stream)
    if kind == "GIF":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile(stream)
    from PIL.BmpImagePlugin import BmpImageFile

    return BmpImageFile(stream)


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of a WebP file.

    Source: RFC 9649, section 2 (the headers of VP8X, VP8L and VP8).
    """
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _check_size(width: int, height: int) -> None:
    limit = max_pixels()
    if width * height > limit:
        raise PayloadTooLargeError(
            f"the picture has {width} x {height} pixels, over the limit of {limit} in this function's memory"
        )


def _reason(error: Exception) -> str:
    text = str(error)
    return text[:100] if text else type(error).__name__


def _upright(image: Any) -> Any:
    """The decoded picture, turned as its orientation says."""
    image.load()
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Any) -> int | None:
    """The transposition that a picture needs, by its EXIF or XMP; None where it needs none, or they are damaged."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # noqa: BLE001 - damaged EXIF makes Pillow raise nearly anything, and hides no pixel
        return None


def _high_bytes(image: Any) -> Any:
    """16-bit gray as 8-bit gray."""
    from PIL import Image

    if "transparency" in image.info:
        raise MalformedRequestError("16-bit gray with a transparent value: save it as 8-bit gray")
    data = image.tobytes()
    return Image.frombytes("L", image.size, data[0 if image.mode.endswith("B") else 1 :: 2])


def _blank(size: tuple[int, int], background: tuple[int, int, int]) -> Any:
    from PIL import Image

    return Image.new("RGB", size, background)


def _middle(found: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest part in the middle of a picture that has the shape of another: left, top, right, bottom."""
    width, height = found
    ratio = wanted[0] / wanted[1]
    if width / height == ratio:
        return 0, 0, width, height
    part = (ratio * height, height) if width / height > ratio else (width, width / ratio)
    left, top = (width - part[0]) * 0.5, (height - part[1]) * 0.5
    return left, top, min(left + part[0], width), min(top + part[1], height)


def _inside(found: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height of a picture's own shape that fit into another."""
    width, height = found
    if width * wanted[1] > wanted[0] * height:
        return wanted[0], max(round(height / width * wanted[0]), 1)
    return max(round(width / height * wanted[1]), 1), wanted[1]
