"""What is found out about a data set or a model, and the project that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litelambda.scaffold.toml_values import toml_value

Ask = Callable[[str, str, Sequence[str]], str]
"""Asks the user, with a default ("" for none) and the possible answers (none: any)."""

Tables = dict[str, dict[str, Any]]
"""The tables of a recipe, as values."""


@dataclass(frozen=True)
class Guess:
    """What was decided without being told.

    Attributes:
        key: of the recipe, where it is changed.
        value: what was chosen, as the recipe has it.
        reason: what it was seen by.
    """

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class Given:
    """What the user said; None, or empty, where that is to be found out.

    Attributes:
        data: a file or folder to train on.
        model: a file or folder of a model.
        example: the name of a recipe that ships.
        label: the columns to predict.
        task: of the recipe's `data.task`.
        representative: rows for a saved model.
        labels: a file with the names of a saved model's classes.
        name: of the model.
        ask: asks for what cannot be found out; None where no one answers.
    """

    data: Path | None = None
    model: Path | None = None
    example: str | None = None
    label: tuple[str, ...] = ()
    task: str | None = None
    representative: Path | None = None
    labels: Path | None = None
    name: str | None = None
    ask: Ask | None = None


@dataclass
class Found:
    """A recipe under way, and what is said about it.

    Attributes:
        tables: the recipe's.
        guesses: what was decided without being told.
        notes: what people should know of the data.
        comments: by key of the recipe, what stands after its value there.
    """

    tables: Tables = field(default_factory=dict)
    guesses: list[Guess] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)

    def guess(self, key: str, value: Any, reason: str) -> None:
        """Write a value into the recipe, and say why.

        Args:
            key: as `section.key`.
            value: for the recipe.
            reason: what it was seen by.
        """
        self.put(key, value)
        self.guesses.append(Guess(key, toml_value(value), reason))

    def put(self, key: str, value: Any, comment: str = "") -> None:
        """Write a value into the recipe that goes without saying."""
        section, _, name = key.partition(".")
        self.tables.setdefault(section, {})[name] = value
        if comment:
            self.comments[key] = comment


@dataclass(frozen=True)
class Examples:
    """Rows to ask a served model for.

    Attributes:
        rows: as requests have them.
        expected: the right answer to each: a class, a number or several, an item; or what the source model answers.
    """

    rows: list[Any]
    expected: list[Any]


@dataclass(frozen=True)
class Project:
    """A project that can be written.

    Attributes:
        name: of the model.
        recipe: the text of its recipe.
        found: the recipe's tables, as far as they matter here, and what is said about them.
        summary: what it is, in one line.
        examples: rows for its test.
        copies: by path in the project, the file or folder to copy there.
    """

    name: str
    recipe: str
    found: Found
    summary: str
    examples: Examples
    copies: dict[str, Path]

    @property
    def task(self) -> str:
        """Of the recipe; "import" where it imports a model."""
        return "import" if "import" in self.found.tables else str(self.found.tables["data"]["task"])

    @property
    def format(self) -> str:
        """Of the data; "" where a model is imported."""
        return str(self.found.tables.get("data", {}).get("format", ""))
