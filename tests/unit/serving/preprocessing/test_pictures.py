"""Decoding pictures: the pixels that Pillow and numpy give by other calls, or a refusal that says why."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from litelambda_serving.errors import MalformedRequestError, PayloadTooLargeError
from litelambda_serving.preprocessing.pictures import MODES, PictureDecoder, max_pixels, size_of
from support.odd_pictures import PICTURES, REFUSED, encoded, pixels, with_orientation

BACKGROUND = (250, 120, 10)


def independent(data: bytes, channels: int, background=BACKGROUND) -> Image.Image:
    """A file's picture by Pillow's own functions, composited by numpy."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype(np.float64)
        alpha = rgba[:, :, 3:] / 255
        blended = np.rint(rgba[:, :, :3] * alpha + np.array(background) * (1 - alpha))
        image = Image.fromarray(blended.astype(np.uint8))
    return image.convert(MODES[channels])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture(name, channels):
    """Each format and mode gives the pixels that Pillow's own functions do: none is clipped, transposed or dropped."""
    expected = independent(PICTURES[name], channels)
    decoder = PictureDecoder((expected.height, expected.width, channels), background=BACKGROUND, exact=True)
    found = np.frombuffer(decoder.decode(PICTURES[name]), np.uint8)
    np.testing.assert_array_equal(found, np.asarray(expected).reshape(-1))
    assert size_of(PICTURES[name]) == (expected.height, expected.width)


def test_16_bit_is_scaled_alike():
    """The gray of a 16-bit picture is that of the same picture in 16-bit color: the high byte of each value."""
    values = pixels(9, 7, 1, 7, np.uint16)
    gray = PictureDecoder((9, 7, 1)).decode(PICTURES["gray_16_bit.png"])
    assert gray == (values >> 8).astype(np.uint8).tobytes()


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_are_refused_by_name(name):
    """Damaged files, bombs and other formats are the client's fault, and the message says which they are."""
    data, reason = REFUSED[name]
    for channels in (1, 3):
        with pytest.raises((MalformedRequestError, PayloadTooLargeError), match=reason):
            PictureDecoder((8, 8, channels), background=BACKGROUND).decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("number", [*range(10), 65535])
def test_orientation_is_undone(kind, number):
    """A picture stands as EXIF says, in every format that has it; a number without a meaning leaves it as it is."""
    image = Image.fromarray(pixels(5, 8, 3))
    data = with_orientation(image, number, kind)
    expected = independent(data, 3)
    decoder = PictureDecoder((expected.height, expected.width, 3), exact=True)
    assert decoder.decode(data) == expected.tobytes()
    assert size_of(data) == (expected.height, expected.width)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation%b/></x:xmpmeta>'


@pytest.mark.parametrize(
    "options",
    [
        {"xmp": XMP % b'="6"'},
        {"xmp": XMP % b">8<"},
        {"xmp": XMP % b'="x"'},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\4\0\1\0\0\0\3\0\0\0\0\0\0\0"},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", "xmp": XMP % b'="3"'},
    ],
    ids=str,
)
def test_orientation_in_other_forms(options):
    """EXIF of either byte order, before XMP, is read as Pillow's own function reads it."""
    data = encoded(Image.fromarray(pixels(5, 8, 3)), "JPEG", **options)
    expected = independent(data, 3)
    assert PictureDecoder((expected.height, expected.width, 3), exact=True).decode(data) == expected.tobytes()


@pytest.mark.parametrize("size", [(4, 6), (9, 7), (13, 5), (64, 2), (1, 1)])
@pytest.mark.parametrize("filter_name", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("name", ["rgb.png", "tall.png", "one_pixel.png", "alpha.png"])
def test_fits(name, filter_name, size):
    """Stretching, cropping and padding are Pillow's resize, ImageOps.fit and ImageOps.pad with the filter named."""
    height, width = size
    image, resample = independent(PICTURES[name], 3), Image.Resampling[filter_name.upper()]
    expected = {
        "stretch": image.resize((width, height), resample),
        "crop": ImageOps.fit(image, (width, height), resample),
    }
    if name != "tall.png":  # of which nothing would be left there
        expected["pad"] = ImageOps.pad(image, (width, height), resample, color=BACKGROUND)
    for fit, wanted in expected.items():
        decoder = PictureDecoder((height, width, 3), filter_name, fit, BACKGROUND)
        assert decoder.decode(PICTURES[name]) == wanted.tobytes(), fit


def test_a_line_is_padded():
    """Of a picture two hundred times as high as wide a column of one pixel is left."""
    found = PictureDecoder((8, 8, 3), fit="pad", background=BACKGROUND).decode(PICTURES["tall.png"])
    columns = (np.frombuffer(found, np.uint8).reshape(8, 8, 3) != BACKGROUND).any(axis=(0, 2))
    assert columns.sum() == 1


def test_the_limit_follows_the_memory(monkeypatch):
    """What a function of 128 MiB refuses, one with more memory takes."""
    data = encoded(Image.new("1", (2500, 2000)), "PNG")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    with pytest.raises(PayloadTooLargeError, match="2500 x 2000 pixels, over the limit of 4194304"):
        PictureDecoder((2, 2, 1)).decode(data)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
    assert max_pixels() == 16 * 1024 * 1024
    assert PictureDecoder((2, 2, 1)).decode(data) == bytes(4)


def test_another_size_is_refused_where_it_must_be_exact():
    """Both sizes are in the message."""
    with pytest.raises(MalformedRequestError, match="7 x 9 pixels, the model takes 9 x 9"):
        PictureDecoder((9, 9, 3), exact=True).decode(PICTURES["rgb.png"])
