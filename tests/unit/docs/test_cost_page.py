"""The page on cost: its commands run as they stand, in a reader's folder, and say what the page shows."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from litelambda.cli.main import main
from litelambda.common.paths import PROJECT
from support.markdown import read_blocks

PAGE = PROJECT / "docs" / "how-to" / "cost.md"
EXAMPLE = PROJECT / "docs" / "examples" / "mnist_mlp-bench.json"


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line that it shows is one of the output of the command before it, in that order."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    commands = 0
    for block in read_blocks(PAGE):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "sh":
            for line in block.text.splitlines():
                assert main(shlex.split(line)[1:]) == 0
                commands += 1
            said = capsys.readouterr().out.splitlines()
        elif block.language == "text":
            shown = block.text.splitlines()
            assert [line for line in said if line in shown] == shown
    assert commands == 5
    assert (tmp_path / "costs.svg").stat().st_size > 10_000
    assert "| **Lambda, function URL** |" in (tmp_path / "platforms.md").read_text()
