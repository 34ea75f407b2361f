"""Deleting a stack, and saying what outlives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from litelambda.common.aws import AwsError, aws_client, refusals_explained
from litelambda.stacks.parameters import parse_template
from litelambda.stacks.stack import Stack, wait_while_busy

__all__ = ["delete_stack", "kept_resources"]

_KEPT = {"Retain", "RetainExceptOnCreate"}
_WITH_FUNCTION = "AWS::Lambda::Version"  # SAM keeps versions, so that aliases can go back; they go with their function


def kept_resources(stack: Stack) -> list[str]:
    """What remains when a stack is deleted, as `Type name`: its template says so.

    Raises:
        UsageError, AwsError: AWS cannot be asked.
    """
    client = aws_client("cloudformation")
    with refusals_explained(f"the resources of the stack {stack.name} cannot be listed"):
        template = client.get_template(StackName=stack.name, TemplateStage="Processed")["TemplateBody"]
        pages = client.get_paginator("list_stack_resources").paginate(StackName=stack.name)
        found = [each for page in pages for each in page["StackResourceSummaries"]]
    declared = _resources(template)
    return [
        f"{each['ResourceType']} {each.get('PhysicalResourceId', '')}".strip()
        for each in found
        if declared.get(each["LogicalResourceId"], {}).get("DeletionPolicy") in _KEPT
        and each["ResourceType"] != _WITH_FUNCTION
    ]


def _resources(template: Any) -> dict[str, Any]:
    """Of a template that came as text or as an object."""
    if isinstance(template, str):
        template = json.loads(template) if template.lstrip().startswith("{") else parse_template(template)
    found: dict[str, Any] = template["Resources"]
    return found


def delete_stack(stack: Stack, say: Callable[[str], Any]) -> None:
    """Delete a stack, and wait until it is gone; one that is being deleted already is waited for.

    Args:
        stack: which.
        say: called with what is waited for.

    Raises:
        UsageError, AwsError: AWS refused, or a resource could not be deleted; the message says which.
    """
    client = aws_client("cloudformation")
    with refusals_explained(f"the stack {stack.name} cannot be deleted"):
        client.delete_stack(StackName=stack.stack_id)
    left = wait_while_busy(stack.stack_id, say)
    if left is not None and left.status != "DELETE_COMPLETE":
        with refusals_explained(f"the events of the stack {stack.name} cannot be read"):
            events = client.describe_stack_events(StackName=stack.stack_id)["StackEvents"]
        reasons = [
            f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', '')}"
            for each in events
            if each["ResourceStatus"] == "DELETE_FAILED"
        ]
        raise AwsError(f"the stack {stack.name} is in the state {left.status}: {'; '.join(reasons[:3])}")
