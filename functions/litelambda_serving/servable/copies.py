"""A model compiled several times, where a server has the memory for it: as many of its runs at the same time.

Imported by servers alone; a function answers one request after the other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.litert import CompiledModel, Input

__all__ = ["Copies"]


class Copies:
    """Compiled copies of a model behind the interface of one.

    Attributes:
        signatures: see `CompiledModel`.
    """

    def __init__(self, first: CompiledModel, more: Sequence[CompiledModel]) -> None:
        """Take over the copies; they have the flatbuffer's bytes in common."""
        self.signatures = first.signatures
        self._first = first
        self._more = list(more)
        self._idle = [*more, first]

    def run(self, signature_key: str, inputs: Sequence[Input], batch: int | None = None) -> list[Any]:
        """Run a signature once, see `CompiledModel.run`, on a copy that is idle; where none is, wait for the first."""
        try:
            model = self._idle.pop()  # at once: no two threads get the same
        except IndexError:
            return self._first.run(signature_key, inputs, batch)
        try:
            return model.run(signature_key, inputs, batch)
        finally:
            if model is self._first or self._more:
                self._idle.append(model)

    def drop(self) -> int:
        """Keep the first copy alone, and say how many there were more; one that runs is freed after its run."""
        dropped, self._more = self._more, []
        for model in dropped:
            if model in self._idle:
                self._idle.remove(model)
        return len(dropped)
