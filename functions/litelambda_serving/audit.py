"""Who did what to which version, as one record: the form that a function's log and a store's trail have in common.

A function writes its own records as lines of its log, `{"audit": {...}}`: versions that it loaded or refused, callers
that it refused, and calls of the model repository. They hold neither payloads nor secrets. Imported where there is
something to record: INIT of a function that asks for no signature does not pay for it. The store's trail, which is
chained, is the toolchain's part.
"""

from __future__ import annotations

import os
import sys
from time import gmtime, strftime

from litelambda_serving.errors import TrustError
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.trust import Trust

__all__ = ["loaded", "make_record", "record", "refused"]

_MAX_TEXT = 500
"""Characters of a field: what a caller sends can be part of one."""


def make_record(  # noqa: PLR0913 - so many fields has a record
    action: str,
    outcome: str,
    *,
    actor: str,
    model: str = "",
    version: int = 0,
    alias: str = "",
    moved: tuple[Any, Any] | None = None,
    manifest_sha256: str = "",
    signature: str = "",
    reason: str = "",
) -> dict[str, Any]:
    """What happened, with the time; fields that do not apply are left out.

    Args:
        action: what was done: one of a function's rights (predict, explain, metadata, repository, admin); `load`, of a
            version by the function itself; or what the toolchain does to a store (publish, alias, sign, prune).
        outcome: `done`, `refused` or `failed`.
        actor: who did it: an ARN, the subject of a token, `user@host`, or `function:NAME`.
        model: its name.
        version: its number.
        alias: what was moved, or through what the version was found.
        moved: what was replaced, and with what: the record's `from` and `to`.
        manifest_sha256: digest of the version's manifest.
        signature: `valid`, `invalid`, `unsigned`, or `unchecked` where no key is known.
        reason: why it was refused, or failed.

    >>> record = make_record("load", "done", actor="function:digits", model="digits", version=7, signature="valid")
    >>> [record[name] for name in ("actor", "action", "outcome", "model", "version", "signature")]
    ['function:digits', 'load', 'done', 'digits', 7, 'valid']
    """
    before, after = moved or ("", "")
    fields = {
        "time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
        "actor": actor,
        "action": action,
        "outcome": outcome,
        "model": model,
        "version": version,
        "alias": alias,
        "from": before,
        "to": after,
        "manifest_sha256": manifest_sha256,
        "signature": signature,
        "reason": reason,
    }
    return {
        name: value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in fields.items()
        if value or (moved and name in ("from", "to"))
    }


def record(action: str, outcome: str, *, actor: str = "", **fields: Any) -> None:
    """Write a record as a line of the function's log.

    Args:
        action: see `make_record`.
        outcome: see `make_record`.
        actor: see `make_record`; "" for the function itself.
        fields: further ones of `make_record`.
    """
    actor = actor or f"function:{os.environ.get('AWS_LAMBDA_FUNCTION_NAME', 'local')}"
    # One write per line: lines of concurrent writers never interleave.
    sys.stdout.write(dumps({"audit": make_record(action, outcome, actor=actor, **fields)}) + "\n")
    sys.stdout.flush()


def loaded(manifest: Manifest, trust: Trust | None) -> None:
    """Record a version that was loaded.

    Args:
        manifest: its manifest.
        trust: what the function asks of versions; a key in it has signed this one.
    """
    record(
        "load",
        "done",
        model=manifest.model,
        version=manifest.version,
        manifest_sha256=manifest.sha256,
        signature="valid" if trust is not None and trust.public_keys else "unchecked",
    )


def refused(model: str, reference: str | int, error: Exception) -> None:
    """Record a version that was refused.

    Args:
        model: its name.
        reference: its number, or the alias through which it was found.
        error: why.
    """
    reference = str(reference)
    record(
        "load",
        "refused",
        model=model,
        version=int(reference) if reference.isdecimal() else 0,
        alias="" if reference.isdecimal() else reference,
        signature=error.signature if isinstance(error, TrustError) else "",
        reason=f"{type(error).__name__}: {error}",
    )
