"""`--preprocessing` of an import, and what a .tflite's own metadata says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.artifact.flatbuffer_check import inspect
from litelambda.commands.import_preprocessing import from_metadata, read_preprocessing
from litelambda.common.errors import ConversionError, UsageError
from support.flatbuffer_surgery import edited
from support.golden_store import golden

IMAGE = FlatbufferTensor("image", "float32", (-1, 4, 4, 3), None)
TABLE = FlatbufferTensor("table", "float32", (-1, 2), None)
WORDS = FlatbufferTensor("words", "string", (-1,), None)
COLUMNS = {
    "kind": "table",
    "columns": [
        {"name": "mass", "type": "number", "scale": 0.5, "offset": -1.0, "missing": 4200.0},
        {"name": "age", "type": "number"},
    ],
}


def table(*columns: dict[str, Any]) -> str:
    return json.dumps({"kind": "table", "columns": columns})


def normalization_metadata(mean: list[float], std: list[float]) -> bytes:
    """TFLite metadata as its schema lays it out: the first input has one process unit, NormalizationOptions."""
    builder = flatbuffers.Builder(0)

    def floats(values: list[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return int(builder.EndVector())

    def table(num_fields: int, offsets: dict[int, int], unions: dict[int, int] | None = None) -> int:
        builder.StartObject(num_fields)
        for field, offset in offsets.items():
            builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, value in (unions or {}).items():
            builder.PrependUint8Slot(field, value, 0)
        return int(builder.EndObject())

    def vector(offset: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    mean_at, std_at = floats(mean), floats(std)
    unit = table(2, {1: table(2, {0: mean_at, 1: std_at})}, {0: 1})
    tensor = table(7, {4: vector(unit)})
    graph = table(10, {2: vector(tensor)})
    builder.Finish(table(8, {3: vector(graph)}), b"M001")
    return bytes(builder.Output())


def with_metadata(data: bytes, content: bytes) -> bytes:
    def change(model: Any) -> None:
        model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
        model.metadata = [*(model.metadata or []), schema.MetadataT(b"TFLITE_METADATA", len(model.buffers) - 1)]

    return edited(data, change)


@pytest.mark.parametrize(("mean", "std"), [([127.5], [127.5]), ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])])
def test_tflites_own_metadata_is_read(tmp_path: Path, mean: list[float], std: list[float]) -> None:
    """NormalizationOptions of an input, one number or one for each channel, under the signature's name of it."""
    path = tmp_path / "model.tflite"
    path.write_bytes(with_metadata(golden("image_2x3"), normalization_metadata(mean, std)))
    assert inspect(path).normalization == {"image": {"mean": mean, "std": std}}


def test_damaged_metadata_is_not_a_traceback(tmp_path: Path) -> None:
    """Its offsets may point anywhere."""
    path = tmp_path / "model.tflite"
    path.write_bytes(with_metadata(golden("image_2x3"), struct.pack("<I", 4) + b"\xff" * 32))
    with pytest.raises(ConversionError, match="error"):
        inspect(path)


@pytest.mark.parametrize(
    ("given", "inputs", "expected"),
    [
        ('{"scale": 0.5, "offset": -1}', [IMAGE], {"image": {"kind": "numbers", "scale": 0.5, "offset": -1}}),
        ('{"scale": [1, 2, 3]}', [IMAGE], {"image": {"kind": "numbers", "scale": [1, 2, 3], "offset": 0.0}}),
        (
            '{"table": {"offset": [1, 2]}}',
            [IMAGE, TABLE],
            {"table": {"kind": "numbers", "scale": 1.0, "offset": [1, 2]}},
        ),
        (
            '{"kind": "image", "fit": "crop", "scale": [1, 2, 3]}',
            [IMAGE],
            {
                "image": {
                    "kind": "image",
                    "field": "image",
                    "shape": [4, 4, 3],
                    "resize": "bilinear",
                    "fit": "crop",
                    "background": [255, 255, 255],
                    "scale": [1, 2, 3],
                    "offset": 0.0,
                }
            },
        ),
        (json.dumps({"table": COLUMNS}), [IMAGE, TABLE], {"table": COLUMNS}),
        (None, [IMAGE], {"image": {"scale": 2.0, "offset": 0.0}}),
    ],
)
def test_what_is_given_or_else_what_the_metadata_says(given: Any, inputs: Any, expected: Any) -> None:
    """Numbers or lists, for the only input or by name; the rules of pictures and tables as the manifest has them."""
    assert read_preprocessing(given, inputs, {"image": {"scale": 2.0, "offset": 0.0}}) == expected


