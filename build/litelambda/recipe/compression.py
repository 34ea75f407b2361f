"""The recipe's `compress` section: a table for each compression step, in the order in which they run.

Every step can be used alone. No step changes a layer that is named in `exclude`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from litelambda.recipe.section_types import (
    Fraction,
    NonNegativeFloat,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Section,
)

Epochs = Annotated[int, Field(ge=0)]
Bits = Annotated[int, Field(ge=2, le=8)]


class CompressStep(Section):
    """What the steps that train have in common."""

    learning_rate: PositiveFloat | None = None
    """For the training in this step; by default that of `train.optimizer`."""
    exclude: list[str] = Field(default_factory=list)
    """Layers that this step does not change, by name."""


class Structured(CompressStep):
    """Removal of whole units and filters: the model itself gets smaller, and faster."""

    sparsity: OpenFraction
    """Share of the units of each layer to remove."""
    epochs: Epochs = 3
    """Epochs of fine-tuning."""


class LowRank(CompressStep):
    """Factorization of large kernels into two thin ones; kernels that would not get smaller are kept."""

    rank: PositiveInt | None = None
    """Inner size of the factors; by default what `energy` asks for."""
    energy: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Without `rank`: the share of a kernel's squared singular values that its factors keep."""
    min_weights: PositiveInt = 4096
    """Smaller kernels are not factorized."""
    epochs: Epochs = 3
    """Epochs of fine-tuning."""


class Pruning(CompressStep):
    """Pruning with a polynomial schedule; sparsity is the share of the weights set to zero."""

    final_sparsity: OpenFraction
    """Share of the weights that are zero at the end."""
    initial_sparsity: Fraction = 0.0
    """Share of the weights that are zero at the start."""
    scores: Literal["magnitude", "wanda"] = "magnitude"
    """What makes a weight worth keeping: its magnitude, or that times the root mean square of its input (Wanda)."""
    scope: Literal["layer", "global"] = "layer"
    """`layer`: every layer gets the same sparsity; `global`: one threshold for all."""
    first_convolution: bool = False
    """Whether the convolution on the input is pruned as well."""
    epochs: PositiveInt = 4
    """Epochs of training in this step."""


class Clustering(CompressStep):
    """Weights of each layer share few values on the integer grid, zero and the two ends among them."""

    clusters: Annotated[int, Field(ge=3, le=255)] = 16
    """Different values per layer."""
    epochs: Epochs = 2
    """Epochs of fine-tuning."""


class QuantizationAware(CompressStep):
    """Training on the grid of `bits` bits: int8 codes that take at most 2^bits - 1 different values."""

    bits: Bits = 4
    """Weights take at most 2^bits - 1 different int8 codes."""
    layer_bits: dict[str, Bits] = Field(default_factory=dict)
    """Other bits for some layers, by name."""
    activations: bool = False
    """Whether activations are rounded to int8 during training as well, for models that lose accuracy only because of
    them."""
    epochs: PositiveInt = 4
    """Epochs of training in this step."""


class Distillation(Section):
    """The trained float model teaches the smaller one, in every step that trains."""

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The teacher's share of the loss; the rest is the labels'."""
    temperature: PositiveFloat = 2.0
    """Softens the answers of both models, so that the other classes count too."""


class Auto(Section):
    """A bounded search over the steps, judged on validation rows and by time in the shipped runtime."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005
    """What a candidate may lose."""
    minimize: Literal["stored", "raw", "latency"] | dict[Literal["stored", "raw", "latency"], NonNegativeFloat] = (
        "stored"
    )
    """One figure, or weights for a sum of them, each relative to the float model's."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Probability that the drop is as small on the test rows, required before a candidate is accepted; 0.5 leaves no
    margin."""
    budget_minutes: PositiveFloat = 10.0
    """No candidate is started that would exceed it. Use `max_candidates` for a search that repeats exactly."""
    max_candidates: PositiveInt = 40
    """Bounds the search the same way every time."""
    epochs: PositiveInt = 4
    """Epochs of fine-tuning for each training step of a candidate."""
    state: str | None = None
    """A folder that keeps what was tried, so that a search that was stopped resumes."""


class Compress(Section):
    """What makes the trained model smaller before it is quantized; nothing by default."""

    exclude: list[str] = Field(default_factory=list)
    """Layers that no step changes, by name."""
    fold_batch_norm: bool = False
    """Whether batch normalizations are folded into the layers before them first."""
    structured: Structured | None = None
    """Removes units and filters: smaller in memory and in the store."""
    low_rank: LowRank | None = None
    """Two thin kernels for a large one: smaller in memory and in the store."""
    pruning: Pruning | None = None
    """Zeros: smaller in the store."""
    clustering: Clustering | None = None
    """Few int8 codes: smaller in the store."""
    quantization_aware: QuantizationAware | None = None
    """Weights on a coarse grid: smaller in the store."""
    distillation: Distillation | None = None
    """The float model teaches every step that trains."""
    auto: Auto | None = None
    """A search in place of the steps above."""
