"""What an image is built of: the bundle, a Dockerfile that runs nothing, and a bill of materials."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from litelambda.cli.main import main
from litelambda.commands.image import BASES, ImageResult, build_image, make_image
from litelambda.common.errors import PackageError, UsageError
from litelambda.common.paths import REQUIREMENTS


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageResult]:
    """Both kinds."""
    output = tmp_path_factory.mktemp("images")
    return {target: make_image(target, "arm64", output) for target in BASES}


def locked(*names: str) -> set[tuple[str, str]]:
    """Names and versions that locks pin, but for those of Windows."""
    text = "".join((REQUIREMENTS / name).read_text() for name in names)
    return set(re.findall(r"^([\w-]+)==([\w.]+) \\$", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("target", "locks"), [("container", ("functions.txt", "server.txt")), ("lambda-image", ("functions.txt",))]
)
def test_the_bill_of_materials_is_what_the_locks_say(
    images: dict[str, ImageResult], target: str, locks: tuple[str, ...]
) -> None:
    """Every wheel that files came from is named with its version, and every compiled library with its digest."""
    directory = images[target].directory
    bom = json.loads((directory / "bom.cdx.json").read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    libraries = {(each["name"], each["version"]) for each in bom["components"] if each["type"] == "library"}
    assert {pair for pair in libraries if pair[0] != "litelambda"} == locked(*locks)
    digests = {each["name"]: each["hashes"][0]["content"] for each in bom["components"] if each["type"] == "file"}
    assert {"lib/libLiteRt.so", "obstore/_obstore.abi3.so"} <= set(digests)
    for name, digest in digests.items():
        assert hashlib.sha256((directory / "app" / name).read_bytes()).hexdigest() == digest


def test_building_runs_nothing(images: dict[str, ImageResult]) -> None:
    """A Dockerfile copies and says how to start: no command runs, so any builder does it without a network."""
    known = {"ARG", "FROM", "LABEL", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    for made in images.values():
        dockerfile = (made.directory / "Dockerfile").read_text()
        assert set(re.findall(r"^[A-Z]+", dockerfile, re.MULTILINE)) <= known
        assert f"ARG BASE={made.base}\nFROM ${{BASE}}\n" in dockerfile
    container = (images["container"].directory / "Dockerfile").read_text()
    assert "\nUSER 65532:65532\n" in container
    assert not (images["lambda-image"].directory / "app" / "uvicorn").exists()


def test_a_base_without_a_digest_is_noted(images: dict[str, ImageResult], tmp_path: Path) -> None:
    """Only a digest pins a base; what is in the way is left alone."""
    assert any("is not pinned" in note for note in images["container"].notes)
    with pytest.raises(UsageError, match="expected one of x86_64, arm64"):
        make_image("container", "mips", tmp_path)  # type: ignore[arg-type] # what a user may write
    (tmp_path / "container").mkdir()
    with pytest.raises(UsageError, match="is in the way"):
        make_image("container", "arm64", tmp_path)


def test_a_build_says_what_docker_said(
    images: dict[str, ImageResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without docker the folder is still there to be built elsewhere; where docker fails, its own words are shown."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match="docker is not installed, so mine was not built"):
        build_image(images["container"], "mine")
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >&2; exit 1\n')
    docker.chmod(0o755)
    with pytest.raises(PackageError, match="build --quiet --platform linux/arm64 --tag mine "):
        build_image(images["container"], "mine")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--tag", "mine"], "--tag is of an image: give --target lambda-image or container"),
        (["--target", "container", "--function", "score"], "--function is of a zip: the batch function has no image"),
    ],
)
def test_options_of_another_target(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that would do nothing is refused before anything is made."""
    assert main(["package", *arguments, "--output", str(tmp_path)]) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
