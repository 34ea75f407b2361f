"""The distribution, installed where there is no checkout, without extras: what needs no TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from litelambda.commands.package import package
from litelambda.common.interpreters import find_interpreter
from support.golden_store import GOLDEN, publish
from support.wheel import Installed, build_wheel, installed, needs_wheel, run_uv

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_wheel, pytest.mark.slow]

VERSIONS = ["3.11", "3.12", "3.13"]
COMMANDS = [
    ["init"], ["build"], ["import"], ["models"], ["alias"], ["serve"], ["predict"], ["score"], ["package"], ["deploy"],
    ["status"], ["logs"], ["rollback"], ["delete"],
    ["bench", "cold"], ["bench", "warm"], ["bench", "batch"], ["bench", "conversion"],
]  # fmt: skip
MODEL = "half_plus_two"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_wheel(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="module", params=VERSIONS)
def each_base(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The wheel without extras on a version of Python."""
    interpreter = find_interpreter(request.param)
    if interpreter is None:
        pytest.skip(f"no CPython {request.param} here")
    yield from installed(wheel, interpreter.path, "base.txt", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel without extras on this version of Python."""
    yield from installed(wheel, Path(sys.executable), "base.txt", tmp_path_factory.mktemp("base"))


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """A wheel made from the sdist has the files of one made from the checkout, byte for byte."""
    run_uv("build", "--wheel", "--out-dir", tmp_path)
    assert _contents(wheel) == _contents(tmp_path / wheel.name)


def test_it_claims_no_general_name(wheel: Path) -> None:
    """What the wheel installs at the top level bears the project's name."""
    tops = {name.partition("/")[0] for name in _contents(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"litelambda", "litelambda_serving"}


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_model_is_served_and_scores(each_base: Installed) -> None:
    """TensorFlow Serving's own example, in models/ of the current directory, answers over HTTP and scores a file."""
    publish(each_base.folder / "models", MODEL)
    body = json.dumps({"instances": [1.0, 2.0, 5.0]}).encode()
    with (
        _serving(each_base) as url,
        urllib.request.urlopen(f"{url}/v1/models/{MODEL}:predict", body, timeout=60) as response,
    ):
        assert json.loads(response.read()) == {"predictions": [2.5, 3.0, 4.5]}
    (each_base.folder / "rows.csv").write_text("x\n1\n2\n5\n")
    each_base.run("score", "rows.csv", "predictions.jsonl", "--model", MODEL)
    lines = (each_base.folder / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [2.5, 3.0, 4.5]


@contextmanager
def _serving(base: Installed) -> Iterator[str]:
    """`litelambda serve` while the block lasts: its URL."""
    command = [base.environment / "bin" / "litelambda", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=base.folder, env=base.variables, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = server.stderr.readline() if server.stderr else ""
            assert " on http://" in said
            yield said.partition(" on ")[2].split()[0]
        finally:
            server.terminate()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_has_help(base: Installed, command: list[str]) -> None:
    """Every command says what it takes, whether or not its extra is installed."""
    assert "--" in base.run(*command, "--help")


@pytest.mark.parametrize(
    ("command", "extra", "package"),
    [
        (["build", "mnist_mlp"], "build", "tensorflow"),
        (["import", str(GOLDEN / "tiny_int8.tflite"), "--name", "tiny"], "build", "tensorflow"),
        (["bench", "conversion"], "build", "tensorflow"),
        (["bench", "cold"], "bench", "awslambdaric"),
        (["bench", "warm"], "bench", "awslambdaric"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_missing_extra_is_named(base: Installed, command: list[str], extra: str, package: str) -> None:
    """A command that needs an extra says in one line what is missing and what to install."""
    (line,) = base.run(*command, exit_code=2).splitlines()
    assert package in line
    assert line.endswith(f"Run `pip install 'litelambda[{extra}]'`")


def test_the_python_interface_names_a_missing_extra(base: Installed) -> None:
    """Without the extra what serves and scores is imported, and what builds says what to install."""
    code = """
import litelambda
from litelambda import Store, package, score, serve
try:
    litelambda.build
except litelambda.LitelambdaError as error:
    print(error)
"""
    python = base.environment / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code], cwd=base.folder, env=base.variables, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("Run `pip install 'litelambda[build]'`\n"), done.stderr


def test_models_and_aliases(base: Installed) -> None:
    """A store is listed, and its aliases move."""
    publish(base.folder / "models", MODEL)
    base.run("alias", MODEL, "stable", "1")
    (model,) = json.loads(base.run("models", "--json"))
    assert (model["model"], model["aliases"]) == (MODEL, {"latest": 1, "stable": 1})


def test_the_deployment_package_is_the_checkouts(base: Installed, tmp_path: Path) -> None:
    """Handlers, what they import and the locks that travel make the package that a checkout makes, byte for byte."""
    made = json.loads(base.run("package", "--arch", "x86_64", "--output", "out", "--json"))
    assert made["sha256"] == package("x86_64", tmp_path).sha256
