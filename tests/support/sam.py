"""Running the SAM command line, which has an environment of its own, from the tests of `make test-sam`."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from litelambda.common.paths import PROJECT

if TYPE_CHECKING:
    from litelambda.commands.package import Architecture

SAM = PROJECT / ".venv-sam" / "bin" / "sam"
CFN_LINT = SAM.with_name("cfn-lint")
HERE: Architecture = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"
# Without credentials, wherever they may be: SAM would ask AWS whose they are.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
    "SAM_CLI_TELEMETRY": "0",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

# These take a minute, and the SAM command line's environment: they are for `make test-sam`, which says so.
needs_sam = pytest.mark.skipif(
    "LITELAMBDA_TEST_SAM" not in os.environ or not SAM.exists(), reason="run by `make test-sam`"
)
_unavailable = os.environ.get("SAM_LOCAL_UNAVAILABLE")
needs_engine = pytest.mark.skipif(_unavailable is not None, reason=f"no Docker engine with the image: {_unavailable}")


def sam(*arguments: str | Path, timeout_s: int = 300) -> subprocess.CompletedProcess[str]:
    """Run a SAM command that must succeed."""
    command = [str(SAM), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def build(arch: Architecture, folder: Path) -> Path:
    """`sam build` for an architecture; return the built template."""
    sam("build", "--parameter-overrides", f"Architecture={arch}", "--build-dir", folder)
    return folder / "template.yaml"
