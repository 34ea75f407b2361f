"""The recipe's `train` section: loss, optimizer, schedule, augmentation, and what to train on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from litelambda.recipe.section_types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Section, Seed

Decay = Annotated[float, Field(ge=0, lt=1)]
Loss = Literal[
    "mse",
    "mae",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "sampled_softmax",
]
CROSS_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class Sgd(Section):
    """Plain stochastic gradient descent: `keras.optimizers.SGD`."""

    kind: ClassVar[str] = "sgd"
    name: Literal["sgd"]
    learning_rate: PositiveFloat = 0.01


class Momentum(Section):
    """Stochastic gradient descent with momentum: `keras.optimizers.SGD`."""

    kind: ClassVar[str] = "momentum"
    name: Literal["momentum"]
    learning_rate: PositiveFloat = 0.01
    momentum: Decay = 0.9
    nesterov: bool = False


class RmsProp(Section):
    """RMSprop: `keras.optimizers.RMSprop`."""

    kind: ClassVar[str] = "rmsprop"
    name: Literal["rmsprop"]
    learning_rate: PositiveFloat = 0.001
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: PositiveFloat = 1e-7
    centered: bool = False


class Adam(Section):
    """Adam: `keras.optimizers.Adam`."""

    kind: ClassVar[str] = "adam"
    name: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 0.001
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7
    amsgrad: bool = False


class AdamW(Section):
    """Adam with decoupled weight decay: `keras.optimizers.AdamW`."""

    kind: ClassVar[str] = "adamw"
    name: Literal["adamw"]
    learning_rate: PositiveFloat = 0.001
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.004
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7
    amsgrad: bool = False


Optimizer = Annotated[Sgd | Momentum | RmsProp | Adam | AdamW, Field(discriminator="name")]


class EarlyStopping(Section):
    """Stop when a figure of the validation split no longer improves."""

    patience: PositiveInt = 3
    """Epochs without improvement before training stops."""
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    """The figure to watch."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """A smaller change does not count as an improvement."""
    restore_best: bool = True
    """Whether the weights of the best epoch are kept."""


class Augmentation(Section):
    """Random changes to the training rows, different in every epoch; never part of the exported model."""

    flip_horizontal: bool = False
    """Images: mirror half of them."""
    shift: Fraction = 0.0
    """Images: move them by up to this share of height and width, in every direction; what comes in is zero."""
    crop: Fraction = 0.0
    """Images: cut up to this share of height and width off, anywhere, and stretch the rest to the old size."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Images: turn them by up to so many degrees, either way; what comes in is zero."""
    brightness: NonNegativeFloat = 0.0
    """Add one number to all of a row: up to this much, or as much less, in the model's own units."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of the noise that is added to every value, in the model's own units."""
    mixup: NonNegativeFloat = 0.0
    """Mix each row and its target with another's, in shares drawn from Beta(mixup, mixup). For classes it needs
    `train.loss = "categorical_crossentropy"` or `"binary_crossentropy"`."""


class Train(Section):
    """How the model is trained."""

    loss: Loss
    """A cross-entropy for classification, `mse` or `mae` for regression, `sampled_softmax` for recommendation."""
    from_logits: bool = False
    """Whether the model's outputs are logits."""
    optimizer: Optimizer = Adam()
    """See below; Adam by default."""
    epochs: Annotated[int, Field(ge=0)] = 10
    """0: the model is already trained."""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """`cosine`: the learning rate falls to zero over all steps; `exponential`: to a hundredth; `step`: to a tenth
    after half of them, to a hundredth after three quarters."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs, or parts of one, over which the learning rate rises from zero before the schedule begins."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What layers compute in during training. Weights and the trained model are float32; compression trains in
    float32."""
    class_weights: Literal["none", "balanced"] | dict[str, PositiveFloat] = "none"
    """`balanced`: every class has the same weight in the loss, however many rows it has. Or weights by class, 1 for
    those that are not named."""
    augmentation: Augmentation | None = None
    """Off by default; see below."""
    backend: Literal["tensorflow", "jax"] | None = None
    """What Keras trains and compresses on; by default `KERAS_BACKEND` of the environment, else TensorFlow."""
    devices: list[str] | Literal["auto"] = "auto"
    """Devices to train on (`"GPU:0"`, …), which share every batch; `"auto"`: every GPU, under JAX every device."""
    batch_size: PositiveInt = 64
    """Rows per step, of all devices and hosts together."""
    seed: Seed = 0
    """The same seed gives the same artifact, byte for byte, on the same kind of machine."""
    early_stopping: EarlyStopping | None = None
    """Off by default; see below."""
