"""The models of `litelambda bench conversion`: keras.applications with random weights, and small ones by layer.

Knows names and sizes; what makes the models imports Keras when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.bench.conversion.layers import LAYERS, WORDS, Make
from litelambda.common.errors import UsageError

ARCHITECTURES = "keras.applications"
_LAYER_ROWS = 256  # half of them calibrate: of fewer, others would be far outside the calibrated range
_OPEN_SIZE = 12
_IMAGE_ROWS = 16
_DEFAULT_SIDE = 224
_SMALLEST_SIDE = 75  # InceptionV3 takes no smaller images
_SIDES = {
    "Xception": 299, "InceptionV3": 299, "InceptionResNetV2": 299, "NASNetLarge": 331,
    "EfficientNetB1": 240, "EfficientNetB2": 260, "EfficientNetB3": 300, "EfficientNetB4": 380, "EfficientNetB5": 456,
    "EfficientNetB6": 528, "EfficientNetB7": 600, "EfficientNetV2B1": 240, "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300, "EfficientNetV2S": 384, "EfficientNetV2M": 480, "EfficientNetV2L": 480,
}  # fmt: skip
_FAMILIES = (
    ("MobileNet",),
    ("MobileNetV2",),
    ("MobileNetV3Small", "MobileNetV3Large"),
    ("EfficientNetB0", *(f"EfficientNetB{size}" for size in range(1, 8))),
    ("EfficientNetV2B0", *(f"EfficientNetV2{size}" for size in ("B1", "B2", "B3", "S", "M", "L"))),
    ("NASNetMobile", "NASNetLarge"),
    ("DenseNet121", "DenseNet169", "DenseNet201"),
    ("ResNet50", "ResNet101", "ResNet152"),
    ("ResNet50V2", "ResNet101V2", "ResNet152V2"),
    ("Xception",),
    ("InceptionV3",),
    ("InceptionResNetV2",),
    ("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
    ("VGG16", "VGG19"),
)
_LIGHT_ENOUGH = {"MobileNetV3Large"}  # beside the first of each family
_TAKES_BYTES = ("EfficientNet", "ConvNeXt", "MobileNetV3")
"""Architectures that scale their pixels themselves and so take 0 to 255."""


@dataclass(frozen=True)
class Case:
    """One model to convert.

    Attributes:
        name: unique among all cases.
        family: the table it belongs to.
        make: makes it, given the module `keras`.
        largest: its float inputs are uniform from 0 to this.
        num_rows: rows to calibrate and to compare with.
    """

    name: str
    family: str
    make: Make
    largest: float = 1.0
    num_rows: int = _LAYER_ROWS

    def rows(self, model: Any) -> dict[str, NDArray[Any]]:
        """Seeded random rows by input name, in each input's dtype."""
        noise = np.random.default_rng(0)
        rows: dict[str, NDArray[Any]] = {}
        for tensor in model.inputs:
            shape = (self.num_rows, *(size or _OPEN_SIZE for size in tensor.shape[1:]))
            if tensor.dtype == "string":
                rows[tensor.name] = noise.choice(np.array([word.encode() for word in WORDS], object), shape)
            elif tensor.dtype.startswith("int"):
                rows[tensor.name] = noise.integers(0, len(WORDS), shape).astype(tensor.dtype)
            else:
                rows[tensor.name] = noise.random(shape, dtype=np.float32) * np.float32(self.largest)
                if self.family == ARCHITECTURES:  # from black to bright: images of noise alone are all alike
                    rows[tensor.name] *= np.linspace(0, 1, self.num_rows, dtype=np.float32).reshape(-1, 1, 1, 1)
        return rows


def all_cases(image_size: int | None = None) -> dict[str, Case]:
    """Every case by name, architectures first.

    Args:
        image_size: the most pixels per side of an architecture's images; None for what each was made for.
    """
    cases = [_architecture(name, image_size) for family in _FAMILIES for name in family]
    cases += [Case(name, family, make) for family, models in LAYERS.items() for name, make in models.items()]
    return {case.name: case for case in cases}


def choose(names: Sequence[str], *, every: bool = False, image_size: int | None = None) -> list[Case]:
    """The cases that a run is about.

    Args:
        names: of cases or families; empty for the small architectures and all layers.
        every: without names, the large architectures as well.
        image_size: see `all_cases`.

    Raises:
        UsageError: no such case or family, or images that some architecture cannot take.
    """
    if image_size is not None and image_size < _SMALLEST_SIDE:
        raise UsageError(f"bench conversion takes --image-size {_SMALLEST_SIDE} or more, not {image_size}")
    cases = all_cases(image_size)
    if not names:
        usual = {family[0] for family in _FAMILIES} | _LIGHT_ENOUGH
        return [case for case in cases.values() if every or case.family != ARCHITECTURES or case.name in usual]
    families = list(dict.fromkeys(case.family for case in cases.values()))
    if unknown := [name for name in names if name not in cases and name not in families]:
        known = "; ".join([*families, *cases])  # some names have commas
        raise UsageError(f"no model or family {'; '.join(unknown)}: expected one of {known}")
    return [case for case in cases.values() if case.name in names or case.family in names]


def _architecture(name: str, image_size: int | None) -> Case:
    side = min(_SIDES.get(name, _DEFAULT_SIDE), image_size or sys.maxsize)

    def make(keras: Any) -> Any:
        image = keras.Input((side, side, 3), name="image")
        return getattr(keras.applications, name)(weights=None, input_tensor=image, classifier_activation=None)

    largest = 255.0 if name.startswith(_TAKES_BYTES) else 1.0
    return Case(name, ARCHITECTURES, make, largest, _IMAGE_ROWS)
