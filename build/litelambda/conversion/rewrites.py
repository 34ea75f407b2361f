"""Rewrites: other implementations of layers' methods while a model is exported, which convert and answer the same.

Nothing is copied: a rewrite stands in for one method of one layer while the graph is recorded, and so whatever state
the layer keeps stays its own. Each is tried before on made rows, inside the model: what the layer is given there goes
through both, its own method and the one that stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from litelambda.common.errors import ConversionError
from litelambda.keras_tools.backend import backend_errors
from litelambda.keras_tools.graph import overridden
from litelambda.keras_tools.made_rows import ULPS, answered, difference_ulps


@dataclass(frozen=True, eq=False)
class Rewrite:
    """A method of a layer, or of a node of the graph, and what stands in for it.

    Attributes:
        kind: what it does, in a word or two.
        layer: the Keras layer or operation.
        method: the name of its method.
        function: called with the layer's own method first, then with what that would be given.
        needed: without it the model does not convert, so a difference is an error; else it is left out.
    """

    kind: str
    layer: Any
    method: str
    function: Callable[..., Any]
    needed: bool = False


@contextmanager
def rewritten(rewrites: Sequence[Rewrite]) -> Iterator[None]:
    """Let rewrites stand in for their layers' methods."""
    with ExitStack() as stack:
        for each in rewrites:
            stack.enter_context(overridden(each.layer, each.method, each.function))
        yield


def proven(model: Any, rewrites: Sequence[Rewrite]) -> list[Rewrite]:
    """Try rewrites on made rows, each on what its layer is given; those that change nothing.

    Raises:
        ConversionError: one that is needed changes what its layer makes.
    """
    if not rewrites:
        return []
    found: dict[Rewrite, float] = {}
    trials = [Rewrite(each.kind, each.layer, each.method, partial(_try, each, found)) for each in rewrites]
    with rewritten(trials):
        for _ in answered(model):
            pass
    for each, ulps in found.items():
        if each.needed and ulps > ULPS:
            raise ConversionError(
                f"layer {each.layer.name!r} ({type(each.layer).__name__}) cannot be converted: {each.kind}, as TFLite "
                f"needs it, it answers differently ({ulps:.3g} units in the last place of float32, at most {ULPS} are "
                "allowed): replace it"
            )
    return [each for each in rewrites if each.needed or found.get(each, float("inf")) <= ULPS]


def _try(rewrite: Rewrite, found: dict[Rewrite, float], original: Any, *arguments: Any, **settings: Any) -> Any:
    expected = original(*arguments, **settings)
    try:
        ulps = difference_ulps(expected, rewrite.function(original, *arguments, **settings))
    except backend_errors():
        ulps = float("inf")
    found[rewrite] = max(ulps, found.get(rewrite, 0.0))
    return expected
