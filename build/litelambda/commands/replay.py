"""Sends captured requests to another version, and says row by row what it answers otherwise."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.commands.answers import decision, difference, rows_of_answer
from litelambda.commands.asked_model import AskedModel, AskedService, StoredModel
from litelambda.commands.captures import CapturedRequest, read_capture
from litelambda.commands.predict import check_code
from litelambda.common.errors import DataError
from litelambda.common.paths import DEFAULT_STORE
from litelambda.common.wording import counted

if TYPE_CHECKING:
    from litelambda.client import Client

__all__ = ["ReplayResult", "own_path", "replay"]


@dataclass(order=True)
class Change:
    """A row that is answered otherwise, or a request that is refused.

    Attributes:
        difference: the largest between its numbers; infinite for a refusal, or where the values are not comparable.
        event_id: of the request.
        row: in the request.
        before: what the answer said: the place of the largest value, or text; None for a single number.
        after: the same of the other version.
        message: why a request was refused.
    """

    difference: float
    event_id: str
    row: int
    before: Any = field(compare=False, default=None)
    after: Any = field(compare=False, default=None)
    message: str = field(compare=False, default="")

    def to_json(self) -> dict[str, Any]:
        """For `--json`; null for an infinite difference, which JSON has no word for."""
        found = {**vars(self), "difference": self.difference if math.isfinite(self.difference) else None}
        return found if self.message else {name: value for name, value in found.items() if name != "message"}


@dataclass
class ReplayResult:
    """What a replay found.

    Attributes:
        model: what was asked.
        requests: that were sent.
        refused: of them, those that it refused.
        rows: that were compared.
        changed: of them, those whose numbers differ by more than the tolerance, or whose text does.
        flipped: of them, those that say another class.
        largest_difference: between two numbers.
        changes: the largest ones, the largest first.
    """

    model: str
    requests: int = 0
    refused: int = 0
    rows: int = 0
    changed: int = 0
    flipped: int = 0
    largest_difference: float = 0.0
    changes: list[Change] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether it answers every request as before."""
        return not (self.refused or self.changed or self.flipped)

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda replay --json` prints."""
        largest = self.largest_difference if math.isfinite(self.largest_difference) else None
        changes = [change.to_json() for change in self.changes]
        return {**vars(self), "largest_difference": largest, "changes": changes, "same": self.is_same}

    def describe(self) -> str:
        """The same for a person: the changes, and a summary."""
        lines = [_described(change) for change in self.changes]
        lines.append(
            f"{self.model}: {counted(self.requests, 'request')}, {counted(self.rows, 'row')}: "
            f"{self.changed:,} changed, {self.flipped:,} with another class, {self.refused:,} requests refused; "
            f"largest difference {self.largest_difference:.4g}"
        )
        return "\n".join(lines)


def replay(
    capture: str | Path,
    model: str,
    *,
    store: str | Path = DEFAULT_STORE,
    code: str | Path | None = None,
    service: Client | None = None,
    tolerance: float = 0.0,
    limit: int = 20,
) -> ReplayResult:
    """Send the requests of a capture to a version, and compare its answers with those that were captured.

    Args:
        capture: a file, a folder, or an `s3://` URL; of a function or of SageMaker's data capture.
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; "" for the one that the service's URL names.
        store: where the model is: a folder, or `s3://bucket/prefix`.
        code: file with the function's own code, which runs before and after the model.
        service: asked instead of the store.
        tolerance: differences of numbers up to it are none.
        limit: how many changes are kept: the largest.

    Raises:
        UsageError: the model's name, the store or the file makes no sense.
        DataError: the capture cannot be read.
        ServiceError: the service does not answer, or it does not let the caller in.
        ServingError: the model or the code cannot be loaded.

    Example::

        from litelambda.commands.replay import replay

        result = replay("captured/", "fruit:8", store="models")
        print(result.flipped, "of", result.rows)
    """
    check_code(code, service)
    asked: AskedModel = AskedService(service, model) if service else StoredModel(model, store, code)
    result = ReplayResult(f"{service.url}/v1/models/{service.path_of(model)}" if service else model)
    largest: list[Change] = []
    for request in read_capture(capture):
        result.requests += 1
        for change in _changes(request, asked, result, tolerance):
            (heapq.heappush if len(largest) < limit else heapq.heappushpop)(largest, change)
    result.changes = sorted(largest, reverse=True) if limit else []
    return result


def _changes(request: CapturedRequest, asked: AskedModel, result: ReplayResult, tolerance: float) -> list[Change]:
    """Ask again, and count what changed."""
    headers = {"content-type": request.content_type}
    if request.length:
        headers["inference-header-content-length"] = request.length
    answer = asked.ask(own_path(request.path), headers, request.body)
    if answer.status != 200:
        result.refused += 1
        message = f"{answer.status}: {answer.body.decode(errors='replace')[:300]}"
        return [Change(math.inf, request.event_id, 0, message=message)]
    try:
        before = rows_of_answer(request.answer, request.answer_length)
        after = rows_of_answer(answer.body, answer.length)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"the answer to {request.event_id} is not a prediction: {type(error).__name__}: {error}"
        ) from error
    if len(before) != len(after):
        result.changed += 1
        message = f"{len(before)} rows before, {len(after)} now"
        return [Change(math.inf, request.event_id, 0, message=message)]
    changes = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        result.rows += 1
        apart, said, says = difference(old, new), decision(old), decision(new)
        result.largest_difference = max(result.largest_difference, apart)
        result.changed += apart > tolerance
        result.flipped += said != says
        if apart > tolerance or said != says:
            changes.append(Change(apart, request.event_id, number, said, says))
    return changes


def own_path(path: str) -> str:
    """What comes after the model in a captured path; what SageMaker captured is a prediction of V1."""
    if path.startswith("/v2/"):
        return "/infer"
    verb = path.rpartition(":")[2] if path.startswith("/v1/") else ""
    return f":{verb or 'predict'}"


def _described(change: Change) -> str:
    where = f"{change.event_id} row {change.row}"
    if change.message:
        return f"{where}: {change.message}"
    said = f"{change.before} -> {change.after}, " if change.before != change.after else ""
    return f"{where}: {said}difference {change.difference:.4g}"
