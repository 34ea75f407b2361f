"""The tutorial and the README, as a reader follows them: every block for the shell is run, every answer is compared.

`LITELAMBDA_TEST_BIN=FOLDER` runs them with the `litelambda` and `python` of another environment, such as one that the
wheel was installed into.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT
from support.markdown import Block, read_blocks
from support.ports import free_port

pytestmark = pytest.mark.slow
TUTORIAL, README = PROJECT / "docs" / "tutorial.md", PROJECT / "README.md"
BIN = Path(os.environ.get("LITELAMBDA_TEST_BIN") or Path(sys.executable).parent)
_PORT = "8080"
_TIMEOUT_S = 600
_SERVE = re.compile(r"^litelambda serve .*$", re.MULTILINE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tutorial's script makes."""
    folder = tmp_path_factory.mktemp("model")
    (script,) = (block for block in read_blocks(TUTORIAL) if block.language == "python")
    (folder / script.title).write_text(script.text)
    assert run(f"python {script.title}", folder) == ""
    return folder


@pytest.mark.parametrize("page", [TUTORIAL, README], ids=["tutorial", "readme"])
def test_a_page_does_what_it_says(page: Path, model: Path, tmp_path: Path) -> None:
    """Its commands succeed in their order, from a folder of the reader's own, and answer what the page shows."""
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    follow(commands_of(page), tmp_path)
    assert (tmp_path / "models" / "fruit" / "1" / "manifest.json").is_file()


def commands_of(page: Path) -> list[Block]:
    """The blocks to run, and the answers to compare; the script has been run."""
    blocks = [block for block in read_blocks(page) if block.language in ("sh", "json")]
    assert [block.language for block in blocks].count("json") >= 1
    return [block._replace(text=block.text.replace("python make_model.py\n", "")) for block in blocks]


def follow(blocks: list[Block], folder: Path) -> None:
    """Run the blocks; from the one that starts the server on, with the server up."""
    printed = ""
    for place, block in enumerate(blocks):
        if block.language == "json":
            assert rounded(printed) == rounded(block.text)
        elif found := _SERVE.search(block.text):
            run(block.text[: found.start()], folder)
            with served(found[0], folder) as port:
                follow([each._replace(text=each.text.replace(_PORT, port)) for each in blocks[place + 1 :]], folder)
            return
        else:
            printed = run(block.text, folder)


def run(commands: str, folder: Path) -> str:
    """Run lines of the shell as a reader would; return what they print."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def served(command: str, folder: Path) -> Iterator[str]:
    """Run the server, on a free port instead of the page's, until the block ends; yields the port."""
    port = str(free_port())
    line = ["bash", "-c", f"exec {command.partition('#')[0]} --port {port}"]
    with subprocess.Popen(
        line, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            said = iter(server.stderr.readline, "")
            assert any(f":{port}" in text for text in said), "the server did not come up"
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(_TIMEOUT_S) in (0, 130)


def environment() -> dict[str, str]:
    """With the environment under test first on the path."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def rounded(document: str) -> str:
    """A JSON document in one spelling, its numbers to one decimal: machines may differ in the last bits of training."""
    text = json.dumps(json.loads(document))
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", text)
