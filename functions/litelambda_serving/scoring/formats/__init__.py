"""Formats of rows: a module each. `open_reader` and `open_writer` choose by name or by what a key ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litelambda_serving.scoring.errors import JobError, UnreadableInputError

if TYPE_CHECKING:
    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Model, Reader, Writer
    from litelambda_serving.scoring.job import Job

__all__ = ["INPUT_FORMATS", "OUTPUT_FORMATS", "input_format_of", "is_image", "open_reader", "open_writer"]

INPUT_FORMATS = ("jsonl", "csv", "npy", "npz", "images")
OUTPUT_FORMATS = ("jsonl", "csv", "npy")

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".npy": "npy",
    ".npz": "npz",
    ".png": "images",
    ".jpg": "images",
    ".jpeg": "images",
}


def input_format_of(url: str) -> str:
    """The input format that a key's ending names, "" for none; a prefix (ending with a slash) is one of images."""
    if url.endswith("/"):
        return "images"
    name = url.lower().removesuffix(".gz")
    return next((format_name for ending, format_name in _ENDINGS.items() if name.endswith(ending)), "")


def is_image(url: str) -> bool:
    """Whether an object is a row of a prefix of images: its ending says so, and it is not a folder's marker."""
    return not url.endswith("/") and input_format_of(url) == "images"


def open_reader(job: Job, info: ObjectInfo, model: Model) -> Reader:
    """The reader of a job's input.

    Args:
        job: which.
        info: the version of its input that is meant.
        model: what the rows are for.

    Raises:
        UnreadableInputError: of no known format.
        SchemaError: the input is not made for the model.
    """
    name = job.input_format or input_format_of(job.input)
    if name == "jsonl":
        from litelambda_serving.scoring.formats.jsonl import JsonlReader

        return JsonlReader(job, info, model)
    if name == "csv":
        from litelambda_serving.scoring.formats.csv import CsvReader

        return CsvReader(job, info, model)
    if name == "npy":
        from litelambda_serving.scoring.formats.npy import NpyReader

        return NpyReader(job, info, model)
    if name == "npz":
        from litelambda_serving.scoring.formats.npz import NpzReader

        return NpzReader(job, info, model)
    if name == "images":
        from litelambda_serving.scoring.formats.images import ImagesReader

        return ImagesReader(job, info, model)
    raise UnreadableInputError(
        f"{job.input} has no ending that names a format: expected one of {', '.join(_ENDINGS)} (each also with .gz), "
        f"a prefix ending with /, or a job that says which of {', '.join(INPUT_FORMATS)} it is"
    )


def open_writer(job: Job, model: Model) -> Writer:
    """The writer of a job's output.

    Raises:
        JobError: no such format, or one that cannot hold the model's outputs.
    """
    if job.output_format == "jsonl":
        from litelambda_serving.scoring.formats.jsonl import JsonlWriter

        return JsonlWriter(model)
    if job.output_format == "csv":
        from litelambda_serving.scoring.formats.csv import CsvWriter

        return CsvWriter(model)
    if job.output_format == "npy":
        from litelambda_serving.scoring.formats.npy import NpyWriter

        return NpyWriter(model)
    raise JobError(f"output format {job.output_format!r}: expected one of {', '.join(OUTPUT_FORMATS)}")
