"""One worker's own work: a chunk decoded, run through the model, and encoded."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from litelambda_serving.scoring.errors import reading_input
from litelambda_serving.scoring.formats.base import RowSchema, output_array
from litelambda_serving.scoring.formats.values import NotFiniteError
from litelambda_serving.scoring.running.row_runner import RowRunner
from litelambda_serving.scoring.running.tally import PredictionHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.scoring.formats.base import Chunk, DecodedRows, Decoder, Writer
    from litelambda_serving.scoring.running.explaining import RowExplainer

__all__ = ["Processor", "Scored", "WorkerSpec"]


@dataclass
class WorkerSpec:
    """All that a worker needs to know; pickled on its way to one.

    Attributes:
        artifact: the flatbuffer.
        manifest: its manifest.
        decoder: of the input's format.
        writer: of the output's format, `begin` called.
        assets: contents of the manifest's assets, where rows are explained.
        explain: how many of each row's strongest attributions the output has; None for none.
        prepared: whether rows are the model's own values.
    """

    artifact: bytes
    manifest: Manifest
    decoder: Decoder
    writer: Writer
    assets: Mapping[str, bytes] = field(default_factory=dict)
    explain: int | None = None
    prepared: bool = False


@dataclass(slots=True)
class Scored:
    """The result of a chunk.

    Attributes:
        output: encoded predictions.
        errors: encoded bad rows.
        rows_out: rows with a prediction.
        rows_bad: rows without.
        tally: distribution of the predictions.
        batch_size: the one in use.
        seconds: time taken.
        position: the chunk's.
        progress_bytes: the chunk's.
    """

    output: bytes | memoryview
    errors: bytes
    rows_out: int
    rows_bad: int
    tally: dict[str, dict[str, Any]]
    batch_size: int
    seconds: float
    position: dict[str, Any] = field(default_factory=dict)
    progress_bytes: int = 0


# Compiled models between two jobs: a function that gets many small files compiles once. One version at a time.
_idle: list[tuple[tuple[str, str], RowRunner]] = []
_idle_lock = threading.Lock()


def _take(key: tuple[str, str]) -> RowRunner | None:
    with _idle_lock:
        for index, (found, runner) in enumerate(_idle):
            if found == key:
                del _idle[index]
                return runner
    return None


def _give_back(key: tuple[str, str], runner: RowRunner) -> None:
    with _idle_lock:
        _idle[:] = [entry for entry in _idle if entry[0] == key]
        _idle.append((key, runner))


class Processor:
    """Scores chunks with a model of its own."""

    def __init__(self, spec: WorkerSpec) -> None:
        manifest = spec.manifest
        key = manifest.default_signature
        self._model = RowSchema.of(manifest, prepared=True)  # its outputs alone
        self._histogram = PredictionHistogram(self._model)
        self._decoder, self._writer = spec.decoder, spec.writer
        self._key = (manifest.sha256, key)
        self._runner = _take(self._key) or RowRunner(spec.artifact, manifest, key)
        self._explainer: RowExplainer | None = None
        if spec.explain is not None:
            from litelambda_serving.scoring.running.explaining import RowExplainer

            self._explainer = RowExplainer(spec.artifact, manifest, spec.assets, spec.explain, prepared=spec.prepared)

    def score(self, chunk: Chunk) -> Scored:
        """Score one chunk.

        Raises:
            InputError: the chunk as a whole is not what it should be.
            LiteRtError: the runtime failed.
        """
        # Rows are looked at for what is not finite by arithmetic on all of them, of which numpy would warn.
        with np.errstate(all="ignore"), reading_input():  # of a local array, the rows are read in here
            return self._score(chunk)

    def _score(self, chunk: Chunk) -> Scored:
        started = time.perf_counter()
        rows = self._decoder.decode(chunk)
        try:
            parts = self._run(rows)
        except NotFiniteError:
            chunk.payload.straight = False
            rows = self._decoder.decode(chunk)
            parts = self._run(rows)
        count = len(rows.ids)
        outputs = []
        if count:
            outputs = [
                output_array(data[0] if len(data) == 1 else b"".join(data), spec)
                for data, spec in zip(zip(*parts, strict=True), self._model.outputs, strict=True)
            ]
        encoded = self._writer.encode(rows, outputs, self._decoder.id_name)
        name = self._decoder.id_name
        errors = [
            orjson.dumps({name: bad.id, "reason": bad.reason}, option=orjson.OPT_APPEND_NEWLINE) for bad in rows.bad
        ]
        return Scored(
            encoded,
            b"".join(errors),
            len(rows.ids),
            len(rows.bad),
            self._histogram.tally(outputs) if count else {},
            self._runner.best or 1,
            time.perf_counter() - started,
            chunk.position,
            chunk.progress_bytes,
        )

    def _run(self, rows: DecodedRows) -> list[list[bytearray]]:
        """The outputs of each piece of the rows; those that the model refuses become bad ones."""
        parts, refused, start = [], dict[int, str](), 0
        read: list[list[bytes]] = []
        for count, columns in rows.pieces:
            if count:
                outputs, reasons = self._runner.run(columns, count)
                parts.append(outputs)
                if self._explainer is not None:
                    read.append(self._explainer.read(columns, count, reasons))
                refused |= {start + place: reason for place, reason in reasons.items()}
                start += count
        if refused:
            rows.refuse(refused)
        if self._explainer is not None and read:
            inputs = [b"".join(each) for each in zip(*read, strict=True)]
            rows.explanations = self._explainer.explain(inputs, rows.fields)
        return parts

    def close(self) -> None:
        """Leave the compiled model, and what was measured of it, to the next job."""
        _give_back(self._key, self._runner)
