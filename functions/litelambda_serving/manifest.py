"""The manifest: what a server and a client need to know of an artifact without opening its flatbuffer.

Reads format versions 1 and 2, field by field as docs/reference/manifest.md documents it. Unknown fields are ignored,
unknown format versions refused. Writing manifests is the toolchain's part.
"""

from __future__ import annotations

from litelambda_serving.errors import ManifestError, TensorError
from litelambda_serving.json_codec import loads
from litelambda_serving.tensor import DTYPES, DYNAMIC, Quantization, TensorSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.tensor import Tensor

__all__ = [
    "DEFAULT_SIGNATURE",
    "ENCRYPTED",
    "FORMAT_VERSIONS",
    "FileEntry",
    "Manifest",
    "SignatureSpec",
    "is_valid_name",
]

FORMAT_VERSIONS = (1, 2)
"""In version 2, `preprocessing` says what raw values are, and requests have those; in version 1, the model's values."""

DEFAULT_SIGNATURE = "serving_default"
"""TensorFlow's name for the signature that answers when a request names none."""

_LARGEST = 3.4e38  # of float32
ENCRYPTED = "aes-256-gcm"
"""The encoding of an encrypted file; what it decrypts to may be compressed."""

_COMPRESSIONS = ("zlib", "xz")
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def is_valid_name(name: str) -> bool:
    """Whether `name` may be a model, an alias or a file: letters, digits, `_`, `.`, `-`, no leading `.` or `-`, <= 128.

    What passes can be part of a store's key: it never escapes its folder.

    >>> is_valid_name("mobilenet_v2"), is_valid_name("../secrets")
    (True, False)
    """
    return 0 < len(name) <= 128 and name[0] not in ".-_" and _NAME_CHARACTERS.issuperset(name)


class FileEntry:
    """Pin of one file.

    Attributes:
        sha256: lower-case hex digest of its bytes.
        size_bytes: its length.
        encoding: what it is compressed or encrypted with, "" for nothing.
        unpacked: pin of what it unpacks to, None where it is neither.
    """

    __slots__ = ("encoding", "sha256", "size_bytes", "unpacked")

    def __init__(self, sha256: str, size_bytes: int, encoding: str = "", unpacked: FileEntry | None = None) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self.encoding = encoding
        self.unpacked = unpacked


class SignatureSpec:
    """Inputs and outputs of one entry point, in the order of the flatbuffer."""

    __slots__ = ("inputs", "outputs")

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs

    @property
    def rows(self) -> int:
        """How many rows a request may have: `DYNAMIC` for any, a number for exactly that many, 0 where it has none."""
        sizes = {spec.shape[0] if spec.shape else 0 for spec in (*self.inputs, *self.outputs)}
        return sizes.pop() if len(sizes) == 1 else 0

    def count_rows(self, inputs: Mapping[str, Tensor]) -> int:
        """How many rows a request has: 1 where no input is batched.

        Raises:
            TensorError: its inputs disagree.
        """
        counts = {inputs[spec.name].shape[0] for spec in self.inputs if spec.batched}
        if len(counts) > 1:
            raise TensorError(f"inputs disagree on the number of rows: {sorted(counts)}")
        return counts.pop() if counts else 1


