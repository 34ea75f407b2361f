"""Where the project's own files are, and stores that are named by a path.

The toolchain runs from a checkout: what it deploys lies beside it.
"""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
FUNCTIONS = PROJECT / "functions"
RECIPES = PROJECT / "build" / "recipes"
REQUIREMENTS = PROJECT / "requirements"
TEMPLATE = PROJECT / "template.yaml"
DEFAULT_STORE = (PROJECT / "models").as_uri()


def store_url(text: str) -> str:
    """A store as it is given on a command line: a URL as it is, a path as a `file:///…` URL.

    Raises:
        ValueError: it is empty, or names the home of a user that does not exist.
    """
    if not text:
        raise ValueError("a store is a path or a URL, not an empty text")
    if "://" in text or text.startswith(("file:", "s3:")):
        return text
    try:
        return Path(text).expanduser().resolve().as_uri()
    except RuntimeError as error:
        raise ValueError(f"{text}: {error}") from error