def test_a_file_of_json(tmp_path: Path) -> None:
    """The same from a file."""
    (tmp_path / "scaling.json").write_text('{"scale": 2}')
    assert read_preprocessing(str(tmp_path / "scaling.json"), [TABLE], {}) == {
        "table": {"kind": "numbers", "scale": 2, "offset": 0.0}
    }


@pytest.mark.parametrize(
    ("given", "inputs", "message"),
    [
        ("nothing.json", [IMAGE], "neither JSON nor a file of it"),
        ('{"scale": 1', [IMAGE], "neither JSON nor a file of it"),
        ('{"scale": 1}', [IMAGE, TABLE], "the model has the inputs image, table"),
        ('{"other": {"scale": 1}}', [IMAGE], "no input other; it has image"),
        ('{"scale": [1, 2]}', [IMAGE], "scale has 2 numbers, the input has 3 channels"),
        ('{"scale": "x"}', [IMAGE], "scale 'x' is not finite numbers"),
        ('{"scale": NaN}', [IMAGE], "scale nan is not finite numbers"),
        ('{"scale": 0}', [IMAGE], "a scale of 0 would make all values equal"),
        ('{"image": {"mean": 1}}', [IMAGE], "expected"),
        ('{"scale": 1}', [WORDS], "it takes strings, which cannot be made of numbers"),
        ('{"kind": "image"}', [WORDS], "it takes strings, which cannot be made of pictures"),
        ('{"kind": "picture"}', [IMAGE], "'kind': 'picture'}: expected"),
        ('{"kind": ["image"]}', [IMAGE], "expected"),
        ('{"kind": "image", "fits": "crop"}', [IMAGE], "unknown key 'fits': choose kind, field, shape, resize, fit"),
        ('{"kind": "image", "fit": "cut"}', [IMAGE], "fit 'cut' is not one of stretch, crop, pad"),
        ('{"kind": "image", "shape": [5, 5, 3]}', [IMAGE], r"pixels of shape \[5, 5, 3\] do not make up a row"),
        ('{"kind": "image", "scale": [1, 2]}', [IMAGE], "scale has 2 numbers, the input has 3 channels"),
        ('{"kind": "image"}', [TABLE], "shape: expected height, width and channels"),
        ('{"kind": "table"}', [TABLE], "columns: expected a list of objects"),
        ('{"kind": "table", "columns": [1]}', [TABLE], "columns: expected a list of objects"),
        ('{"kind": "table", "columns": [{"type": "number"}]}', [TABLE], "the column .* lacks 'name'"),
        ('{"kind": "table", "columns": [{"name": "a"}]}', [TABLE], "the column .* lacks 'type'"),
        (table({"name": "a", "type": "category"}), [TABLE], "the column .* lacks 'vocabulary'"),
        (table({"name": "a", "type": "text"}), [TABLE], "type 'text' is neither 'number' nor 'category'"),
        (table({"name": "a", "type": ["text"]}), [TABLE], "is neither 'number' nor 'category'"),
        (table({"name": "a", "type": "number", "mean": 1}), [TABLE], "column 'a': unknown key 'mean': choose name, ty"),
        (table({"name": "a", "type": "number"}), [TABLE], "rows of 1 values, the input has 2"),
    ],
)
def test_what_does_not_fit_is_named(given: str, inputs: Any, message: str) -> None:
    """Each mistake says what was expected."""
    with pytest.raises(UsageError, match=message):
        read_preprocessing(given, inputs, {})


def test_metadata_with_one_mean_for_all_channels() -> None:
    """(raw - 4) / std by hand: one mean goes with three widths."""
    found, warnings = from_metadata({"image": {"mean": [4.0], "std": [1.0, 2.0, 4.0]}}, [IMAGE])
    assert found == {"image": {"kind": "numbers", "scale": [1.0, 0.5, 0.25], "offset": [-4.0, -2.0, -1.0]}}
    assert warnings == ()


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.0], [0.0]), ([float("nan")], [1.0]), ([0.0, 0.0], [1.0, 1.0]), ([0.0, 0.0], [1.0] * 3), ([], [1.0])],
)
def test_metadata_that_makes_no_sense_is_left_out(mean: list[float], std: list[float]) -> None:
    """A width of zero, NaN, or numbers for other channels: nothing is scaled, and a warning says what was found."""
    found, (warning,) = from_metadata({"image": {"mean": mean, "std": std}}, [IMAGE])
    assert found == {}
    assert f"normalizes input 'image' with mean {mean} and std {std}, which is left out" in warning
