"""Wheels of another platform: fetched as a lock pins them, unpacked, and copied into a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import uv

from litelambda.commands.elf import ElfError, trim
from litelambda.common.errors import PackageError
from litelambda.common.paths import REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PYTHON_VERSION", "add_licenses", "add_rust_licenses", "copy", "copy_library", "files", "only", "unpack"]

PYTHON_VERSION = "3.13"  # the template's Runtime


def unpack(lock_name: str, platform: str, folder: Path) -> None:
    """Fetch the wheels of a lock, if need be, and unpack them; uv caches them.

    Args:
        lock_name: of the file in `requirements/`.
        platform: of the wheels, as uv names it.
        folder: where to.

    Raises:
        PackageError: they are not available.
    """
    lock = REQUIREMENTS / lock_name
    command = [
        *(uv.find_uv_bin(), "pip", "install", "--quiet", "--no-config", "--require-hashes", "--no-deps"),
        *("--python", sys.executable, "--python-version", PYTHON_VERSION, "--python-platform", platform),
        *("--only-binary", ":all:", "--target", str(folder), "--requirement", str(lock)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode:
        raise PackageError(f"the wheels locked in {lock} are not available for {platform}:\n{done.stderr.strip()}")


def add_licenses(wheels: Path, bundle: Path) -> None:
    """Copy the licenses of unpacked wheels into a bundle, a folder for each wheel."""
    for source in wheels.glob("*.dist-info/licenses/**/*"):
        if source.is_file():
            folder, _licenses, *names = source.relative_to(wheels).parts
            copy(source, bundle / "licenses" / folder.partition("-")[0] / "-".join(names))


def add_rust_licenses(wheels: Path, name: str, folder: Path) -> None:
    """Copy the license of a Rust library, whose wheel has no file of it, and list the crates that are linked into it.

    Args:
        wheels: unpacked, with the library's bill of materials.
        name: of the wheel.
        folder: where to.
    """
    copy(REQUIREMENTS / "licenses" / f"{name}.txt", folder / f"{name}.txt")
    materials = json.loads(only(wheels, f"{name}-*.dist-info/sboms/*.cyclonedx.json").read_bytes())
    crates = sorted(
        f"{crate['name']} {crate['version']}: {' '.join(entry.get('expression', '?') for entry in crate['licenses'])}\n"
        for crate in materials["components"]
        if crate.get("licenses")
    )
    (folder / f"{name}-crates.txt").write_text("".join(crates), encoding="utf-8")


def only(folder: Path, pattern: str) -> Path:
    """The file of unpacked wheels that a pattern matches.

    Raises:
        PackageError: there is none, or there are several.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise PackageError(f"the wheels have {len(found)} files {pattern}, expected one: was a lock renewed?")
    return found[0]


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted."""
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))


def copy(source: Path, target: Path) -> None:
    """Copy a file, with the folders that it lies in."""
    if not source.is_file():
        raise PackageError(f"{source} does not exist: was a lock renewed, or a file moved?")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_library(source: Path, target: Path) -> None:
    """Copy a shared library without what only debuggers read: a wheel's may be a fifth larger for it."""
    copy(source, target)
    try:
        target.write_bytes(trim(target.read_bytes()))
    except ElfError as error:
        raise PackageError(f"{source}: {error}") from error
