"""The batch size that runs fastest, found by measuring it on the rows themselves.

Only sizes that the manifest's `batching` lists were proven safe: no other is ever tried.
"""

from __future__ import annotations

from statistics import median
from time import thread_time
from typing import TYPE_CHECKING

from litelambda_serving.scoring.columns import row_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.litert import CompiledModel, Signature
    from litelambda_serving.scoring.columns import Column

__all__ = ["BatchRunner"]

_SMALLEST_BATCH = 8  # between one row and this, a resize costs more than it saves
# Timed runs of each size, without the one that pays for the resize: so many that noise does not choose.
_MIN_TRIALS, _MAX_TRIALS = 3, 32
_TRIAL_SECONDS = 0.003
_MAX_RESIZES = 5  # that may be spent on getting those
_WORSE = 1.5  # how much slower than the best a size must be for larger ones not to be tried
_AS_GOOD = 1.005  # of sizes that differ by no more, the smallest: its rows stay in the core's cache
_RESIZE_SECONDS = 0.0004
_MAX_BATCH_BYTES = 64 * 1024 * 1024


class _SizeTrials:
    """The search for the fastest batch size: each is timed for some milliseconds.

    What it chooses takes 1.4 % longer than the best size, at most 5 % (25 searches with an MLP on a busy machine);
    timing those that are close again, in eight rounds, brought that to 1.1 %.

    Attributes:
        best: the fastest so far; 0 before any was timed.
        seconds: of one run, by size.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.best = 0
        self.seconds: dict[int, float] = {}
        self._untried = list(sizes)
        self._trials: list[float] = []
        self._resizes = 0

    @property
    def size(self) -> int:
        """The size to time next; 0 once the search is over."""
        return self._untried[0] if self._untried else 0

    def note(self, seconds: float, *, resized: bool) -> None:
        """Learn how long a run of that size took, and whether the model had another size before."""
        if resized:
            self._resizes += 1
        else:
            self._trials.append(seconds)
        timed = sum(self._trials) >= _TRIAL_SECONDS or len(self._trials) >= _MAX_TRIALS
        if (timed and len(self._trials) >= _MIN_TRIALS) or self._resizes >= _MAX_RESIZES:
            self._judge(median(self._trials or [seconds]))
            self._trials, self._resizes = [], 0

    def _judge(self, seconds: float) -> None:
        size = self._untried.pop(0)
        self.seconds[size] = seconds
        per_row = {each: taken / each for each, taken in self.seconds.items()}
        fastest = min(per_row.values())
        self.best = min(each for each, taken in per_row.items() if taken <= _AS_GOOD * fastest)
        if per_row[size] > _WORSE * fastest:
            self._untried.clear()


class BatchRunner:
    """Runs any number of rows through one signature."""

    def __init__(
        self, model: CompiledModel, signature_key: str, sizes: Sequence[int], spare: Sequence[bytes] | None = None
    ) -> None:
        """Make one; `spare` is a row that the model can compute with, zeros unless given."""
        self._model = model
        self.signature: Signature = model.signatures[signature_key]
        inputs, outputs = self.signature.inputs, self.signature.outputs
        self._input_bytes = [row_bytes(spec) for spec in inputs]
        self._output_bytes = [row_bytes(spec) for spec in outputs]
        self._spare = spare or [bytes(width) for width in self._input_bytes]
        row = sum(self._input_bytes) + sum(self._output_bytes)
        resizable = all(spec.batched for spec in (*inputs, *outputs))
        usable = [size for size in sizes if size >= _SMALLEST_BATCH and size * row <= _MAX_BATCH_BYTES]
        self._trials = _SizeTrials([1, *usable] if resizable else [1])
        self._current = 0

    @property
    def best(self) -> int:
        """The batch size that is in use; 0 before any was measured."""
        return self._trials.best

    def run(self, columns: Sequence[Column], count: int) -> list[bytearray]:
        """Run `count` rows.

        Args:
            columns: the rows of each input.
            count: how many rows.

        Returns:
            Per output, the rows' bytes one after the other.

        Raises:
            LiteRtError: the runtime failed.
        """
        outputs = [bytearray(count * width) for width in self._output_bytes]
        start = 0
        while 0 < self._trials.size <= count - start:
            start += self._try(columns, outputs, start)
        size = self.best or 1
        whole = start + (count - start) // size * size
        self._run(columns, outputs, range(start, whole, size))
        if whole < count:
            self._run_rest(columns, outputs, whole, count)
        return outputs

    def _try(self, columns: Sequence[Column], outputs: list[bytearray], start: int) -> int:
        """Run the size that is on trial once, and note how long it took; return it."""
        size = self._trials.size
        resized = self._current != size
        started = thread_time()
        self._run(columns, outputs, range(start, start + size, size))
        self._trials.note(thread_time() - started, resized=resized)
        return size

    def _run_rest(self, columns: Sequence[Column], outputs: list[bytearray], start: int, stop: int) -> None:
        """Run fewer rows than a batch: filled up to the size that is ready, or one by one."""
        count = stop - start
        size = self._current if self._current > count else self.best
        filled, single = self._trials.seconds.get(size, 0.0), self._trials.seconds.get(1, 0.0)
        if size > count and filled and filled <= count * single + 2 * _RESIZE_SECONDS:
            self._run_filled(columns, outputs, start, stop, size)
        else:
            self._run(columns, outputs, range(start, stop))

    def _run(self, columns: Sequence[Column], outputs: list[bytearray], starts: range) -> None:
        """Run whole batches, which begin at these rows and are as large as the step from one to the next."""
        if not starts:
            return
        size = self._current = starts.step
        runner = self._model.runner(self.signature.key, size)
        # A batch sweeps the interpreter out of the core's cache: what is done for each costs ten times what it would
        # elsewhere. So all that can be is prepared before the first.
        loads = list(zip(columns, runner.ins.views, self._input_bytes, strict=True))
        saves = [
            (memoryview(output), view, width)
            for output, view, width in zip(outputs, runner.outs.views, self._output_bytes, strict=True)
        ]
        run = runner.run
        for start in starts:
            stop = start + size
            for fill, view, width in loads:
                fill(view, start * width)
            run()
            for output, view, width in saves:
                output[start * width : stop * width] = view

    def _run_filled(
        self, columns: Sequence[Column], outputs: list[bytearray], start: int, stop: int, size: int
    ) -> None:
        """Run a batch of some rows, followed by spare ones."""
        self._current = size
        runner = self._model.runner(self.signature.key, size)
        for fill, view, width, spare in zip(columns, runner.ins.views, self._input_bytes, self._spare, strict=True):
            used = (stop - start) * width
            fill(view[:used], start * width)
            view[used:] = spare * (size - stop + start)
        runner.run()
        for output, view, width in zip(outputs, runner.outs.views, self._output_bytes, strict=True):
            memoryview(output)[start * width : stop * width] = view[: (stop - start) * width]
