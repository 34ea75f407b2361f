"""The sections of a recipe: every key, its type, its limits and its default.

Strict pydantic models. Only what can be known from one section alone is checked here: `litelambda.recipe` holds the
sections against each other, and what only the data can tell (does the file exist, do the shapes fit) is the stages'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag

from litelambda.compress_sections import Compress
from litelambda.section_types import (
    Alias,
    FiniteFloat,
    Fraction,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
)

Decay = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "relu6", "tanh", "sigmoid", "gelu", "elu", "leaky_relu", "silu", "linear"]
Loss = Literal["mse", "mae", "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"]
CROSS_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class MlpModel(Section):
    """The built-in multilayer perceptron."""

    kind: ClassVar[str] = "mlp"
    builder: Literal["mlp"]
    hidden: list[PositiveInt] = Field(default=[64, 64])
    activation: Activation = "relu"
    dropout: Fraction = 0.0
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    """Penalties on the kernels, added to the loss."""
    input_name: Name = "input"
    output_name: Name = "output"


class CnnModel(Section):
    """The built-in convolutional network: convolution and pooling pairs, then dense layers."""

    kind: ClassVar[str] = "cnn"
    builder: Literal["cnn"]
    filters: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[16, 32])
    kernel_size: PositiveInt = 3
    dense: list[PositiveInt] = Field(default=[64])
    batch_norm: bool = False
    activation: Activation = "relu"
    dropout: Fraction = 0.0
    l1: NonNegativeFloat = 0.0
    l2: NonNegativeFloat = 0.0
    """Penalties on the kernels, added to the loss."""
    input_name: Name = "input"
    output_name: Name = "output"


class FunctionModel(Section):
    """A function of the user's, called with `input_shape`, `num_classes` and the settings."""

    kind: ClassVar[str] = "function"
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    settings: dict[str, Any] = Field(default_factory=dict)


class SavedKerasModel(Section):
    """A model saved by Keras, trained further (or not at all: `train.epochs = 0`)."""

    kind: ClassVar[str] = "saved"
    path: Annotated[str, Field(pattern=r"\.(keras|h5)$")]


def _model_kind(value: object) -> str | None:
    """Tell which model section a table is by the one key that only it has."""
    if isinstance(value, Section):
        return value.kind if value.kind in ("function", "saved") else "builder"
    sources = {"builder": "builder", "function": "function", "path": "saved"}
    found = [kind for key, kind in sources.items() if isinstance(value, dict) and key in value]
    return found[0] if len(found) == 1 else None


BuiltInModel = Annotated[MlpModel | CnnModel, Field(discriminator="builder")]
Model = Annotated[
    Annotated[BuiltInModel, Tag("builder")]
    | Annotated[FunctionModel, Tag("function")]
    | Annotated[SavedKerasModel, Tag("saved")],
    Discriminator(
        _model_kind,
        custom_error_type="model_kind",
        custom_error_message="Needs exactly one of builder = 'mlp' or 'cnn', function = 'package.module:function' "
        "and path = 'model.keras' or 'model.h5'",
    ),
]


class Scaling(Section):
    """An explicit normalisation: model value = raw value x scale + offset."""

    scale: FiniteFloat
    offset: FiniteFloat = 0.0


def _normalize_kind(value: object) -> str:
    return "scaling" if isinstance(value, dict | Scaling) else "rule"


class DataSection(Section):
    """What every kind of data set has in common."""

    path: Annotated[str, Field(min_length=1)]
    task: Literal["classification", "regression"] = "classification"
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    normalize: Annotated[
        Annotated[Literal["none", "0-1", "standardize"], Tag("rule")] | Annotated[Scaling, Tag("scaling")],
        Discriminator(_normalize_kind),
    ] = "none"
    targets: Literal["none", "standardize"] = "none"
    """Regression: targets of mean 0 and deviation 1 to train on; the published model answers in their own units."""
    reshape: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    validation_split: Fraction = 0.1
    test_split: Fraction = 0.2
    seed: Seed = 0
    streaming: bool | None = None
    """Rows stay on disk and are read batch by batch; where it is not said, those that would crowd the memory do."""


class ArraysData(DataSection):
    """Arrays by name: x_train, y_train, x_test, y_test; or x and y, which the build splits."""


class NpzData(ArraysData):
    """Arrays in one .npz file."""

    kind: ClassVar[str] = "npz"
    format: Literal["npz"]


class NpyData(ArraysData):
    """Arrays in a folder of .npy files, each named after its array."""

    kind: ClassVar[str] = "npy"
    format: Literal["npy"]


class ImagesData(DataSection):
    """A folder with one folder of images per class, or such folders below train/ and test/."""

    kind: ClassVar[str] = "images"
    format: Literal["images"]
    image_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None
    color: Literal["rgb", "grayscale"] = "rgb"


