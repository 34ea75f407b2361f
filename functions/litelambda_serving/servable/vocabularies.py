"""Names for numbers: outputs whose numbers are places in a vocabulary, such as the items that are recommended.

A vocabulary is a file of the version, a JSON list of names. Loaded by models whose manifest has one for an output.
"""

from __future__ import annotations

from litelambda_serving.errors import ArtifactError, ManifestError
from litelambda_serving.json_codec import loads
from litelambda_serving.tensor import DTYPES, Tensor, unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from litelambda_serving.manifest import Manifest

__all__ = ["named", "names_of", "open_vocabularies"]


def open_vocabularies(manifest: Manifest, assets: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The names by number of each output that has some.

    Raises:
        ManifestError: a vocabulary is not a list of names, or not of an output of whole numbers.
    """
    specs = {spec.name: spec for spec in manifest.signatures[manifest.default_signature].outputs}
    found = {}
    for output, file in manifest.vocabularies.items():
        if output not in specs or specs[output].dtype.kind != "int":
            raise ManifestError(f"manifest field outputs names {output!r}, which is not an output of whole numbers")
        try:
            names = loads(assets[file])
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"the vocabulary {file} is not JSON: {error}") from error
        if type(names) is not list or {*map(type, names)} != {str}:
            raise ManifestError(f"the vocabulary {file} is not a list of names")
        found[output] = names
    return found


def named(outputs: Mapping[str, Tensor], vocabularies: Mapping[str, list[str]]) -> dict[str, Tensor]:
    """Outputs with the names that their numbers stand for, as tensors of strings."""
    text = DTYPES["string"]
    return {
        name: Tensor(text, tensor.shape, [each.encode() for each in names_of(unpack_flat(tensor), vocabularies[name])])
        if name in vocabularies
        else tensor
        for name, tensor in outputs.items()
    }


def names_of(numbers: Iterable[int], names: list[str]) -> list[str]:
    """The name of each number.

    >>> names_of([1, 0, 1], ["jazz", "soul"])
    ['soul', 'jazz', 'soul']

    Raises:
        ArtifactError: a number is not a place in the vocabulary.
    """
    numbers = list(numbers)
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(names):
        raise ArtifactError(f"the model answers with {max(numbers)}, the vocabulary has {len(names)} names")
    return [names[number] for number in numbers]
