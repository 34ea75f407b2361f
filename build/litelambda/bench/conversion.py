"""`litelambda bench conversion`: what becomes of each architecture and kind of layer on its way to int8.

    litelambda bench conversion --markdown build/CONVERSION.md

Every model goes through the build's own stages (quantize, verify, latency) in a process with limits, so that one that
crashes TensorFlow or exhausts the memory is a row of the table. Rows are kept in a state file as they are made: an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from litelambda.bench.conversion_cases import Case, choose
from litelambda.bench.conversion_child import run_case
from litelambda.bench.conversion_table import markdown
from litelambda.bench.machine import describe_machine
from litelambda.bench.report import Progress
from litelambda.common.errors import UsageError
from litelambda.common.processes import describe_exit

_TOOLS = ("litelambda", "keras", "tensorflow", "ai-edge-litert")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert the chosen models, but for those whose rows the state file has.

    Returns:
        `cases` by name, each with `family`, `parameters`, `float_ops`, `size_bytes`, `difference`, `latency_us` and
        `batching`, or `error` and `instead`; `tools` with their versions; `machine`; `kept`, the number of rows that
        an earlier run made.

    Raises:
        UsageError: no such model, or a limit is impossible.
    """
    if args.memory_gb <= 0 or args.timeout_s <= 0:
        raise UsageError("bench conversion takes --memory-gb and --timeout-s above 0")
    cases = choose(args.model, every=args.all)
    tools = {name: version(name) for name in _TOOLS}
    rows = {} if args.fresh else _read_state(args.state, tools)
    missing = [case for case in cases if case.name not in rows]
    with Progress("conversions", len(missing)) as progress:
        for case in missing:
            progress.step(case.name)
            rows[case.name] = {"family": case.family, **_convert(case, args)}
            _write_state(args.state, tools, rows)
    result = {
        "cases": {case.name: rows[case.name] for case in cases},
        "tools": tools,
        "machine": describe_machine() | {"int8_instructions": _int8_instructions()},
        "kept": len(cases) - len(missing),
    }
    if args.markdown is not None:
        args.markdown.write_text(markdown(result), encoding="utf-8")
    return result


def _convert(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["litelambda.bench.conversion_preload"])
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        folder = Path(scratch)
        child = context.Process(target=run_case, args=(case.name, args.memory_gb, folder))
        child.start()
        try:
            child.join(args.timeout_s)
        finally:
            child.kill()
            with contextlib.suppress(ProcessLookupError):  # nobody is left of its group
                os.killpg(cast(int, child.pid), signal.SIGKILL)
            child.join()
        if (folder / "result.json").exists():
            row: dict[str, Any] = json.loads((folder / "result.json").read_text())
            return row
        lines = (folder / "stderr").read_text(errors="replace").strip().splitlines() or ["nothing on stderr"]
    if child.exitcode == -signal.SIGKILL:
        return {"error": f"not done after {args.timeout_s:g} s, or killed for want of memory", "instead": None}
    ended = f"its process ended ({describe_exit(child.exitcode or 0)}, {args.memory_gb:g} GB allowed)"
    return {"error": f"{ended}: {lines[-1][:300]}", "instead": None}


def _int8_instructions() -> list[str]:
    """The processor's dot products of bytes, as Linux calls them: without any, int8 is hardly faster than float."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text(errors="replace").split()) if cpuinfo.exists() else set()
    return [name for name in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm") if name in flags]


def _read_state(path: Path, tools: Mapping[str, str]) -> dict[str, Any]:
    """The rows of an earlier run with the same versions of the tools."""
    try:
        state = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{path} is no state of a conversion benchmark: {error}; --fresh ignores it") from error
    rows: dict[str, Any] = state["rows"] if state.get("tools") == tools else {}
    return rows


def _write_state(path: Path, tools: Mapping[str, str], rows: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"tools": tools, "rows": rows}, indent=1))
    temporary.replace(path)
