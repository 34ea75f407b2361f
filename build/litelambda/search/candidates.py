"""The search space of `compress.auto`: settings only, nothing runs here.

Candidates extend one another: a factorized model is pruned, and the pruned model is put on several grids and pruned
further. So what they share is trained once, and sparsity is reached step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from litelambda.keras_tools.layers import kernels
from litelambda.recipe.compression import Auto, Compress, Distillation
from litelambda.recipe.training import Train

Scheme = Literal["int8", "dynamic", "float16", "float32"]

# Measured on MNIST, change of accuracy in percentage points: an MLP at 80 % zeros and 4 bits -0.01, at 85 % and 3 bits
# -0.42; a CNN at 90 % and 4 bits -0.11. Quantization-aware training of the MLP: 4 bits +0.12, 2 bits -0.76.
FIRST_SPARSITY = 0.8
SPARSER = (0.87, 0.91, 0.94, 0.96)  # each leaves about two thirds of the weights of the one before
"""Tried after the first, while a candidate passes."""
DENSER = (0.6, 0.0)
"""Tried instead, where no candidate passes at the first."""
BITS = (4, 3, 2)
"""Of the large kernels, tried in this order while a candidate passes; small kernels get 4."""

_SCREENING_ROWS = 16_384
"""Chosen, not measured: about a quarter of MNIST, 256 steps of 64 rows."""
_LARGE = 0.25
"""Of all weights to compress: chosen, not measured."""
_ADAPTIVE = ("adam", "adamw", "rmsprop")
"""Optimizers whose good rates depend little on the model."""

# Below, change of accuracy in percentage points of an MLP with 18,000 rows of MNIST, trained as briefly as screening
# does: pruned to 87 % zeros in 2 epochs, or put on 2 bits in one. Two runs of the same differ by up to 0.6.
_PRUNING_RATE, _GRID_RATE = 0.002, 0.001
"""Learning rates for adaptive optimizers.

Pruning with 0.0005: -5.2, 0.001: -3.0, 0.002: -1.8, 0.004: -1.4. The grid with 0.00025: -8.1, 0.0005: -3.7,
0.001: -1.7, 0.002: -1.1. Both stay below the best, since finalists train several times as long with them; that was
not measured."""
_TEACHER = Distillation(weight=0.7, temperature=3.0)
"""How the float model teaches: chosen after Hinton et al. 2015.

