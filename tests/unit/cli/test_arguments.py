"""The arguments of every subcommand: their names and defaults, which scripts depend on, and what a mistake says."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from litelambda.cli.main import commands, main

REQUIRED = "required"
STORE = "models"

LOAD = {
    "--store": STORE, "--bench": (), "--case": "json_1_row", "--requests": REQUIRED, "--shape": "flat",
    "--request-bytes": None, "--response-bytes": 1000, "--cold-share": None, "--idle-s": 600.0, "--batch-rows": 0.0,
    "--arch": "arm64", "--region": "us-east-1", "--prices": None, "--free-tier": False, "--cpu-factor": 1.0,
    "--log-bytes": 300, "--metrics": 1,
}  # fmt: skip

ARGUMENTS: dict[str, dict[str, Any]] = {
    "build": {
        "[RECIPE.toml]": Path("recipe.toml"), "--store": STORE, "--set": (), "--accept-worse": False, "--sign": None,
        "--encrypt": None, "--json": False,
    },
    "init": {
        "[DIR]": Path(), "--data": None, "--model": None, "--example": None, "--label": (), "--task": None,
        "--representative": None, "--labels": None, "--name": None, "--json": False,
    },
    "import": {
        "PATH": REQUIRED, "--store": STORE, "--name": REQUIRED, "--representative": None, "--labels": None,
        "--preprocessing": None, "--tokenizer": None, "--max-difference": 0.1, "--accept-loss": False,
        "--explain": None, "--sign": None, "--encrypt": None, "--json": False,
    },
    "models": {"--store": STORE, "--report": None, "--json": False},
    "compare": {
        "FIRST": REQUIRED, "SECOND": REQUIRED, "--data": None, "--recipe": None, "--target": None, "--html": None,
        "--store": STORE, "--json": False,
    },
    "alias": {
        "NAME": REQUIRED, "ALIAS": REQUIRED, "VERSION": REQUIRED, "--store": STORE, "--canary": (), "--shadow": None,
    },
    "prune": {"NAME": REQUIRED, "--store": STORE, "--keep": 3, "--yes": False, "--json": False},
    "keygen": {"KEY.pem": REQUIRED, "--encryption": False, "--kms": None},
    "sign": {"NAME[@ALIAS|:VERSION]": REQUIRED, "--key": REQUIRED, "--store": STORE},
    "decrypt": {
        "NAME[@ALIAS|:VERSION]": REQUIRED, "FILE": REQUIRED, "--output": REQUIRED, "--key": "", "--store": STORE,
    },
    "verify": {"NAME[@ALIAS|:VERSION]": REQUIRED, "--public-key": REQUIRED, "--store": STORE},
    "audit": {
        "--store": STORE, "--verify": False, "--expect-head": None, "--model": None, "--since": None, "--json": False,
    },
    "serve": {
        "--store": STORE, "--host": "127.0.0.1", "--port": 8080, "--model": "", "--code": None, "--log-level": "INFO",
    },
    "predict": {
        "MODEL": REQUIRED, "--input": REQUIRED, "--store": STORE, "--url": "", "--stack": "", "--header": (),
        "--code": None, "--top-k": None, "--threshold": None,
    },
    "score": {
        "INPUT": REQUIRED, "OUTPUT": REQUIRED, "--store": None, "--model": REQUIRED, "--on": "local",
        "--state-machine": None, "--workers": 0, "--input-format": None, "--output-format": None,
        "--passthrough": None, "--tolerate": 0.01, "--resize": False, "--prepared": False, "--code": None,
        "--explain": None, "--force": False, "--json": False,
    },
    "package": {
        "--target": "lambda-zip", "--base": None, "--tag": None,
        "--arch": "arm64", "--function": "predict", "--with": (), "--code": None, "--access-policy": None,
        "--output": REQUIRED, "--json": False,
    },
    "deploy": {
        "[MODEL] [NAME=VALUE]…": (), "--store": STORE, "--function": "predict", "--code": None, "--access-policy": None,
        "--stack": None, "--tag": (), "--dry-run": False,
    },
    "status": {"--stack": "litelambda", "--json": False},
    "logs": {"--stack": "litelambda", "--since": 600, "--follow": False, "--errors": False, "--json": False},
    "rollback": {"[NAME[@ALIAS]]": None, "--stack": "litelambda", "--to": None, "--json": False},
    "delete": {"--stack": "litelambda", "--yes": False},
    "bench cold": {
        "--model": "mnist_mlp", "--store": STORE, "--package": None, "--runs": 11, "--store-latency-ms": 0.0,
        "--store-mb-per-s": None, "--handlers": None, "--peers": False, "--chart": None, "--json": False,
    },
    "bench warm": {
        "--model": None, "--store": STORE, "--package": None, "--invokes": 1000, "--chart": None, "--json": False,
    },
    "bench batch": {
        "--model": "mnist_mlp", "--store": STORE, "--rows": 409_600, "--runs": 3, "--seconds": 60.0, "--json": False,
    },
    "bench growth": {
        "--curve": ("models", "rows", "size"), "--runs": 5, "--largest-mb": 400.0, "--most-models": 10_000,
        "--store-latency-ms": 0.0, "--store-mb-per-s": None, "--chart": None, "--json": False,
    },
    "bench load": {
        "--model": ("mnist_mlp",), "--store": STORE, "--clients": (1, 4, 16, 64), "--share": 0.7, "--seconds": 10.0,
        "--requests": None, "--cores": None, "--peers": False, "--json": False,
    },
    "bench conversion": {
        "[NAME]…": (), "--model": (), "--all": False, "--image-size": None, "--markdown": None,
        "--state": Path(".bench", "conversion.json"), "--fresh": False, "--memory-gb": 12.0, "--timeout-s": 1800.0,
        "--json": False,
    },
    "cost": {
        "[MODEL]": None, **LOAD, "--memory": None, "--latency-ms": None, "--chart": None, "--json": False,
    },
    "choose": {"[MODEL]": None, **LOAD, "--memory": None, "--markdown": None, "--json": False},
    "replay": {
        "CAPTURE": REQUIRED, "--model": REQUIRED, "--store": STORE, "--url": "", "--stack": "", "--header": (),
        "--code": None, "--tolerance": 0.0, "--limit": 20, "--json": False,
    },
    "drift": {
        "SOURCE": REQUIRED, "--model": REQUIRED, "--store": STORE, "--code": None, "--html": None, "--json": False,
    },
    "completion": {"SHELL": REQUIRED},
}  # fmt: skip


def subcommands(context: click.Context) -> Iterator[click.Context]:
    """All commands that do something, below one."""
    command = context.command
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from subcommands(click.Context(found, context, info_name=name))


def default_of(parameter: click.Parameter, context: click.Context) -> Any:
    """What a command gets for a parameter that is not given."""
    if parameter.required:
        return REQUIRED
    default = parameter.to_info_dict()["default"]
    if default is None:
        return () if parameter.multiple or parameter.nargs == -1 else None
    return parameter.type_cast_value(context, default)


def test_every_argument_is_there_with_its_default() -> None:
    """No script breaks: each name that was ever published is still taken, and means the same when it is left out."""
    found = {
        context.command_path.partition(" ")[2]: {
            parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name: default_of(
                parameter, context
            )
            for parameter in context.command.params
        }
        for context in subcommands(click.Context(commands, info_name="litelambda"))
    }
    store = (Path.cwd() / STORE).as_uri()
    assert found == {
        name: {key: store if key == "--store" and value else value for key, value in arguments.items()}
        for name, arguments in ARGUMENTS.items()
    }


@pytest.mark.parametrize("kind", ["cold", "warm", "load", "batch", "conversion"])
def test_a_benchmark_takes_what_its_flags_give(kind: str) -> None:
    """A flag that no benchmark reads, or an option that no flag sets, is a mistake."""
    context = click.Context(commands)
    group = commands.get_command(context, "bench")
    assert isinstance(group, click.Group)
    given = {parameter.name for parameter in group.commands[kind].params} - {"as_json", "names"}
    options = importlib.import_module(f"litelambda.bench.{kind}.benchmark").Options
    assert given == {field.name for field in dataclasses.fields(options)}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["biuld"], "litelambda: error: no such command 'biuld'. Did you mean 'build'? See `litelambda --help`"),
        (["bench", "wram"], "litelambda bench: error: no such command 'wram'. Did you mean 'warm'? See `lite"),
        (["models", "--reprot", "x"], "litelambda models: error: no such option '--reprot'. Did you mean '--report'?"),
        (["sign", "m"], "litelambda sign: error: missing option '--key'. See `litelambda sign --help`"),
        (["import", "m.tflite"], "litelambda import: error: missing option '--name'."),
        (["serve", "--port", "70000"], "litelambda serve: error: invalid value for '--port': '70000' is not a port: "),
        (["import", "m", "--name", "m", "--max-difference", "-1"], "litelambda import: error: invalid value for '--ma"),
        (["score", "a", "b", "--model", "m", "--on", "moon"], "litelambda score: error: invalid value for '--on': "),
        (["alias", "m", "latest", "x"], "litelambda alias: error: invalid value for 'VERSION': 'x' is not a valid int"),
        (["package", "x", "--output", "y"], "litelambda package: error: got unexpected extra argument"),
        (["completion"], "litelambda completion: error: missing argument 'SHELL'. Choose from: bash, zsh, fish."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage says what is wrong, what was meant, and where to look: on stderr, in one line, with exit code 2."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["bench"]])
def test_no_subcommand_shows_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is wrong usage, so the help goes to stderr."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Usage: litelambda")


def test_help_lists_every_subcommand_in_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    """Grouped by what they are for, each with its summary."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "Make a model:\n  init " in said
    assert [name for name in commands.list_commands(click.Context(commands)) if f"\n  {name} " not in said] == []
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("litelambda ")


