"""A job: one input, one model, one output. What an event, a shard or a command line is turned into."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.format_names import INPUT_FORMATS, OUTPUT_FORMATS, input_format_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from litelambda_serving.objects.base import ObjectInfo

__all__ = ["DEFAULT_TOLERATED_BAD", "MAX_EXPLAIN", "Job", "Outputs", "identity"]

DEFAULT_TOLERATED_BAD = 0.01
MAX_EXPLAIN = 100
_MAX_KEY_BYTES, _MAX_FILE_NAME_BYTES = 1024, 255
_LONGEST_ENDING = len(".errors.jsonl")
_TEXTS = ("input", "output", "version_id", "etag", "model", "input_format", "output_format", "start_after")
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_TEXTS, (lambda value: type(value) is str, "text")),
    "passthrough": (lambda value: type(value) is list and {*map(type, value)} <= {str}, "a list of fields' names"),
    "tolerated_bad": (lambda value: type(value) in (int, float), "a share from 0 to 1"),
    "span": (
        lambda value: type(value) is list and [*map(type, value)] == [int, int] and 0 <= value[0] <= value[1],
        "its beginning and its end, [0, 100]",
    ),
    "explain": (lambda value: type(value) is int and value > 0, "a positive number of attributions"),
    "limit": (lambda value: type(value) is int and value > 0, "a positive number"),
    "resize": (lambda value: type(value) is bool, "true or false"),
    "prepared": (lambda value: type(value) is bool, "true or false"),
    "shard": (lambda value: type(value) is int and value >= 0, "a number from 0"),
}
"""Every field of a job: whether a value of JSON is one, and what should have been there."""

_FIELDS = _EXPECTED.keys()


@dataclass(frozen=True)
class Job:
    """What is to be scored, and how.

    Attributes:
        input: URL of an object, or of a prefix of images (with a slash at its end).
        output: URL of the predictions; with a slash at its end, the prefix under which their name is derived.
        version_id: S3's id of the input's version, "" where the bucket keeps none.
        etag: the input's ETag (or a file's tag), "" for whatever is there.
        model: NAME, NAME@alias or NAME:version; "" for the function's own.
        input_format: one of `formats.INPUT_FORMATS`, "" to go by the input's ending.
        output_format: one of `formats.OUTPUT_FORMATS`.
        passthrough: names of the fields that the output repeats; None for all that are not inputs.
        tolerated_bad: share of bad rows, above which the job fails.
        span: the part of the input that is meant: bytes of text, rows of an array; None for all.
        start_after: of a prefix, the URL after which this job begins.
        limit: of a prefix, the number of objects from there.
        resize: whether images of another size than the model's are resized.
        prepared: whether the rows are the model's own values, where its manifest says how raw ones are prepared.
        explain: how many of each row's strongest attributions the output has; None for none.
        shard: number of this part of a larger run, None for a job of its own.
    """

    input: str
    output: str
    version_id: str = ""
    etag: str = ""
    model: str = ""
    input_format: str = ""
    output_format: str = "jsonl"
    passthrough: tuple[str, ...] | None = None
    tolerated_bad: float = DEFAULT_TOLERATED_BAD
    span: tuple[int, int] | None = None
    start_after: str = ""
    limit: int | None = None
    resize: bool = False
    prepared: bool = False
    explain: int | None = None
    shard: int | None = None

    def __post_init__(self) -> None:
        if self.input_format and self.input_format not in INPUT_FORMATS:
            raise JobError(f"input_format {self.input_format!r}: expected one of {', '.join(INPUT_FORMATS)}")
        if self.output_format not in OUTPUT_FORMATS:
            raise JobError(f"output_format {self.output_format!r}: expected one of {', '.join(OUTPUT_FORMATS)}")
        if self.explain is not None and not 0 < self.explain <= MAX_EXPLAIN:
            raise JobError(f"explain {self.explain}: expected a number of attributions from 1 to {MAX_EXPLAIN}")
        if self.explain is not None and self.output_format not in ("jsonl", "csv"):
            raise JobError(
                f"the output format {self.output_format} holds numbers alone, not the names of explanations: expected "
                "jsonl or csv"
            )
        if not 0 <= self.tolerated_bad <= 1:
            raise JobError(f"tolerated_bad {self.tolerated_bad}: expected a share from 0 to 1")
        for url in (self.input, self.output):
            if not url.startswith(("s3://", "file:///")):
                raise JobError(f"{url!r} is neither s3://bucket/key nor file:///path")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Job:
        """From JSON.

        Raises:
            JobError: a field is missing, unknown or impossible; the message names it.
        """
        unknown = fields.keys() - _FIELDS
        if unknown:
            raise JobError(
                f"unknown field {', '.join(sorted(unknown))} of a job: expected {', '.join(sorted(_FIELDS))}"
            )
        for name in ("input", "output"):
            if not isinstance(fields.get(name), str):
                raise JobError(f"a job needs {name}, a URL")
        values = {name: value for name, value in fields.items() if value is not None}
        for name, value in values.items():
            is_one, expected = _EXPECTED[name]
            if not is_one(value):
                raise JobError(f"{name} {str(value)[:60]!r} of a job: expected {expected}")
        for name in values.keys() & {"span", "passthrough"}:
            values[name] = tuple(values[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is as it would be anyway, whatever the settings of the function that reads it."""
        default = Job(self.input, self.output)
        always = ("input", "output", "output_format", "tolerated_bad")
        fields: dict[str, Any] = {name: getattr(self, name) for name in always}
        for name in sorted(_FIELDS - fields.keys()):
            value = getattr(self, name)
            if value != getattr(default, name):
                fields[name] = list(value) if isinstance(value, tuple) else value
        return fields

    @property
    def version(self) -> str:
        """What tells the input from any other at its URL; "" when that is not known yet."""
        return self.version_id or self.etag

    def pinned(self, info: ObjectInfo, model: str) -> Job:
        """The same job, of one version of its input and one of its model."""
        return replace(self, version_id=info.version_id, etag=info.tag, model=model)


