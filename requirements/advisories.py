"""Look the locked packages up in OSV's advisories, with pip-audit: `python requirements/advisories.py PIP-AUDIT LOCK…`.

Where OSV cannot be reached nothing is looked up, which is said and is not a failure: a machine without the internet
can still run `make check`. The first lock is the probe; the others follow where it was answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROBE_S = 10
LOCK_S = 120


def look_up(pip_audit: str, lock: Path, seconds: float) -> list[dict[str, Any]]:
    """What pip-audit says of each package of a lock.

    Raises:
        ConnectionError: it could not ask, or got no answer in time.
    """
    options = ["--vulnerability-service", "osv", "--timeout", "5", "--format", "json", "--progress-spinner", "off"]
    command = [pip_audit, *options, "--no-deps", "--disable-pip", "--requirement", str(lock)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603 - ours
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(f"no answer within {seconds:g} s") from error
    except ValueError as error:
        raise ConnectionError((done.stderr.strip().splitlines() or ["no answer"])[-1][:300]) from error
    return packages


def main(pip_audit: str, locks: list[str]) -> int:
    """Look all locks up; 1 where an advisory names a package of them."""
    packages: dict[str, dict[str, Any]] = {}
    for number, lock in enumerate(locks):
        try:
            found = look_up(pip_audit, Path(lock), LOCK_S if number else PROBE_S)
        except ConnectionError as error:
            print(f"advisories: {lock} and those after it are NOT looked up, OSV cannot be reached: {error}")
            break
        packages |= {f"{each['name']} {each.get('version', '')}": each for each in found}
    unknown = [name for name, each in packages.items() if "skip_reason" in each]
    named = {name: each["vulns"] for name, each in packages.items() if each.get("vulns")}
    for name, advisories in named.items():
        for each in advisories:
            fixed = ", ".join(each.get("fix_versions", ())) or "no version yet"
            print(f"advisories: {name}: {each['id']}, fixed in {fixed}")
    if packages:
        print(f"advisories: {len(packages) - len(unknown)} packages looked up, {len(named)} of them named")
    return 1 if named else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
