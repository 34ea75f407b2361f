"""The sections of a recipe: every key, its type, its limits and its default.

Strict pydantic models. A section checks itself; `litelambda.recipe.load` checks sections against each other, and stages
check what depends on the data (whether files exist, whether shapes fit).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag

from litelambda.recipe.compression import Compress
from litelambda.recipe.models import ModelSection
from litelambda.recipe.section_types import (
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
from litelambda.recipe.training import Train


class Scaling(Section):
    """An explicit normalization: model value = raw value x scale + offset."""

    scale: FiniteFloat
    """Factor of the raw value."""
    offset: FiniteFloat = 0.0
    """Added after scaling."""


def _normalize_kind(value: object) -> str:
    return "scaling" if isinstance(value, dict | Scaling) else "rule"


class DataSection(Section):
    """What every kind of data set has in common."""

    path: Annotated[str, Field(min_length=1)]
    """The file or folder, relative to the recipe."""
    task: Literal["classification", "multi_label", "regression", "recommendation"] = "classification"
    """What is learned: a class per row; any number of classes at once; numbers; or, of interactions, which items a user
    chooses."""
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    """Names of the classes in order, such as `["low", "middle", "high"]`; by default those of the data."""
    normalize: Annotated[
        Annotated[Literal["none", "0-1", "standardize"], Tag("rule")] | Annotated[Scaling, Tag("scaling")],
        Discriminator(_normalize_kind),
    ] = "none"
    """Computed from the training rows (per column of a table) and recorded in the manifest."""
    targets: Literal["none", "standardize"] = "none"
    """Regression: `standardize` trains on targets of mean 0 and deviation 1; the published model answers in the
    original units."""
    reshape: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Shape of one row; by default as it is found."""
    validation_split: Fraction = 0.1
    """Share of the training rows to validate on, where the data has no such split."""
    test_split: Fraction = 0.2
    """Share of all rows to test on, where the data has no such split."""
    seed: Seed = 0
    """Seed of the splits."""
    streaming: bool | None = None
    """Whether rows stay on disk and are read batch by batch; by default where they would take more than an eighth of
    the memory as float32."""


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
    """A folder, or a .zip of one, with one folder of images per class, or such folders below train/ and test/."""

    kind: ClassVar[str] = "images"
    format: Literal["images"]
    image_size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None
    """`[height, width]` to resize to; by default all images must have one size."""
    color: Literal["rgb", "grayscale"] = "rgb"
    """Channels to read."""
    resize: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    """The filter; all but `nearest` are antialiased."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How an image of another shape becomes `image_size`: all of it stretched, its middle, or all of it on
    `background`."""
    background: Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)] = Field(
        default=[255, 255, 255]
    )
    """Red, green and blue behind what is transparent or padded."""
    tolerated_bad: Fraction = 0.01
    """Share of the files that may be unreadable: they are named and left out. Above it the build is refused."""


MissingRule = Literal["refuse", "drop", "mean", "median", "most_frequent"]


class TableData(DataSection):
    """A table: columns of numbers and categories, by name, and one column to predict."""

    label: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=2)]
    """The column to predict. With `task = "multi_label"`: a column of class names separated by `|`, or several columns
    of 0 and 1; with `"regression"`: a column of numbers, or several."""
    features: Annotated[list[str], Field(min_length=1)] | None = None
    """The columns to predict from; by default all others."""
    categories: list[str] = Field(default_factory=list)
    """Columns that are categories although they hold numbers; those of text always are."""
    missing: MissingRule | dict[str, MissingRule] = "refuse"
    """What a missing value counts as, also by column: `mean` and `median` are those of the training rows, and of
    categories the most frequent one. `drop` leaves out the rows of this data set, and requests are refused."""
    fill: dict[str, FiniteFloat | str] = Field(default_factory=dict)
    """By column, the number or the category that a missing value counts as, in place of `missing`."""
    unknown: Literal["refuse", "zeros", "other"] = "refuse"
    """What becomes of a category that no training row has; `other`: it counts as one more category."""
    min_rows: PositiveInt = 1
    """With `unknown = "other"`: categories of fewer training rows are unknown ones."""
    encoding: Literal["one_hot", "index"] = "one_hot"
    """What the model reads for a category: a one-hot part of the row; or its number, where all columns are
    categories."""


class CsvData(TableData):
    """A CSV file with a header line: columns of numbers and categories, and one column to predict."""

    kind: ClassVar[str] = "csv"
    format: Literal["csv"]
    delimiter: Annotated[str, Field(pattern=r"^[,;|\t]$")] | None = None
    """What separates cells: `","`, `";"`, `"|"` or `"\\t"`; by default it is found."""
    decimal: Literal[".", ","] | None = None
    """The decimal mark; by default it is found."""


class ParquetData(TableData):
    """A Parquet file, with the extra `litelambda[parquet]`: as a CSV file, with types of its own."""

    kind: ClassVar[str] = "parquet"
    format: Literal["parquet"]


class TrainedTokenizer(Section):
    """A tokenizer that is trained on the texts of the training rows."""

    train: Literal["wordpiece", "bpe", "unigram"]
    """`wordpiece`: in lower case, without accents, as BERT's; `bpe`: of bytes, as GPT-2's; `unigram`: as
    SentencePiece's."""
    vocabulary_size: Annotated[int, Field(ge=300, le=1 << 20)] = 4000
    """Tokens, with the one that fills rows up."""


