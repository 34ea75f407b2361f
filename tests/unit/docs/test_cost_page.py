"""The page on cost: its commands run as they stand, in a reader's folder, and say what the page shows."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from litelambda.bench.contenders import FLOOR, OURS, OURS_BUNDLED, OURS_LEAN, USUAL
from litelambda.cli.main import main
from litelambda.common.paths import PROJECT
from support.markdown import blocks_of, read_blocks

PAGE = PROJECT / "docs" / "how-to" / "cost.md"
EXAMPLE = PROJECT / "docs" / "examples" / "mnist_mlp"


def test_the_example_is_what_the_commands_wrote() -> None:
    """Whole and unedited, of one build and one machine, with the options that the page shows."""
    measured = {path.stem: json.loads(path.read_text()) for path in sorted(EXAMPLE.iterdir())}
    assert measured.keys() == {"batch", "cold", "warm"}
    for kind, document in measured.items():
        assert (EXAMPLE / f"{kind}.json").read_text() == json.dumps(document, indent=2) + "\n"
        assert (document["model"], document["machine"]) == (measured["cold"]["model"], measured["cold"]["machine"])
        assert document["notes"] == []
    (commands,) = blocks_of(PAGE, "console")
    store = measured["cold"]["store"]
    assert f" --store-latency-ms {store['latency_ms']:g} --store-mb-per-s {store['mb_per_s']:g} " in commands
    assert measured["cold"]["handlers"].keys() >= {FLOOR, OURS, OURS_LEAN, OURS_BUNDLED, USUAL}


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line that it shows is one of the output of the command before it, in that order."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    commands = 0
    for block in read_blocks(PAGE):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "sh":
            for line in block.text.replace("\\\n", "").splitlines():
                assert main(shlex.split(line)[1:]) == 0
                commands += 1
            said = capsys.readouterr().out.splitlines()
        elif block.language == "text":
            shown = block.text.splitlines()
            assert [line for line in said if line in shown] == shown
    assert commands == 5
    assert (tmp_path / "costs.svg").stat().st_size > 10_000
    assert "| **Lambda, function URL** |" in (tmp_path / "platforms.md").read_text()
