"""Opens the report of a published version."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from litelambda.common.errors import UsageError
from litelambda.store.artifact_store import Store
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
    store = Store(store_url)
    name, version = store.resolve(reference)
    try:
        page = store.read_file(name, version, _REPORT_NAME)
    except ObjectNotFoundError:
        raise UsageError(f"{name} version {version} in {store_url} has no {_REPORT_NAME}") from None
    path = Path(tempfile.mkdtemp(prefix="litelambda-")) / f"{name}-{version}.html"
    path.write_bytes(page)
    if show:
        webbrowser.open(path.as_uri())
    return path
