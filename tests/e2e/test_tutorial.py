"""The tutorial and the README, as a reader follows them: every command that is not for AWS, every answer compared.

`tests/e2e/test_wheel_build.py` has the wheel follow them in an environment of its own, by `LITELAMBDA_TEST_BIN`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from support.markdown import read_blocks
from support.pages import DOCS, TUTORIAL, examples_for, name_of, pages_for
from support.reader import Reader

pytestmark = pytest.mark.slow
HERE = "LITELAMBDA_TEST_BIN" not in os.environ
"""Whether this environment is under test: then commands that need no shell are called in this process."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tutorial's script makes, which says nothing."""
    folder = tmp_path_factory.mktemp("model")
    (script,) = (block for block in read_blocks(DOCS / "tutorial.md") if block.language == "python")
    (folder / script.title).write_text(script.text)
    reader = Reader(folder, in_process=HERE)
    (make,) = (each for each in examples_for(DOCS / "tutorial.md", TUTORIAL) if each.command.startswith("python "))
    reader.follow([make])
    return folder


@pytest.mark.parametrize("page", pages_for(TUTORIAL), ids=name_of)
def test_a_page_does_what_it_says(page: Path, model: Path, tmp_path: Path) -> None:
    """Its commands succeed in their order, from a folder of the reader's own, and answer what the page shows."""
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    with Reader(tmp_path, in_process=HERE) as reader:
        reader.done.append("python make_model.py")
        examples = examples_for(page, TUTORIAL)
        assert any(each.output for each in examples)
        reader.follow(examples)
    assert (tmp_path / "models" / "fruit" / "1" / "manifest.json").is_file()
