"""What prepares rows where the function has code of its own: its `preprocess`, then the model's preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litelambda_serving.custom_code import CustomCode
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.preprocessing.base import Field
    from litelambda_serving.tensor import Tensor

__all__ = ["ROW", "CodedRows"]

ROW = "row"
"""The only field: all of a record."""


class CodedRows:
    """Prepares records as a request's `instances` are.

    Attributes:
        fields: what a record has: itself.
        model_fields: what the model's preprocessing takes, by name.
    """

    fields: Mapping[str, None] = {ROW: None}

    def __init__(self, code: CustomCode, raw_inputs: RawInputs) -> None:
        self._code = code
        self._raw_inputs = raw_inputs
        self.model_fields: Mapping[str, Field] = raw_inputs.fields

    @property
    def has_text(self) -> bool:
        """Whether a field of the model is a text."""
        return any(field.type == "text" for field in self.model_fields.values())

    def prepare(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Tensor]:
        """The model's inputs of some records.

        Raises:
            RequestError: the code refused them, or made values that do not fit the model.
            CustomCodeError: it failed.
        """
        return self._raw_inputs.from_rows(self._code.prepare([*columns[ROW]]))
