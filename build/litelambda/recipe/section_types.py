"""The base of every table of a recipe, and the value types that several tables share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from litelambda_serving.aliases import RESERVED_NAMES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def _check_alias(alias: str) -> str:
    if alias.isdecimal() or alias in RESERVED_NAMES:
        raise ValueError(
            f"an alias cannot be a number or one of the reserved words {', '.join(sorted(RESERVED_NAMES))}"
        )
    return alias


Alias = Annotated[Name, AfterValidator(_check_alias)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """One table of the recipe: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: ClassVar[str] = ""
    """Which member of a union of sections this is; empty for a section that stands alone."""

    def to_json(self) -> dict[str, Any]:
        """The table with all its defaults, as plain values."""
        return self.model_dump(mode="json")
