"""Where the project's own files are, which are only read; and stores that are named by a path.

A wheel has templates, handlers, recipes and locks in `litelambda/project/`, laid out as a checkout has them.
"""

from __future__ import annotations

from pathlib import Path

import litelambda_serving
from litelambda.common.errors import UsageError

_PACKAGED = Path(__file__).resolve().parents[1] / "project"

PROJECT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[3]
FUNCTIONS = PROJECT / "functions"
"""The handlers."""
SERVING = Path(litelambda_serving.__path__[0]).resolve()
"""The package that the handlers import."""
RECIPES = PROJECT / "build" / "recipes"
REQUIREMENTS = PROJECT / "requirements"
TEMPLATE = PROJECT / "template.yaml"
DEFAULT_STORE = "models"
"""In the current directory, for `store_url`."""


def store_url(store: str | Path) -> str:
    """The URL of a store as a user names it: a URL as it is, a path as a `file:///…` URL.

    Raises:
        UsageError: it is empty, or names the home of a user that does not exist.
    """
    text = str(store)
    if not text:
        raise UsageError("a store is a path or a URL, not an empty text")
    if "://" in text or text.startswith(("file:", "s3:")):
        return text
    try:
        return Path(text).expanduser().resolve().as_uri()
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}") from error
