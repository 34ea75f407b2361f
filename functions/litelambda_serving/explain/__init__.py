"""Why a model answered a row as it did: how much each value that the caller sent added to one output.

The output for the row is compared with the output for a *baseline*, a row that says nothing. A method shares the
difference among the row's *features*: the columns of a table, the words of a text, the patches of a picture, the values
of a tensor. Each method is a module with two functions:

    most_cells(options)           into how many cells at most it wants a picture or a tensor cut; None for the finest
                                  features that there are: pixels, the values of tensors, the tokens of texts
    attribute(subject, options)   an `Attribution` of the features of a `Subject`, which runs the model

Loaded with the first explanation. Knows servables and raw values; does not know protocols.
"""

from __future__ import annotations

from litelambda_serving.errors import PayloadTooLargeError
from litelambda_serving.explain.attribution import Explanation
from litelambda_serving.explain.gradients import has_gradients
from litelambda_serving.explain.options import METHODS
from litelambda_serving.explain.subject import Rows, Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.explain.options import Options

__all__ = ["MAX_ROWS", "METHODS", "Rows", "explain", "forward_method"]

MAX_ROWS = 100
"""Of one request: each row takes hundreds of runs."""


def explain(rows: Rows, options: Options) -> list[Explanation]:
    """Explain an output for each of some rows.

    Args:
        rows: which, and of which model.
        options: what the caller wants.

    Raises:
        RequestError: options that do not fit the model or the rows.
        PayloadTooLargeError: too many rows, or more runs than the deadline allows.
        LiteRtError: the runtime failed.
    """
    count = rows.signature.count_rows(rows.tensors)
    if count > MAX_ROWS:
        raise PayloadTooLargeError(f"{count} rows to explain, at most {MAX_ROWS} are taken: send fewer rows at a time")
    name = options.method or _default_method(rows)
    most_cells, attribute = _open(name)
    cells = most_cells(options)
    explanations = []
    for row in range(count):
        subject = Subject(rows, row, options, cells)
        explanations.append(Explanation(name, subject, attribute(subject, options)))
    return explanations


def forward_method(rows: Rows) -> str:
    """The method that suits rows where nothing but the model itself is run."""
    kinds = _kinds(rows)
    if kinds == {"text"}:
        return "leave_one_out"
    if kinds == {"image"} or (kinds == {"tensor"} and all(_is_picture(spec.shape) for spec in rows.signature.inputs)):
        return "occlusion"
    return "shapley"


def _default_method(rows: Rows) -> str:
    """The method for a request that names none: gradients, but for the columns of a table."""
    if has_gradients(rows.servable.manifest, rows.key) and not _kinds(rows) & {"number", "category"}:
        return "integrated_gradients"
    return forward_method(rows)


def _kinds(rows: Rows) -> set[str]:
    """What the caller sends: the types of its fields."""
    return {field.type for field in rows.raw_inputs.fields.values()} if rows.raw_inputs is not None else {"tensor"}


def _is_picture(shape: Sequence[int]) -> bool:
    """Whether rows are of at least 8 by 8 values, in one to four channels."""
    sizes = [size for size in shape[1:-1] if size != 1] + [*shape[-1:]]
    if len(sizes) == 3 and sizes[-1] <= 4:
        sizes.pop()
    return len(sizes) == 2 and min(sizes) >= 8


def _open(name: str) -> Any:
    """The functions of a method."""
    if name == "integrated_gradients":
        from litelambda_serving.explain import gradients as module
    elif name == "shapley":
        from litelambda_serving.explain import shapley as module  # type: ignore[no-redef]
    elif name == "occlusion":
        from litelambda_serving.explain import occlusion as module  # type: ignore[no-redef]
    elif name == "rise":
        from litelambda_serving.explain import rise as module  # type: ignore[no-redef]
    else:
        from litelambda_serving.explain import leave_one_out as module  # type: ignore[no-redef]
    return module.most_cells, module.attribute
