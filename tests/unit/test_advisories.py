"""Advisories are looked up where they can be reached; where not, that is said, and nothing is called safe."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from litelambda.common.paths import REQUIREMENTS

CLEAN = '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "unknown"}]}'
NAMED = '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}'


def run(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code with a pip-audit that does this, in Python."""
    fake = tmp_path / "pip-audit"
    fake.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    fake.chmod(0o755)
    main = runpy.run_path(str(REQUIREMENTS / "advisories.py"))["main"]
    if "sleep" in script:
        monkeypatch.setitem(main.__globals__, "PROBE_S", 0.2)
    code: int = main(str(fake), ["first.txt", "second.txt"])
    return code


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (f"print('''{CLEAN}''')", 0, "1 packages looked up, 0 of them named"),
        (f"print('''{NAMED}'''); sys.exit(1)", 1, "a 1: CVE-1, fixed in 2"),
        (
            "sys.exit('no route to host')",
            0,
            "first.txt and those after it are NOT looked up, OSV cannot be reached: no",
        ),
        ("time.sleep(60)", 0, "NOT looked up, OSV cannot be reached: no answer within 0.2 s"),
        (f"'second.txt' in sys.argv and sys.exit('away')\nprint('''{CLEAN}''')", 0, "second.txt and those after it"),
    ],
    ids=["clean", "named", "unreachable", "silent", "gone"],
)
def test_what_is_said_of_advisories(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    code: int,
    said: str,
) -> None:
    """An advisory fails the check; no answer, or none in time, does not, and is told apart from nothing found."""
    assert run(tmp_path, script, monkeypatch) == code
    out = capsys.readouterr().out
    assert said in out
    assert ("looked up, 0 of them named" in out) == ("dependencies" in script and code == 0)
