"""The models of a store, their versions and their aliases, as data and as a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from litelambda.common.wording import columns
from litelambda.store.artifact_store import Store

Model = dict[str, Any]

_UNITS = ((86400, "d"), (3600, "h"))


def list_models(store_url: str) -> list[Model]:
    """List a store's models.

    Args:
        store_url: `file:///…`, `s3://bucket/prefix`, `gs://…` or `az://…`; a store that does not exist is empty.

    Returns:
        `{"model", "versions": [{"version", "digest", "created", "metrics", "size_bytes"}], "aliases": {alias: version},
        "canary": {alias: {version: percent}}, "shadow": {alias: version}}` each, sorted by name, versions ascending.

    Raises:
        StoreError: the store refused.
    """
    store = Store(store_url)
    return [
        {
            "model": model,
            "versions": [_version(store, model, version) for version in store.list_versions(model)],
            "aliases": store.read_aliases(model),
            **store.read_traffic(model),
        }
        for model in store.list_models()
    ]


def describe_models(models: Sequence[Model], store_url: str) -> str:
    """Show a list of models as a table, newest version first."""
    if not models:
        return f"no models in {store_url}"
    rows = [("MODEL", "VERSION", "CREATED", "AGE", "ALIASES", "QUANTIZED", "STORED", "DIGEST")]
    for model in models:
        for version in reversed(model["versions"]):
            figures = version["metrics"].get("quantized", {}).items()
            rows.append(
                (
                    model["model"],
                    str(version["version"]),
                    version["created"],
                    age(version["created"], datetime.now(UTC)),
                    " ".join(roles(model, version["version"])),
                    " ".join(f"{name} {value:.4g}" for name, value in figures),
                    f"{version['size_bytes']['stored']:,}" if "stored" in version["size_bytes"] else "",
                    version["digest"][:12],
                )
            )
    return columns(rows)


def roles(model: Model, version: int) -> list[str]:
    """The roles of a version: the target of aliases, a canary with a percentage, or a shadow.

    >>> roles({"aliases": {"latest": 7}, "canary": {"latest": {"8": 10}}, "shadow": {"latest": 9}}, 8)
    ['latest:canary=10%']
    """
    targets = sorted(alias for alias, target in model["aliases"].items() if target == version)
    shares = {alias: shares[str(version)] for alias, shares in model["canary"].items() if str(version) in shares}
    canaries = [f"{alias}:canary={percent:g}%" for alias, percent in sorted(shares.items())]
    return targets + canaries + [f"{alias}:shadow" for alias, number in model["shadow"].items() if number == version]


def age(created: str, now: datetime) -> str:
    """How long ago a manifest's `created` was, in its largest unit; "" where it has none.

    >>> age("2026-01-02T03:04:05Z", datetime(2026, 1, 5, 1, tzinfo=UTC))
    '2 d'
    """
    try:
        seconds = (now - datetime.fromisoformat(created)).total_seconds()
    except (TypeError, ValueError):
        return ""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (60, "min"))
    return f"{max(int(seconds // size), 0)} {unit}"


def _version(store: Store, model: str, version: int) -> dict[str, Any]:
    manifest = store.read_manifest(model, version)
    fields = json.loads(manifest)
    return {
        "version": version,
        "digest": hashlib.sha256(manifest).hexdigest(),
        "created": fields.get("created", ""),
        "metrics": fields.get("metrics", {}),
        "size_bytes": fields.get("size_bytes", {}),
    }
