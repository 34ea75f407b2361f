"""What readers, decoders and writers of formats have in common.

A reader cuts its input into chunks, in the main process. A decoder turns a chunk into rows, in a worker. A writer
turns rows and what the model made of them into bytes, in the same worker. Decoders and writers are pickled on their
way there: they hold no open files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from litelambda_serving.preprocessing import RawInputs, open_raw_inputs
from litelambda_serving.preprocessing.image import Image
from litelambda_serving.preprocessing.numbers import Numbers
from litelambda_serving.preprocessing.table import Table
from litelambda_serving.scoring.columns import row_bytes, row_shape
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.formats.coded_rows import CodedRows
from litelambda_serving.servable.vocabularies import open_vocabularies

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from litelambda_serving.custom_code import CustomCode
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.scoring.columns import Column
    from litelambda_serving.tensor import TensorSpec

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["BadRow", "Chunk", "DecodedRows", "Decoder", "Reader", "RowId", "RowSchema", "Writer", "output_array"]

RowId = int | str


@dataclass(frozen=True)
class RowSchema:
    """What formats need to know of a model.

    Attributes:
        inputs: what is read for each of its inputs, in the order of the signature.
        outputs: its outputs, in the order of the signature.
        scaling: by input, `scale` and `offset` that make an integer or a pixel the model's value, where rows have the
            model's own values.
        labels: names of the classes, or None.
        batch_rows: the largest proven batch: chunks of arrays are multiples of it.
        raw_inputs: what prepares the rows' values for the model; None where they are the model's own.
        prepared_inputs: its inputs, as the model reads them.
        custom_code: the function's own, which runs before and after the model; None without any.
        coded_rows: what prepares the rows, where that code has a part in it.
        vocabularies: by output whose numbers stand for names, these.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scaling: dict[str, dict[str, Any]]
    labels: list[str] | None
    batch_rows: int
    raw_inputs: RawInputs | None = None
    prepared_inputs: tuple[TensorSpec, ...] = ()
    custom_code: CustomCode | None = None
    coded_rows: CodedRows | None = None
    vocabularies: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        assets: Mapping[str, bytes] | None = None,
        *,
        prepared: bool = False,
        custom_code: CustomCode | None = None,
    ) -> RowSchema:
        """From a manifest's default signature.

        Args:
            manifest: of the model.
            assets: contents of its files that preprocessing reads.
            prepared: whether rows have the model's own values although the manifest prepares raw ones.
            custom_code: the function's own.

        Raises:
            SchemaError: a tensor of the model holds strings.
            ManifestError: its preprocessing cannot be read.
        """
        spec = manifest.signatures[manifest.default_signature]
        strings = [tensor.name for tensor in (*spec.inputs, *spec.outputs) if tensor.dtype.kind == "string"]
        if strings:
            raise SchemaError(
                f"{manifest.model} has string tensors ({', '.join(strings)}), which are not scored in batch: "
                "ask the predict function"
            )
        if any(tensor.batched for tensor in spec.inputs):
            for tensor in spec.outputs:
                if not (tensor.batched or tensor.constant):
                    raise SchemaError(
                        f"output {tensor.name!r} of {manifest.model} has no row for each input row, but is made of all "
                        "of a run together: ask the predict function"
                    )
        raw_inputs = None if prepared else open_raw_inputs(manifest, assets or {})
        coded_rows = None
        if custom_code is not None and custom_code.has_preprocess and not prepared:
            coded_rows = CodedRows(custom_code, raw_inputs or RawInputs(spec.inputs, {}, {}))
        inputs = spec.inputs
        if raw_inputs is not None:
            every = zip(inputs, raw_inputs.preprocessors.values(), strict=True)
            inputs = tuple(
                (isinstance(each, Image | Numbers | Table) and each.raw_spec) or tensor for tensor, each in every
            )
        scaling, largest = manifest.scaling, manifest.batch_sizes[-1]
        labels = manifest.labels if manifest.task != "multi_label" else None
        vocabularies = open_vocabularies(manifest, assets) if assets is not None else {}
        return cls(
            inputs,
            spec.outputs,
            scaling,
            labels,
            largest,
            raw_inputs,
            spec.inputs,
            custom_code,
            coded_rows,
            vocabularies,
        )

    @property
    def records(self) -> RawInputs | None:
        """What prepares rows of fields by name; None where numbers are at most scaled."""
        if self.raw_inputs is None or all(field.type == "tensor" for field in self.raw_inputs.fields.values()):
            return None
        return self.raw_inputs

    @property
    def table(self) -> Table | None:
        """What prepares the only input, where it is made of a table's columns."""
        preprocessors = [*self.raw_inputs.preprocessors.values()] if self.raw_inputs is not None else []
        return preprocessors[0] if len(preprocessors) == 1 and isinstance(preprocessors[0], Table) else None

    @property
    def label_output(self) -> int | None:
        """Index of the output whose values are scores of the labelled classes, if there are labels."""
        if self.labels:
            for index, spec in enumerate(self.outputs):
                if row_shape(spec) == (len(self.labels),):
                    return index
        return None


