"""A `sam` that deploys nothing: it takes what CloudFormation would, by the parameters that the template declares."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from support.cloudformation import load

SCRIPT = f"""#!{sys.executable}
import sys

sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.sam_stand_in import main

sys.exit(main(sys.argv[1:]))
"""


def install(folder: Path) -> None:
    """Write the command into a folder."""
    script = folder / "sam"
    script.write_text(SCRIPT)
    script.chmod(0o755)


def main(arguments: list[str]) -> str | None:
    """Check the arguments of `sam deploy`; what is wrong with them, if anything is."""
    assert arguments[0] == "deploy", arguments
    declared = load(Path(arguments[arguments.index("--template-file") + 1]))["Parameters"]
    given = arguments[arguments.index("--parameter-overrides") + 1 :]
    values = {each.partition("=")[0]: "".join(shlex.split(each.partition("=")[2])) for each in given}
    problems = [f"{name}={value}" for name, value in values.items() if not _is_allowed(declared[name], value)]
    return f"not allowed by the template: {', '.join(problems)}" if problems else None


def _is_allowed(parameter: dict[str, Any], value: str) -> bool:
    """Whether CloudFormation takes a value for a parameter."""
    if parameter["Type"] == "Number":
        lowest, highest = parameter.get("MinValue", float("-inf")), parameter.get("MaxValue", float("inf"))
        if not float(lowest) <= float(value) <= float(highest):
            return False
    if "AllowedValues" in parameter and value not in map(str, parameter["AllowedValues"]):
        return False
    return bool(re.fullmatch(parameter.get("AllowedPattern", "(?s).*"), value))
