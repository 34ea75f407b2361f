"""`litelambda bench conversion`: how each architecture and kind of layer converts to int8.

    litelambda bench conversion --markdown build/CONVERSION.md

Every model goes through the build's own stages (quantize, verify, latency) and is compared with Keras' own predictions.
That happens in a child process with limits, so that a model that crashes TensorFlow or exhausts the memory is a row of
the table. Rows are kept in a state file as they are made: an interrupted run resumes there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litelambda.bench.conversion.cases import Case, choose
from litelambda.bench.conversion.table import markdown, show
from litelambda.bench.report import describe_machine
from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import UsageError
from litelambda.common.extras import require_extra
from litelambda.common.progress import open_reporter

__all__ = ["Options", "run", "show"]

_TOOLS = ("litelambda", "keras", "tensorflow", "ai-edge-litert")


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench conversion --help` says what each means."""

    models: Sequence[str]
    every: bool
    image_size: int | None
    markdown: Path | None
    state: Path
    fresh: bool
    memory_gb: float
    timeout_s: float


def run(options: Options) -> dict[str, Any]:
    """Convert the chosen models, except those whose rows the state file has.

    Returns:
        `cases` by name, each with `family`, `parameters`, `float_ops`, `size_bytes`, `difference`, `latency_us` and
        `batching`, or `error` and `instead`; the `command`; `settings`, which are the versions of the tools and the
        limit on image sizes; `machine`; `kept`, the number of rows that an earlier run made.

    Raises:
        UsageError: no such model, or a limit is impossible.
    """
    if options.memory_gb <= 0 or options.timeout_s <= 0:
        raise UsageError("bench conversion takes --memory-gb and --timeout-s above 0")
    require_extra("build")
    cases = choose(options.models, every=options.every, image_size=options.image_size)
    settings = {"tools": {name: version(name) for name in _TOOLS}, "image_size": options.image_size}
    rows = {} if options.fresh else _read_state(options.state, settings)
    missing = [case for case in cases if case.name not in rows]
    reporter = open_reporter(terminal_only=True)
    with ChildProcess(timeout_s=options.timeout_s) as process, reporter.stage("conversions") as stage:
        for index, case in enumerate(missing):
            stage.progress(index / len(missing), case.name)
            rows[case.name] = {"family": case.family, **_convert(case, options, process)}
            _write_state(options.state, settings, rows)
    result = {
        "cases": {case.name: rows[case.name] for case in cases},
        "command": _command(options),
        "settings": settings,
        "machine": describe_machine() | {"int8_instructions": _int8_instructions()},
        "kept": len(cases) - len(missing),
    }
    if options.markdown is not None:
        options.markdown.write_text(markdown(result), encoding="utf-8")
    return result


def _command(options: Options) -> str:
    """What makes the documentation that is in the repository."""
    image_size = f" --image-size {options.image_size}" if options.image_size else ""
    return f"litelambda bench conversion{' --all' if options.every else ''}{image_size} --markdown build/CONVERSION.md"


def _convert(case: Case, options: Options, process: ChildProcess) -> dict[str, Any]:
    from litelambda.bench.conversion.child import convert_case  # needs the extra that `run` asked for

    try:
        return process.call(convert_case, case.name, options.image_size, int(options.memory_gb * 2**30))
    except TimeoutError as error:
        return {"error": str(error), "instead": None}
    except ChildCrashError as error:
        said = error.last_line or "nothing on stderr"
        ended = f"its process ended ({error.ended}, {options.memory_gb:g} GB allowed): {said}"
        return {"error": ended, "instead": None}


def _int8_instructions() -> list[str]:
    """The processor's dot products of bytes, as Linux calls them: without any, int8 is hardly faster than float."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text(errors="replace").split()) if cpuinfo.exists() else set()
    return [name for name in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm") if name in flags]


def _read_state(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of an earlier run with the same settings."""
    try:
        state = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{path} is not a state of a conversion benchmark: {error}; --fresh ignores it") from error
    rows: dict[str, Any] = state["rows"] if state.get("settings") == settings else {}
    return rows


def _write_state(path: Path, settings: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))
    temporary.replace(path)
