"""`litelambda completion`."""

from __future__ import annotations

import click


@click.command(
    epilog='bash: eval "$(litelambda completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; '
    "fish: litelambda completion fish > ~/.config/fish/completions/litelambda.fish"
)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]), help="One of bash, zsh and fish.")
def command(shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    from click.shell_completion import shell_complete

    from litelambda.cli.main import COMPLETION_VARIABLE, commands

    shell_complete(commands, {}, "litelambda", COMPLETION_VARIABLE, f"{shell}_source")
