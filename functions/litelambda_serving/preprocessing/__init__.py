"""From what people have to what a model reads: a manifest's `preprocessing`, input by input.

A *field* is a raw value that every row has: a column of a table, a picture, a text. An input of the model is prepared
from one field or several, by the module of its kind. Requests, batch scoring and the build all prepare through here,
so that the same raw values always become the same inputs.

Loaded with the first model whose manifest (format version 2) says how its inputs are prepared.
"""

from __future__ import annotations

from litelambda_serving.errors import ManifestError, TensorError
from litelambda_serving.json_codec import UnreadNumbers
from litelambda_serving.preprocessing.base import Field, Preprocessor, shown
from litelambda_serving.tensor import pack, row_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    RawArray = tuple[Sequence[float], Sequence[int]]

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["KINDS", "RawInputs", "open_preprocessor", "open_raw_inputs"]

KINDS = ("numbers", "table", "image", "text")
"""What the raw values of an input can be."""


def open_raw_inputs(manifest: Manifest, assets: Mapping[str, bytes]) -> RawInputs | None:
    """What prepares the inputs of a model's default signature; None where it reads its inputs as they come.

    Args:
        manifest: of the model.
        assets: contents of the files that `Manifest.assets` names.

    Raises:
        ManifestError: its preprocessing cannot be read; the message names the input.
    """
    if not manifest.preprocessing:
        return None
    inputs = manifest.signatures[manifest.default_signature].inputs
    return RawInputs(inputs, manifest.preprocessing, assets)


def open_preprocessor(spec: TensorSpec, document: Mapping[str, Any], assets: Mapping[str, bytes]) -> Preprocessor:
    """What prepares one input.

    Args:
        spec: the input.
        document: the manifest's `preprocessing` of it.
        assets: contents of the files that `document` names.

    Raises:
        ManifestError: the document is not of a known kind, or lacks what its kind needs.
    """
    kind = str(document.get("kind"))
    try:
        return _open(kind, spec, document, assets)
    except (LookupError, TypeError, ValueError, ManifestError) as error:
        raise ManifestError(f"manifest field preprocessing of input {spec.name!r}: {error}") from error


def _open(
    kind: str,
    spec: TensorSpec,
    document: Mapping[str, Any],
    assets: Mapping[str, bytes],
) -> Preprocessor:
    if kind == "numbers":
        from litelambda_serving.preprocessing.numbers import Numbers

        return Numbers(spec, document)
    if kind == "table":
        from litelambda_serving.preprocessing.table import Table

        return Table(spec, document, assets)
    if kind == "image":
        from litelambda_serving.preprocessing.image import Image

        return Image(spec, document)
    if kind == "text":
        from litelambda_serving.preprocessing.text import Text

        return Text(spec, document, assets)
    raise ManifestError(f"kind {kind[:40]!r} is not one of {', '.join(KINDS)}: deploy a newer litelambda")


class _Plain(Preprocessor):
    """Takes an input as the model reads it, where the manifest does not prepare it."""

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self.fields = (Field(spec.name, "tensor", spec.shape[1:] if spec.batched else spec.shape),)

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        (values,) = columns
        values = values if isinstance(values, UnreadNumbers) else list(values)
        return pack(values, self.spec, self.spec.shape_of(len(values)))


