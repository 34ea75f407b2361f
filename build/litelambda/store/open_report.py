"""Opens the report of a published version, once it is known to be the page that was published."""

from __future__ import annotations

import hashlib
import html
import tempfile
import webbrowser
from pathlib import Path

from litelambda.common.errors import UsageError
from litelambda.store.artifact_store import Store
from litelambda.store.reading import open_reader
from litelambda_serving.aliases import fetch_aliases
from litelambda_serving.artifact import fetch_manifest
from litelambda_serving.errors import DigestError, ModelNotFoundError, ObjectNotFoundError
from litelambda_serving.manifest import Manifest

CHECKED = "<!--checked-->"
"""Where a page says that it was checked, once it is opened."""

_REPORT_NAME = "report.html"


def open_report(store_url: str, reference: str, *, show: bool = True) -> Path:
    """Fetch a version's report, check it and show it in the browser.

    Args:
        store_url: `file:///…`, `s3://bucket/prefix`, `gs://…` or `az://…`.
        reference: `NAME`, `NAME@ALIAS` or `NAME:VERSION`; the alias `latest` where none is given.
        show: open it; otherwise it is only fetched.

    Returns:
        Where a copy of the page lies on this machine, which also says what was checked.

    Raises:
        UsageError: the model, alias or version does not exist, or it has no report.
        DigestError: the page, or the manifest, is not what was published; nothing was opened.
    """
    store = Store(store_url)
    name, version = store.resolve(reference)
    manifest = _fetch_manifest(store, name, version)
    page = _read_pinned(store, name, version, manifest)
    path = Path(tempfile.mkdtemp(prefix="litelambda-")) / f"{name}-{version}.html"
    path.write_bytes(page.replace(CHECKED.encode(), _describe(store, name, version, manifest).encode(), 1))
    if show:
        webbrowser.open(path.as_uri())
    return path


def _fetch_manifest(store: Store, name: str, version: int) -> Manifest:
    """The manifest, which must be the one that the model's aliases pin where one of them names the version."""
    store.read_manifest(name, version)  # says which versions there are, where this one is not there
    reader = open_reader(store.url)
    try:
        pinned, _artifact = fetch_aliases(reader, name).pins.get(version, ("", ""))
    except ModelNotFoundError:  # it has no aliases
        pinned = ""
    return fetch_manifest(reader, name, version, pinned)


def _read_pinned(store: Store, name: str, version: int, manifest: Manifest) -> bytes:
    """The page, if it has the digest that the manifest pins."""
    try:
        pin = manifest.files[_REPORT_NAME]
        page = store.read_file(name, version, _REPORT_NAME)
    except KeyError:
        raise UsageError(f"{name} version {version} in {store.url} has no {_REPORT_NAME}") from None
    except ObjectNotFoundError:
        raise DigestError(
            f"{name} version {version} in {store.url} was published with a {_REPORT_NAME}, which has been deleted"
        ) from None
    digest = hashlib.sha256(page).hexdigest()
    if (len(page), digest) != (pin.size_bytes, pin.sha256):
        raise DigestError(
            f"{store.url}/{name}/{version}/{_REPORT_NAME} was changed after it was published: it has {len(page):,} "
            f"bytes and SHA-256 {digest}, the manifest pins {pin.size_bytes:,} bytes and {pin.sha256}. It was not "
            "opened: restore it from a backup, or build the version again"
        )
    return page


def _describe(store: Store, name: str, version: int, manifest: Manifest) -> str:
    aliases = ", ".join(alias for alias, target in sorted(store.read_aliases(name).items()) if target == version)
    return (
        f'<p class="muted">Checked when it was opened: the page is the one that the manifest with SHA-256 '
        f"<code>{manifest.sha256}</code> pins. Aliases now: {html.escape(aliases or 'none')}.</p>"
    )
