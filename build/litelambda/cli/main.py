"""The `litelambda` command: arguments in, exit codes out. Each subcommand is a module, imported when it is asked for.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted, 141 the reader of the output closed it. With
`--json`, stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from litelambda import __version__
from litelambda.common.errors import LitelambdaError
from litelambda_serving.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMPLETION_VARIABLE", "commands", "main"]

COMPLETION_VARIABLE = "_LITELAMBDA_COMPLETE"
"""Set by a shell's completion script, to what it wants to know."""

_SECTIONS = {
    "Make a model": {"init": "init", "build": "build", "import": "import_model"},
    "Use it": {"serve": "serve", "predict": "predict", "score": "score", "replay": "replay", "drift": "drift"},
    "Look after a store": {"models": "models", "compare": "compare", "alias": "alias", "prune": "prune"},
    "Answer for it": {"keygen": "keygen", "sign": "sign", "verify": "verify", "decrypt": "decrypt", "audit": "audit"},
    "Deploy and measure": {
        "package": "package",
        "deploy": "deploy",
        "bench": "bench",
        "cost": "cost",
        "choose": "choose",
    },
    "Look after a stack": {"status": "status", "logs": "logs", "rollback": "rollback", "delete": "delete"},
    "Set up": {"completion": "completion"},
}
"""By section of the help, the subcommands and their modules."""

_MODULES = {name: module for section in _SECTIONS.values() for name, module in section.items()}
_INTERRUPTED = 130
_READER_GONE = 141  # what a shell says of a program that SIGPIPE ended


class _Subcommands(click.Group):
    """Subcommands that are imported when they are asked for, and listed in sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_MODULES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _MODULES:
            return None
        command: click.Command = importlib.import_module(f"litelambda.cli.{_MODULES[cmd_name]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _MODULES))
        for title, names in _SECTIONS.items():
            found = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(title):
                rows = [
                    (name.ljust(width), command.get_short_help_str(90)) for name, command in found.items() if command
                ]
                formatter.write_dl(rows)


@click.command(
    cls=_Subcommands,
    commands={name: click.Command(name) for name in _MODULES},  # for the suggestions: see `get_command`
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120},
)
@click.version_option(__version__, message="litelambda %(version)s")
def commands() -> None:
    """A trained Keras model behind HTTPS on AWS Lambda, colder than hello world."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        code = _run([*(sys.argv[1:] if arguments is None else arguments)])
        sys.stdout.flush()
    except BrokenPipeError:  # as from `| head -1`
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # what is still in their buffers goes there when Python exits
            os.dup2(nowhere, stream.fileno())
        return _READER_GONE
    return code


def _run(arguments: list[str]) -> int:
    try:
        if instruction := os.environ.get(COMPLETION_VARIABLE):
            from click.shell_completion import shell_complete

            return shell_complete(commands, {}, "litelambda", COMPLETION_VARIABLE, instruction)
        with commands.make_context("litelambda", arguments) as context:
            commands.invoke(context)
    except click.exceptions.Exit as ended:  # --help, --version
        return ended.exit_code
    except click.UsageError as error:
        print(_describe(error), file=sys.stderr)
        return error.exit_code
    except (LitelambdaError, ServingError) as error:
        print(f"litelambda: error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except (KeyboardInterrupt, click.Abort):  # Abort: Ctrl-C or Ctrl-D at a question
        print("litelambda: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _describe(error: click.UsageError) -> str:
    """One line: what is wrong, and where to look; the help itself where a subcommand is missing."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    command = error.ctx.command_path if error.ctx else "litelambda"
    message = " ".join(error.format_message().split())
    end = "" if message.endswith((".", "?", ")")) else "."
    return f"{command}: error: {message[:1].lower()}{message[1:]}{end} See `{command} --help`"


if __name__ == "__main__":
    sys.exit(main())
