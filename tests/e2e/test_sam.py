"""SAM's own view of the template: valid, clean, and built without Docker for either architecture."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from litelambda.commands.package import ARCHITECTURES, package
from litelambda.common.paths import PROJECT
from support.sam import CFN_LINT, ENVIRONMENT, build, needs_sam, sam

if TYPE_CHECKING:
    from pathlib import Path

    from litelambda.commands.package import Architecture

pytestmark = [needs_sam, pytest.mark.slow]


def test_validate() -> None:
    """`sam validate --lint` has nothing to say against the template."""
    assert "is a valid SAM Template" in sam("validate", "--lint").stdout


def test_nested_templates_are_clean() -> None:
    """cfn-lint has nothing to say against the nested templates, which `sam validate` does not read."""
    templates = sorted((PROJECT / "infra").glob("*.yaml"))
    done = subprocess.run([CFN_LINT, *templates], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_build_ships_the_package(arch: Architecture, tmp_path: Path) -> None:
    """`sam build` ships what `litelambda package` makes, file for file, for the architecture of the parameter."""
    built = build(arch, tmp_path / "sam").parent / "PredictFunction"
    packaged = package(arch, tmp_path / "package").directory
    names = {path.relative_to(packaged) for path in packaged.rglob("*") if path.is_file()}
    assert {path.relative_to(built) for path in built.rglob("*") if path.is_file()} == names
    assert all((built / name).read_bytes() == (packaged / name).read_bytes() for name in names)
