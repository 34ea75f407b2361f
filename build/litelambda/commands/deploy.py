"""`make deploy` and `make deploy-scoring`: `sam build` and `sam deploy`, on top of what is deployed.

A parameter that is not named keeps the value of the last deployment, and is shown. `samconfig.toml` is not read: what
`sam deploy --guided` saved there would reset every parameter that was set since.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["main"]

_SAM = PROJECT / ".venv-sam" / "bin" / "sam"


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref`) mean nothing: only plain values are read here."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def main(arguments: Sequence[str]) -> int:
    """Build and deploy a stack.

    Args:
        arguments: the template, the stack's name, and the parameters to set, each as `Name=value`.

    Returns:
        The exit code.
    """
    template, stack, *assignments = arguments
    try:
        declared = _declared(PROJECT / template)
        given = _given(assignments, declared)
        deployed = _deployed(stack)
        architecture = given.get("Architecture") or deployed.get("Architecture") or declared["Architecture"]
        given["Architecture"] = architecture  # of what is built
        _show(stack, given, deployed, declared)
        _run_sam(template, stack, given)
    except LitelambdaError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _declared(template: Path) -> dict[str, str]:
    """The template's parameters with their defaults; a parameter without one has ""."""
    loaded: dict[str, Any] = yaml.load(template.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    return {name: str(each.get("Default", "")) for name, each in loaded["Parameters"].items()}


def _given(assignments: Sequence[str], declared: Mapping[str, str]) -> dict[str, str]:
    given = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or name not in declared:  # SAM drops it without a word
            raise UsageError(f"{assignment!r} sets no parameter, expected Name=value with one of {', '.join(declared)}")
        given[name] = value
    return given


def _deployed(stack: str) -> dict[str, str]:
    """The parameters of the last deployment; none where there was no deployment."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return {}
        raise LitelambdaError(f"the stack {stack} cannot be read: {error}") from error
    except BotoCoreError as error:
        raise LitelambdaError(f"AWS cannot be asked for the stack {stack}: {error}") from error
    if found["StackStatus"] == "REVIEW_IN_PROGRESS":  # its first change set was declined: nothing was deployed
        return {}
    return {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}


def _show(stack: str, given: Mapping[str, str], deployed: Mapping[str, str], declared: Mapping[str, str]) -> None:
    """Say what is set and what stays; values that are the template's defaults go without saying."""
    print(f"deploy: the stack {stack}{'' if deployed else ', for the first time'}", flush=True)
    for name, value in given.items():
        before = deployed.get(name)
        if value != before:
            print(f"deploy: sets  {name}={value}" + (f" (was {before!r})" if before is not None else ""), flush=True)
    for name, value in deployed.items():
        if given.get(name, value) == value != declared.get(name, value):
            print(f"deploy: keeps {name}={value}", flush=True)


def _run_sam(template: str, stack: str, given: Mapping[str, str]) -> None:
    folder = PROJECT / ".aws-sam" / stack
    overrides = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
    commands = [
        ["build", "--template-file", template, "--build-dir", str(folder), "--parameter-overrides"],
        ["deploy", "--template-file", str(folder / "template.yaml"), "--stack-name", stack, "--resolve-s3"],
    ]
    commands[0].append(f"Architecture={given['Architecture']}")
    commands[1] += ["--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"]
    commands[1] += ["--confirm-changeset"] if sys.stdin.isatty() else []
    commands[1] += ["--parameter-overrides", *overrides]
    for command in commands:
        done = subprocess.run([_SAM, *command], cwd=PROJECT, check=False)  # noqa: S603 - the user's own parameters
        if done.returncode:
            raise LitelambdaError(f"sam {command[0]} ended with exit code {done.returncode}")


if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], *shlex.split(os.environ.get("PARAMETERS", ""))]))
