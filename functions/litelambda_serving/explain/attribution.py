"""What a method found, and what is said of it: an explanation of one row."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.explain.subject import Subject

__all__ = ["Attribution", "Explanation"]


class Attribution:
    """What a method found of a row.

    Attributes:
        values: of each of the subject's features.
        output: the model's output for the row, as the method had it.
        baseline_output: that for the baseline.
        runs: how often the model was run on a row.
        standard_errors: of each value, where they are estimates; None where they are not.
        baseline: what the row was compared with; "" for the subject's own.
    """

    __slots__ = ("baseline", "baseline_output", "output", "runs", "standard_errors", "values")

    def __init__(
        self,
        values: Sequence[float],
        output: float,
        baseline_output: float,
        runs: int,
        standard_errors: Sequence[float] | None = None,
        baseline: str = "",
    ) -> None:
        self.values = values
        self.output = output
        self.baseline_output = baseline_output
        self.runs = runs
        self.standard_errors = standard_errors
        self.baseline = baseline


class Explanation:
    """An explanation of one row.

    Attributes:
        method: that made it.
        baseline: what the row was compared with.
        target: index of the class that is explained; the output's name where it has one value.
        label: of the class; None without labels.
        index: place of the explained value in the output.
        output_name: of the output.
        output, baseline_output: the model's for the row and for the baseline.
        completeness_error: how far the attributions' sum is from the difference of the two, as a share of it.
        runs: how often the model was run on a row.
        found: the attributions.
        subject: whose parts say to what they belong.
    """

    def __init__(self, method: str, subject: Subject, found: Attribution) -> None:
        target = subject.target
        self.method = method
        self.baseline = found.baseline or subject.baseline_name
        self.target: int | str = target.index if target.width > 1 else target.spec.name
        self.label = target.label
        self.index = target.index
        self.output_name = target.spec.name
        self.output, self.baseline_output, self.runs = found.output, found.baseline_output, found.runs
        difference = found.output - found.baseline_output
        scale = abs(difference) or sum(map(abs, found.values)) or 1.0
        self.completeness_error = round(abs(sum(found.values) - difference) / scale, 6)
        self.found = found
        self.subject = subject

    def attributions(self, values: Sequence[float]) -> dict[str, Any]:
        """Values of features as the caller's fields have them: a number for each column, nested as a picture."""
        cut = self.subject.cut(values)
        return {name: each for part, some in cut for name, each in part.attributions(some).items()}

    def errors(self, values: Sequence[float]) -> dict[str, Any]:
        """Standard errors of features, as numbers in the form of the attributions."""
        cut = self.subject.cut(values)
        return {name: each for part, some in cut for name, each in part.errors(some).items()}

    def strongest(self, count: int) -> list[tuple[dict[str, Any], float]]:
        """The features with the largest attributions, and these; the strongest first, of equal ones the first."""
        values = self.found.values
        order = sorted(range(len(values)), key=lambda place: -abs(values[place]))[:count]
        places = [place for part in self.subject.parts for place in part.places()] if order else []
        return [(places[place], values[place]) for place in order]
