"""Going back: the function's alias to an earlier version of it, or a model's alias to an earlier version of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from litelambda.common.aws import aws_client, refusals_explained
from litelambda.common.errors import UsageError
from litelambda.stacks.stack import ALIAS, Stack
from litelambda.store.artifact_store import Store

__all__ = ["RolledBack", "roll_back_code", "roll_back_model"]


@dataclass(frozen=True)
class RolledBack:
    """An alias that was moved.

    Attributes:
        what: the function or the model.
        alias: its alias.
        before: the version that it pointed at.
        after: the version that it points at now.
    """

    what: str
    alias: str
    before: int
    after: int

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return vars(self)

    def describe(self) -> str:
        """A line for a person."""
        return f"{self.what}: {self.alias} is now version {self.after}, was {self.before}"


def roll_back_code(stack: Stack, to: int | None = None) -> RolledBack:
    """Point the alias that the API calls at an earlier version of the function: its code, settings and pin.

    Args:
        stack: whose function.
        to: the version; None for the one before.

    Raises:
        UsageError: the version does not exist, or it is the first.
        AwsError: AWS refused, or someone else moved the alias at the same time.
    """
    client = aws_client("lambda")
    with refusals_explained(f"the alias {ALIAS} of {stack.function} cannot be moved"):
        alias = client.get_alias(FunctionName=stack.function, Name=ALIAS)
        pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=stack.function)
        versions = [int(each["Version"]) for page in pages for each in page["Versions"] if each["Version"].isdecimal()]
        before = int(alias["FunctionVersion"])
        after = _earlier(stack.function, versions, before, to)
        client.update_alias(
            FunctionName=stack.function,
            Name=ALIAS,
            FunctionVersion=str(after),
            RoutingConfig={"AdditionalVersionWeights": {}},
            **({"RevisionId": alias["RevisionId"]} if "RevisionId" in alias else {}),
        )
    return RolledBack(stack.function, ALIAS, before, after)


def roll_back_model(store: Store, reference: str, to: int | None = None) -> RolledBack:
    """Point a model's alias at an earlier version of the model.

    Args:
        store: where the model is.
        reference: `NAME`, whose `latest` is meant, or `NAME@ALIAS`.
        to: the version; None for the one before.

    Raises:
        UsageError: the model, alias or version does not exist, or it is the first version.
        PublishError, StoreError: the store refused.
    """
    name, _, alias = reference.partition("@")
    alias = alias or "latest"
    _, before = store.resolve(f"{name}@{alias}")
    after = _earlier(name, store.list_versions(name), before, to)
    store.set_alias(name, alias, after)
    return RolledBack(name, alias, before, after)


def _earlier(what: str, versions: Sequence[int], current: int, to: int | None) -> int:
    """The version to go to.

    >>> _earlier("fruit", [1, 2, 5, 6], 5, None)
    2
    """
    known = ", ".join(map(str, sorted(versions))) or "none"
    if to is not None:
        if to not in versions:
            raise UsageError(f"{what} has no version {to}; it has {known}")
        return to
    earlier = [version for version in versions if version < current]
    if not earlier:
        raise UsageError(f"{what} has no version before {current}; it has {known}")
    return max(earlier)
