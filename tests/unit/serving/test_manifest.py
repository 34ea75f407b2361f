"""Reading manifests: what a reader ignores, needs and refuses."""

from __future__ import annotations

import json

import pytest

from litelambda_serving.errors import ManifestError
from litelambda_serving.manifest import Manifest, is_valid_name
from support.golden_store import golden, make_manifest


def document(**fields) -> bytes:
    return json.dumps({**make_manifest("tiny_int8", 3, golden("tiny_int8")), **fields}).encode()


def test_fields_are_read():
    """A manifest says what a server needs without the flatbuffer."""
    manifest = Manifest.from_json(document(labels=["a", "b", "c"]))
    assert (manifest.model, manifest.version, manifest.artifact) == ("tiny_int8", 3, "model.tflite")
    assert manifest.signatures["predict"].inputs[0].shape == (-1, 4)
    assert manifest.batch_sizes == (1, 2, 3, 8, 32)
    assert manifest.labels == ["a", "b", "c"]


def test_unknown_fields_are_ignored():
    """A later writer may add fields."""
    assert Manifest.from_json(document(tomorrow={"x": 1})).version == 3


def test_without_proof_rows_run_one_by_one():
    """No batch size counts as proven unless the manifest says that it was."""
    assert Manifest.from_json(document(batching={"dynamic": False, "reason": "stale sizes"})).batch_sizes == (1,)
    assert Manifest.from_json(document(batching=None)).batch_sizes == (1,)


def test_int8_graphs_want_finite_inputs():
    """The scheme decides whether NaN can be taken."""
    assert not Manifest.from_json(document()).signatures["predict"].inputs[0].finite
    scheme = {"scheme": "int8", "io": "float32"}
    assert Manifest.from_json(document(quantization=scheme)).signatures["predict"].inputs[0].finite


def tensor(**fields) -> dict:
    described = {"name": "x", "dtype": "int8", "shape": [-1, 4], **fields}
    return {"signatures": {"predict": {"inputs": [described], "outputs": [described]}}}


def test_null_is_absence():
    """Optional fields may be null, as a writer of all fields leaves them."""
    names = ("quantization", "batching", "labels", "preprocessing")
    manifest = Manifest.from_json(document(**dict.fromkeys(names), **tensor(quantization=None)))
    assert (manifest.batch_sizes, manifest.labels) == ((1,), None)
    assert Manifest.from_json(document(preprocessing={"x": None, "y": {"scale": 1, "offset": [0.5, 1]}})).version == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 0}, "version: expected a positive number, got 0"),
        ({"version": True}, "version: expected int, got bool"),
        ({"quantization": True}, "quantization: expected dict, got bool"),
        ({"quantization": "int8"}, "quantization: expected dict, got str"),
        ({"batching": [8]}, "batching: expected dict, got list"),
        ({"batching": {"dynamic": True}}, "verified_sizes: expected list"),
        ({"batching": {"dynamic": True, "verified_sizes": ["8"]}}, "verified_sizes: .*not a list of numbers of rows"),
        ({"batching": {"dynamic": True, "verified_sizes": [8, 0]}}, "not a list of numbers of rows"),
        ({"batching": {"dynamic": True, "verified_sizes": [True]}}, "not a list of numbers of rows"),
        ({"labels": "abc"}, "labels: expected list, got str"),
        ({"labels": ["a", 1]}, "labels: expected a list of str"),
        ({"preprocessing": 1}, "preprocessing: expected dict, got int"),
        ({"preprocessing": {"x": 1}}, "scale: expected a finite number"),
        ({"preprocessing": {"x": {"scale": "1", "offset": 0}}}, "scale: expected a finite number, got 1"),
        ({"preprocessing": {"x": {"scale": 1, "offset": float("inf")}}}, "offset: expected a finite number, got inf"),
        ({"preprocessing": {"x": {"scale": 10**400, "offset": 0}}}, "scale: expected a finite number"),
        ({"preprocessing": {"x": {"scale": []}}}, "scale: expected a finite number"),
        ({"files": {"model.tflite": True}}, "sha256: expected str"),
        ({"files": {"model.tflite": {"sha256": "", "size_bytes": -1}}}, "size_bytes: expected a length, got -1"),
        ({"signatures": {"predict": 1}}, "inputs: expected list"),
        (tensor(quantization=True), "quantization: expected dict, got bool"),
        (tensor(quantization={"scale": 0.0, "zero_point": 0}), "scale 0.0 is not a positive number"),
        (tensor(quantization={"scale": float("nan"), "zero_point": 0}), "scale nan is not a positive number"),
        (tensor(quantization={"scale": 1, "zero_point": 0.5}), "zero_point: expected int, got float"),
        (tensor(shape=[1e400]), "is not a list of sizes"),
        (tensor(shape="4"), "shape: expected list"),
        ({"format_version": 3}, "format version 3, this reader knows 2"),
        ({"format_version": "1"}, "format_version: expected int, got str"),
        ({"model": None}, "field model: expected str"),
        ({"artifact": "other"}, "which files does not list"),
        ({"files": {"../x": {"sha256": "", "size_bytes": 0}}}, "invalid file name '../x'"),
        ({"files": {"model.tflite": {"sha256": 1, "size_bytes": 0}}}, "field sha256: expected str"),
        ({"default_signature": "x"}, "not in signatures"),
        ({"signatures": {"predict": {"inputs": []}}}, "field outputs: expected list"),
        (
            {"signatures": {"predict": {"inputs": [{"name": "x", "dtype": "int3", "shape": []}], "outputs": []}}},
            "dtype 'int3' is not one of bool",
        ),
        (
            {"signatures": {"predict": {"inputs": [{"name": "x", "dtype": "int8", "shape": [1, -1]}], "outputs": []}}},
            "is not a list of sizes",
        ),
    ],
)
def test_a_wrong_field_is_named(fields, message):
    """What is missing or of the wrong type is said by name."""
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(document(**fields))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data):
    """Bytes that are no JSON object raise ManifestError and nothing else."""
    with pytest.raises(ManifestError):
        Manifest.from_json(data)


@pytest.mark.parametrize("name", ["mnist", "a.b-c_d", "7", "x" * 128])
def test_valid_names(name):
    """Letters, digits and `_.-` make a name."""
    assert is_valid_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "a b", "ä", "x" * 129, "a\0", "%2e"])
def test_invalid_names(name):
    """Nothing that could leave its folder or confuse a log is a name."""
    assert not is_valid_name(name)