class Manifest:
    """One published version of a model.

    Attributes:
        model: its name.
        version: positive number, immutable once published.
        artifact: name of the flatbuffer among `files`.
        files: every published file by name.
        default_signature: the entry point that answers when a request names none.
        signatures: entry points by key.
        batch_sizes: numbers of rows that are verified as safe to run at once, ascending; (1,) without any.
        warm_up: for the default signature's first run, by input: a value for all of a row, or each of its values.
            Inputs that are not named are zeros, or empty strings.
        labels: names of the classes by index, or None.
        task: "classification", "multi_label" (any number of classes at once), "regression" or "recommendation"; ""
            where the model's maker did not say.
        preprocessing: by input, how raw values become the model's: see `litelambda_serving.preprocessing`. Empty where
            requests have the model's values.
        scaling: by input, the `scale` and `offset` of pixels and integers, where requests have the model's values.
        assets: names of the files that preprocessing and vocabularies are read from.
        vocabularies: by output whose numbers stand for names, the file of `assets` that has these.
        sha256: digest of the document it was read from; set by whoever fetched it, "" until then.
        fields: the whole document, for those who want the recipe, the metrics or the tools.
    """

    model: str
    version: int
    artifact: str
    files: dict[str, FileEntry]
    default_signature: str
    signatures: dict[str, SignatureSpec]
    batch_sizes: tuple[int, ...]
    warm_up: dict[str, Any]
    labels: list[str] | None
    task: str
    preprocessing: dict[str, dict[str, Any]]
    scaling: dict[str, dict[str, Any]]
    assets: tuple[str, ...]
    vocabularies: dict[str, str]
    sha256: str
    fields: dict[str, Any]

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            ManifestError: not JSON, another format version, or a field missing or of the wrong type; the message
                names the field.
        """
        fields = _document(data)
        self = cls()
        self.fields = fields
        self.sha256 = ""
        self.model = _field(fields, "model", str)
        self.version = _field(fields, "version", int)
        if self.version < 1:
            raise ManifestError(f"manifest field version: expected a positive number, got {self.version}")
        self.artifact = _field(fields, "artifact", str)
        self.files = {name: _file_entry(fields["files"], name) for name in _field(fields, "files", dict)}
        if self.artifact not in self.files:
            raise ManifestError(f"manifest field artifact names {self.artifact!r}, which files does not list")
        finite = _optional(fields, "quantization", dict).get("scheme") == "int8"
        self.signatures = {key: _signature(fields, key, finite) for key in _field(fields, "signatures", dict)}
        self.default_signature = _field(fields, "default_signature", str)
        if self.default_signature not in self.signatures:
            raise ManifestError(f"manifest field default_signature names {self.default_signature!r}, not in signatures")
        self.batch_sizes = _batch_sizes(_optional(fields, "batching", dict))
        self.warm_up = _field(fields, "warm_up", dict) if "warm_up" in fields else {}
        self.labels = fields.get("labels")
        if self.labels is not None and set(map(type, _field(fields, "labels", list))) - {str}:
            raise ManifestError("manifest field labels: expected a list of str, or null")
        self.task = _optional(fields, "task", str)
        self._read_preprocessing()
        self._read_outputs()
        return self

    def _read_preprocessing(self) -> None:
        documents = {name: each for name, each in _optional(self.fields, "preprocessing", dict).items() if each}
        self.preprocessing, self.scaling, self.assets = {}, {}, ()
        if self.fields["format_version"] == 1:
            self.scaling = documents
            for document in documents.values():
                _check_numbers(document, "scale")
                _check_numbers(document, "offset")
            return
        self.preprocessing = documents
        for document in documents.values():
            _field(document, "kind", str)
        assets = _optional(self.fields, "assets", list)
        if unknown := [name for name in assets if name not in self.files]:
            raise ManifestError(f"manifest field assets names {str(unknown[0])[:40]!r}, which files does not list")
        self.assets = tuple(assets)

    def _read_outputs(self) -> None:
        outputs = _optional(self.fields, "outputs", dict)
        self.vocabularies = {name: _field(outputs[name], "vocabulary_file", str) for name in outputs}
        if unknown := [file for file in self.vocabularies.values() if file not in self.assets]:
            raise ManifestError(f"manifest field vocabulary_file names {unknown[0][:40]!r}, which assets does not list")


def _document(data: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is not JSON: {error}") from error
    format_version = _field(fields, "format_version", int)
    if format_version not in FORMAT_VERSIONS:
        raise ManifestError(
            f"the manifest has format version {format_version}, this reader knows {FORMAT_VERSIONS[-1]}: "
            "deploy a newer litelambda"
        )
    return fields


def _field(fields: Any, name: str, kind: type) -> Any:
    value = fields.get(name) if isinstance(fields, dict) else None
    if type(value) is not kind:
        raise ManifestError(f"manifest field {name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _optional(fields: dict[str, Any], name: str, kind: type) -> Any:
    """A field that may be absent or null, which is as if it were empty."""
    return kind() if fields.get(name) is None else _field(fields, name, kind)


def _check_numbers(fields: Any, name: str) -> None:
    """Check a field that is a finite number, or one for each channel."""
    value: Any = fields.get(name) if isinstance(fields, dict) else None
    numbers = value if type(value) is list and value else [value]
    if not all(type(number) in (int, float) and abs(number) <= _LARGEST for number in numbers):
        raise ManifestError(f"manifest field {name}: expected a finite number, got {str(value)[:40]}")


def _batch_sizes(batching: dict[str, Any]) -> tuple[int, ...]:
    if batching.get("dynamic") is not True:
        return (1,)
    sizes = _field(batching, "verified_sizes", list)
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ManifestError(f"manifest field verified_sizes: {str(sizes)[:40]} is not a list of numbers of rows")
    return tuple(sorted({1, *sizes}))


def _file_entry(files: dict[str, Any], name: str) -> FileEntry:
    if not is_valid_name(name):
        raise ManifestError(
            f"manifest field files: invalid file name {name!r}: use letters, digits, '_', '.' and '-', "
            "starting with a letter or digit"
        )
    return _form(files[name], name, (*_COMPRESSIONS, ENCRYPTED))


def _form(fields: Any, name: str, encodings: tuple[str, ...]) -> FileEntry:
    entry = _pin(fields)
    if encodings and "encoding" in fields:
        entry.encoding = _field(fields, "encoding", str)
        if entry.encoding not in encodings:
            raise ManifestError(
                f"manifest file {name}: encoding {entry.encoding!r} is not one of {', '.join(encodings)}: "
                "deploy a newer litelambda"
            )
        entry.unpacked = _form(fields.get("unpacked"), name, _COMPRESSIONS if entry.encoding == ENCRYPTED else ())
    return entry


def _pin(fields: Any) -> FileEntry:
    entry = FileEntry(_field(fields, "sha256", str), _field(fields, "size_bytes", int))
    if entry.size_bytes < 0:
        raise ManifestError(f"manifest field size_bytes: expected a length, got {entry.size_bytes}")
    return entry


def _signature(fields: dict[str, Any], key: str, finite: bool) -> SignatureSpec:
    signature = fields["signatures"][key]
    return SignatureSpec(
        tuple(_tensor_spec(tensor, finite) for tensor in _field(signature, "inputs", list)),
        tuple(_tensor_spec(tensor, False) for tensor in _field(signature, "outputs", list)),
    )


def _tensor_spec(fields: Any, finite: bool) -> TensorSpec:
    name = _field(fields, "name", str)
    dtype = DTYPES.get(_field(fields, "dtype", str))
    shape = _field(fields, "shape", list)
    if dtype is None:
        raise ManifestError(f"manifest tensor {name}: dtype {fields['dtype']!r} is not one of {', '.join(DTYPES)}")
    if any(type(size) is not int or size < (DYNAMIC if axis == 0 else 0) for axis, size in enumerate(shape)):
        raise ManifestError(f"manifest tensor {name}: shape {shape} is not a list of sizes")
    scheme = _optional(fields, "quantization", dict)
    quantization = None
    if scheme:
        scale = scheme.get("scale")
        if type(scale) not in (int, float) or not 0 < scale <= _LARGEST:
            raise ManifestError(f"manifest tensor {name}: scale {str(scale)[:40]} is not a positive number")
        quantization = Quantization(scale, _field(scheme, "zero_point", int))
    spec = TensorSpec(name, dtype, shape, quantization, finite=finite)
    if "range" in fields:
        spec.limits = _limits(fields, name)
    if "same_as" in fields:
        spec.same_as = _field(fields, "same_as", str)
    spec.constant = fields.get("constant") is True
    return spec


def _limits(fields: Any, name: str) -> tuple[int, int]:
    limits = fields["range"]
    if type(limits) is not list or len(limits) != 2 or any(type(limit) is not int for limit in limits):
        raise ManifestError(f"manifest tensor {name}: range {limits} is not a smallest and a largest value")
    return limits[0], limits[1]
