"""Ports for servers that must be given one, and whether anything answers there.

A test that starts a server of its own listens on port 0 and asks which it became.
"""

from __future__ import annotations

import secrets
import socket
import urllib.error
import urllib.request
from contextlib import suppress

__all__ = ["answers", "free_port", "is_listening"]

_FIRST, _COUNT = 10_000, 20_000
"""Below the ports that systems assign themselves: one of those could be another socket's by the time it is used."""


def free_port() -> int:
    """A port that nothing listens on, and that no socket is assigned: it must be asked for by its number."""
    for _ in range(100):
        port = _FIRST + secrets.randbelow(_COUNT)
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("100 ports were taken")


def is_listening(port: int) -> bool:
    """Whether something of this machine accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a service is up: it answers, if only that the caller may not ask."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (401, 403)
    except OSError:
        return False
    return True
