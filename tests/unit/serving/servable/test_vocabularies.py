"""Vocabularies: an output's numbers become names, and what cannot be read or meant is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litelambda_serving.errors import ArtifactError, ManifestError
from litelambda_serving.manifest import Manifest
from litelambda_serving.servable.vocabularies import named, names_of, open_vocabularies
from litelambda_serving.tensor import DTYPES, Tensor


def manifest(**fields: Any) -> Manifest:
    """A manifest with an output of numbers, "items", and one of floats, "scores"."""
    outputs = [
        {"name": "items", "dtype": "int32", "shape": [-1, 2], "quantization": None},
        {"name": "scores", "dtype": "float32", "shape": [-1, 2], "quantization": None},
    ]
    files = {name: {"sha256": "0" * 64, "size_bytes": 1} for name in ("model.tflite", "items.json")}
    document = {
        "format_version": 2,
        "model": "shop",
        "version": 1,
        "artifact": "model.tflite",
        "files": files,
        "default_signature": "predict",
        "signatures": {"predict": {"inputs": [outputs[1]], "outputs": outputs}},
        "assets": ["items.json"],
        "outputs": {"items": {"vocabulary_file": "items.json"}},
        **fields,
    }
    return Manifest.from_json(json.dumps(document).encode())


def test_numbers_become_names() -> None:
    """Each number is the place of its name; other outputs stay as they are."""
    names = open_vocabularies(manifest(), {"items.json": '["jazz", "søul", "dub"]'.encode()})
    items = Tensor(DTYPES["int32"], (1, 2), b"\x02\0\0\0\x01\0\0\0")
    scores = Tensor(DTYPES["float32"], (1, 2), bytes(8))
    outputs = named({"items": items, "scores": scores}, names)
    assert (outputs["items"].data, outputs["items"].shape) == ([b"dub", "søul".encode()], (1, 2))
    assert outputs["scores"] is scores


@pytest.mark.parametrize("number", [-1, 2])
def test_a_number_without_a_name_is_the_artifacts_fault(number: int) -> None:
    """A number that is not a place in the vocabulary is never answered with another name."""
    with pytest.raises(ArtifactError, match="the vocabulary has 2 names"):
        names_of([0, number], ["jazz", "soul"])


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (b"[", {}, "the vocabulary items.json is not JSON"),
        (b'{"a": 1}', {}, "the vocabulary items.json is not a list of names"),
        (b'["a", 1]', {}, "the vocabulary items.json is not a list of names"),
        (b'["a"]', {"outputs": {"scores": {"vocabulary_file": "items.json"}}}, "'scores', which is not an output of"),
        (b'["a"]', {"outputs": {"item": {"vocabulary_file": "items.json"}}}, "'item', which is not an output of"),
        (b'["a"]', {"outputs": {"items": {"vocabulary_file": "x.json"}}}, "names 'x.json', which assets does not list"),
        (b'["a"]', {"outputs": {"items": {}}}, "manifest field vocabulary_file: expected str"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, fields: dict[str, Any], message: str) -> None:
    """A vocabulary that is not a list of names, or of another output, keeps the model from loading."""
    with pytest.raises(ManifestError) as raised:
        open_vocabularies(manifest(**fields), {"items.json": content})
    assert message in str(raised.value)
