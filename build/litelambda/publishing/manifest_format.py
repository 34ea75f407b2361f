"""The manifest of format versions 1 and 2, field by field: what the toolchain writes.

`litelambda_serving.manifest` reads it; docs/reference/manifest.md is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class ManifestDocument(TypedDict):
    """`manifest.json`."""

    format_version: int
    """2 where `preprocessing` says how raw values become the model's, which requests then have; else 1. Readers refuse
    versions that they do not know."""
    model: str
    """Name of the model."""
    version: int
    """Positive number, immutable once published."""
    created: str
    """Time of publishing: UTC, ISO 8601."""
    artifact: str
    """Name of the flatbuffer among `files`; `model.tflite.z` or `model.tflite.xz` where it is stored compressed,
    with `.enc` after it where it is encrypted."""
    files: Mapping[str, Mapping[str, Any]]
    """By name: `sha256` (hex) and `size_bytes` of what is stored; of a compressed or encrypted file also
    `encoding` (zlib, xz or aes-256-gcm) and `unpacked`, with both for what comes out of it, which has the same two
    where it was compressed before it was encrypted."""
    default_signature: str
    """The signature that answers when a request does not name one."""
    signatures: Mapping[str, Mapping[str, Any]]
    """By key: `inputs` and `outputs`, each tensor with `name`, `dtype` (numpy's names), `shape` (-1 in first place: a
    batch) and `quantization` (`scale` and `zero_point`, or null). Inputs also have, where the graph shows it, the
    `range` of values that it can look up; outputs `same_as` (the output that is the same tensor) and `constant`
    (whether it does not depend on the inputs)."""
    batching: Mapping[str, Any]
    """`dynamic: true` and the `verified_sizes` that were proven equal to single rows, bit for bit; or `dynamic: false`
    and the `reason`: rows then run one by one."""
    warm_up: NotRequired[Mapping[str, Any]]
    """Only where the model cannot compute with zeros: by input, a value for its first run, or the values of a row."""
    quantization: Mapping[str, Any]
    """`scheme` (int8, dynamic, float16, float32), `io`, `float_ops` (the operators that compute in float), `note` (why,
    and what to change), and `weight_bits` by layer where some are int4."""
    labels: list[str] | None
    """Names of the classes by index, or null."""
    task: NotRequired[str]
    """Only of a recipe's model: `classification`, `multi_label` (any number of classes at once), `regression` or
    `recommendation`."""
    preprocessing: Mapping[str, Any]
    """By input, how raw values become the model's: their `kind` (numbers, table, image, text) and what it needs."""
    assets: NotRequired[list[str]]
    """Only where preprocessing or vocabularies are files: their names among `files`, fetched with the
    model."""
    outputs: NotRequired[Mapping[str, Any]]
    """Only where an output's numbers stand for names: by output, the `vocabulary_file`, a JSON list of these."""
    drift: NotRequired[Mapping[str, Any]]
    """What drift is measured from, where there were rows enough: how many `rows` were counted, the `limits` of windows
    by their size, and of each of the `features` the bins and their `counts`."""
    explain: NotRequired[Mapping[str, Any]]
    """What explanations need. `gradients`: the `file` among `files` that computes integrated gradients of the float
    model, the names of its `inputs` and `outputs` in order, the `steps` that a run takes on the path, the
    `completeness_error` that is left of nine of ten sample rows, and the type of its `weights`; or a `note`, why there
    is none. `baseline`: what rows are compared with, by input a number or the values of a row as the model reads it. A
    build writes the mean of the training rows, for an input of vectors."""
    encryption: NotRequired[Mapping[str, str]]
    """Only where files are encrypted: the `key` that their `data_key` is encrypted with (an ARN of KMS, or `file`), and
    that data key, base64."""
    metrics: Mapping[str, Any]
    """Figures of the `float` and the `quantized` model on the same test rows, their `agreement`, `max_abs_difference`
    and `num_examples`; of an import, how far it is from its source."""
    size_bytes: Mapping[str, int]
    """Of the `float` flatbuffer, the `quantized` artifact, and what is `stored` of it."""
    recipe: Mapping[str, Any]
    """The validated recipe; of an import, the source's file name and digest."""
    datasets: NotRequired[list[Mapping[str, Any]]]
    """Only of a recipe's build: `file`, `sha256` and `size_bytes` of the data. A folder's digest is that of the list
    that `sha256sum` makes of its files, in order of their paths."""
    tools: Mapping[str, str]
    """Versions of the tools."""
