"""Deleting a model's old versions: those that no alias, canary or shadow names.

The manifest goes first: a version without it does not exist, so that one that is half deleted is never served, listed
or pointed at. What an interrupted run left behind is known by its record in the audit trail, and the next run finishes
it; files without a manifest that have no such record may be those of a publisher at work, and stay.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from litelambda.common.errors import PublishError, UsageError
from litelambda.common.interrupts import hold, interrupts_noted, let_go
from litelambda.common.wording import columns, counted
from litelambda.store.artifact_store import Store
from litelambda.store.audit_check import read_trail
from litelambda.store.catalogue import age, roles
from litelambda.store.version_files import VersionFiles
from litelambda_serving.artifact import MANIFEST_NAME
from litelambda_serving.errors import StoreError

__all__ = ["KEEP", "Plan", "Version", "plan_prune", "prune"]

KEEP = 3
"""How many of the newest versions stay, whether anything names them or not."""


@dataclass(frozen=True)
class Version:
    """A version of a model, with what prune says of it.

    Attributes:
        number: its number.
        num_bytes: of all its files.
        created: when it was published, "" where its manifest does not say so.
        reasons: why it is kept: the aliases that name it, or that it is among the newest.
        is_partial: whether it is what an interrupted run left of one.
    """

    number: int
    num_bytes: int
    created: str
    reasons: tuple[str, ...] = ()
    is_partial: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        fields = {"version": self.number, "bytes": self.num_bytes, "created": self.created}
        return {**fields, "reasons": list(self.reasons)} if self.reasons else fields


@dataclass(frozen=True)
class Plan:
    """What would be deleted of a model, and what would stay.

    Attributes:
        model: its name.
        going: versions to delete, ascending.
        kept: the others.
    """

    model: str
    going: Sequence[Version]
    kept: Sequence[Version]

    @property
    def num_bytes(self) -> int:
        """Of all files that would go."""
        return sum(each.num_bytes for each in self.going)

    def to_json(self, *, deleted: bool) -> dict[str, Any]:
        """The document that the command prints with `--json`."""
        return {
            "model": self.model,
            "deleted": deleted,
            "bytes": self.num_bytes,
            "versions": [each.to_json() for each in self.going],
            "kept": [each.to_json() for each in self.kept],
        }

    def describe(self, store_url: str) -> str:
        """A table of all versions, and what deleting these would break."""
        if not self.going:
            return f"prune: nothing to delete of {self.model}: it has {counted(len(self.kept), 'version')}, all kept"
        rows = [("VERSION", "CREATED", "AGE", "BYTES", "")]
        for each in sorted((*self.going, *self.kept), key=lambda version: -version.number):
            said = f"stays: {', '.join(each.reasons)}" if each.reasons else "goes"
            created = "partly deleted" if each.is_partial else each.created
            rows.append((str(each.number), created, age(each.created, datetime.now(UTC)), f"{each.num_bytes:,}", said))
        later = "; a bucket with versioning frees them when its lifecycle rule expires what was deleted"
        return (
            f"{columns(rows)}\n"
            f"prune: {counted(len(self.going), 'version')} of {self.model} would go, {self.num_bytes:,} bytes"
            f"{later if store_url.startswith('s3://') else ''}\n"
            "prune: what names these by number fails afterwards, and the store cannot know it: functions with "
            "MODEL_VERSION, requests for /versions/N, scoring jobs, comparisons and rollbacks"
        )


def plan_prune(store: Store, model: str, keep: int = KEEP) -> Plan:
    """Find the versions that can go; nothing is changed.

    Args:
        store: the store.
        model: the model.
        keep: how many of the newest versions stay. At least one: a version's number is never given twice.

    Raises:
        UsageError: the store has no such model, or `keep` is below 1.
        StoreError: the store cannot be read.
    """
    if keep < 1:
        raise UsageError(f"keep at least 1 version, not {keep}: numbers are given once, after the newest")
    numbers = store.list_versions(model)
    if not numbers:
        raise UsageError(f"{store.url} has no model {model!r}; {store.describe(model)}")
    sizes: dict[int, int] = defaultdict(int)
    for number, _, num_bytes in VersionFiles(store, model).list():
        sizes[number] += num_bytes
    named = {"aliases": store.read_aliases(model), **store.read_traffic(model)}
    going: list[Version] = []
    kept: list[Version] = []
    for number in numbers:
        newest = [f"among the {keep} newest"] if number in numbers[-keep:] else []
        created = str(json.loads(store.read_manifest(model, number)).get("created", ""))
        reasons = (*roles(named, number), *newest)
        (kept if reasons else going).append(Version(number, sizes[number], created, reasons))
    unfinished = {number for number in sizes.keys() - set(numbers) if number < numbers[-1]}
    if unfinished:
        begun = {each.get("version") for each in read_trail(store).records if _is_prune(each, model)}
        going += [Version(number, sizes[number], "", is_partial=True) for number in sorted(unfinished & begun)]
    return Plan(model, sorted(going, key=lambda version: version.number), kept)


def _is_prune(record: dict[str, Any], model: str) -> bool:
    return record.get("action") == "prune" and record.get("model") == model


def prune(store: Store, plan: Plan, report: Callable[[Version], None] = lambda _: None) -> None:
    """Delete what a plan names, one version after the other; Ctrl-C takes effect between two.

    Args:
        store: the store.
        plan: from `plan_prune`.
        report: told about each version that is gone.

    Raises:
        PublishError: an alias names one of them by now; it stays.
        StoreError: the store refused.
    """
    with interrupts_noted():
        for version in plan.going:
            hold(f"version {version.number} is being deleted; again to stop at once")
            with store.trail.recording("prune", model=plan.model, version=version.number):
                _delete(store, plan.model, version)
            report(version)
            let_go()


def _delete(store: Store, model: str, version: Version) -> None:
    what = f"version {version.number} of {model}"
    files = VersionFiles(store, model)
    names = [name for number, name, _ in files.list() if number == version.number]
    if not version.is_partial:
        _delete_manifest(store, files, model, version.number)
    try:
        for name in names:
            files.delete(version.number, name)
    except StoreError as error:
        raise type(error)(
            f"{error} ({what} is no longer there; prune again to delete the rest of its files)"
        ) from error


def _delete_manifest(store: Store, files: VersionFiles, model: str, number: int) -> None:
    """Delete a manifest that no alias names; one that is named while that happens is written again."""
    what = f"version {number} of {model}"
    manifest = store.read_manifest(model, number)
    _check_unnamed(store, model, number, what)
    try:
        files.delete(number, MANIFEST_NAME)
    except StoreError as error:
        raise type(error)(
            f"{error} ({what} stays as it was: the store does not let it be deleted. A stack's bucket has nothing "
            "deleted while ImmutableVersions=on, its default; elsewhere look at its policy, its locks and your rights)"
        ) from error
    try:
        _check_unnamed(store, model, number, what)
    except PublishError:
        files.restore(number, MANIFEST_NAME, manifest)
        raise


def _check_unnamed(store: Store, model: str, number: int, what: str) -> None:
    if names := roles({"aliases": store.read_aliases(model), **store.read_traffic(model)}, number):
        raise PublishError(f"{what} stays: {', '.join(names)} names it now")
