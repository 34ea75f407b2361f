"""The recipe's `model` section: a built-in network, the user's own function, or a model that Keras saved."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from litelambda.recipe.section_types import Fraction, Name, NonNegativeFloat, PositiveInt, Section

Activation = Literal["relu", "relu6", "tanh", "sigmoid", "gelu", "elu", "leaky_relu", "silu", "linear"]


class BuiltInNetwork(Section):
    """What the built-in networks have in common."""

    activation: Activation = "relu"
    """Activation of every layer but the last."""
    dropout: Fraction = 0.0
    """Share of the values that dropout sets to zero: after each layer of an MLP, before the last one of the others."""
    l1: NonNegativeFloat = 0.0
    """L1 penalty on the kernels, added to the loss."""
    l2: NonNegativeFloat = 0.0
    """L2 penalty on the kernels, added to the loss."""
    input_name: Name = "input"
    """Name of the input in the API."""
    output_name: Name = "output"
    """Name of the output in the API."""


class MlpModel(BuiltInNetwork):
    """The built-in multilayer perceptron."""

    kind: ClassVar[str] = "mlp"
    builder: Literal["mlp"]
    hidden: list[PositiveInt] = Field(default=[64, 64])
    """Units of each hidden layer."""


class CnnModel(BuiltInNetwork):
    """The built-in convolutional network: convolution and pooling pairs, then dense layers."""

    kind: ClassVar[str] = "cnn"
    builder: Literal["cnn"]
    filters: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[16, 32])
    """Filters of each convolution; a 2 x 2 pooling follows each of them."""
    kernel_size: PositiveInt = 3
    """Height and width of the convolutions."""
    dense: list[PositiveInt] = Field(default=[64])
    """Units of each dense layer between the convolutions and the output."""
    batch_norm: bool = False
    """Whether a batch normalization follows each convolution."""


class TextModel(BuiltInNetwork):
    """The built-in network for text: an embedding, convolutions over it, the largest value of each, dense layers."""

    kind: ClassVar[str] = "text"
    builder: Literal["text"]
    embedding: PositiveInt = 32
    """Values of each token."""
    filters: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[64])
    """Filters of each convolution; of the last one, the largest value in a text is kept."""
    kernel_size: PositiveInt = 3
    """Tokens that a convolution sees at once."""
    dense: list[PositiveInt] = Field(default_factory=list)
    """Units of each dense layer before the output."""


class TwoTowerModel(Section):
    """Two towers, of the user's side and of the item's: each becomes a vector, their dot product is the score."""

    kind: ClassVar[str] = "two_tower"
    builder: Literal["two_tower"]
    dimension: PositiveInt = 32
    """Numbers of each vector, and of each embedding."""
    hidden: list[PositiveInt] = Field(default_factory=list)
    """Units of the dense layers between the embeddings and the vector, in both towers."""
    top_k: Annotated[int, Field(ge=1, le=1000)] = 20
    """How many items an answer has."""
    input_name: Name = "input"
    """Name of the input in the API."""


class FunctionModel(Section):
    """Your own function, called with `input_shape`, `num_classes` (for regression: of targets) and `settings`."""

    kind: ClassVar[str] = "function"
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`"package.module:function"`; modules next to the recipe can be imported."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Passed to the function as it is."""


class SavedKerasModel(Section):
    """A model saved by Keras, trained further, or used as it is with `train.epochs = 0`."""

    kind: ClassVar[str] = "saved"
    path: Annotated[str, Field(pattern=r"\.(keras|h5)$")]
    """A `.keras` or `.h5` file."""


def _model_kind(value: object) -> str | None:
    """Tell which model section a table is by the one key that only it has."""
    if isinstance(value, Section):
        return value.kind if value.kind in ("function", "saved") else "builder"
    sources = {"builder": "builder", "function": "function", "path": "saved"}
    found = [kind for key, kind in sources.items() if isinstance(value, dict) and key in value]
    return found[0] if len(found) == 1 else None


BuiltInModel = Annotated[MlpModel | CnnModel | TextModel | TwoTowerModel, Field(discriminator="builder")]
ModelSection = Annotated[
    Annotated[BuiltInModel, Tag("builder")]
    | Annotated[FunctionModel, Tag("function")]
    | Annotated[SavedKerasModel, Tag("saved")],
    Discriminator(
        _model_kind,
        custom_error_type="model_kind",
        custom_error_message="Needs exactly one of builder = 'mlp', 'cnn', 'text' or 'two_tower', "
        "function = 'package.module:function' and path = 'model.keras' or 'model.h5'",
    ),
]
