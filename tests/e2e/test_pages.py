"""The pages, as a reader follows them: every command that needs no AWS account and no Docker is run, in its order.

What a page says is needed is made first, tiny. `tests/support/pages.py` says what other tests run, and what none can.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from litelambda.commands import deploy
from support import deployed, sam_stand_in
from support.fake_clouds import fake_cloud
from support.markdown import read_blocks
from support.moto_server import MotoServer
from support.page_supplies import PLACEHOLDERS, ROW, Made
from support.pages import DOCS, LOCAL, followed_by, name_of, pages_for
from support.prepared_pages import PREPARED, prepare_files
from support.reader import Reader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, module_tiny_recipe: Path) -> Iterator[Made]:
    """The shared things."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(module_tiny_recipe.parent, folder, dirs_exist_ok=True)
    (script,) = (block for block in read_blocks(DOCS / "tutorial.md") if block.language == "python")
    (folder / script.title).write_text(script.text)
    with chdir(folder):
        runpy.run_path(script.title)
    (folder / "labels.txt").write_text("apple\nbanana\ncherry\n")
    (folder / "row.json").write_text(json.dumps(ROW))
    (folder / "rows.json").write_text(json.dumps({"instances": [ROW, [0.1, 0.2, 0.8, 0.5]]}))
    (folder / "rows.jsonl").write_text(f"{ROW}\n" * 5)
    (folder / "rows.csv").write_text("x_0,x_1,x_2,x_3\n" + f"{str(ROW)[1:-1]}\n" * 5)
    with MotoServer() as amazon, fake_cloud("gs") as (google, _):
        sam_stand_in.install(folder)
        shared = Made(folder, amazon.url, google)
        with patch.dict(os.environ, shared.environment):
            deployed.deploy()
            for _ in range(7):
                deployed.client("lambda").update_function_code(FunctionName=deployed.FUNCTION, ZipFile=os.urandom(8))
                deployed.client("lambda").publish_version(FunctionName=deployed.FUNCTION)
            deployed.log({"message": "request", "status": 200, "method": "POST", "Route": "predict", "Latency": 1.2})
        yield shared


@pytest.fixture(autouse=True)
def _empty_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """`litelambda deploy` packages nothing: `litelambda package` on the same pages does."""

    def package(_arch: str, output: Path, *_: object, **__: object) -> SimpleNamespace:
        (output / "function").mkdir()
        return SimpleNamespace(directory=output / "function", notes=())

    monkeypatch.setattr(deploy, "package", package)


@pytest.mark.parametrize("page", pages_for(LOCAL), ids=name_of)
def test_a_page_does_what_it_says(page: Path, made: Made, tmp_path: Path) -> None:
    """Its commands succeed in their order, from a folder of the reader's own, and print what the page shows."""
    with Reader(tmp_path, made.environment, in_process=True) as reader:
        PREPARED.get(page.stem, prepare_files())(reader, made)
        reader.replaced = {**PLACEHOLDERS, **reader.replaced}
        reader.follow(followed_by(page, LOCAL))


def test_every_preparation_is_of_a_page() -> None:
    """The table has no dead entries."""
    assert PREPARED.keys() <= {page.stem for page in pages_for(LOCAL)}
