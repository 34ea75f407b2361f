"""The command line as a person uses it: pipes, paths and mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.cli.main import main
from litelambda.common.paths import store_url
from litelambda.common.wording import counted
from support.golden_store import publish


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with version 1 of "tiny_int8", which `latest` points at."""
    publish(tmp_path / "my models", "tiny_int8")
    return tmp_path / "my models"


@pytest.mark.parametrize("reads", [0, 1])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_ends_the_command_quietly(store: Path, stream: str, reads: int) -> None:
    """`litelambda models | head -1`: no traceback, and the exit code of a program that SIGPIPE ended."""
    for number in range(900 if reads and stream == "stdout" else 1):  # then more than a pipe holds, which is 64 KiB
        folder = store / f"model-{number:0100}" / "1"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(b'{"created": "2026"}')
    asked = ["models"] if stream == "stdout" else ["alias", "tiny_int8", "best", "9"]
    command = [sys.executable, "-m", "litelambda", *asked, "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pipe, other = process.stdout, process.stderr
        if stream == "stderr":
            pipe, other = other, pipe
        if reads and stream == "stdout":
            assert pipe.readline().startswith(b"MODEL")
        pipe.close()
        assert other.read() == b""
        assert process.wait(timeout=60) == 141


def test_a_store_may_be_a_path(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Absolute, relative and below the home folder; what a path may hold is escaped, a URL stays as it is."""
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("HOME", str(store.parent))
    for text in (str(store), "./my models", "my models", "~/my models", store.as_uri()):
        assert store_url(text) == store.as_uri()
        assert main(["models", "--store", text]) == 0
        assert "tiny_int8  1" in capsys.readouterr().out
    assert store_url("s3://bucket/a") == "s3://bucket/a"


@pytest.mark.parametrize("text", ["", "~nobody-of-this-name/models"])
def test_a_path_that_means_nothing_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No store is made in the working folder for an empty text or an unknown user's home."""
    assert main(["models", "--store", text]) == 2
    assert "--store" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["models", "--report", "tiny_int8"],
        ["alias", "tiny_int8", "latest", "1"],
        ["serve", "--port", "0"],
        ["score", "rows.jsonl", "out.jsonl", "--model", "tiny_int8"],
    ],
)
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_who_reads_a_store_that_is_not_there_is_told(
    tmp_path: Path, command: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only publishing makes a store: a mistyped folder is an error for all others, and stays away."""
    folder = tmp_path / "modles"
    if kind == "file":
        folder.write_text("no folder")
    assert main([*command, "--store", str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"there is no store at {folder.as_uri()}" in said
    assert ("is not a folder" if kind == "file" else "does not exist") in said
    assert folder.exists() == (kind == "file")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["alias", "tiny_int8", "latest", "7"], "tiny_int8 has no version 7 in .*; it has 1, aliases: latest \\(1\\)"),
        (["alias", "tiny", "latest", "1"], "tiny has no version 1 in .*; the store has the models tiny_int8"),
        (["models", "--report", "tiny"], "'tiny' has no alias 'latest' in .*; the store has the models tiny_int8"),
        (["models", "--report", "tiny_int8@best"], "'tiny_int8' has no alias 'best' in .*; it has 1, aliases: latest"),
    ],
)
def test_what_is_not_found_names_what_is_there(
    store: Path, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped model, version or alias is answered with those that there are."""
    assert main([*command, "--store", str(store)]) in (1, 2)
    assert re.match(f"litelambda: error: {message}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1234, "1,234 epochs")]
)
def test_one_is_singular(number: int, words: str) -> None:
    """What is counted agrees with its number."""
    assert counted(number, "epoch") == words