@dataclass(slots=True)
class Chunk:
    """A piece of the input, whole rows of it.

    Attributes:
        payload: the format's own.
        first: number of its first row (or line), where rows have numbers.
        position: where to resume after it; JSON.
        progress_bytes: how much of the input lies before its end.
    """

    payload: Any
    first: int
    position: dict[str, Any]
    progress_bytes: int


@dataclass(slots=True)
class BadRow:
    """A row that cannot be scored.

    Attributes:
        id: its address, see `Reader.id_name`.
        reason: what is wrong with it, for a person.
        index: its place among the chunk's rows.
    """

    id: RowId
    reason: str
    index: int


@dataclass(slots=True)
class DecodedRows:
    """Decoded rows.

    Attributes:
        pieces: the good rows, some at a time: their number, and a column for each input. Where they are read while
            they are iterated over, all else is complete only at the end.
        ids: of the good rows.
        extras: of the good rows, the fields that pass through; None where there are none.
        bad: the others.
        fields: of the good rows, the raw value of each field, where they were read by name; else None.
        explanations: of the good rows, their strongest attributions; None where they are not explained.
    """

    pieces: Iterable[tuple[int, Sequence[Column]]]
    ids: Sequence[RowId]
    extras: list[dict[str, Any]] | None = None
    bad: list[BadRow] = field(default_factory=list)
    fields: dict[str, list[Any]] | None = None
    explanations: list[list[dict[str, Any]]] | None = None

    def refuse(self, reasons: Mapping[int, str]) -> None:
        """Make bad rows of good ones.

        Args:
            reasons: what is wrong with each, by its place among the good ones.
        """
        known = {row.index for row in self.bad}
        places = [index for index in range(len(self.ids) + len(known)) if index not in known]
        self.bad += [BadRow(self.ids[place], reason, places[place]) for place, reason in reasons.items()]
        self.bad.sort(key=lambda row: row.index)
        self.ids = [each for place, each in enumerate(self.ids) if place not in reasons]
        if self.extras is not None:
            self.extras = [each for place, each in enumerate(self.extras) if place not in reasons]
        if self.fields is not None:
            self.fields = {
                name: [each for place, each in enumerate(column) if place not in reasons]
                for name, column in self.fields.items()
            }
        if self.explanations is not None:
            self.explanations = [each for place, each in enumerate(self.explanations) if place not in reasons]


class Decoder(Protocol):
    """Turns chunks into rows."""

    id_name: str
    """What addresses a row: "line" in text, "row" in arrays, "file" for images."""

    passthrough: tuple[str, ...] | None
    """Names of the fields that pass through where all rows have the same, else None."""

    def decode(self, chunk: Chunk) -> DecodedRows:
        """Decode one chunk; a row that cannot be becomes a `BadRow`."""


class Reader(Protocol):
    """Cuts an input into chunks."""

    total_bytes: int
    """What `Chunk.progress_bytes` ends with."""

    form: str = ""
    """What was found of the input's form, for people; "" where its format has but one."""

    decoder: Decoder

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """All chunks after a position.

        Raises:
            InputError: the input is damaged or was replaced.
            StoreError: it could not be read.
        """

    def close(self) -> None:
        """Release what is held open."""
        return


class Writer(Protocol):
    """Turns predictions into bytes."""

    holds_head: bool = False
    """Whether the head of the output is only known at its end."""

    def begin(self, decoder: Decoder) -> bytes:  # noqa: ARG002 - most formats start with the first row
        """What the output starts with."""
        return b""

    def encode(self, rows: DecodedRows, outputs: Sequence[Array], id_name: str) -> bytes | memoryview:
        """The bytes of a chunk's predictions.

        Args:
            rows: the chunk's rows.
            outputs: per output, an array (rows, …) of the good ones.
            id_name: see `Decoder.id_name`.
        """

    def head(self, num_rows: int) -> bytes | None:  # noqa: ARG002 - most starts stay as they are
        """What replaces the start of the output, once its number of rows is known."""
        return None


def passed_names(names: Iterable[str], taken: Container[str]) -> dict[str, str]:
    """Under which names fields pass through: `input_label` where the output has a `label` of its own.

    >>> passed_names(["id", "label"], {"line", "label"})
    {'id': 'id', 'label': 'input_label'}
    """
    return {name: f"input_{name}" if name in taken else name for name in names}


def output_array(data: bytes | bytearray, spec: TensorSpec) -> Array:
    """The bytes of an output as an array (rows, …)."""
    shape = row_shape(spec)
    count = len(data) // (row_bytes(spec) or 1)
    return np.frombuffer(data, dtype=np.dtype(spec.dtype.name).newbyteorder("<")).reshape(count, *shape)
