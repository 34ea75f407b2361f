"""Tables in Apache Parquet, by pyarrow: a column for each field, in any order; the others pass through.

pyarrow is not part of the deployed batch function, whose package has no room for it: such files are scored by the
command, or converted.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from litelambda_serving.scoring.errors import JobError, SchemaError, UnreadableInputError
from litelambda_serving.scoring.formats.base import Chunk, Reader, RowSchema
from litelambda_serving.scoring.formats.npz import open_file
from litelambda_serving.scoring.formats.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.scoring.formats.base import DecodedRows, Decoder
    from litelambda_serving.scoring.job import Job

__all__ = ["ParquetReader", "holds_categories", "holds_numbers", "values_of"]

_CHUNK_ROWS = 4096
_PLAIN = (type(None), bool, int, float, str)


class ParquetReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        if find_spec("pyarrow") is None:
            raise UnreadableInputError(
                f"{job.input} is read by pyarrow, which is not installed: run `pip install 'litelambda[parquet]'`; the "
                "deployed function has no room for it, so that it needs the file as CSV or JSON Lines"
            )
        if job.span:
            raise JobError(f"{job.input} is in Parquet: it cannot be split into ranges")
        if schema.records is None:
            raise SchemaError(
                "the model does not say which columns it is asked with, as one that was built from a table does: "
                f"expected {job.input} as CSV, JSON Lines, .npy or .npz"
            )
        from pyarrow.parquet import ParquetFile

        self._stream = open_file(job, info)
        try:
            with _damage_of("not a readable Parquet file"):
                self._file = ParquetFile(self._stream)
            self._num_rows = self._file.metadata.num_rows
            self.total_bytes = info.size
            self.decoder: Decoder = ParquetDecoder(self._file.schema_arrow, schema.records, job.passthrough)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `Reader.close`."""
        self._stream.close()

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        start, first = (position or {"row": 0})["row"], 0
        with _damage_of("the Parquet file is damaged"):
            for batch in self._file.iter_batches(_CHUNK_ROWS):
                after = first + batch.num_rows
                if first >= start:
                    columns = {name: values_of(batch.column(name)) for name in batch.schema.names}
                    done = self.total_bytes * after // max(self._num_rows, 1)
                    yield Chunk(columns, first, {"row": after}, done)
                first = after


class ParquetDecoder:
    """See `base.Decoder`."""

    id_name = "row"

    def __init__(self, schema: Any, raw_inputs: RawInputs, passthrough: Sequence[str] | None) -> None:
        """Find the fields among the columns.

        Raises:
            SchemaError: a field has no column, or one that holds neither numbers nor text.
        """
        names = schema.names
        if len({*names}) < len(names):
            raise SchemaError("the Parquet file has two columns of the same name")
        if missing := [name for name in raw_inputs.fields if name not in names]:
            raise SchemaError(
                f"the Parquet file has no column {', '.join(map(repr, missing[:10]))}; it has {', '.join(names)[:200]}"
            )
        for name in raw_inputs.fields:
            found = schema.field(name).type
            if not (holds_categories(found) or holds_numbers(found)):
                raise SchemaError(f"column {name!r} is of type {found}, expected numbers or text")
        self._raw_inputs = raw_inputs
        self.passthrough: tuple[str, ...] | None = tuple(
            name for name in names if name not in raw_inputs.fields and (passthrough is None or name in passthrough)
        )

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = Records(self._raw_inputs)
        fields, columns = self._raw_inputs.fields, chunk.payload
        count = len(next(iter(columns.values()), ()))
        for row in range(count):
            extra = {name: _plain(columns[name][row]) for name in self.passthrough or ()}
            rows.add(chunk.first + row, {name: columns[name][row] for name in fields}, extra)
        return rows.prepared()


def _plain(value: Any) -> Any:
    """A value as JSON can have it; others, such as dates, as text."""
    return value if isinstance(value, _PLAIN) else str(value)


@contextmanager
def _damage_of(what: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        raise UnreadableInputError(f"{what}: {str(error)[:200]}") from error


def holds_categories(arrow_type: Any) -> bool:
    """Whether columns of a type hold text or truth values."""
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_boolean(arrow_type))


def holds_numbers(arrow_type: Any) -> bool:
    """Whether columns of a type hold numbers."""
    from pyarrow import types

    return bool(types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type))


def values_of(column: Any) -> list[Any]:
    """The values of a column as JSON would have them; None for a missing one."""
    from pyarrow import types

    if types.is_decimal(column.type) or types.is_float16(column.type):
        column = column.cast("float64")
    values: list[Any] = column.to_pylist()
    return values
