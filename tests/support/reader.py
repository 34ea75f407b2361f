"""Someone who follows a page: runs its commands as they stand, in a folder of their own, and compares what they print.

`LITELAMBDA_TEST_BIN=FOLDER` has them run the `litelambda` and `python` of another environment, such as one that the
wheel was installed into.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from litelambda.cli.main import main
from litelambda.common.paths import PROJECT
from support.markdown import Block, Example, words_of
from support.pages import NOT_RUN
from support.ports import answers, free_port
from support.waiting import wait_until

BIN = Path(os.environ.get("LITELAMBDA_TEST_BIN") or Path(sys.executable).parent)
PORT = "8080"
"""Of every server on the pages; here it is a free one."""

_SERVER = re.compile(r"(\w+=\S+ )*(litelambda serve\b|python -m litelambda_serving\.asgi\b|docker run\b)")
_OF_A_SHELL = re.compile(r"[$`|;<>&*]")
_ASSIGNMENT = re.compile(r"\w+=(\(.*\)|\S*)", re.DOTALL)
_READY_TIMEOUT_S, _TIMEOUT_S = 120, 600
_VARIES = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z|arn:\S+|[0-9a-f]{4}…")
"""Times, who asks, and digests."""
_TOLERANCE = 0.05
"""Of numbers in JSON: a machine may differ from another in the last bits of training."""


class Reader:
    """Follows pages in one folder.

    Attributes:
        folder: where the commands run.
        replaced: what stands for something of the reader's own, such as "BUCKET", and what that is.
        done: how commands begin that have been run in this folder.
        codes: by how a command begins, the exit code that it is to have in place of 0.
        variables: of the reader's shell.
        answers: by how a command begins, what is typed on a terminal when it asks.
        instead: by how a command of another tool begins that no test runs, what makes the same files in the folder.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, *, in_process: bool = False) -> None:
        """Begin.

        Args:
            folder: see above.
            environment: variables beside those of this process.
            in_process: call the command line here where a command needs no shell: TensorFlow is imported once.
        """
        self.folder = folder
        (folder / ".curlrc").write_text("fail-with-body\n")  # an error that is answered is not what the page is for
        self.replaced: dict[str, str] = {}
        self.done: list[str] = []
        self.codes: dict[str, int] = {}
        self.variables = {"AWS_SESSION_TOKEN": ""}
        self.answers: dict[str, str] = {}
        self.instead: dict[str, Callable[[Path], None]] = {}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(folder), **(environment or {})}
        self._in_process = in_process
        self._assigned = ""
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def follow(self, examples: Iterable[Example]) -> None:
        """Run commands in their order. A server answers the commands after it, until the next one is started."""
        for example in examples:
            if example.command.startswith(tuple(self.done)):
                continue
            if example.command.startswith(tuple(NOT_RUN)):
                for begun, make in self.instead.items():
                    if example.command.startswith(begun):
                        make(self.folder)
                continue
            command = self._own(example.command)
            if _ASSIGNMENT.fullmatch(command):
                self._assigned += f"{command}\n"
                continue
            if _SERVER.match(command):
                self._serve(command)
                continue
            printed = self._run(command)
            if example.output is not None:
                check_output(example.output, printed)

    def _own(self, command: str) -> str:
        for shown, own in self.replaced.items():
            command = command.replace(shown, own)
        return command

    def _run(self, command: str) -> str:
        words = words_of(command.replace("\\\n", ""))
        if self._in_process and words[0] == "make" and words[1].startswith("deploy"):
            words = words_that_make_runs(words)
        call = self._in_process and words[0] == "litelambda" and not _OF_A_SHELL.search(" ".join(words))
        if "--follow" in words:
            return self._interrupted(command)
        code, printed, said = self.call(words[1:], self._typed(command)) if call else self._in_shell(command)
        expected = next((code for begun, code in self.codes.items() if command.startswith(begun)), 0)
        assert code == expected, f"{command}\nended with {code}\n{printed}{said}"
        return printed

    def _typed(self, command: str) -> str | None:
        return next((typed for begun, typed in self.answers.items() if command.startswith(begun)), None)

    def call(self, arguments: list[str], typed: str | None = None) -> tuple[int, str, str]:
        """Run `litelambda` in this process, maybe on a terminal; its exit code, stdout and stderr."""
        printed, said = StringIO(), StringIO()
        keys = StringIO(typed)
        keys.isatty = lambda: typed is not None  # type: ignore[method-assign]
        with (
            chdir(self.folder),
            patch.dict(os.environ, self._environment),
            redirect_stdout(printed),
            redirect_stderr(said),
            patch.object(sys, "stdin", keys),
        ):
            return main(arguments), printed.getvalue(), said.getvalue()

    def _in_shell(self, command: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._assigned + command],
            cwd=self.folder, env=os.environ | self._environment | self.variables, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def _interrupted(self, command: str) -> str:
        """Press Ctrl-C as soon as a command without an end has printed two lines."""
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=os.environ | self._environment | self.variables,
            stdout=subprocess.PIPE, text=True,
        ) as running:  # fmt: skip
            assert running.stdout is not None
            printed = running.stdout.readline() + running.stdout.readline()
            running.send_signal(signal.SIGINT)
            assert running.wait(_TIMEOUT_S) in (130, -signal.SIGINT)
        return printed

    def _serve(self, command: str) -> None:
        """Start a server on a free port, and wait until it answers."""
        self.stop()
        port = str(free_port())
        self.replaced[PORT] = port
        option = f" --port {port}" if "litelambda serve" in command else ""
        command = command.partition(" #")[0].replace(f"--publish {PORT}:", f"--publish 127.0.0.1:{port}:")
        line = f"exec env PORT={port} {command}{option}"
        log = self.folder / "server.log"
        with log.open("w") as sink:
            self._server = subprocess.Popen(
                ["bash", "-c", line], cwd=self.folder, env=os.environ | self._environment, stdout=sink, stderr=sink
            )
        url, server = f"http://127.0.0.1:{port}/v2/health/ready", self._server
        wait_until(lambda: answers(url) or server.poll() is not None, _READY_TIMEOUT_S, log.read_text)
        assert server.poll() is None, f"{command}\n{log.read_text()}"

    def stop(self) -> None:
        """End the server that runs, as Ctrl-C does."""
        if self._server is not None:
            server, self._server = self._server, None
            server.send_signal(signal.SIGINT)
            assert server.wait(_TIMEOUT_S) in (0, 130, -signal.SIGINT)


