"""What `compress.auto` tries, in which order: settings alone, nothing is run here.

Three rounds, each on top of the best of the one before: how to quantize, what to do with the model's shape, and what to
do with its weights. Mild before strong, so that a budget that runs out leaves something within the gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from litelambda.compress_sections import Auto, Compress

Scheme = Literal["int8", "dynamic", "float16", "float32"]


@dataclass(frozen=True)
class Candidate:
    """One way to make the model smaller.

    Attributes:
        name: for the report.
        settings: of the compression.
        scheme: of the quantization.
    """

    name: str
    settings: Compress
    scheme: Scheme


def plain(base: Compress, *, raw_edges: bool) -> Iterator[Candidate]:
    """The first round: nothing but quantization.

    Args:
        base: what all candidates have in common: `exclude`, `distillation`.
        raw_edges: the recipe wants integers at the edges, which only int8 has.
    """
    schemes: tuple[Scheme, ...] = ("int8",) if raw_edges else ("int8", "dynamic", "float32")
    for scheme in schemes:
        yield Candidate(scheme, base, scheme)


def shapes(best: Candidate, auto: Auto, *, has_norms: bool) -> Iterator[Candidate]:
    """The second round: fewer multiplications."""
    common: dict[str, Any] = {"fold_batch_norm": True} if has_norms else {}
    for energy in (0.95, 0.85, 0.7, 0.5):
        step = {"low_rank": {"energy": energy, "epochs": auto.epochs}}
        yield _with(best, f"low rank {energy:.0%}", {**common, **step})
    for sparsity in (0.25, 0.5):
        step = {"structured": {"sparsity": sparsity, "epochs": auto.epochs}}
        yield _with(best, f"units -{sparsity:.0%}", {**common, **step})


def weights(best: Candidate, auto: Auto) -> Iterator[Candidate]:
    """The third round: weights that compress well, without effect on raw size and latency."""
    for bits, sparsity in ((4, 0.0), (4, 0.7), (4, 0.8), (3, 0.8), (4, 0.87), (3, 0.87), (3, 0.92)):
        steps: dict[str, Any] = {"quantization_aware": {"bits": bits, "epochs": auto.epochs}}
        if sparsity:
            steps["pruning"] = {
                "final_sparsity": sparsity,
                "scores": "wanda",
                "scope": "global",
                "epochs": auto.epochs,
            }
        name = f"{bits} bits" + (f", {sparsity:.0%} zeros" if sparsity else "")
        yield _with(best, name, steps)


def _with(best: Candidate, name: str, steps: dict[str, Any]) -> Candidate:
    settings = {**best.settings.model_dump(exclude_none=True), **steps}
    return Candidate(f"{best.name} + {name}", Compress.model_validate(settings), best.scheme)
