"""What `compress.auto` tries: settings alone, nothing is run here.

Candidates grow out of one another: a model that was factorised is pruned, which is put on several grids and pruned
further. So what they have in common is trained once, and sparsity is reached step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from litelambda.keras_tools.layers import kernels
from litelambda.recipe.compression import Auto, Compress, Distillation
from litelambda.recipe.training import Train

Scheme = Literal["int8", "dynamic", "float16", "float32"]

FIRST_SPARSITY = 0.8
SPARSER = (0.87, 0.91, 0.94, 0.96)
"""After the first, while something passes the gate."""
DENSER = (0.6, 0.0)
"""Instead, where the first does not."""
BITS = (4, 3, 2)
"""Of the large kernels, in this order, while something passes the gate; the small ones get 4."""

_SCREENING_ROWS = 16_384
_LARGE = 0.25  # of all weights that are to be compressed: from here on a kernel is worth coarser steps
_ADAPTIVE = ("adam", "adamw", "rmsprop")  # optimizers whose good rates depend little on the model
_PRUNING_RATE, _GRID_RATE = 0.002, 0.001
_TEACHER = Distillation(weight=0.7, temperature=3.0)


@dataclass(frozen=True)
class Candidate:
    """One way to make the model smaller, or a step on the way to some.

    Attributes:
        name: for the report.
        scheme: of the quantization.
        steps: what is done to the model of `after`.
        after: what it grows out of; None for the trained model itself.
        rows: share of the training rows to train on; below 1 this is to tell which shapes are worth more.
        unpruned: what the zeros came into; None where there are none.
        sparsity: share of zeros.
    """

    name: str
    scheme: Scheme
    steps: Compress
    after: Candidate | None = None
    rows: float = 1.0
    unpruned: Candidate | None = None
    sparsity: float = 0.0

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def shape(self) -> Candidate:
        """What was pruned."""
        return self.unpruned or self

    @property
    def lineage(self) -> list[Candidate]:
        """All that it grew out of, oldest first, and itself."""
        return [*(self.after.lineage if self.after else []), self]

    @property
    def passes_over_data(self) -> float:
        """How often its own steps see all training rows."""
        sections = (getattr(self.steps, name) for name in Compress.model_fields)
        return self.rows * sum(getattr(section, "epochs", 0) for section in sections)


class Space:
    """The candidates for one trained model.

    Args:
        model: the trained model.
        auto: the recipe's `compress.auto`.
        base: its `exclude` and `distillation`; without the latter the float model teaches all the same.
        train: the recipe's `train`, for its optimizer.
        num_rows: of training.
    """

    def __init__(self, model: Any, auto: Auto, base: Compress, train: Train, num_rows: int) -> None:
        self._base = Compress(exclude=base.exclude, distillation=base.distillation or _TEACHER)
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
        """Nothing but quantization."""
        return Candidate(scheme, scheme, self._base)

    def shapes(self, after: Candidate) -> list[Candidate]:
        """Models with fewer multiplications, from mild to strong, trained shortly on some of the rows."""
        found: list[tuple[str, dict[str, Any]]] = []
        for part in (2, 4, 8):
            rank = {"rank": max(1, self._width // part), "min_weights": max(1024, self._largest // 4), "epochs": 1}
            found.append((f"rank 1/{part}", {"low_rank": rank}))
        found.extend(
            (f"{share:.0%} fewer units", {"structured": {"sparsity": share, "epochs": 1}}) for share in (0.25, 0.5)
        )
        return [self._grow(f"{after.name}, {name}", after, steps, self._screening) for name, steps in found]

    def sketch(self, shape: Candidate) -> Candidate:
        """What would become of a shape with zeros and a grid: short training on some of the rows."""
        steps = {"pruning": self._pruning(FIRST_SPARSITY, 0.0, 1), "quantization_aware": self._quantization({}, 1)}
        return self._grow(f"{shape.name}, sketched", shape, steps, self._screening)

    def trained(self, shape: Candidate, *, to_be_continued: bool) -> Candidate:
        """One of `shapes` trained on all rows: for one epoch where steps follow that train as well."""
        epochs = 1 if to_be_continued else self._epochs
        steps = {
            name: {**step, "epochs": epochs} if isinstance(step, dict) and "epochs" in step else step
            for name, step in shape.steps.model_dump(exclude_none=True).items()
        }
        return replace(shape, name=f"{shape.name}, trained", steps=Compress.model_validate(steps), rows=1.0)

    def pruned(self, after: Candidate, sparsity: float) -> Candidate:
        """More zeros, beginning with those that there are; none at all for a sparsity of 0."""
        steps = {"pruning": self._pruning(sparsity, after.sparsity, self._epochs)} if sparsity else {}
        name = f"{after.shape.name}, {sparsity:.0%} zeros"
        return replace(self._grow(name, after, steps, 1.0), unpruned=after.shape, sparsity=sparsity)

    def grid(self, after: Candidate, bits: int, model: Any) -> Candidate:
        """Weights on a grid.

        Args:
            after: what goes onto it.
            bits: of the large kernels.
            model: of `after`.
        """
        sizes = {name: math.prod(layer.kernel.shape) for name, layer in self._layers(model).items()}
        large = [name for name, size in sizes.items() if size >= _LARGE * sum(sizes.values())]
        settings = self._quantization(dict.fromkeys(large, bits), self._epochs)
        grown = self._grow(f"{after.name}, {bits} bits", after, {"quantization_aware": settings}, 1.0)
        return replace(grown, unpruned=after.unpruned, sparsity=after.sparsity)

    def longer(self, grid: Candidate) -> Candidate:
        """One of `grid`, trained as long again."""
        return replace(grid, name=f"{grid.name}, longer", after=grid)

    def _layers(self, model: Any) -> dict[str, Any]:
        return kernels(model, self._base.exclude, "compress")

    def _pruning(self, sparsity: float, start: float, epochs: int) -> dict[str, Any]:
        """Wanda's scores and one threshold for all; the first convolution has few weights and needs them."""
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

    def _grow(self, name: str, after: Candidate, steps: dict[str, Any], rows: float) -> Candidate:
        settings = Compress.model_validate({**self._base.model_dump(exclude_none=True), **steps})
        return Candidate(name, after.scheme, settings, after, rows)
