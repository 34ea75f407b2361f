"""What the session's shared build left behind, for the tests that read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from litelambda.commands.build import BuildResult


@dataclass(frozen=True)
class BuiltArtifact:
    """A published version and the store it is in.

    Attributes:
        store_url: `file:///…`
        model: "tiny", with the input "features" (4) and the output "probabilities" (3).
        version: 1, aliased "latest" and "stable".
        folder: where its files lie.
        result: what the build reported.
    """

    store_url: str
    model: str
    version: int
    folder: Path
    result: BuildResult
