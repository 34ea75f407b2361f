"""The recipe's `compress` section: a table for every step that can make a model smaller, in the order they run.

Every step is usable alone. A layer named in `exclude` is left alone by all of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from litelambda.section_types import Fraction, NonNegativeFloat, OpenFraction, PositiveFloat, PositiveInt, Section

Epochs = Annotated[int, Field(ge=0)]
Bits = Annotated[int, Field(ge=2, le=8)]


class Structured(Section):
    """Removal of whole units and filters: the model itself gets smaller, and faster."""

    sparsity: OpenFraction
    """Share of the units of each layer that go."""
    epochs: Epochs = 3
    learning_rate: PositiveFloat | None = None
    exclude: list[str] = Field(default_factory=list)


class LowRank(Section):
    """Factorisation of large kernels into two thin ones; what would not get smaller stays whole."""

    rank: PositiveInt | None = None
    energy: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Without `rank`: the share of a kernel's squared singular values that its factors keep."""
    min_weights: PositiveInt = 4096
    """Smaller kernels stay whole."""
    epochs: Epochs = 3
    learning_rate: PositiveFloat | None = None
    exclude: list[str] = Field(default_factory=list)


class Pruning(Section):
    """Pruning with a polynomial schedule; sparsity is the share of the weights set to zero."""

    final_sparsity: OpenFraction
    initial_sparsity: Fraction = 0.0
    scores: Literal["magnitude", "wanda"] = "magnitude"
    """What makes a weight worth keeping: its magnitude, or that times the root mean square of its input ("Wanda")."""
    scope: Literal["layer", "global"] = "layer"
    """Whether every layer gets the same sparsity, or one threshold holds for all."""
    first_convolution: bool = False
    """Prune the convolution on the input as well."""
    epochs: PositiveInt = 4
    learning_rate: PositiveFloat | None = None
    exclude: list[str] = Field(default_factory=list)


class Clustering(Section):
    """Weights of each layer share few values on the integer grid, zero and the two ends among them."""

    clusters: Annotated[int, Field(ge=3, le=255)] = 16
    epochs: Epochs = 2
    learning_rate: PositiveFloat | None = None
    exclude: list[str] = Field(default_factory=list)


class QuantizationAware(Section):
    """Training on the grid of `bits` bits: int8 codes that take at most 2^bits - 1 different values."""

    bits: Bits = 4
    layer_bits: dict[str, Bits] = Field(default_factory=dict)
    """Other bits for some layers, by name."""
    activations: bool = False
    """Train with what layers make rounded to int8 as well; for models that lose accuracy when only they are."""
    epochs: PositiveInt = 4
    learning_rate: PositiveFloat | None = None
    exclude: list[str] = Field(default_factory=list)


class Distillation(Section):
    """The trained float model teaches the smaller one, in every step that trains."""

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the loss that is the teacher's; the rest is the labels'."""
    temperature: PositiveFloat = 2.0


class Auto(Section):
    """A bounded search over the steps, judged on validation rows and by time in the shipped runtime."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005
    minimise: Literal["stored", "raw", "latency"] | dict[Literal["stored", "raw", "latency"], NonNegativeFloat] = (
        "stored"
    )
    """One figure, or weights for a sum of them, each relative to the float model's."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """That the drop is as small on the test rows, before a candidate counts as good enough; 0.5 leaves no margin."""
    budget_minutes: PositiveFloat = 10.0
    """No candidate is begun that would take longer; only `max_candidates` bounds the search the same way every time."""
    max_candidates: PositiveInt = 40
    epochs: PositiveInt = 4
    """Of fine-tuning for each training step of a candidate."""
    state: str | None = None
    """A folder that keeps what was tried, for a search that was stopped to go on."""


class Compress(Section):
    """What makes the trained model smaller before it is quantized; nothing by default."""

    exclude: list[str] = Field(default_factory=list)
    fold_batch_norm: bool = False
    structured: Structured | None = None
    low_rank: LowRank | None = None
    pruning: Pruning | None = None
    clustering: Clustering | None = None
    quantization_aware: QuantizationAware | None = None
    distillation: Distillation | None = None
    auto: Auto | None = None
