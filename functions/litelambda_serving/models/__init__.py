"""The models of this process: found by name, version or label, loaded on first use, dropped when memory is short.

Knows artifacts and servables; does not know protocols. What an alias means is read once, and again in the background
(`litelambda_serving.models.refresh`) when that knowledge is older than a setting allows.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import perf_counter_ns, time

from litelambda_serving.aliases import Aliases, CachedAliases, fetch_aliases
from litelambda_serving.artifact import ARTIFACT_NAME, fetch_artifact, fetch_manifest
from litelambda_serving.errors import ArtifactError, ModelNotFoundError, ObjectNotFoundError, RequestError, ServingError
from litelambda_serving.manifest import is_valid_name
from litelambda_serving.servable import Servable, size_in_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from litelambda_serving.artifact import Artifact
    from litelambda_serving.custom_code import CustomCode
    from litelambda_serving.litert import CompiledModel
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models.refresh import Refresh
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.store import Store

__all__ = ["ModelRepository"]

DEFAULT_ALIAS = "latest"
_NO_PIN = ("", "")


class ModelRepository:
    """The models of a store, each loaded on its first use and kept while memory allows.

    Attributes:
        custom_code: the function's own, which runs before and after every model.
        counts_drift: whether versions that have a baseline count what they are asked.
        num_changes: how often a version was loaded or dropped.
    """

    custom_code: CustomCode | None = None
    counts_drift = False
    num_changes = 0

    def __init__(
        self,
        store: Store,
        num_threads: int,
        *,
        memory_bytes: int = 1 << 40,
        refresh_seconds: float = 60.0,
        pinned: tuple[str, int, str] | None = None,
        controllable: bool = False,
        warn: Callable[[str], None] = print,
    ) -> None:
        """Make an empty repository.

        Args:
            store: where the models are.
            num_threads: for each model's runs.
            memory_bytes: what the loaded models may take together, by `size_in_memory`.
            refresh_seconds: age from which on a model's aliases are read again.
            pinned: name, version and manifest digest of the only model there is; None for all of the store's. Then
                neither aliases nor a listing of the store are read: later writes to it change nothing here.
            controllable: whether callers may load and unload models.
            warn: called with what went wrong without failing a request.
        """
        self.controllable = controllable
        self.store = store
        self.warn = warn
        self._num_threads = num_threads
        self._memory_bytes = memory_bytes
        self._refresh_seconds = refresh_seconds
        self._servables: dict[tuple[str, int], Servable] = {}
        self._aliases: dict[str, CachedAliases] = {}
        self._refreshes: dict[str, Refresh] = {}
        self._defaults: dict[str, str] = {}
        self._digests: dict[tuple[str, int], str] = {}
        self._loading: dict[tuple[str, int], Any] = {}
        self._lock = allocate_lock()
        self._copies = 1
        self._freezes = True  # as Lambda's processes do between their requests; a server's do not
        self._requests = 0
        self._pinned = pinned
        if pinned is not None:
            name, number, digest = pinned
            self._aliases[name] = CachedAliases(name, Aliases({}, {number: (digest, ARTIFACT_NAME)}))

    def add(self, artifact: Artifact, reference: str) -> Servable:
        """Load an artifact that was fetched as `reference`, which from now on answers requests that name no version.

        Args:
            artifact: what was fetched.
            reference: the version number or alias it was asked for by.
        """
        name = artifact.manifest.model
        self._defaults[name] = reference
        if artifact.aliases is not None:
            self._aliases[name] = CachedAliases(name, artifact.aliases)
        return self._admit(artifact)

    @property
    def default_name(self) -> str:
        """The model that was added, which answers where a protocol names none; "" without one."""
        return next(iter(self._defaults), "")

    def get(self, name: str, version: int | None = None, label: str = "", key: str = "") -> Servable | Shadowed:
        """Find what answers a request, loading it on its first use.

        Args:
            name: the model.
            version: its version; None to go by `label`.
            label: an alias; "" for the model's default.
            key: requests with the same key see one version of a canary; "" chooses at random.

        Raises:
            ModelNotFoundError: no such model or version.
            RequestError: no such label of a model that exists.
            StoreError, ArtifactError, LiteRtError: it exists but cannot be loaded.
        """
        if version is None:
            alias = label or self._defaults.get(name, DEFAULT_ALIAS)
            if not alias.isdecimal():
                return self._get_by_alias(self._cached_aliases(name), alias, key)
            version = int(alias)
        return self.servable(name, version)

    def aliases(self, name: str) -> Aliases:
        """A model's aliases, no older than the setting allows or with a refresh under way.

        Raises:
            ModelNotFoundError, StoreError, ArtifactError: see `fetch_aliases`.
        """
        return self._cached_aliases(name).aliases

    def _cached_aliases(self, name: str) -> CachedAliases:
        cached = self._aliases.get(name)
        if cached is None:
            if self._pinned is not None or not is_valid_name(name):
                raise ModelNotFoundError(f"Servable not found for request: Latest({name[:200]})")
            cached = self._aliases.setdefault(name, CachedAliases(name, fetch_aliases(self.store, name)))
        elif self._pinned is None and time() - cached.checked >= self._refresh_seconds:
            self._refresh(cached)
        return cached

    def _refresh(self, cached: CachedAliases) -> None:
        """Start to refresh a model's aliases unless that is under way; hardly ever waits."""
        from litelambda_serving.models.refresh import Refresh

        current = self._refreshes.get(cached.model)
        if current is None or current.done:
            self._refreshes[cached.model] = Refresh(cached, self.store, self.servable, self.is_loaded, self.warn)
        elif self._freezes:
            current.wait_if_frozen()

    def servable(self, name: str, number: int, pin: tuple[str, str] = _NO_PIN) -> Servable:
        """One version of a model, loaded if it is not.

        Args:
            name: the model.
            number: its version.
            pin: its manifest's digest and its artifact's name; without them what the model's aliases say holds.

        Raises:
            ModelNotFoundError: no such model or version.
            StoreError, ArtifactError, LiteRtError: it exists but cannot be loaded.
        """
        servable = self._servables.get((name, number)) or self._load(name, number, pin)
        self._requests += 1
        servable.used = self._requests
        return servable

    def loaded(self) -> list[Servable]:
        """What is in memory, by model and version."""
        with self._lock:
            return [self._servables[key] for key in sorted(self._servables)]

    def loaded_names(self) -> list[str]:
        """Names of the models that are in memory, sorted."""
        return sorted({servable.manifest.model for servable in self.loaded()})

    def published_names(self) -> list[str]:
        """Names of all models of the store, sorted; of the only one where one is pinned.

        Raises:
            StoreError: the store cannot be listed.
        """
        if self._pinned is not None:
            return [self._pinned[0]]
        return [name for name in self.store.list_folders() if is_valid_name(name) and name != "audit"]

    def manifest(self, name: str) -> Manifest:
        """The manifest of what a model's default alias or version means, without loading the model.

        Raises:
            ModelNotFoundError, StoreError, ArtifactError: see `fetch_manifest`.
        """
        default = self._defaults.get(name, DEFAULT_ALIAS)
        aliases = self.aliases(name)
        number = int(default) if default.isdecimal() else aliases.targets.get(default, 0)
        servable = self._servables.get((name, number))
        if servable is not None:
            return servable.manifest
        try:
            return fetch_manifest(self.store, name, number, aliases.pins.get(number, _NO_PIN)[0])
        except ArtifactError as error:
            from litelambda_serving.audit import refused

            refused(name, number, error)
            raise

    def reload(self, name: str) -> Servable:
        """Load what a model's default alias or version means in the store now; what served it does so until then.

        Raises:
            ModelNotFoundError, StoreError, ArtifactError, LiteRtError: it cannot be loaded; nothing has changed.
        """
        default = self._defaults.get(name, DEFAULT_ALIAS)
        if default.isdecimal() or not is_valid_name(name):
            return self.servable(name, int(default) if default.isdecimal() else 0)
        aliases = fetch_aliases(self.store, name)
        number = aliases.targets.get(default)
        if number is None:
            raise ModelNotFoundError(f"Servable not found for request: Latest({name})")
        servable = self.servable(name, number, aliases.pins[number])
        self._aliases[name] = CachedAliases(name, aliases)
        return servable

    def unload(self, name: str) -> None:
        """Release a model's memory; the next request for it loads it again, by its aliases of that time.

        Raises:
            ModelNotFoundError, StoreError, ArtifactError: the store could not deliver it again now; it still serves.
        """
        if self._pinned is None:
            fetch_aliases(self.store, name)
        for servable in self.loaded():
            if servable.manifest.model == name:
                fetch_manifest(self.store, name, servable.manifest.version, servable.manifest.sha256)
        with self._lock:
            for key in [key for key in self._servables if key[0] == name]:
                del self._servables[key]
                self.num_changes += 1
            if self._pinned is None:
                self._aliases.pop(name, None)

    def run_concurrently(self, copies: int) -> None:
        """Compile each model so often that it can run several times at once, where memory has room.

        Args:
            copies: runs of one model at once. Those that other models need the memory of go first.
        """
        self._copies = copies
        self._freezes = False
        for servable in self.loaded():
            self._add_copies(servable)

    def is_loaded(self, name: str, number: int) -> bool:
        """Whether a version is in memory."""
        return (name, number) in self._servables

    def _get_by_alias(self, cached: CachedAliases, alias: str, key: str) -> Servable | Shadowed:
        name, aliases = cached.model, cached.aliases  # read once: a refresh may replace it meanwhile
        target = aliases.targets.get(alias)
        if target is None:
            if alias == DEFAULT_ALIAS:
                raise ModelNotFoundError(f"Servable not found for request: Latest({name})")
            raise RequestError(f"Unrecognized servable version label: {alias}")
        number = aliases.choose(name, alias, key)
        servable = self._optional(cached, number) if number != target else None
        servable = servable or self.servable(name, target)
        shadow_number = aliases.shadows.get(alias)
        if shadow_number is None or shadow_number == servable.manifest.version:
            return servable
        shadow = self._optional(cached, shadow_number)
        if shadow is None:
            return servable
        from litelambda_serving.models.shadow import Shadowed

        return Shadowed(servable, shadow, self.warn)

    def _optional(self, cached: CachedAliases, number: int) -> Servable | None:
        """A canary or a shadow; None when it cannot be loaded, which must not fail a request."""
        if number in cached.broken:
            return None
        try:
            return self.servable(cached.model, number)
        except ServingError as error:
            cached.broken.add(number)
            self.warn(f"version {number} of {cached.model}, a canary or shadow, is left out: {error}")
            return None

    def _load(self, name: str, number: int, pin: tuple[str, str]) -> Servable:
        """Fetch and compile a version once, however many threads ask for it."""
        key = (name, number)
        if (self._pinned is not None and key != self._pinned[:2]) or not is_valid_name(name):
            raise ModelNotFoundError(f"Servable not found for request: Specific({name[:200]}, {number})")
        with self._lock:
            gate = self._loading.setdefault(key, allocate_lock())
        try:
            with gate:
                began = perf_counter_ns()
                return self._servables.get(key) or self._admit(self._fetch(name, number, pin), began)
        except ArtifactError as error:
            from litelambda_serving.audit import refused

            refused(name, number, error)
            raise
        finally:
            self._loading.pop(key, None)

    def _fetch(self, name: str, number: int, pin: tuple[str, str]) -> Artifact:
        cached = self._aliases.get(name)
        known = cached.aliases.pins.get(number, _NO_PIN) if cached is not None else _NO_PIN
        # A version that was served before must not have changed: what INIT was pinned to stays pinned.
        digest = pin[0] or self._digests.get((name, number), "") or known[0]
        try:
            return fetch_artifact(self.store, name, str(number), digest, pin[1] or known[1] or ARTIFACT_NAME)
        except ObjectNotFoundError as error:
            raise ArtifactError(f"version {number} of model {name} is published, but incomplete: {error}") from error

    def _admit(self, artifact: Artifact, began_ns: int = 0) -> Servable:
        """Compile an artifact and warm it up before requests see it; note what that took since `began_ns`."""
        fetched_ns = perf_counter_ns()
        manifest = artifact.manifest
        self._make_room(manifest.model, size_in_memory(len(memoryview(artifact.model))))
        servable = Servable(artifact, self._num_threads)
        servable.open_companion = self._open_companion
        if self.counts_drift and manifest.fields.get("drift"):
            from litelambda_serving.drift import DriftCounter

            servable.drift = DriftCounter(manifest)
        servable.warm_up()
        if self._copies > 1:
            self._add_copies(servable)
        if began_ns:
            servable.statistics.loaded = began_ns, fetched_ns, perf_counter_ns()
        with self._lock:
            self._servables[manifest.model, manifest.version] = servable
            self.num_changes += 1
            self._digests[manifest.model, manifest.version] = manifest.sha256
        if self.store.trust is not None:
            from litelambda_serving.audit import loaded

            loaded(manifest, self.store.trust)
        return servable

    def _open_companion(self, servable: Servable, file: str) -> CompiledModel:
        from litelambda_serving.models.companions import open_companion

        try:
            return open_companion(self.store, servable, file, self._num_threads, self._make_room)
        except ArtifactError as error:
            from litelambda_serving.audit import refused

            refused(servable.manifest.model, servable.manifest.version, error)
            raise

    def _make_room(self, name: str, needed: int) -> None:
        """Drop the least recently used. What serves `name` now stays until its successor is ready.

        Dropped models are freed when the last request that runs them is done.
        """
        cached = self._aliases.get(name)
        kept = set(cached.aliases.targets.values()) if cached is not None else set()
        with self._lock:
            free = self._free_bytes()
            for servable in sorted(self._servables.values(), key=lambda servable: servable.used):
                if free < needed:
                    free += servable.drop_copies()
            candidates = [key for key in self._servables if key[0] != name or key[1] not in kept]
            for key in sorted(candidates, key=lambda key: self._servables[key].used):
                if free >= needed:
                    return
                free += self._servables.pop(key).memory_bytes
                self.num_changes += 1

    def _free_bytes(self) -> int:
        return self._memory_bytes - sum(servable.memory_bytes for servable in self._servables.values())

    def _add_copies(self, servable: Servable) -> None:
        with self._lock:
            free = self._free_bytes()
            if not self.is_loaded(servable.manifest.model, servable.manifest.version):
                free -= servable.memory_bytes
        servable.add_copies(min(self._copies - 1, free // servable.copy_bytes))
