"""Images: the bundle of the predict function in a folder that `docker build`, or any other builder, takes.

    <output>/container/       or lambda-image/
        Dockerfile            COPY and metadata alone: building it runs nothing and asks nothing of a network
        app/                  the bundle, as in Lambda's zip; with uvicorn for `container`
        bom.cdx.json          what is in it: CycloneDX 1.6

`container` runs `litelambda_serving.asgi` as Cloud Run and Knative want it: on PORT, until SIGTERM, as a user without
rights, on a file system that may be read-only. `lambda-image` has the lean bootstrap as its entry point.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from litelambda.commands.bundle import NO_BYTECODE, WRAPPER, assemble, check_request, find_own_files
from litelambda.commands.wheels import PYTHON_VERSION, files
from litelambda.common.errors import PackageError, UsageError
from litelambda_serving import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from litelambda.commands.bundle import Architecture
    from litelambda.commands.package_parts import PartName

__all__ = ["BASES", "ImageResult", "ImageTarget", "build_image", "make_image"]

ImageTarget = Literal["lambda-image", "container"]

BASES: dict[ImageTarget, str] = {
    "lambda-image": f"public.ecr.aws/lambda/python:{PYTHON_VERSION}",
    "container": f"docker.io/library/python:{PYTHON_VERSION}-slim",
}
BOM_NAME = "bom.cdx.json"

_PLATFORMS: dict[Architecture, str] = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
_SERVER = "server.txt"  # the lock of what a container has on top
_ROOTS: dict[ImageTarget, str] = {"lambda-image": "/var/task", "container": "/app"}
_NAMESPACE = uuid.UUID("0d2b8f4a-6a0c-4f56-9a8e-2f6f6c0f4c1d")  # of serial numbers, which follow from what is in it

_HEAD = """\
# Made by `litelambda package --target {target}`. --build-arg BASE=NAME@sha256:… pins another base.
ARG BASE={base}
FROM ${{BASE}}
LABEL org.opencontainers.image.title="litelambda" \\
      org.opencontainers.image.version="{version}" \\
      org.opencontainers.image.licenses="Apache-2.0" \\
      litelambda.sbom="{root}/{bom}"
WORKDIR {root}
COPY app/ ./
COPY {bom} ./
"""
_TAILS: dict[ImageTarget, str] = {
    "lambda-image": f"""\
ENV LAMBDA_TASK_ROOT=/var/task
ENTRYPOINT ["/var/task/{WRAPPER}", "python{PYTHON_VERSION}"]
CMD ["predict.handler"]
""",
    "container": f"""\
ENV METRICS_NAMESPACE="" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python{PYTHON_VERSION}", "-m", "litelambda_serving.asgi"]
""",
}


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """What was made.

    Attributes:
        target: lambda-image or container.
        arch: x86_64 or arm64.
        directory: the context, with the Dockerfile in it.
        base: the image that it builds on.
        unpacked_bytes: of the bundle's files.
        bytecode: the version of the interpreter that compiled the bytecode, None when there is none in the bundle.
        notes: what a person should know, a sentence each.
    """

    target: ImageTarget
    arch: Architecture
    directory: Path
    base: str
    unpacked_bytes: int
    bytecode: str | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The document that `litelambda package --json` prints."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }


def make_image(
    target: ImageTarget,
    arch: Architecture,
    output: str | Path,
    parts: Sequence[PartName] = (),
    *,
    code: str | Path | None = None,
    access_policy: str | Path | None = None,
    base: str | None = None,
) -> ImageResult:
    """Make the folder that an image is built of.

    Args:
        target: "lambda-image" for a function, "container" for everything that runs containers.
        arch: the machine that it is for.
        output: folder for `<target>/`, which is replaced if this command made it.
        parts: see `package`.
        code: see `package`.
        access_policy: see `package`.
        base: the image to build on, which has Python 3.13; None for the target's own.

    Raises:
        PackageError: the wheels are not available.
        UsageError: no such architecture or part, or `<output>/<target>` is something else than such a folder.
        SettingsError: the access policy is not one.
    """
    check_request(arch, parts, "predict")
    own_files = find_own_files(code, access_policy)
    directory, base = Path(output, target), base or BASES[target]
    if directory.exists() and not (directory / BOM_NAME).exists():
        raise UsageError(f"{directory} is in the way: it is not made by this command. Choose another --output")
    Path(output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".package-") as scratch:
        context, wheels = Path(scratch, "context"), Path(scratch, "unpacked", "wheels")
        locks = [_SERVER] if target == "container" else []
        bytecode = assemble(arch, context / "app", wheels, "predict", parts, own_files=own_files, locks=locks)
        (context / BOM_NAME).write_text(json.dumps(_bom(target, wheels.parent, context / "app"), indent=1))
        head = _HEAD.format(target=target, base=base, version=__version__, root=_ROOTS[target], bom=BOM_NAME)
        (context / "Dockerfile").write_text(head + _TAILS[target])
        for path in (context, context / BOM_NAME, context / "Dockerfile"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if directory.exists():
            shutil.rmtree(directory)
        context.rename(directory)
    return ImageResult(
        target=target,
        arch=arch,
        directory=directory,
        base=base,
        unpacked_bytes=sum(path.stat().st_size for path in files(directory / "app")),
        bytecode=bytecode,
        notes=tuple(_notes(base, bytecode)),
    )


def _notes(base: str, bytecode: str | None) -> Iterator[str]:
    if bytecode is None:
        yield NO_BYTECODE
    if "@sha256:" not in base:
        yield f"the base {base} is not pinned: its contents may change from build to build; give --base NAME@sha256:…"


def build_image(made: ImageResult, tag: str) -> None:
    """Build an image with docker.

    Args:
        made: what it is built of.
        tag: its name.

    Raises:
        PackageError: docker is not installed, or it cannot build the image.
    """
    directory = made.directory
    command = ["docker", "build", "--quiet", "--platform", _PLATFORMS[made.arch], "--tag", tag, str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    except FileNotFoundError as error:
        raise PackageError(
            f"docker is not installed, so {tag} was not built. {directory} is complete: build it with docker, or "
            "with another builder"
        ) from error
    if done.returncode:
        raise PackageError(f"docker cannot build {directory}:\n{done.stderr.strip()}")


def _bom(target: ImageTarget, unpacked: Path, app: Path) -> dict[str, Any]:
    """The bill of materials: this project, the wheels that files were taken from, and the compiled libraries."""
    libraries = [
        {"type": "file", "name": path.relative_to(app).as_posix(), "hashes": [_hash(path)]}
        for path in files(app)
        if ".so" in path.suffixes
    ]
    wheels = [_wheel(*path.name.removesuffix(".dist-info").split("-")) for path in unpacked.glob("*/*.dist-info")]
    components = [*sorted(wheels, key=lambda each: str(each["name"])), *libraries]
    content = hashlib.sha256(json.dumps(components).encode()).hexdigest()
    subject = {"type": "container", "bom-ref": "image", "name": f"litelambda {target}", "version": __version__}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": [_wheel("litelambda", __version__), *components],
    }


def _wheel(name: str, version: str) -> dict[str, object]:
    name = name.replace("_", "-").lower()
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}


def _hash(path: Path) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