class Outputs:
    """Where the outputs of a job go. Their name tells the job from any other, so that each is written once.

    Attributes:
        identity: see `identity`.
        predictions: the output; that it is there means that all others are.
        is_named: whether the caller named it, instead of a prefix.
        errors: the bad rows.
        summary: the run summary.
        failure: the report of a job that cannot be done.
        checkpoint: where the job stopped before its deadline.
    """

    def __init__(self, job: Job, model_digest: str) -> None:
        ending = "." + job.output_format
        base = job.output
        self.identity = identity(job, model_digest)
        self.is_named = not base.endswith("/")
        if self.is_named:
            self.predictions = base
            base = base.removesuffix(ending)
        else:
            base += _shortened(_name_of(job.input), base, f".{self.identity}")
            self.predictions = base + ending
        self.errors = base + ".errors.jsonl"
        self.summary = base + ".summary.json"
        self.failure = base + ".failure.json"
        self.checkpoint = base + ".checkpoint"


def identity(job: Job, model_digest: str) -> str:
    """What the bytes of a job's output and the verdict on its rows depend on, as 32 hexadecimal digits."""
    fields = job.to_dict()
    for name in ("output", "model", "version_id", "etag", "shard"):  # what names them is said by the digest and version
        fields.pop(name, None)
    fields |= {
        "version": job.version,
        "model": model_digest,
        "input_format": job.input_format or input_format_of(job.input),
        "output_format": job.output_format,
        "tolerated_bad": job.tolerated_bad,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


def _name_of(url: str) -> str:
    """The input's key below its bucket, or the file's name."""
    if url.startswith("s3://"):
        key = url[5:].partition("/")[2]
        return key.rstrip("/") or "all"
    return url.rstrip("/").rpartition("/")[2] or "all"


def _shortened(name: str, prefix: str, ending: str) -> str:
    """A name of which all outputs still have a legal key; what is cut off is told apart by the identity."""
    if prefix.startswith("s3://"):
        taken, limit = len(prefix[5:].partition("/")[2].encode()), _MAX_KEY_BYTES
    else:
        name, taken, limit = unquote_to_bytes(name).decode(errors="surrogateescape"), 0, _MAX_FILE_NAME_BYTES
    room = max(limit - taken - len(ending) - _LONGEST_ENDING, 0)
    encoded = name.encode(errors="surrogateescape")
    if len(encoded) > room:
        encoded = encoded[:room].decode(errors="ignore").encode()  # no half a character
    if prefix.startswith("s3://"):
        return encoded.decode(errors="replace") + ending
    return quote(encoded) + ending
