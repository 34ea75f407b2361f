"""Trials: what came of the candidates of a search, which of them no other beats, and what is kept of them on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from litelambda.compress_sections import Auto
from litelambda.sections import Recipe
from litelambda.stages.candidates import Candidate
from litelambda.stages.train import Trained


@dataclass(frozen=True)
class Tried:
    """What came of a candidate.

    Attributes:
        name: the candidate's.
        scheme: how it was quantized.
        accuracy: on the validation rows, in int8 where that is its scheme.
        stored: bytes, compressed.
        raw: bytes of the flatbuffer.
        latency: microseconds for a row in the shipped runtime.
        cost: what is minimised, 1 for the float model.
        problem: why there is nothing else; "" where there is.
    """

    name: str
    scheme: str
    accuracy: float = 0.0
    stored: int = 0
    raw: int = 0
    latency: float = 0.0
    cost: float = float("inf")
    problem: str = ""


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other beats: none is as accurate and as small, raw and stored, and as fast, and better in one."""

    def figures(each: Tried) -> tuple[float, ...]:
        return (-each.accuracy, each.stored, each.raw, each.latency)

    ran = [each for each in tried if not each.problem]
    return [
        each
        for each in ran
        if not any(
            figures(other) != figures(each) and all(a <= b for a, b in zip(figures(other), figures(each), strict=True))
            for other in ran
        )
    ]


class State:
    """What was tried, on disk; nothing where the recipe names no folder."""

    def __init__(self, recipe: Recipe, auto: Auto, trained: Trained) -> None:
        self._folder: Path | None = recipe.resolve(auto.state) if auto.state else None
        start = hashlib.sha256(json.dumps([recipe.train.to_json(), recipe.quantize.to_json()]).encode())
        for weights in trained.model.get_weights():
            start.update(np.ascontiguousarray(weights).tobytes())
        self._start = start.hexdigest()

    def load(self, candidate: Candidate) -> Tried | None:
        """What an earlier search found, None if it did not get there."""
        path = self._path(candidate)
        return Tried(**json.loads(path.read_text())) if path is not None and path.exists() else None

    def save(self, candidate: Candidate, tried: Tried) -> None:
        """Keep what was found, whole or not at all."""
        path = self._path(candidate)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = {name: value for name, value in asdict(tried).items() if name != "cost"}
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(fields))
        fresh.replace(path)

    def _path(self, candidate: Candidate) -> Path | None:
        if self._folder is None:
            return None
        key = json.dumps([self._start, candidate.name, candidate.scheme, candidate.settings.to_json()])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
