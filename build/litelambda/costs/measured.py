"""What is known of one artifact: times and memory, out of the JSON of `litelambda bench`.

Times are those of one whole core of the machine that measured them. It does not know what they cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.common.errors import UsageError

__all__ = ["Profile", "Spread", "make_profile", "read_documents"]

_OURS = ("litelambda_lean", "litelambda_lean_pinned", "litelambda_bundled", "litelambda")
_SECOND_MODEL = "mobilenet_v2_"
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Spread:
    """A time as it usually is, and as it is at worst: a median and the 99th percentile, or the slowest of all."""

    ms: float
    worst_ms: float


@dataclass(frozen=True)
class Profile:
    """What was measured of one artifact.

    Attributes:
        model: its name and version.
        artifact_bytes: its size.
        warm: a request, from the event to the answer.
        stock: the same on the stock runtime client, which runs under SnapStart.
        init: from the start of the process to ready.
        first: the first request.
        rss_mb: memory at its peak.
        event_bytes: the size of the request that was measured.
        rows_per_s: rows through the batch engine, on one core; None where that was not measured.
        store_ms: the time to first byte of the store that INIT was measured with.
        case: the request that was measured.
        source: the machine and the day.
        notes: what the benchmarks said of their figures, such as that the machine was busy.
    """

    model: str
    artifact_bytes: int
    warm: Spread
    stock: Spread
    init: Spread
    first: Spread
    rss_mb: float
    event_bytes: int
    rows_per_s: float | None
    store_ms: float
    case: str
    source: str
    notes: tuple[str, ...] = ()


def read_documents(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read files as `bench cold|warm|batch --json` writes them.

    Raises:
        UsageError: one cannot be read, or is not such a file.
    """
    documents: list[dict[str, Any]] = []
    for path in paths:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise UsageError(
                    f"--bench {path}: more than {_MAX_BYTES:,} bytes, which is not a file of litelambda bench"
                )
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"--bench {path}: {error}") from error
        if not isinstance(document, dict) or _kind(document) is None:
            raise UsageError(f"--bench {path}: write it with `litelambda bench cold --json`, or warm or batch")
        documents.append(document)
    return documents


def _kind(document: Mapping[str, Any]) -> str | None:
    """Which benchmark wrote a document."""
    if isinstance(document.get("handlers"), dict):
        return "cold"
    cases = document.get("cases")
    first = next(iter(cases.values()), None) if isinstance(cases, dict) else None
    if isinstance(first, dict):
        return "warm" if "p50_us" in first else "batch" if "rows_per_s" in first else None
    return None


def make_profile(documents: Sequence[Mapping[str, Any]], case: str = "json_1_row") -> Profile:
    """Put together what the benchmarks of one artifact say.

    Args:
        documents: of `bench cold` and `bench warm`, and of `bench batch` where rows are scored in batches.
        case: the request of `bench warm` to bill.

    Raises:
        UsageError: one of the two is missing, they measured different models, or have no such case.
    """
    by_kind = {_kind(document): document for document in documents}
    cold, warm = by_kind.get("cold"), by_kind.get("warm")
    if cold is None or warm is None:
        missing = "cold" if cold is None else "warm"
        raise UsageError(f"no measurement by bench {missing}: add --bench FILE of `litelambda bench {missing} --json`")
    models = {kind: document["model"] for kind, document in by_kind.items() if "model" in document}
    named = {kind: f"{model['name']} version {model['version']}" for kind, model in models.items()}
    if len({(named[kind], model.get("digest")) for kind, model in models.items()}) != 1:
        said = ", ".join(f"{kind} of {named[kind]} ({model.get('digest', '')[:12]})" for kind, model in models.items())
        raise UsageError(f"the measurements are of different models: {said}. Measure one version with each")
    try:
        return _profile(cold, warm, by_kind.get("batch"), case)
    except (KeyError, TypeError, StopIteration) as error:
        raise UsageError(f"the measurements lack {error}: write them again with this version of litelambda") from error


def _case(cases: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A request of the artifact: bench warm without --model measures a second model too, whose INIT is not known."""
    own = {key: value for key, value in cases.items() if not key.startswith(_SECOND_MODEL)}
    if name not in own:
        raise UsageError(f"--case {name}: bench warm measured {', '.join(own)} of this model")
    found: Mapping[str, Any] = own[name]
    return found


def _profile(cold: Mapping[str, Any], warm: Mapping[str, Any], batch: Mapping[str, Any] | None, name: str) -> Profile:
    times, model, machine = _case(warm["cases"], name), cold["model"], warm["machine"]
    starts = cold["handlers"][next(each for each in _OURS if each in cold["handlers"])]
    hello = times["hello_us"]
    rates = [each["rows_per_s"] for each in batch["cases"].values()] if batch else []
    return Profile(
        model=f"{model['name']} version {model['version']}",
        artifact_bytes=model["artifact_bytes"],
        warm=Spread((times["lean_us"] + hello) / 1000, (times["lean_p99_us"] + hello) / 1000),
        stock=Spread((times["p50_us"] + hello) / 1000, (times["p99_us"] + hello) / 1000),
        init=Spread(starts["init_ms"], starts["init_ms_max"]),
        first=Spread(starts["first_ms"], starts["first_ms_max"]),
        rss_mb=starts["rss_mb"],
        event_bytes=times["event_bytes"],
        rows_per_s=min(rates, default=None),
        store_ms=cold["store"]["latency_ms"],
        case=name,
        source=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
        + (f", {machine['measured']}" if "measured" in machine else ""),
        notes=(*cold.get("notes", []), *warm.get("notes", [])),
    )