def words_that_make_runs(words: list[str]) -> list[str]:
    """The words of the `litelambda deploy` that `make deploy` runs, as make itself tells them."""
    told = subprocess.run(
        [*words, "-n", "--no-print-directory", "-C", PROJECT], capture_output=True, text=True, check=True
    ).stdout
    return ["litelambda", *words_of(told[told.rindex("litelambda deploy") :])[1:]]


def check_output(shown: Block, printed: str) -> None:
    """Compare what a page shows with what was printed: JSON whole, of text each line that is shown, in their order."""
    if shown.language == "json":
        assert agree(json.loads(shown.text), json.loads(printed)), f"shown:\n{shown.text}\nprinted:\n{printed}"
        return
    lines = iter(_spaced(printed))
    for line in _spaced(_VARIES.sub("…", shown.text)):
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        assert any(re.fullmatch(pattern, each) for each in lines), f"{line}\nis not in this, or not there:\n{printed}"


def _spaced(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def agree(shown: Any, found: Any) -> bool:
    """Whether a JSON value is the one that is shown: "…" is any value, and at the end of a list any further ones.

    >>> agree({"scores": [4.6879, "…"], "items": "…"}, {"scores": [4.68, 4.2], "items": ["a"]})
    True
    >>> agree([1, 2], [1, 2, 3])
    False
    """
    if shown == "…":
        return True
    if isinstance(shown, dict) and isinstance(found, dict):
        return shown.keys() == found.keys() and all(agree(value, found[key]) for key, value in shown.items())
    if isinstance(shown, list) and isinstance(found, list):
        if shown and shown[-1] == "…":
            shown, found = shown[:-1], found[: len(shown) - 1]
        return len(shown) == len(found) and all(map(agree, shown, found))
    if isinstance(shown, float) and isinstance(found, float):
        return abs(shown - found) <= _TOLERANCE
    if isinstance(shown, str) and isinstance(found, str):
        return re.sub(r"\d+\.\d+", "…", shown) == re.sub(r"\d+\.\d+", "…", found)
    return bool(shown == found)
