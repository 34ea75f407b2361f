"""`litelambda audit`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from litelambda.cli.options import json_option, print_json, store_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda.store.audit_check import Finding

_SHOWN = 20


@click.command()
@store_option()
@click.option("--verify", is_flag=True, help="Check every record, and the store against them; exit 1 if one is wrong.")
@click.option(
    "--expect-head", metavar="HEAD", help="What was printed as the head before: the trail must still hold it."
)
@click.option("--model", metavar="NAME", help="Only records of this model.")
@click.option("--since", metavar="TIME", help="Only records from this time on, UTC: 2026-11-29 or 2026-11-29T12:00.")
@json_option
def command(
    store: str, verify: bool, expect_head: str | None, model: str | None, since: str | None, as_json: bool
) -> None:
    """List who did what to a store, and check that the list is whole."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.audit_check import check_head, check_store, read_trail
    from litelambda.store.checks import check_store_exists

    check_store_exists(store)
    trail = read_trail(Store(store))
    findings = list(trail.findings)
    if expect_head:
        findings += check_head(trail, expect_head)
    if verify:
        findings += check_store(Store(store), trail.records)
    chosen = [
        record
        for record in trail.records
        if (not model or record.get("model") == model) and (not since or record.get("time", "") >= since)
    ]
    if as_json:
        texts = [{"place": each.place, "what": each.what} for each in findings]
        print_json({"records": chosen, "head": trail.head, "findings": texts})
    else:
        for record in chosen:
            print(_line(record))
    _report(len(trail.digests), trail.head, findings, verified=verify)
    if findings:
        click.get_current_context().exit(1)


def _line(record: dict[str, Any]) -> str:
    """One record as a line.

    >>> _line({"sequence": 7, "time": "2026-11-29T12:00:00Z", "actor": "ann@desk", "action": "alias", "outcome": "done",
    ...        "model": "digits", "version": 2, "alias": "latest", "from": 1, "to": 2, "begun": 6})
    '      7  2026-11-29T12:00:00Z  ann@desk  alias done  digits:2  latest 1 -> 2'
    """
    parts = [f"{record['sequence']:7}", record.get("time"), record.get("actor")]
    parts.append(f"{record.get('action')} {record.get('outcome')}")
    parts.append(f"{record.get('model', '')}:{record.get('version', '')}")
    if "to" in record:
        parts.append(f"{record.get('alias', '')} {record.get('from')} -> {record['to']}".strip())
    parts += [record.get("signature"), record.get("manifest_sha256", "")[:16], record.get("reason")]
    return "  ".join(str(part) for part in parts if part)


def _report(num_records: int, head: str, findings: Sequence[Finding], *, verified: bool) -> None:
    for finding in findings[:_SHOWN]:
        print(f"litelambda: {finding}", file=sys.stderr)
    if len(findings) > _SHOWN:
        print(f"litelambda: and {len(findings) - _SHOWN} more", file=sys.stderr)
    held = "" if findings or not verified else "; they are whole, and the store is as they say"
    print(f"{num_records} records{held}", file=sys.stderr)
    if head:
        print(f"head {head}", file=sys.stderr)
