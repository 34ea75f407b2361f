"""Make arrows.zip: drawn arrows in class-named folders, stored as people's files are; the same every time.

    .venv/bin/python build/data/make_arrows.py build/data/arrows.zip

The class is where the arrow points. Most files are JPEG as a phone stores them, on their side or upside down, with an
EXIF orientation that says so: a reader that does not turn them sees other classes. Some are PNG with a transparent
background, some gray, some WebP.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = {"down": 180, "left": 270, "right": 90, "up": 0}
"""Degrees clockwise from up."""

TRAIN, TEST = 50, 25
_ARROW = np.array([(0, -1), (0.7, -0.1), (0.25, -0.1), (0.25, 1), (-0.25, 1), (-0.25, -0.1), (-0.7, -0.1)])
_TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""What a camera held that way stores; EXIF's orientation undoes it."""


def draw(random: np.random.Generator, degrees: float) -> Image.Image:
    """An arrow, somewhat crooked, on noise of another brightness; RGBA, the background transparent."""
    width, height = (int(each) for each in random.integers(32, 48, 2))
    dark, light = random.integers(0, 90), random.integers(150, 256)
    paper, ink = (dark, light) if random.random() < 0.5 else (light, dark)
    noise = random.normal(0, 14, (height, width, 3)) + paper + random.normal(0, 25, 3)
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGBA")
    image.putalpha(0)
    angle = np.radians(degrees + random.uniform(-25, 25))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.array([width, height]) / 2 + random.uniform(-4, 4, 2)
    corners = _ARROW * min(width, height) * random.uniform(0.25, 0.4) @ turn + middle
    color = tuple(int(each) for each in (ink + random.normal(0, 25, 3)).clip(0, 255))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners.tolist()], fill=(*color, 255))
    return image


def encode(random: np.random.Generator, image: Image.Image) -> tuple[str, bytes]:
    """A file's ending and content."""
    kind, stream = random.random(), io.BytesIO()
    if kind < 0.1:
        clear = Image.new("RGBA", image.size)
        dark = Image.new("RGBA", image.size, (30, 30, 30, 255))
        clear.paste(dark, mask=image)
        clear.save(stream, "PNG", optimize=True)
        return "png", stream.getvalue()
    opaque = image.convert("RGB")
    if kind < 0.2:
        opaque.save(stream, "WEBP", quality=70)
        return "webp", stream.getvalue()
    orientation = int(random.choice([1, 3, 6, 8]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = opaque.transpose(_TURNS[orientation]) if orientation in _TURNS else opaque
    (stored.convert("L") if kind < 0.3 else stored).save(stream, "JPEG", quality=60, optimize=True, exif=exif.tobytes())
    return "jpg", stream.getvalue()


def make_arrows(target: Path, seed: int = 11) -> None:
    """Write the zip."""
    random = np.random.default_rng(seed)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for part, count in (("train", TRAIN), ("test", TEST)):
            for name, degrees in CLASSES.items():
                for number in range(count):
                    ending, content = encode(random, draw(random, degrees))
                    entry = zipfile.ZipInfo(f"{part}/{name}/{number:02}.{ending}", (2026, 1, 1, 0, 0, 0))
                    archive.writestr(entry, content)


if __name__ == "__main__":
    make_arrows(Path(sys.argv[1]))
