"""The clients' environments and their scripts: where they are, and how their checks are run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT

CLIENTS = Path(__file__).parents[1] / "contract" / "clients"
_TIMEOUT_S = 120


def tool(environment: str, name: str = "python") -> str:
    """Path of an executable in a client's environment; skips the test where `make test-contract` did not make it."""
    path = PROJECT / f".venv-contract-{environment}" / "bin" / name
    if not path.exists():
        pytest.skip(f"no environment .venv-contract-{environment}: `make test-contract` makes it")
    return str(path)


def checks_of(script: str) -> list[str]:
    """Names of the checks in a client's script."""
    return re.findall(r"^(?:async )?def (check_\w+)", (CLIENTS / script).read_text(), re.MULTILINE)


_results: dict[tuple[str, str], dict[str, str]] = {}


def run_checks(environment: str, script: str, address: str) -> dict[str, str]:
    """Run all checks of a script in the client's environment, once a session; what failed, by check."""
    key = (script, address)
    if key not in _results:
        command = [tool(environment), str(CLIENTS / "run_checks.py"), str(CLIENTS / script), address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        _results[key] = json.loads(done.stdout.splitlines()[-1])
    return _results[key]
