"""Models ready to predict: loaded once, found by name, version or label.

Knows artifacts and the runtime; knows no protocol.
"""

from __future__ import annotations

from _thread import allocate_lock

from serving.aliases import fetch_aliases
from serving.artifact import fetch_artifact
from serving.errors import ArtifactError, ModelNotFoundError, ObjectNotFoundError, RequestError
from serving.litert import CompiledModel
from serving.manifest import is_valid_name
from serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.artifact import Artifact
    from serving.manifest import Manifest, SignatureSpec
    from serving.store import Store

__all__ = ["ModelRepository", "Servable"]

# Below this many rows at once, resizing a model costs more than running its rows one by one.
_MIN_BATCH = 8


class Servable:
    """One version of a model, loaded and compiled.

    Attributes:
        manifest: what is known of it.
    """

    def __init__(self, artifact: Artifact, num_threads: int) -> None:
        """Compile an artifact and check that the flatbuffer has what its manifest promises.

        Raises:
            LiteRtError: the runtime refuses the flatbuffer.
            ArtifactError: a signature of the manifest is not in the flatbuffer, or has other tensors.
        """
        self.manifest: Manifest = artifact.manifest
        self._model = CompiledModel(artifact.model, num_threads=num_threads)
        self._batch_sizes = [size for size in reversed(self.manifest.batch_sizes) if size >= _MIN_BATCH]
        for key, spec in self.manifest.signatures.items():
            self._check_signature(key, spec)

    def warm_up(self) -> None:
        """Run the default signature once on zeros, so that no request pays for the first run's allocations."""
        key = self.manifest.default_signature
        self._model.run(key, [bytes(spec.row_bytes) for spec in self._model.signatures[key].inputs])

    def predict(self, signature_key: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run a signature on any number of rows.

        Args:
            signature_key: one of the manifest's signatures.
            inputs: a tensor for every input of the signature; batched ones share their number of rows.

        Returns:
            The outputs by name, in the signature's order; batched ones with as many rows as came in.

        Raises:
            LiteRtError: the runtime failed.
        """
        signature = self._model.signatures[signature_key]
        tensors = [inputs[spec.name] for spec in signature.inputs]
        rows = next((t.shape[0] for t, s in zip(tensors, signature.inputs, strict=True) if s.batched), 1)
        if rows == 1:
            outputs = self._model.run(signature_key, [tensor.data for tensor in tensors])
        else:
            outputs = self._run_rows(signature_key, tensors, rows)
        return {
            spec.name: Tensor(spec.dtype, (rows, *spec.shape[1:]) if spec.batched else spec.shape, data)
            for spec, data in zip(signature.outputs, outputs, strict=True)
        }

    def close(self) -> None:
        """Release the model's memory."""
        self._model.close()

    def _run_rows(self, signature_key: str, tensors: Sequence[Tensor], rows: int) -> list[bytes]:
        """Run many rows in the largest batches that were proven safe, what is left of them one by one."""
        signature = self._model.signatures[signature_key]
        views = [memoryview(tensor.data) for tensor in tensors]
        parts: list[list[bytes]] = []
        start = 0
        while start < rows:
            size = next((size for size in self._batch_sizes if size <= rows - start), 1)
            chunk = [
                bytes(view[start * spec.row_bytes : (start + size) * spec.row_bytes]) if spec.batched else bytes(view)
                for spec, view in zip(signature.inputs, views, strict=True)
            ]
            parts.append(self._model.run(signature_key, chunk, size))
            start += size
        return [
            b"".join(column) if spec.batched else column[0]
            for spec, column in zip(signature.outputs, zip(*parts, strict=True), strict=True)
        ]

    def _check_signature(self, key: str, spec: SignatureSpec) -> None:
        signature = self._model.signatures.get(key)
        if signature is None:
            raise ArtifactError(f"the manifest names signature {key!r}, the flatbuffer has none of that name")
        for promised, actual in ((spec.inputs, signature.inputs), (spec.outputs, signature.outputs)):
            if list(map(repr, promised)) != list(map(repr, actual)):
                raise ArtifactError(
                    f"signature {key!r}: the manifest says {list(promised)}, the flatbuffer has {list(actual)}"
                )


class ModelRepository:
    """The models of a store, each loaded on first use and kept."""

    def __init__(self, store: Store, num_threads: int) -> None:
        self._store = store
        self._num_threads = num_threads
        self._servables: dict[tuple[str, int], Servable] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._lock = allocate_lock()

    def add(self, artifact: Artifact, reference: str) -> Servable:
        """Load an artifact that was fetched as `reference` (a version number or an alias), and run it once."""
        servable = Servable(artifact, self._num_threads)
        servable.warm_up()
        manifest = artifact.manifest
        self._servables[manifest.model, manifest.version] = servable
        self._versions[manifest.model, reference] = manifest.version
        self._versions[manifest.model, str(manifest.version)] = manifest.version
        return servable

    def loaded_names(self) -> list[str]:
        """Names of the models that are in memory, sorted."""
        return sorted({name for name, _ in self._servables})

    def get(self, name: str, version: int | None = None, label: str = "latest") -> Servable:
        """Find a servable, loading it on its first use.

        Args:
            name: the model.
            version: its version; None to go by `label`.
            label: an alias.

        Raises:
            ModelNotFoundError: no such model, version or alias.
            RequestError: no such label of a model that exists.
            StoreError, ArtifactError, LiteRtError: it exists but cannot be loaded.
        """
        reference = label if version is None else str(version)
        number = self._versions.get((name, reference))
        if number is not None:
            return self._servables[name, number]
        if not is_valid_name(name) or not is_valid_name(reference):
            raise ModelNotFoundError(f"Servable not found for request: {_request(name, version)}")
        with self._lock:
            number = self._versions.get((name, reference))
            if number is not None:
                return self._servables[name, number]
            return self.add(self._fetch(name, reference), reference)

    def _fetch(self, name: str, reference: str) -> Artifact:
        if not reference.isdecimal() and reference != "latest":
            targets = fetch_aliases(self._store, name).targets
            if reference not in targets:
                raise RequestError(f"Unrecognized servable version label: {reference}")
        try:
            return fetch_artifact(self._store, name, reference)
        except ObjectNotFoundError as error:
            raise ArtifactError(f"version {reference} of model {name} is published, but incomplete: {error}") from error


def _request(name: str, version: int | None) -> str:
    return f"Latest({name})" if version is None else f"Specific({name}, {version})"