def _tokenizer_kind(value: object) -> str:
    return "train" if isinstance(value, dict | TrainedTokenizer) else "file"


class TextData(DataSection):
    """Texts and their labels: CSV with a header line, JSON Lines, or class-named folders of .txt files."""

    kind: ClassVar[str] = "text"
    format: Literal["text"]
    text: Annotated[str, Field(min_length=1)] = "text"
    """The column or key of the text; requests name it so, too."""
    label: Annotated[str, Field(min_length=1)] = "label"
    """The column or key to predict."""
    tokenizer: Annotated[
        Annotated[Annotated[str, Field(min_length=1)], Tag("file")] | Annotated[TrainedTokenizer, Tag("train")],
        Discriminator(_tokenizer_kind),
    ] = TrainedTokenizer(train="wordpiece")
    """A `tokenizer.json` of Hugging Face's, relative to the recipe; or see below."""
    length: Annotated[int, Field(gt=0, le=1 << 16)] = 64
    """Tokens of a row, with those that the tokenizer adds."""
    truncation: Literal["right", "left"] = "right"
    """The side that longer texts are cut on."""
    padding: Annotated[str, Field(min_length=1)] | None = None
    """The token that fills rows up; by default the tokenizer's own."""


class InteractionsData(DataSection):
    """A CSV file with a header line and a line for each interaction: who chose which item."""

    kind: ClassVar[str] = "interactions"
    format: Literal["interactions"]
    user: Annotated[list[str], Field(min_length=1)]
    """The columns that a request has: who asks, and what is known of them. All are categories; those that no training
    row has count as one more."""
    item: Annotated[str, Field(min_length=1)]
    """The column with the item's name."""
    item_features: list[str] = Field(default_factory=list)
    """Columns of categories that are known of an item, the same in all of its lines."""
    label: str | None = None
    """A column of numbers, such as stars; by default every line is an interaction that was wanted."""
    positive_from: FiniteFloat = 1.0
    """With `label`: from this number on, an interaction was wanted. The others are left out."""


Data = Annotated[
    NpzData | NpyData | ImagesData | CsvData | ParquetData | TextData | InteractionsData,
    Field(discriminator="format"),
]


class Quantize(Section):
    """How the model becomes a flatbuffer."""

    scheme: Literal["int8", "dynamic", "float16", "float32"] = "int8"
    """`dynamic`: int8 weights, float activations. `dynamic`, `float16` and `float32` are for models that int8 does
    not suit."""
    io: Literal["float32", "int8", "uint8"] = "float32"
    """Type of inputs and outputs: `int8` and `uint8` are raw codes; images in 0-1 take their pixel bytes as they
    are."""
    int4: list[str] | Literal["auto"] = Field(default_factory=list)
    """Dense layers with int4 weights inside int8; `"auto"`: all of them, where that is not slower in the runtime."""
    representative_samples: PositiveInt = 200
    """Training rows to calibrate activations with."""


class Gate(Section):
    """What a model must be, and may lose, or publishing is refused."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.005
    """What quantization may lose on the test split before publishing is refused."""
    max_mse_increase: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    """The same for regression, as a share of the float model's mean squared error."""
    max_difference: NonNegativeFloat = 0.25
    """How far the answers to 99 of 100 test rows may be from those before conversion, as a share of the range of the
    model's outputs."""
    allow_trivial: bool = False
    """Publish a model that is not better than answering every row with the most frequent class, or the mean."""


class Explain(Section):
    """What is published for `:explain`."""

    gradients: bool | None = None
    """Whether to export the model's integrated gradients; by default those of models up to 10 MB in float32."""


class Publish(Section):
    """Under which name, in which form, and which aliases move to the new version."""

    name: Name
    """Name of the model in the store."""
    aliases: list[Alias] = Field(default=["latest"])
    """Moved to the new version, never back."""
    stored: Literal["auto", "none", "zlib", "xz"] = "auto"
    """How the artifact is stored; `auto`: what a function has in memory soonest."""
    encrypt: str | None = None
    """Key to encrypt the version's files with: the ARN of a key of KMS, or a file that `litelambda keygen --encryption`
    made; by default they are not encrypted."""
    report_examples: Annotated[int, Field(ge=0, le=24)] = 12
    """Test rows that the report shows: those that are answered worst. 0 shows none, and the report of an encrypted
    version never shows any."""
    bandwidth_mb_per_s: PositiveFloat = 80.0
    """From the store to a function, for `stored = "auto"`."""


def resolve_path(path: str, folder: Path) -> Path:
    """Turn a path as written in a recipe, which lies in `folder`, into an absolute one."""
    return (folder / Path(path).expanduser()).resolve()


class Recipe(Section):
    """A whole build."""

    model: ModelSection
    data: Data
    train: Train
    compress: Compress = Compress()
    quantize: Quantize = Quantize()
    gate: Gate = Gate()
    explain: Explain = Explain()
    publish: Publish

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Where the recipe lies; its relative paths start here."""
        return self._folder

    def resolve(self, path: str) -> Path:
        """Turn a path as written in the recipe into one that can be opened."""
        return resolve_path(path, self._folder)
