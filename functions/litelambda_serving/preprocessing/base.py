"""What the kinds of preprocessing have in common: fields, and what prepares an input from them."""

from __future__ import annotations

from litelambda_serving.errors import RequestError, TensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["Field", "FieldError", "Preprocessor", "shown"]


class Field:
    """One raw value of every row.

    Attributes:
        name: under which requests and columns of files have it.
        type: "number", "category", "text", "image", or "tensor": numbers of `shape`.
        shape: of a tensor's row.
    """

    __slots__ = ("name", "shape", "type")

    def __init__(self, name: str, type: str, shape: tuple[int, ...] = ()) -> None:  # noqa: A002 - the field's own word
        self.name = name
        self.type = type
        self.shape = shape

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


class FieldError(TensorError):
    """A raw value that its field does not take.

    Attributes:
        row: index of the row among those that were prepared together.
        reason: what is wrong with the value, without its place.
    """

    def __init__(self, field: str, row: int, reason: str) -> None:
        super().__init__(f"field {field!r}, row {row}: {reason}")
        self.field = field
        self.row = row
        self.reason = f"field {field!r}: {reason}"


class Preprocessor:
    """Prepares one input of a model.

    Attributes:
        spec: the input.
        fields: what it is prepared from.
        ignored: names that a row may also have, such as the column that the model predicts.
        raw_spec: of arrays of raw values, where `prepare_array` takes some; else None.
    """

    fields: tuple[Field, ...]
    ignored: frozenset[str] = frozenset()
    raw_spec: TensorSpec | None = None

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        """The input of some rows.

        Args:
            columns: for each of `fields`, the raw value of each row: as JSON gives it, None for a missing one, or the
                bytes of a file.

        Raises:
            TensorError: a value is not what its field takes; a `FieldError` where the row is known.
        """
        raise NotImplementedError

    def prepare_array(self, values: Sequence[float], shape: Sequence[int]) -> Tensor:  # noqa: ARG002 - of those that can
        """The input of raw numbers, row-major, in the shape of `raw_spec`.

        Raises:
            RequestError: arrays cannot hold its fields.
            TensorError: a value is not what the input takes.
        """
        names = ", ".join(field.name for field in self.fields)
        raise RequestError(
            f"input {self.spec.name!r} is prepared from {names}, which an array cannot hold: send JSON, or say that "
            "these are the model's own values (prepared)"
        )


_SHOWN = {bytes: "bytes", dict: "an object", list: "a list", type(None): "null"}


def shown(value: Any) -> str:
    """A raw value short enough for a message, in JSON's words.

    >>> shown("a" * 50), shown(3.5), shown({})
    ("'aaaaaaaaaaaaaaaaaaaa…'", '3.5', 'an object')
    """
    if isinstance(value, str):
        return repr(value if len(value) <= 20 else value[:20] + "…")
    return _SHOWN.get(type(value)) or repr(value)[:40]
