"""Refuse a built site that would ask the network for a script, a style, a font or an image when it is read.

.venv/bin/python docs/check_site.py .site
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_EXTERNAL = re.compile(r"(?:https?:)?//")
_LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
_CSS_URL = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


class Loaded(HTMLParser):
    """Addresses that a browser loads for a page without being asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element loads."""
        found = {name: value or "" for name, value in attrs}
        if tag == "link" and _LOADED_LINKS & set(found.get("rel", "").split()):
            self.addresses.append(found.get("href", ""))
        self.addresses += [found.get("src", ""), *re.split(r"[\s,]+", found.get("srcset", ""))]
        self.addresses += _CSS_URL.findall(found.get("style", ""))


def external_addresses(site: Path) -> list[str]:
    """What the pages and styles of a site load from elsewhere, each with the file that does."""
    found = []
    for path in sorted(site.rglob("*.html")):
        text, page = path.read_text(encoding="utf-8"), Loaded()
        page.feed(text)
        addresses = [*page.addresses, *_CSS_URL.findall(text)]
        found += [f"{path.relative_to(site)}: {address}" for address in addresses if _EXTERNAL.match(address)]
    for path in sorted(site.rglob("*.css")):
        found += [f"{path.relative_to(site)}: {address}" for address in _CSS_URL.findall(path.read_text("utf-8"))]
    return found


if __name__ == "__main__":
    external = external_addresses(Path(sys.argv[1]))
    if external:
        sys.exit("docs: the site must not load anything from the network:\n" + "\n".join(external))