class CsvData(DataSection):
    """A CSV file with a header line, numeric feature columns and one column to predict."""

    kind: ClassVar[str] = "csv"
    format: Literal["csv"]
    label: Annotated[str, Field(min_length=1)]
    features: Annotated[list[str], Field(min_length=1)] | None = None


Data = Annotated[NpzData | NpyData | ImagesData | CsvData, Field(discriminator="format")]


class Sgd(Section):
    """Plain stochastic gradient descent."""

    kind: ClassVar[str] = "sgd"
    name: Literal["sgd"]
    learning_rate: PositiveFloat = 0.01


class Momentum(Section):
    """Stochastic gradient descent with momentum."""

    kind: ClassVar[str] = "momentum"
    name: Literal["momentum"]
    learning_rate: PositiveFloat = 0.01
    momentum: Decay = 0.9
    nesterov: bool = False


class RmsProp(Section):
    """RMSprop."""

    kind: ClassVar[str] = "rmsprop"
    name: Literal["rmsprop"]
    learning_rate: PositiveFloat = 0.001
    rho: Decay = 0.9
    momentum: Decay = 0.0
    epsilon: PositiveFloat = 1e-7
    centered: bool = False


class Adam(Section):
    """Adam."""

    kind: ClassVar[str] = "adam"
    name: Literal["adam"] = "adam"
    learning_rate: PositiveFloat = 0.001
    beta_1: Decay = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-7
    amsgrad: bool = False


class AdamW(Section):
    """Adam with decoupled weight decay."""

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
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    restore_best: bool = True


class Augmentation(Section):
    """Random changes to training rows, others in every epoch; the model itself never has them."""

    flip_horizontal: bool = False
    """Images only."""
    shift: Fraction = 0.0
    """Images only: up to this share of height and width, in every direction; what comes in is zero."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of what is added to every value, in the model's own units."""


class Train(Section):
    """How the model is trained."""

    loss: Loss
    from_logits: bool = False
    optimizer: Optimizer = Adam()
    epochs: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    warmup_epochs: NonNegativeFloat = 0.0
    """The learning rate rises from zero for so long, whole epochs or parts of one, before the schedule begins."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What layers compute in while the model is trained; weights, and the model that leaves training, are float32."""
    class_weights: Literal["none", "balanced"] = "none"
    """Balanced: rows of rare classes count for more, so that every class has the same weight in the loss."""
    augmentation: Augmentation | None = None
    backend: Literal["tensorflow", "jax"] | None = None
    """What Keras trains and compresses on; not said, it is KERAS_BACKEND of the environment, and else TensorFlow."""
    devices: list[str] | Literal["auto"] = "auto"
    """What to train on ("GPU:0", …), sharing every batch; "auto": every GPU, under JAX every device there is."""
    batch_size: PositiveInt = 64
    seed: Seed = 0
    early_stopping: EarlyStopping | None = None


class Quantize(Section):
    """How the model becomes a flatbuffer."""

    scheme: Literal["int8", "dynamic", "float16", "float32"] = "int8"
    io: Literal["float32", "int8", "uint8"] = "float32"
    int4: list[str] | Literal["auto"] = Field(default_factory=list)
    """Dense layers with int4 weights inside int8; "auto": all of them, where that is not slower in the runtime."""
    representative_samples: PositiveInt = 200


class Gate(Section):
    """What a model must be, and may lose, or publishing is refused."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005
    max_mse_increase: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """For regression: how much larger the mean squared error may be, as a share of the float model's."""
    max_difference: NonNegativeFloat = 0.25
    """Between the artifact and the model that it was converted from, on 99 of 100 test rows, as a share of the range
    of that model's outputs."""
    allow_trivial: bool = False
    """Publish a model although answering every row with the most frequent class, or the mean, is as good."""


class Publish(Section):
    """Under which name, in which form, and which aliases move to the new version."""

    name: Name
    aliases: list[Alias] = Field(default=["latest"])
    stored: Literal["auto", "none", "zlib", "xz"] = "auto"
    """How the artifact lies in the store; auto takes what a function has in memory soonest."""
    bandwidth_mb_per_s: PositiveFloat = 80.0
    """From the store to a function, for `stored = "auto"`."""


class Recipe(Section):
    """A whole build."""

    model: Model
    data: Data
    train: Train
    compress: Compress = Compress()
    quantize: Quantize = Quantize()
    gate: Gate = Gate()
    publish: Publish

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Where the recipe lies; its relative paths start here."""
        return self._folder

    def resolve(self, path: str) -> Path:
        """Turn a path as written in the recipe into one that can be opened."""
        return (self._folder / Path(path).expanduser()).resolve()
