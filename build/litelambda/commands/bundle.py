"""What a function or a container has of this project and of PyPI, laid out in a folder: the bundle.

`package` zips it and `image` puts it into an image; neither knows what is in it.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from litelambda.commands.bytecode import add_bytecode
from litelambda.commands.local_function import custom_code_path
from litelambda.commands.package_parts import PARTS, Part, PartName
from litelambda.commands.wheels import (
    PYTHON_VERSION,
    add_licenses,
    add_rust_licenses,
    copy,
    copy_library,
    files,
    only,
    unpack,
)
from litelambda.common.errors import UsageError
from litelambda.common.paths import FUNCTIONS, PROJECT, SERVING
from litelambda_serving.access import Policy
from litelambda_serving.custom_code import MODULE
from litelambda_serving.native import library_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ARCHITECTURES",
    "LIBRARY",
    "NO_BYTECODE",
    "WRAPPER",
    "Architecture",
    "Function",
    "assemble",
    "check_request",
    "copy_sources",
    "file_mode",
    "find_own_files",
]

Architecture = Literal["x86_64", "arm64"]
Function = Literal["predict", "score"]

ACCESS_POLICY = "access.json"
LIBRARY = "lib/libLiteRt.so"
WRAPPER = "lean-bootstrap"
NO_BYTECODE = f"no bytecode: no CPython {PYTHON_VERSION} here; cold starts will compile every module"
"""A note of results."""

_OBSTORE = "obstore/_obstore.abi3.so"
_SHIPPED = ("*.py", "*.pem", "*.html", "*.css", "*.js")  # of this project
_NOT_RUN = {".pyi", ".pyx", ".pxd", ".c", ".cpp", ".h", ".a"}  # what a wheel has for type checkers and compilers
_NOT_SHIPPED = ("tests", "_pyinstaller", "f2py", "include", "__pycache__")  # folders of the batch handler's wheels
_EPOCH_SECONDS = 315_619_200  # 1980-01-02, UTC: `sam deploy` zips the folder in local time, which must not be 1979


@dataclasses.dataclass(frozen=True)
class _Target:
    platform: str  # of the wheels; Lambda's Amazon Linux 2023 has glibc 2.34
    budget_bytes: int  # of the predict function's zip, without a model


MACHINES: dict[Architecture, str] = {"x86_64": "x86_64", "arm64": "aarch64"}
"""As `uname` calls them."""
ARCHITECTURES: dict[Architecture, _Target] = {
    "x86_64": _Target("x86_64-manylinux_2_28", 9_000_000),
    "arm64": _Target("aarch64-manylinux_2_28", 8_000_000),
}


def check_request(arch: Architecture, parts: Sequence[PartName], function: Function) -> None:
    """Refuse what cannot be made.

    Raises:
        UsageError: no such architecture or part, or a part that the batch function has already.
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"architecture {arch!r}: expected one of {', '.join(ARCHITECTURES)}")
    if unknown := [part for part in parts if part not in PARTS]:
        raise UsageError(f"part {unknown[0]!r}: expected one of {', '.join(PARTS)}")
    if parts and function == "score":
        raise UsageError("the batch function has every part already: leave out --with")


def find_own_files(code: str | Path | None, access_policy: str | Path | None) -> dict[str, Path]:
    """The function's own files, by their names in the bundle.

    Raises:
        UsageError: the code is not a Python file.
        SettingsError: the access policy is not one.
    """
    own_files = {}
    if code is not None:
        own_files[f"{MODULE}.py"] = custom_code_path(code)
    if access_policy is not None:
        own_files[ACCESS_POLICY] = Path(access_policy).resolve()
        Policy.read(str(own_files[ACCESS_POLICY]))
    return own_files


