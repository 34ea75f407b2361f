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
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from litelambda.commands.bundle import (
    ARCHITECTURES,
    LIBRARY,
    MACHINES,
    NO_BYTECODE,
    WRAPPER,
    Architecture,
    Function,
    assemble,
    check_request,
    file_mode,
    find_own_files,
)
from litelambda.commands.package_parts import PARTS, PartName
from litelambda.commands.wheels import PYTHON_VERSION, files
from litelambda.common.errors import PackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ARCHITECTURES",
    "MACHINES",
    "PARTS",
    "PYTHON_VERSION",
    "WRAPPER",
    "Architecture",
    "Function",
    "PackageResult",
    "PartName",
    "package",
]

_SCORE_BUDGET_BYTES = 50_000_000  # what Lambda takes without a bucket
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name
_COMPRESSION_LEVEL = 9


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


def _zip(bundle: Path, archive: Path) -> None:
    """Zip the bundle with nothing in it that differs from run to run."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as target:
        for path in files(bundle):
            entry = zipfile.ZipInfo(path.relative_to(bundle).as_posix(), _EPOCH)
            entry.create_system = 3  # Unix, whatever this is
            entry.external_attr = (stat.S_IFREG | file_mode(path)) << 16
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
