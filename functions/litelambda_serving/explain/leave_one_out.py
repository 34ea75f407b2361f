"""Leave one out: a feature's attribution is how much the output falls without it, all others present."""

from __future__ import annotations

from litelambda_serving.errors import RequestError
from litelambda_serving.explain.attribution import Attribution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.subject import Subject

__all__ = ["attribute", "check_runs", "most_cells"]

_CELLS = 196


def most_cells(options: Options) -> int:
    """See `litelambda_serving.explain`."""
    return max(1, min(_CELLS, options.max_runs - 2)) if options.max_runs else _CELLS


def attribute(subject: Subject, options: Options) -> Attribution:
    """See `litelambda_serving.explain`.

    Raises:
        RequestError: there are more features than runs.
    """
    size = subject.size
    check_runs(size + 2, size, options.max_runs)
    every = b"\1" * size
    without = [every[:place] + b"\0" + every[place + 1 :] for place in range(size)]
    baseline, *others = subject.outputs([bytes(size), *without])
    output = subject.output()
    return Attribution([output - other for other in others], output, baseline, subject.runs)


def check_runs(needed: int, size: int, allowed: int | None) -> None:
    """Refuse to explain so many features in so few runs; None allows any number.

    Raises:
        RequestError: `needed` are more than are allowed.
    """
    if allowed is not None and needed > allowed:
        raise RequestError(f"max_runs is {allowed}: {size} features take at least {needed} runs of the model")
