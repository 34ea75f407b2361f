"""Opens the report of a published version."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from litelambda.common.errors import UsageError
from litelambda.store.artifact_store import open_publishing_store
from litelambda_serving.errors import ObjectNotFoundError

_REPORT_NAME = "report.html"


def open_report(store_url: str, reference: str, *, show: bool = True) -> Path:
    """Fetch a version's report and show it in the browser.

    Args:
        store_url: `file:///…` or `s3://bucket/prefix`.
        reference: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; the alias `latest` where none is given.
        show: open it; otherwise it is only fetched.

    Returns:
        Where the page lies on this machine.

    Raises:
        UsageError: the model, alias or version does not exist, or it has no report.
    """
    store = open_publishing_store(store_url)
    name, colon, number = reference.partition(":")
    if not colon:
        name, _, alias = reference.partition("@")
        aliases = store.read_aliases(name)
        alias = alias or "latest"
        if alias not in aliases:
            raise UsageError(f"{name!r} has no alias {alias!r} in {store_url}; {store.describe(name)}")
        number = str(aliases[alias])
    if not number.isdecimal():
        raise UsageError(f"--report {reference!r}: expected NAME, NAME@ALIAS or NAME:VERSION")
    try:
        page = store.read_file(name, int(number), _REPORT_NAME)
    except ObjectNotFoundError:
        raise UsageError(f"{name} version {number} in {store_url} has no {_REPORT_NAME}") from None
    path = Path(tempfile.mkdtemp(prefix="litelambda-")) / f"{name}-{number}.html"
    path.write_bytes(page)
    if show:
        webbrowser.open(path.as_uri())
    return path