On 2 bits, a weight of 0: -1.5, 0.3: -1.6, 0.7: -1.7, 1: -2.1; at 0.7 a temperature of 1: -1.6, 6: -2.1."""


@dataclass(frozen=True)
class Candidate:
    """One way to make the model smaller, or a step on the way to others.

    Attributes:
        name: for the report.
        scheme: of the quantization.
        steps: what is done to the model of `parent`.
        parent: the candidate that it extends; None for the trained model itself.
        rows: share of the training rows to train on; below 1 to compare shapes quickly.
        unpruned: the candidate before pruning; None where nothing was pruned.
        sparsity: share of zeros.
    """

    name: str
    scheme: Scheme
    steps: Compress
    parent: Candidate | None = None
    rows: float = 1.0
    unpruned: Candidate | None = None
    sparsity: float = 0.0

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def shape(self) -> Candidate:
        """The candidate before pruning."""
        return self.unpruned or self

    @property
    def lineage(self) -> list[Candidate]:
        """All candidates that it extends, oldest first, and itself."""
        return [*(self.parent.lineage if self.parent else []), self]

    @property
    def passes_over_data(self) -> float:
        """Passes of its own steps over all training rows."""
        sections = (getattr(self.steps, name) for name in Compress.model_fields)
        return self.rows * sum(getattr(section, "epochs", 0) for section in sections)


class SearchSpace:
    """The candidates for one trained model.

    Args:
        model: the trained model.
        auto: the recipe's `compress.auto`.
        base: the recipe's `compress`, for its `exclude` and `distillation`; by default the float model is the teacher.
        train: the recipe's `train`, for its optimizer.
        num_rows: of training.
    """

    def __init__(self, model: Any, auto: Auto, base: Compress, train: Train, num_rows: int) -> None:
        self._base = Compress(exclude=base.exclude, distillation=base.distillation or _TEACHER)
        self.distillation = self._base.distillation
        self._adaptive = train.optimizer.name in _ADAPTIVE
        self._epochs = auto.epochs
        self._screening = min(1.0, _SCREENING_ROWS / num_rows)
        layers = self._layers(model)
        largest = max(layers.values(), key=lambda layer: math.prod(layer.kernel.shape))
        self._largest = math.prod(largest.kernel.shape)
        self._width = min(math.prod(largest.kernel.shape[:-1]), largest.kernel.shape[-1])
        first, layer = next(iter(layers.items()))
        self._spared = [first] if len(layer.kernel.shape) > 2 and len(layers) > 1 else []

    def plain(self, scheme: Scheme) -> Candidate:
        """Quantization alone."""
        return Candidate(scheme, scheme, self._base)

    def shapes(self, parent: Candidate) -> list[Candidate]:
        """Models with fewer multiplications, from mild to strong, briefly trained on some of the rows."""
        found: list[tuple[str, dict[str, Any]]] = []
        for part in (2, 4, 8):
            rank = {"rank": max(1, self._width // part), "min_weights": max(1024, self._largest // 4), "epochs": 1}
            found.append((f"rank 1/{part}", {"low_rank": rank}))
        found.extend(
            (f"{share:.0%} fewer units", {"structured": {"sparsity": share, "epochs": 1}}) for share in (0.25, 0.5)
        )
        return [self._extend(f"{parent.name}, {name}", parent, steps, self._screening) for name, steps in found]

    def sketch(self, shape: Candidate) -> Candidate:
        """A preview of a shape with zeros and a grid, briefly trained on some of the rows."""
        steps = {"pruning": self._pruning(FIRST_SPARSITY, 0.0, 1), "quantization_aware": self._quantization({}, 1)}
        return self._extend(f"{shape.name}, sketched", shape, steps, self._screening)

    def trained(self, shape: Candidate, *, to_be_continued: bool) -> Candidate:
        """One of `shapes` trained on all rows, for one epoch where later steps train as well."""
        epochs = 1 if to_be_continued else self._epochs
        steps = {
            name: {**step, "epochs": epochs} if isinstance(step, dict) and "epochs" in step else step
            for name, step in shape.steps.model_dump(exclude_none=True).items()
        }
        return replace(shape, name=f"{shape.name}, trained", steps=Compress.model_validate(steps), rows=1.0)

    def pruned(self, parent: Candidate, sparsity: float) -> Candidate:
        """More zeros, from the sparsity of the parent on; none for a sparsity of 0."""
        steps = {"pruning": self._pruning(sparsity, parent.sparsity, self._epochs)} if sparsity else {}
        name = f"{parent.shape.name}, {sparsity:.0%} zeros"
        return replace(self._extend(name, parent, steps, 1.0), unpruned=parent.shape, sparsity=sparsity)

    def grid(self, parent: Candidate, bits: int, model: Any) -> Candidate:
        """Weights on a grid.

        Args:
            parent: the candidate to put on it.
            bits: of the large kernels.
            model: of `parent`.
        """
        sizes = {name: math.prod(layer.kernel.shape) for name, layer in self._layers(model).items()}
        large = [name for name, size in sizes.items() if size >= _LARGE * sum(sizes.values())]
        settings = self._quantization(dict.fromkeys(large, bits), self._epochs)
        extended = self._extend(f"{parent.name}, {bits} bits", parent, {"quantization_aware": settings}, 1.0)
        return replace(extended, unpruned=parent.unpruned, sparsity=parent.sparsity)

    def longer(self, grid: Candidate) -> Candidate:
        """One of `grid`, trained for the same number of epochs again."""
        return replace(grid, name=f"{grid.name}, longer", parent=grid)

    def _layers(self, model: Any) -> dict[str, Any]:
        return kernels(model, self._base.exclude, "compress")

    def _pruning(self, sparsity: float, start: float, epochs: int) -> dict[str, Any]:
        """Wanda's scores and one threshold for all; the first convolution, small and seen by all layers, is spared."""
        return {
            "initial_sparsity": start,
            "final_sparsity": sparsity,
            "scores": "wanda",
            "scope": "global",
            "epochs": epochs,
            "learning_rate": _PRUNING_RATE if self._adaptive else None,
            "exclude": self._spared,
        }

    def _quantization(self, bits: dict[str, int], epochs: int) -> dict[str, Any]:
        rate = _GRID_RATE if self._adaptive else None
        return {"bits": BITS[0], "layer_bits": bits, "epochs": epochs, "learning_rate": rate}

    def _extend(self, name: str, parent: Candidate, steps: dict[str, Any], rows: float) -> Candidate:
        settings = Compress.model_validate({**self._base.model_dump(exclude_none=True), **steps})
        return Candidate(name, parent.scheme, settings, parent, rows)
