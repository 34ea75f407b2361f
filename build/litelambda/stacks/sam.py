"""The SAM command line, which makes the change set, uploads the package and waits for CloudFormation."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litelambda.common.aws import AwsError, aws_client, refusals_explained
from litelambda.common.errors import UsageError

__all__ = ["deploy_template", "find_sam", "show_changes"]

_CHANGE_SET = "samcli-deploy"  # what the names of SAM's change sets begin with


def find_sam() -> str:
    """The path of the command line.

    Raises:
        UsageError: it is not installed.
    """
    sam = shutil.which("sam")
    if sam is None:
        raise UsageError("the SAM command line, `sam`, is not installed: run `uv tool install aws-sam-cli`")
    return sam


def deploy_template(
    sam: str, template: Path, stack: str, given: Mapping[str, str], tags: Mapping[str, str], *more: str
) -> None:
    """Deploy a template, and wait until that is done.

    Args:
        sam: the command line.
        template: names everything that it needs by paths from its own folder.
        stack: its name.
        given: the parameters that are set; every other one keeps its value.
        tags: all that the stack is to have.
        more: further arguments.

    Raises:
        AwsError: it failed; SAM has said why.
    """
    command = [sam, "deploy", "--template-file", str(template), "--stack-name", stack, "--resolve-s3"]
    command += ["--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset", *more]
    command += ["--confirm-changeset"] if sys.stdin.isatty() and not more else []
    if tags:
        command += ["--tags", *(f"{key}={shlex.quote(value)}" for key, value in tags.items())]
    command += ["--parameter-overrides", *(f"{name}={shlex.quote(value)}" for name, value in given.items())]
    done = subprocess.run(command, check=False)  # noqa: S603 - the user's own parameters
    if done.returncode:
        raise AwsError(f"sam deploy ended with exit code {done.returncode}")


def show_changes(sam: str, template: Path, stack: str, given: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Have SAM show the change set of a deployment, and delete it again; the package is uploaded for it.

    Raises:
        AwsError: there can be none; SAM has said why.
    """
    try:
        deploy_template(sam, template, stack, given, tags, "--no-execute-changeset")
    finally:
        _delete_change_sets(stack)


def _delete_change_sets(stack: str) -> None:
    """Delete what SAM left, and a stack that has nothing but change sets."""
    from botocore.exceptions import ClientError

    client = aws_client("cloudformation")
    with refusals_explained(f"the change sets of the stack {stack} cannot be deleted"):
        try:
            (state,) = client.describe_stacks(StackName=stack)["Stacks"]
            found: list[dict[str, Any]] = client.list_change_sets(StackName=stack)["Summaries"]
        except ClientError as error:
            if "does not exist" in str(error):
                return
            raise
        left = [each for each in found if each.get("ExecutionStatus") == "AVAILABLE"]
        for each in left:
            if each["ChangeSetName"].startswith(_CHANGE_SET):
                client.delete_change_set(ChangeSetName=each["ChangeSetName"], StackName=stack)
        if state["StackStatus"] == "REVIEW_IN_PROGRESS":
            client.delete_stack(StackName=stack)
