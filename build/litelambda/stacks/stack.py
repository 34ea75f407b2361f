"""A deployed stack as CloudFormation describes it: its parameters, outputs and state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from litelambda.common.aws import AwsError, aws_client, refusals_explained
from litelambda.common.errors import UsageError

__all__ = ["ALIAS", "DEFAULT_STACK", "Stack", "check_usable", "find_stack", "read_stack", "wait_while_busy"]

DEFAULT_STACK = "litelambda"
ALIAS = "live"
"""Of the function: what the API calls."""

_POLL_SECONDS = 5.0
_IN_REVIEW = "REVIEW_IN_PROGRESS"
_STUCK = {
    "ROLLBACK_COMPLETE": "its first deployment failed: run `litelambda delete --stack {name}`, then deploy again",
    "ROLLBACK_FAILED": "its first deployment failed: run `litelambda delete --stack {name}`, then deploy again",
    "CREATE_FAILED": "its first deployment failed: run `litelambda delete --stack {name}`, then deploy again",
    "DELETE_FAILED": "it was deleted in part: run `litelambda delete --stack {name}` again",
    "UPDATE_ROLLBACK_FAILED": (
        "going back failed: run `aws cloudformation continue-update-rollback --stack-name {name}`, then deploy again"
    ),
}
"""States in which CloudFormation takes no update, and what to do about them."""


@dataclass(frozen=True)
class Stack:
    """A stack.

    Attributes:
        name: its name.
        stack_id: its ARN, which names it when it is deleted too.
        status: CloudFormation's word.
        updated: when it was deployed last.
        parameters: with their values.
        outputs: with their values.
        tags: of everything in it.
        region: where it is.
    """

    name: str
    stack_id: str
    status: str
    updated: datetime
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    tags: Mapping[str, str]
    region: str

    @property
    def function(self) -> str:
        """The name of its function.

        Raises:
            UsageError: it is not a stack of litelambda's.
        """
        for output in ("FunctionName", "ScoreFunctionName"):
            if output in self.outputs:
                return self.outputs[output]
        raise UsageError(
            f"the stack {self.name} ({self.status}) has no function of litelambda's: --stack names another"
        )

    @property
    def api_url(self) -> str:
        """Where its API answers.

        Raises:
            UsageError: it has no API.
        """
        if "ApiUrl" not in self.outputs:
            raise UsageError(f"the stack {self.name} ({self.status}) has no API: --stack names another")
        return self.outputs["ApiUrl"].rstrip("/")

    @property
    def store(self) -> str:
        """The URL of its models' store."""
        return self.parameters.get("ModelStore") or f"s3://{self.outputs['ArtifactBucket']}/models"


def find_stack(name: str) -> Stack | None:
    """A stack, or None where there is none of that name, or none of its deployments was ever begun.

    Raises:
        UsageError: this machine has no credentials, profile or region.
        AwsError: it cannot be read.
    """
    client = aws_client("cloudformation")
    from botocore.exceptions import ClientError

    with refusals_explained(f"AWS cannot be asked for the stack {name.rpartition('/')[0] or name}"):
        try:
            (found,) = client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
    if found["StackStatus"] == _IN_REVIEW:  # its first change set was declined: nothing was deployed
        return None
    return Stack(
        name=found["StackName"],
        stack_id=found["StackId"],
        status=found["StackStatus"],
        updated=found.get("LastUpdatedTime") or found["CreationTime"],
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", ())},
        outputs={each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())},
        tags={each["Key"]: each["Value"] for each in found.get("Tags", ())},
        region=client.meta.region_name,
    )


def read_stack(name: str) -> Stack:
    """A stack that is there.

    Raises:
        UsageError: there is none of that name in the region; or see `find_stack`.
        AwsError: it cannot be read.
    """
    found = find_stack(name)
    if found is None:
        region = aws_client("cloudformation").meta.region_name
        raise UsageError(
            f"the stack {name} does not exist in {region}: name another with --stack, or run `litelambda deploy`"
        )
    return found


def wait_while_busy(name: str, say: Callable[[str], Any]) -> Stack | None:
    """Wait until CloudFormation has ended what it is doing with a stack, such as a deployment that was interrupted.

    Args:
        name: of the stack, or its ARN.
        say: called once with what is waited for, if anything is.

    Raises:
        UsageError, AwsError: see `find_stack`.
    """
    said = False
    while (found := find_stack(name)) is not None and found.status.endswith("_IN_PROGRESS"):
        if not said:
            say(f"waits: CloudFormation is busy with the stack {found.name} ({found.status})")
            said = True
        time.sleep(_POLL_SECONDS)
    return found


def check_usable(stack: Stack) -> None:
    """Refuse to deploy to a stack that takes no update.

    Raises:
        AwsError: the message says what to do first.
    """
    if advice := _STUCK.get(stack.status):
        raise AwsError(f"the stack {stack.name} is in the state {stack.status}: {advice.format(name=stack.name)}")