class RawInputs:
    """Prepares all inputs of a signature.

    Attributes:
        fields: what a row has, by name.
        ignored: names that a row may also have; their values are not looked at.
        preprocessors: by input.
        takes_arrays: whether rows may be `UnreadNumbers`: all of them are one tensor.
    """

    def __init__(
        self, inputs: Sequence[TensorSpec], documents: Mapping[str, Mapping[str, Any]], assets: Mapping[str, bytes]
    ) -> None:
        """Open the preprocessors.

        Args:
            inputs: of the signature.
            documents: the manifest's `preprocessing`.
            assets: contents of the files that it names.

        Raises:
            ManifestError: see `open_preprocessor`.
        """
        self._made_from = (inputs, documents, assets)
        if unknown := documents.keys() - {spec.name for spec in inputs}:
            raise ManifestError(
                f"manifest field preprocessing names {', '.join(sorted(unknown))}, not among the inputs"
            )
        self.preprocessors: dict[str, Preprocessor] = {
            spec.name: open_preprocessor(spec, documents[spec.name], assets) if spec.name in documents else _Plain(spec)
            for spec in inputs
        }
        every = self.preprocessors.values()
        self.fields = {field.name: field for preprocessor in every for field in preprocessor.fields}
        self.takes_arrays = [field.type for field in self.fields.values()] == ["tensor"]
        self.ignored = frozenset(name for preprocessor in every for name in preprocessor.ignored) - self.fields.keys()

    def __reduce__(self) -> tuple[Any, ...]:
        return RawInputs, self._made_from

    def prepare(
        self, columns: Mapping[str, Sequence[Any]], arrays: Mapping[str, RawArray] | None = None
    ) -> dict[str, Tensor]:
        """The inputs of some rows.

        Args:
            columns: by field, the raw value of each row.
            arrays: by input, raw numbers, row-major, and their shape; its fields then have no columns.

        Raises:
            FieldError: a value is not what its field takes.
            RequestError: an array for an input that none can be prepared from.
        """
        return {
            name: preprocessor.prepare_array(*arrays[name])
            if arrays and name in arrays
            else preprocessor.prepare([columns[field.name] for field in preprocessor.fields])
            for name, preprocessor in self.preprocessors.items()
        }

    def from_rows(self, rows: Sequence[Any] | UnreadNumbers) -> dict[str, Tensor]:
        """The inputs of rows as people write them in JSON.

        Args:
            rows: each an object with the fields by name; or a list with all of them in order; or, where there is one
                field, its value.

        Raises:
            TensorError: names that are missing or unknown, or values that do not fit; the message says which.
        """
        return self.prepare(self.columns_of(rows))

    def columns_of(self, rows: Sequence[Any] | UnreadNumbers) -> dict[str, Any]:
        """The raw values of rows by field; see `from_rows`."""
        names = list(self.fields)
        if isinstance(rows, UnreadNumbers):
            return {names[0]: rows}
        if all(type(row) is dict for row in rows) and not _is_file(rows[0]):
            for number, row in enumerate(rows):
                if row.keys() != self.fields.keys():
                    self.check_names(row.keys(), f"instance {number}")
            return {name: [row[name] for row in rows] for name in names}
        if len(names) == 1:
            return {names[0]: self._single(rows)}
        for number, row in enumerate(rows):
            if type(row) is not list or len(row) != len(names):
                got = f"a list of {len(row)}" if type(row) is list else shown(row)
                raise TensorError(
                    f"instance {number}: expected an object with {self._listed()}, or a list of these "
                    f"{len(names)} values in this order, all instances in the same form; got {got}"
                )
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    def _single(self, rows: Sequence[Any]) -> list[Any]:
        """The values of the only field; of a table's only column also as lists of one."""
        (field,) = self.fields.values()
        if field.type in ("number", "category"):
            return [row[0] if type(row) is list and len(row) == 1 else row for row in rows]
        return list(rows)

    def from_columns(self, columns: Any) -> dict[str, Tensor]:
        """The inputs of whole columns: an object with a list for each field; or a list of rows, see `from_rows`.

        Raises:
            TensorError: see `from_rows`; or columns of different lengths.
        """
        if type(columns) is not dict:
            row_count(columns)
            return self.from_rows(columns)
        self.check_names(columns.keys(), "'inputs'")
        lengths = {name: row_count(columns[name]) for name in self.fields}
        if len(set(lengths.values())) > 1:
            raise TensorError(f"columns disagree on the number of rows: {lengths}")
        return self.prepare(columns)

    def check_names(self, names: Any, where: str) -> None:
        """Refuse names that are missing, or that neither a field nor the predicted column has.

        Raises:
            TensorError: there are some.
        """
        missing = [name for name in self.fields if name not in names]
        unknown = [str(name)[:40] for name in names if name not in self.fields and name not in self.ignored]
        if missing or unknown:
            said = [f"{what} {', '.join(map(repr, found[:5]))}" for what, found in
                    (("missing", missing), ("unknown", unknown)) if found]  # fmt: skip
            raise TensorError(f"{where}: {' and '.join(said)}: expected {self._listed()}")

    def _listed(self) -> str:
        names = list(self.fields)
        return ", ".join(map(repr, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _is_file(value: dict[str, Any]) -> bool:
    """Whether an object is the content of a file, `{"b64": "…"}`, not an object of fields by name."""
    return len(value) == 1 and "b64" in value
