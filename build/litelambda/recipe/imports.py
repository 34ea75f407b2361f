"""The other kind of recipe: a model that was made elsewhere, which a build imports instead of training one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from litelambda.recipe.section_types import Name, PositiveFloat, Section


class ImportSection(Section):
    """A model that was made elsewhere, as `litelambda import` takes it.

    Such a recipe has nothing else but `publish`, with `name` and `encrypt`.
    """

    path: Annotated[str, Field(min_length=1)]
    """A `.tflite`, `.keras` or `.h5` file, the folder of a SavedModel, or an archive or a folder with one of these in
    it, relative to the recipe."""
    representative: str | None = None
    """An `.npy` or `.npz` file with rows as the model will see them: it is quantized to int8 with these."""
    labels: str | None = None
    """A file with the names of the classes: a JSON list, or one per line."""
    preprocessing: dict[str, Any] | None = None
    """What makes raw values the model's, such as `{ scale = 0.00784, offset = -1 }` or `{ kind = "image" }`; by default
    a `.tflite` file's metadata."""
    tokenizer: str | None = None
    """A `tokenizer.json` of Hugging Face's, for a model that reads text."""
    max_difference: PositiveFloat = 0.1
    """How far 99 % of the int8 model's values may be from its source's, as a share of the output's range."""
    accept_loss: bool = False
    """Publish the int8 model however far it is from its source."""
    explain: bool | None = None
    """Whether to publish the model's integrated gradients; by default those of a Keras model up to 10 MB in float32."""


class ImportPublish(Section):
    """Under which name an imported model is published, and in which form."""

    name: Name
    """Name of the model in the store."""
    encrypt: str | None = None
    """Key to encrypt the version's files with: the ARN of a key of KMS, or a file that `litelambda keygen --encryption`
    made; by default they are not encrypted."""


class ImportRecipe(Section):
    """A whole import."""

    source: ImportSection = Field(alias="import")
    publish: ImportPublish
