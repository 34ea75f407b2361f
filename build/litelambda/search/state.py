"""What a search keeps on disk, so that a stopped search resumes: metrics and weights of every candidate."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.keras_tools.layers import Array
from litelambda.recipe.compression import Auto
from litelambda.recipe.sections import Recipe
from litelambda.search.acceptance import TrialResult
from litelambda.search.candidates import Candidate

_RECOMPUTED = ("cost", "passes")


class SearchState:
    """The folder of `compress.auto.state`; keeps nothing where the recipe names none.

    A candidate's key is made of everything that it depends on: the trained weights, the recipe's other sections, its
    own steps and those before. So a folder may serve several recipes, and a changed recipe finds nothing old.
    """

    def __init__(self, recipe: Recipe, auto: Auto, model: Any) -> None:
        self._folder: Path | None = recipe.resolve(auto.state) if auto.state else None
        sections = (recipe.data, recipe.train, recipe.quantize)
        start = hashlib.sha256(json.dumps([section.to_json() for section in sections]).encode())
        for weights in model.get_weights():
            start.update(np.ascontiguousarray(weights).tobytes())
        self._start = start.hexdigest()

    def load(self, candidate: Candidate) -> TrialResult | None:
        """What an earlier search measured; None if it did not try the candidate."""
        path = self._path(candidate, ".json")
        return TrialResult(**json.loads(path.read_text())) if path is not None and path.exists() else None

    def save(self, candidate: Candidate, result: TrialResult) -> None:
        """Keep what was measured."""
        fields = {name: value for name, value in asdict(result).items() if name not in _RECOMPUTED}
        self._write(self._path(candidate, ".json"), json.dumps(fields).encode())

    def has_weights(self, candidate: Candidate) -> bool:
        """Whether an earlier search trained it."""
        path = self._path(candidate, ".npz")
        return path is not None and path.exists()

    def load_weights(self, candidate: Candidate) -> tuple[list[Array], dict[str, Any]] | None:
        """The weights that an earlier search trained, and what its steps did."""
        path = self._path(candidate, ".npz")
        if path is None or not path.exists():
            return None
        with np.load(path) as arrays:
            figures = json.loads(arrays["figures"].tobytes())
            return [arrays[f"arr_{at}"] for at in range(len(arrays.files) - 1)], figures

    def save_weights(self, candidate: Candidate, weights: list[Array], figures: Mapping[str, Any]) -> None:
        """Keep a trained model."""
        path = self._path(candidate, ".npz")
        if path is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, *weights, figures=np.frombuffer(json.dumps(figures).encode(), np.uint8))
        self._write(path, buffer.getvalue())

    def _write(self, path: Path | None, content: bytes) -> None:
        """Write a file atomically."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(content)
        fresh.replace(path)

    def _path(self, candidate: Candidate, suffix: str) -> Path | None:
        if self._folder is None:
            return None
        steps = [[each.scheme, each.rows, each.steps.to_json()] for each in candidate.lineage]
        key = json.dumps([self._start, candidate.name, steps])
        return self._folder / (hashlib.sha256(key.encode()).hexdigest()[:24] + suffix)
