"""The model that a benchmark serves: its objects out of a store, and requests made to its signature.

Requests are made from the manifest alone, with a fixed seed, so that every handler and every run gets the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.bench.events import http_event
from litelambda.common.errors import BenchError
from litelambda.store.reading import open_reader
from litelambda_serving.artifact.unpack import unpack
from litelambda_serving.errors import ObjectNotFoundError
from litelambda_serving.manifest import Manifest
from litelambda_serving.tensor import TensorSpec

_ALIAS = "latest"
_SEED = 20261123
_TEXT = "Although the plot was not at all clumsy, I suffered through the second half. It runs for 121 minutes."
_MAX_BYTES = 8 * 1024**3


@dataclass(frozen=True)
class Subject:
    """One published version of a model, read whole.

    Attributes:
        manifest: what the version says of itself.
        manifest_sha256: the digest that pins it.
        artifact_key: the flatbuffer's key, relative to the store.
        objects: store-relative keys to contents: all that a handler may fetch.
    """

    manifest: Manifest
    manifest_sha256: str
    artifact_key: str
    objects: Mapping[str, bytes]

    @property
    def artifact(self) -> bytes:
        """The flatbuffer, unpacked."""
        stored = self.objects[self.artifact_key]
        return bytes(unpack(stored, self.manifest.files[self.manifest.artifact], self.artifact_key))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the default signature."""
        return self.manifest.signatures[self.manifest.default_signature].inputs

    @property
    def text(self) -> Mapping[str, Any] | None:
        """How the only input is prepared, where it reads text."""
        document = self.manifest.preprocessing.get(self.inputs[0].name, {})
        return document if len(self.inputs) == 1 and document.get("kind") == "text" else None

    @property
    def tokenizer(self) -> bytes:
        """The `tokenizer.json` of a model that reads text."""
        return self.objects[f"{self.manifest.model}/{self.manifest.version}/{(self.text or {})['tokenizer']}"]

    @property
    def reads_pictures(self) -> bool:
        """Whether the function needs a decoder of pictures."""
        return any(document["kind"] == "image" for document in self.manifest.preprocessing.values())

    @property
    def gradients(self) -> str | None:
        """The file of its integrated gradients; None without any."""
        return ((self.manifest.fields.get("explain") or {}).get("gradients") or {}).get("file")

    def describe(self) -> dict[str, Any]:
        """What a report says of the model."""
        return {
            "name": self.manifest.model,
            "version": self.manifest.version,
            "digest": self.manifest_sha256,
            "artifact_bytes": len(self.artifact),
        }


def load_subject(store_url: str, name: str) -> Subject:
    """Read the version that the alias `latest` names out of a store.

    Raises:
        BenchError: the store has no such model; the message says how to build it.
        StoreError: the store cannot be read.
    """
    store = open_reader(store_url)

    def read(key: str) -> bytes:
        try:
            return bytes(store.fetch(key, _MAX_BYTES))
        except ObjectNotFoundError as error:
            raise BenchError(
                f"no model {name!r} in the store {store_url} ({error}). Build it with "
                f"`litelambda build {name}`, or name another with --model and --store."
            ) from error

    aliases_key = f"{name}/aliases.json"
    aliases = read(aliases_key)
    version = json.loads(aliases)[_ALIAS]
    manifest_key = f"{name}/{version}/manifest.json"
    manifest_bytes = read(manifest_key)
    manifest = Manifest.from_json(manifest_bytes)
    artifact_key = f"{name}/{version}/{manifest.artifact}"
    objects = {aliases_key: aliases, manifest_key: manifest_bytes, artifact_key: read(artifact_key)}
    subject = Subject(manifest, hashlib.sha256(manifest_bytes).hexdigest(), artifact_key, objects)
    files = [*manifest.assets, *([subject.gradients] if subject.gradients else [])]
    objects |= {key: read(key) for key in (f"{name}/{version}/{file}" for file in files)}
    return subject


def make_columns(inputs: Sequence[TensorSpec], count: int) -> dict[str, NDArray[Any]]:
    """Make values for `count` rows by input, the same on every call.

    Floats look like normalized pixels, n/255 to the seven digits that a float32 holds.
    """
    chooser = np.random.default_rng(_SEED)
    columns: dict[str, NDArray[Any]] = {}
    for spec in inputs:
        pixels = chooser.integers(0, 256, (count, *spec.shape[1:]))
        kinds = {"bool": pixels < 128, "float": np.round(pixels / 255, 7)}
        columns[spec.name] = kinds.get(spec.dtype.kind, pixels // 2)  # which fits every integer dtype
    return columns


def make_rows(inputs: Sequence[TensorSpec], count: int) -> list[Any]:
    """The same values as instances in TensorFlow Serving's row format: bare for one input, objects for several."""
    columns = {name: values.tolist() for name, values in make_columns(inputs, count).items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def first_event(subject: Subject) -> bytes:
    """The event of a JSON predict of one row: a text where the model reads text, else the model's own values."""
    model = subject.manifest.model
    if subject.text is None:
        return predict_event(model, make_rows(subject.inputs, 1))
    body = json.dumps({"instances": [_TEXT]}).encode()
    return http_event(f"/v1/models/{model}:predict", {"content-type": "application/json"}, body)


def predict_event(model: str, rows: list[Any]) -> bytes:
    """The event of a JSON predict; with the model's own values, since the peers prepare none."""
    body = json.dumps({"prepared": True, "instances": rows}).encode()
    return http_event(f"/v1/models/{model}:predict", {"content-type": "application/json"}, body)


def read_predictions(answer: Any, count: int, who: str) -> list[Any]:
    """Take the predictions out of a handler's answer.

    Raises:
        BenchError: the answer is not a success, or has another number of rows.
    """
    if not isinstance(answer, dict) or answer.get("statusCode") != 200:
        raise BenchError(f"{who} answered a predict with {str(answer)[:500]}")
    predictions: list[Any] = json.loads(answer["body"])["predictions"]
    if len(predictions) != count:
        raise BenchError(f"{who} answered {len(predictions)} predictions to {count} instances")
    return predictions


def largest_difference(one: Any, other: Any) -> float:
    """The largest difference between two predictions of the same shape; infinite where the shapes differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((largest_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other)
    return math.inf