def assemble(
    arch: Architecture,
    bundle: Path,
    wheels: Path,
    function: Function,
    parts: Sequence[PartName],
    *,
    own_files: Mapping[str, Path],
    locks: Sequence[str] = (),
) -> str | None:
    """Lay out a bundle.

    Args:
        arch: the machine that it is for.
        bundle: folder for it.
        wheels: folder for unpacked wheels; further ones are next to it.
        function: what it runs.
        parts: see `package`.
        own_files: see `find_own_files`.
        locks: files in `requirements/` whose wheels are in it whole.

    Returns:
        The version of the interpreter that compiled it, None where there is none.

    Raises:
        PackageError: wheels are not available.
    """
    unpack("functions.txt", ARCHITECTURES[arch].platform, wheels)
    copy_sources(function, bundle, MACHINES[arch])
    copy_library(wheels / _OBSTORE, bundle / _OBSTORE)
    copy_library(wheels / "ai_edge_litert" / "libLiteRt.so", bundle / LIBRARY)
    _add_licenses(bundle / "licenses", wheels)
    if function == "score":
        locks, parts = ["scoring.txt"], ["text"]  # Pillow is among its wheels
    for lock in locks:
        _add_wheels(arch, lock, bundle, wheels.with_name(f"{lock}-wheels"))
    for name in parts:
        _add_part(arch, bundle, wheels.with_name(f"{name}-wheels"), PARTS[name])
    for own, file in own_files.items():
        copy(file, bundle / own)
    version = add_bytecode(bundle, f"{function}.py", SERVING.name)
    for path in (bundle, *bundle.rglob("*")):
        path.chmod(0o755 if path.is_dir() else file_mode(path))
        os.utime(path, (_EPOCH_SECONDS, _EPOCH_SECONDS))
    return version


def copy_sources(function: Function, bundle: Path, machine: str) -> None:
    """Copy what a function has of this project: its handler and what that imports, and what starts them.

    Args:
        function: the batch function alone has `litelambda_serving.scoring`, and no bootstrap of its own.
        bundle: folder for them.
        machine: what is compiled is for, "x86_64" or "aarch64"; on another one the function does without.
    """
    copy(FUNCTIONS / f"{function}.py", bundle / f"{function}.py")
    for source in (path for kind in _SHIPPED for path in SERVING.rglob(kind)):
        if function == "score" or SERVING / "scoring" not in source.parents:
            copy(source, bundle / source.relative_to(SERVING.parent))
    if function == "predict":
        compiled = Path(library_path(machine))
        if compiled.exists():
            copy(compiled, bundle / compiled.relative_to(SERVING.parent))
        copy(FUNCTIONS / WRAPPER, bundle / WRAPPER)
        (bundle / WRAPPER).chmod(0o755)


def _add_wheels(arch: Architecture, lock: str, bundle: Path, wheels: Path) -> None:
    """Copy the wheels of a lock, without tests, type stubs and sources of compiled modules."""
    unpack(lock, ARCHITECTURES[arch].platform, wheels)
    add_licenses(wheels, bundle)
    for source in files(wheels):
        place = source.relative_to(wheels)
        if (
            not place.parts[0].endswith(".dist-info")
            and place.parts[0] not in ("bin", ".lock")  # commands, and uv's
            and source.suffix not in _NOT_RUN
            and not {*place.parts} & {*_NOT_SHIPPED}
        ):
            copy(source, bundle / place)


def _add_part(arch: Architecture, bundle: Path, wheels: Path, part: Part) -> None:
    """Copy the files of a part's wheels that it names."""
    unpack(part.lock, ARCHITECTURES[arch].platform, wheels)
    add_licenses(wheels, bundle)
    if part.rust:
        add_rust_licenses(wheels, part.rust, bundle / "licenses")
    for source in files(wheels):
        place = source.relative_to(wheels)
        if part.has(place):
            (copy_library if ".so" in place.suffixes else copy)(source, bundle / place)


def _add_licenses(folder: Path, wheels: Path) -> None:
    copy(PROJECT / "LICENSE", folder / "litelambda.txt")
    copy(only(wheels, "ai_edge_litert-*.dist-info/licenses/LICENSE"), folder / "ai-edge-litert.txt")
    add_rust_licenses(wheels, "obstore", folder)


def file_mode(path: Path) -> int:
    """Of a file in a bundle."""
    return 0o755 if path.name == WRAPPER else 0o644
