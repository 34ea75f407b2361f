"""The deployment package: what the handlers import, for one architecture, and the same bytes every time.

    <output>/function/              the bundle, as Lambda unpacks it into /var/task
        predict.py, litelambda_serving/   the handler and what it imports, as bytecode: the sources are in the wheel
        lean-bootstrap              starts them without the stock runtime client, where AWS_LAMBDA_EXEC_WRAPPER names it
        obstore/_obstore.abi3.so    the S3 client, alone: the Python package around it is not imported
        lib/libLiteRt.so            alone out of the runtime's wheel, a seventh of its size
        PIL/, pillow.libs/          the decoder of pictures, with the part "images" alone
        tokenizers/…abi3.so         Hugging Face's tokenizers, with the part "text" alone
        custom_code.py              the function's own code, where there is some
        access.json                 its access policy, where there is one
        licenses/                   whose work this is
    <output>/function-<arch>.zip    the same, zipped

The bundle does not depend on the machine that makes it, with one exception that the result names: bytecode needs the
interpreter it is for. Bytecode is `unchecked-hash`: zip tools change the modification times that Python would compare
otherwise, and /var/task is read-only, so that it would compile every module in every cold start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
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
from litelambda.common.errors import PackageError, UsageError
from litelambda.common.paths import FUNCTIONS, PROJECT, SERVING
from litelambda_serving.access import Policy
from litelambda_serving.custom_code import MODULE
from litelambda_serving.json_numbers import library_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ARCHITECTURES",
    "NO_BYTECODE",
    "PARTS",
    "PYTHON_VERSION",
    "Architecture",
    "Function",
    "PackageResult",
    "PartName",
    "assemble",
    "check_request",
    "copy_sources",
    "find_own_files",
    "package",
]

Architecture = Literal["x86_64", "arm64"]
Function = Literal["predict", "score"]

ACCESS_POLICY = "access.json"
LIBRARY = "lib/libLiteRt.so"
WRAPPER = "lean-bootstrap"

_OBSTORE = "obstore/_obstore.abi3.so"
_SCORE_BUDGET_BYTES = 50_000_000  # what Lambda takes without a bucket
_SHIPPED = ("*.py", "*.pem", "*.html", "*.css", "*.js")  # of this project
_NOT_RUN = {".pyi", ".pyx", ".pxd", ".c", ".cpp", ".h", ".a"}  # what a wheel has for type checkers and compilers
_NOT_SHIPPED = ("tests", "_pyinstaller", "f2py", "include", "__pycache__")  # folders of the batch handler's wheels
NO_BYTECODE = f"no bytecode: no CPython {PYTHON_VERSION} here; cold starts will compile every module"
"""A note of results."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name
_EPOCH_SECONDS = 315_619_200  # a day later, UTC: `sam deploy` zips the folder in local time, which must not be 1979
_COMPRESSION_LEVEL = 9


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


@dataclasses.dataclass(frozen=True)
class PackageResult:
    """What was made.

    Attributes:
        arch: x86_64 or arm64.
        directory: the bundle as a folder.
        archive: the bundle as a zip.
        size_bytes: of the zip.
        unpacked_bytes: of the folder's files.
        sha256: of the zip, in hex.
        bytecode: the version of the interpreter that compiled the bytecode, None when there is none in the bundle.
        notes: what a person should know, a sentence each.
    """

    arch: Architecture
    directory: Path
    archive: Path
    size_bytes: int
    unpacked_bytes: int
    sha256: str
    bytecode: str | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The document that `litelambda package --json` prints."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }


def package(
    arch: Architecture,
    output: str | Path,
    function: Function = "predict",
    parts: Sequence[PartName] = (),
    *,
    code: str | Path | None = None,
    access_policy: str | Path | None = None,
) -> PackageResult:
    """Make the deployment package of a function.

    Args:
        arch: the function's architecture; any machine can make either.
        output: folder for `function/` (replaced if it is a bundle) and `function-<arch>.zip`.
        function: the batch function ("score") has every part, numpy, orjson and Powertools on top of what predicts.
        parts: what the predict function has on top, for models that need it: "images", the decoder of pictures; "text",
            the tokenizers.
        code: a file with `preprocess`, `postprocess` or both, which the function runs before and after the model.
        access_policy: a file that says who may do what, which the function reads where ACCESS_POLICY is `access.json`.

    Returns:
        Where the bundle and its zip lie, their sizes and the zip's digest.

    Raises:
        PackageError: the wheels are not available, or the zip is beyond its size budget.
        UsageError: no such architecture or part, or `<output>/function` is something else than a bundle.
        SettingsError: the access policy is not one.

    Example:
        >>> package("mips", Path("dist"))
        Traceback (most recent call last):
        litelambda.common.errors.UsageError: architecture 'mips': expected one of x86_64, arm64
    """
    check_request(arch, parts, function)
    own_files = find_own_files(code, access_policy)
    output = Path(output)
    directory, archive = output / "function", output / f"function-{arch}.zip"
    if directory.exists() and not (directory / LIBRARY).exists():
        raise UsageError(f"{directory} is in the way: it is not a bundle made by this command. Choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".package-") as scratch:
        bundle = Path(scratch, "function")
        bytecode = assemble(arch, bundle, Path(scratch, "wheels"), function, parts, own_files=own_files)
        zipped = Path(scratch, "function.zip")
        _zip(bundle, zipped)
        _check_budget(arch, bundle, zipped, function, parts)
        if directory.exists():
            shutil.rmtree(directory)
        bundle.rename(directory)
        zipped.replace(archive)
    notes = () if bytecode else (NO_BYTECODE,)
    return PackageResult(
        arch=arch,
        directory=directory,
        archive=archive,
        size_bytes=archive.stat().st_size,
        unpacked_bytes=sum(path.stat().st_size for path in files(directory)),
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        bytecode=bytecode,
        notes=notes,
    )


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
        path.chmod(0o755 if path.is_dir() else _file_mode(path))
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


def _zip(bundle: Path, archive: Path) -> None:
    """Zip the bundle with nothing in it that differs from run to run."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as target:
        for path in files(bundle):
            entry = zipfile.ZipInfo(path.relative_to(bundle).as_posix(), _EPOCH)
            entry.create_system = 3  # Unix, whatever this is
            entry.external_attr = (stat.S_IFREG | _file_mode(path)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, path.read_bytes(), compresslevel=_COMPRESSION_LEVEL)


def _check_budget(
    arch: Architecture, bundle: Path, archive: Path, function: Function, parts: Sequence[PartName]
) -> None:
    size = archive.stat().st_size
    budget = ARCHITECTURES[arch].budget_bytes if function == "predict" else _SCORE_BUDGET_BYTES
    budget += sum(PARTS[name].budget_bytes for name in parts)
    if size > budget:
        largest = sorted(files(bundle), key=lambda path: -path.stat().st_size)[:5]
        names = ", ".join(f"{path.relative_to(bundle)} {path.stat().st_size:,}" for path in largest)
        raise PackageError(f"the {arch} zip has {size:,} bytes, the budget is {budget:,}. Largest unpacked: {names}")


def _file_mode(path: Path) -> int:
    return 0o755 if path.name == WRAPPER else 0o644
