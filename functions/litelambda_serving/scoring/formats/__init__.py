"""Formats of rows: a module each. `open_reader` and `open_writer` choose one for a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litelambda_serving.scoring.errors import JobError, SchemaError, UnreadableInputError
from litelambda_serving.scoring.format_names import ENDINGS, INPUT_FORMATS, OUTPUT_FORMATS, input_format_of

if TYPE_CHECKING:
    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Reader, RowSchema, Writer
    from litelambda_serving.scoring.job import Job

__all__ = ["open_reader", "open_writer"]

_ARRAYS = ("npy", "npz")


def open_reader(job: Job, info: ObjectInfo, schema: RowSchema) -> Reader:
    """The reader of a job's input.

    Args:
        job: which.
        info: the version of its input that is meant.
        schema: of the model that the rows are for.

    Raises:
        UnreadableInputError: of no known format.
        SchemaError: the input is not made for the model.
    """
    name = job.input_format or input_format_of(job.input)
    reader = _open(name, job, info, schema)
    if schema.raw_inputs is None or schema.coded_rows is not None:
        return reader
    if (name in _ARRAYS and schema.table is None) or (schema.records is None and name != "images"):
        from litelambda_serving.scoring.formats.scaled import ScaledDecoder

        preprocessors = [*schema.raw_inputs.preprocessors.values()]
        reader.decoder = ScaledDecoder(reader.decoder, schema.prepared_inputs, preprocessors)
    return reader


def _open(name: str, job: Job, info: ObjectInfo, schema: RowSchema) -> Reader:
    if name == "jsonl":
        from litelambda_serving.scoring.formats.jsonl import JsonlReader

        return JsonlReader(job, info, schema)
    if name == "csv":
        from litelambda_serving.scoring.formats.csv import CsvReader

        return CsvReader(job, info, schema)
    if schema.coded_rows is not None and name:
        raise SchemaError(f"{job.input}: the function's own preprocess takes rows of JSON Lines or CSV, not {name}")
    if name == "parquet":
        from litelambda_serving.scoring.formats.parquet import ParquetReader

        return ParquetReader(job, info, schema)
    if name in _ARRAYS:
        return _open_arrays(name, job, info, schema)
    if name == "images":
        from litelambda_serving.scoring.formats.images import ImagesReader

        return ImagesReader(job, info, schema)
    raise UnreadableInputError(
        f"{job.input} has no ending that names a format: expected one of {', '.join(ENDINGS)} (each also with .gz), "
        f"a prefix ending with /, or a job that says which of {', '.join(INPUT_FORMATS)} it is"
    )


def _open_arrays(name: str, job: Job, info: ObjectInfo, schema: RowSchema) -> Reader:
    table = schema.table
    if table is not None and table.raw_spec is None:
        columns = ", ".join(field.name for field in table.fields)
        raise SchemaError(
            f"{job.input}: arrays cannot hold the columns {columns[:200]}, of which some are categories: expected CSV, "
            "JSON Lines or Parquet, or the model's own values, which a job says by 'prepared'"
        )
    reader: Reader
    if name == "npy":
        from litelambda_serving.scoring.formats.npy import NpyReader

        reader = NpyReader(job, info, schema)
    else:
        from litelambda_serving.scoring.formats.npz import NpzReader

        reader = NpzReader(job, info, schema)
    if table is not None:
        from litelambda_serving.scoring.formats.array_fields import ArrayFieldsDecoder

        reader.decoder = ArrayFieldsDecoder(reader.decoder, table)
    return reader


def open_writer(job: Job, schema: RowSchema) -> Writer:
    """The writer of a job's output.

    Raises:
        JobError: no such format, or one that cannot hold the model's outputs or the answers of the function's own code.
    """
    code = schema.custom_code
    if job.explain is not None and schema.coded_rows is not None and schema.coded_rows.has_text:
        raise JobError("texts that the function's own preprocess makes are not explained in batch: ask :explain")
    if code is not None and code.has_postprocess:
        if job.output_format != "jsonl":
            raise JobError(
                f"the answers of the function's own postprocess are JSON: expected the output format jsonl, "
                f"not {job.output_format}"
            )
        from litelambda_serving.scoring.formats.answers import AnswerWriter

        return AnswerWriter(schema, code)
    if job.output_format == "jsonl":
        from litelambda_serving.scoring.formats.jsonl import JsonlWriter

        return JsonlWriter(schema)
    if job.output_format == "csv":
        from litelambda_serving.scoring.formats.csv_writer import CsvWriter

        return CsvWriter(schema, job.explain)
    if job.output_format == "npy":
        from litelambda_serving.scoring.formats.npy import NpyWriter

        return NpyWriter(schema)
    raise JobError(f"output format {job.output_format!r}: expected one of {', '.join(OUTPUT_FORMATS)}")
