"""Companions: further flatbuffers of a version, such as its gradients, fetched when one is first asked for.

Imported with the first of them: a model that only predicts pays nothing for what it could explain.
"""

from __future__ import annotations

from _thread import allocate_lock

from litelambda_serving.artifact.companion import fetch_file
from litelambda_serving.litert import CompiledModel
from litelambda_serving.servable import size_in_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from litelambda_serving.servable import Servable
    from litelambda_serving.store import Store

__all__ = ["open_companion"]

_LOADING = allocate_lock()


def open_companion(
    store: Store, servable: Servable, file: str, num_threads: int, make_room: Callable[[str, int], None]
) -> CompiledModel:
    """Fetch, check and compile a file of a version; it belongs to its servable from now on, and goes with it.

    Args:
        store: where the version is.
        servable: the version.
        file: one of its manifest's files.
        num_threads: for its runs.
        make_room: drops what was used least recently until so many bytes are free, for the sake of a model.

    Raises:
        ManifestError: the manifest does not list the file.
        StoreError, ArtifactError, LiteRtError: it cannot be loaded.
    """
    with _LOADING:
        found = servable.companions.get(file)
        if found is None:
            data = fetch_file(store, servable.manifest, file)
            size = size_in_memory(len(memoryview(data)))
            make_room(servable.manifest.model, size)
            found = servable.companions[file] = CompiledModel(data, num_threads=num_threads)
            servable.memory_bytes += size
        return found
