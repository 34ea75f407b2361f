"""A service in a process of its own: `litelambda serve`, as clients and browsers reach it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_address"]


def read_address(lines: Iterable[str]) -> str:
    """Wait for the line on stderr that names the address, "127.0.0.1:port"; the runtime may say something before it."""
    seen = []
    for line in lines:
        seen.append(line)
        match = re.search(r"http://([\d.]+:\d+)", line)
        if match is not None:
            return match[1]
    raise AssertionError("the service did not come up: " + "".join(seen))