def completed(shell: str, words: str, **environment: str) -> str:
    """What the command answers a shell that completes the last word."""
    variables = {"COMP_WORDS": words, "_LITELAMBDA_COMPLETE": f"{shell}_complete", **environment}
    command = [sys.executable, "-m", "litelambda"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "marks"),
    [
        ("bash", "complete -o nosort -F _litelambda_completion litelambda"),
        ("zsh", "#compdef litelambda"),
        ("fish", "complete --no-files --command litelambda"),
    ],
)
def test_the_shell_completes_subcommands_and_options(
    shell: str, marks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script is the shell's own, and what it asks the command for names every subcommand, and an option's end."""
    assert main(["completion", shell]) == 0
    assert marks in capsys.readouterr().out
    names = completed(shell, "litelambda ", COMP_CWORD="" if shell == "fish" else "1")
    assert [name for name in commands.list_commands(click.Context(commands)) if name not in names] == []
    last = {"COMP_CWORD": "--rep"} if shell == "fish" else {"COMP_CWORD": "2"}
    assert "--report" in completed(shell, "litelambda models --rep", **last)


def test_bash_runs_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Sourced by a real bash, its function fills COMPREPLY with the subcommands that begin so."""
    assert main(["completion", "bash"]) == 0
    script = f"""{capsys.readouterr().out}
        COMP_WORDS=(litelambda mo) COMP_CWORD=1
        _litelambda_completion {Path(sys.executable).with_name("litelambda")} mo litelambda
        echo "${{COMPREPLY[*]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["models"]
