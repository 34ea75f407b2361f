"""The parameters of a template: which there are, what is set, what stays, and what Lambda has no room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from litelambda.common.errors import UsageError
from litelambda_serving.store import split_store_url

__all__ = [
    "check_description",
    "check_store",
    "declared_parameters",
    "parse_template",
    "read_assignments",
    "show_parameters",
]

_MAX_DESCRIPTION = 256
"""Characters that Lambda allows in a version's description, which holds the parameters that a version is made of."""
_TEXTS = (
    *("ModelStore", "ModelName", "ModelVersion", "CorsAllowOrigin", "BasePath", "MetricsNamespace"),
    *("ModelPublicKey", "ModelMinimumVersion", "CaptureStore", "CaptureRedact", "RequestStore", "SubnetIds"),
)
_DESCRIBED = (
    *_TEXTS,
    *("ModelManifestSha256", "KmsKeyArn", "ModelMemoryMb", "AliasRefreshSeconds"),
    *(
        "NumThreads",
        "MemorySize",
        "Timeout",
        "LogLevel",
        "CapturePercent",
        "CaptureMaxKb",
        "CaptureSeconds",
        "DriftWindow",
    ),
)
"""Each with a space after it in the description; four letters follow."""


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref`) mean nothing: only plain values are read here."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def parse_template(text: str) -> dict[str, Any]:
    """A template's plain values."""
    loaded: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return loaded


def declared_parameters(template: Path) -> dict[str, str]:
    """The template's parameters with their defaults; a parameter without one has ""."""
    loaded = parse_template(template.read_text(encoding="utf-8"))
    return {name: str(each.get("Default", "")) for name, each in loaded["Parameters"].items()}


def read_assignments(assignments: Sequence[str], declared: Mapping[str, str]) -> dict[str, str]:
    """The parameters that `Name=value` texts set.

    Raises:
        UsageError: one of them sets no parameter of the template.
    """
    given = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or name not in declared:  # SAM drops it without a word
            raise UsageError(f"{assignment!r} sets no parameter, expected Name=value with one of {', '.join(declared)}")
        given[name] = value
    return given


def check_description(stack: str, values: Mapping[str, str]) -> None:
    """Refuse values that are too long together for a version's description: Lambda would, minutes later.

    Raises:
        UsageError: the message names the longest.
    """
    own_bucket = f"{stack}-artifactbucket-".ljust(len(stack) + 29, "?")[:63]  # as CloudFormation names it
    lengths = {name: len(values[name]) for name in _DESCRIBED}
    lengths["ModelStore"] = len(values["ModelStore"].partition("://")[2] or f"{own_bucket}/models")
    lengths["KmsKeyArn"] = len(values["KmsKeyArn"].partition(":key/")[2])
    total = sum(length + 1 for length in lengths.values()) + 4 - (not values["SubnetIds"])
    if total > _MAX_DESCRIPTION:
        longest = sorted(_TEXTS, key=lengths.__getitem__, reverse=True)[:3]
        raise UsageError(
            f"the parameters take {total} characters together, expected at most {_MAX_DESCRIPTION}, since Lambda keeps "
            f"them in a version's description: shorten {', '.join(f'{name} ({lengths[name]})' for name in longest)}"
        )


def check_store(given: Mapping[str, str]) -> None:
    """Refuse a ModelStore that the function would refuse, minutes later.

    Raises:
        SettingsError: the message says what is wrong with it.
    """
    if given.get("ModelStore"):
        split_store_url(given["ModelStore"])


def show_parameters(given: Mapping[str, str], deployed: Mapping[str, str], declared: Mapping[str, str]) -> None:
    """Say what is set and what stays; values that are the template's defaults go without saying."""
    for name, value in given.items():
        before = deployed.get(name)
        if value != before:
            print(f"deploy: sets  {name}={value}" + (f" (was {before!r})" if before is not None else ""), flush=True)
    for name, value in deployed.items():
        if given.get(name, value) == value != declared.get(name, value):
            print(f"deploy: keeps {name}={value}", flush=True)
