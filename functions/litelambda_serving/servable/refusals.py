"""Which values an operator refuses: found by running rows again, on their own. Loaded when a run has failed.

The runtime only reports that some operator failed. It is the values' fault if the model computes with others, and not
with them.
"""

from __future__ import annotations

from time import monotonic

from litelambda_serving.errors import LiteRtError, PayloadTooLargeError, TensorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from litelambda_serving.errors import RequestError
    from litelambda_serving.litert import CompiledModel
    from litelambda_serving.servable.copies import Copies
    from litelambda_serving.tensor import TensorSpec

__all__ = ["explain", "refusal", "refused_inputs"]


def explain(
    model: CompiledModel | Copies,
    key: str,
    inputs: Sequence[TensorSpec],
    rows: Iterable[tuple[int, Sequence[Any]]],
    spare: Sequence[Any],
    deadline: float,
) -> RequestError | None:
    """The error for the first of some rows whose values the model refuses; None where it refuses none of them.

    Args:
        model: which.
        key: its signature.
        inputs: in the runtime's order.
        rows: the number and the values of each row.
        spare: a row that the model can compute with.
        deadline: `time.monotonic()` at which the search is given up.
    """
    for number, values in rows:
        if monotonic() > deadline:
            return PayloadTooLargeError(
                "an operator of the model refuses the values of a row, and there is no time to find which: "
                "send fewer rows at a time"
            )
        names = refused_inputs(model, key, inputs, values, spare)
        if names:
            return TensorError(refusal(names, number if any(spec.batched for spec in inputs) else None))
    return None


def refused_inputs(
    model: CompiledModel | Copies, key: str, inputs: Sequence[TensorSpec], values: Sequence[Any], spare: Sequence[Any]
) -> list[str]:
    """Names of the inputs for whose values a run of one row fails; none where it does not, or fails with others too.

    Args:
        model: which.
        key: its signature.
        inputs: in the runtime's order.
        values: of a row.
        spare: a row that the model can compute with.
    """
    if _fails(model, key, spare) or not _fails(model, key, values):
        return []
    # Those without whose values it works; all of them where it takes several.
    alone = [
        spec.name
        for place, spec in enumerate(inputs)
        if not _fails(model, key, [*values[:place], spare[place], *values[place + 1 :]])
    ]
    return alone or [spec.name for spec in inputs]


def _fails(model: CompiledModel | Copies, key: str, values: Sequence[Any]) -> bool:
    try:
        model.run(key, values)
    except LiteRtError:
        return True
    return False


def refusal(names: Sequence[str], row: int | None = None) -> str:
    """The message about values that an operator refuses.

    >>> refusal(["word"], row=3)
    "input 'word', row 3: an operator of the model refuses these values"
    """
    inputs = f"input{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
    return f"{inputs}{'' if row is None else f', row {row}'}: an operator of the model refuses these values"
