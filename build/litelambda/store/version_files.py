"""The files of a model's versions, as pruning sees them: also those that have no manifest yet, or no longer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from litelambda_serving.objects import objects_for

if TYPE_CHECKING:
    from litelambda.store.artifact_store import Store

__all__ = ["VersionFiles"]


class VersionFiles:
    """All that lies below the numbered folders of a model."""

    def __init__(self, store: Store, model: str) -> None:
        """Open them; nothing is read yet.

        Args:
            store: the store.
            model: the model's name.
        """
        self._folder = f"{store.url.rstrip('/')}/{model}/"
        self._objects = objects_for(self._folder)

    def list(self) -> list[tuple[int, str, int]]:
        """Version, name and bytes of each file."""
        pattern = re.compile(re.escape(self._folder) + r"([1-9]\d*)/(.+)")
        found = ((pattern.fullmatch(info.url), info.size) for info in self._objects.list(self._folder))
        return [(int(match[1]), match[2], size) for match, size in found if match]

    def delete(self, version: int, name: str) -> None:
        """Delete a file; a missing one is not an error.

        Raises:
            StoreError: the store refused.
        """
        self._objects.delete(f"{self._folder}{version}/{name}")

    def restore(self, version: int, name: str, content: bytes) -> None:
        """Write a file that was deleted, unless there is one."""
        self._objects.put(f"{self._folder}{version}/{name}", content, tag="")
