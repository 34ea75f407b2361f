"""An AWS on loopback: moto's server, empty at its start."""

from __future__ import annotations

from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

from support import mocked_aws  # noqa: F401 - its sessions share what is slow to read

BaseWSGIServer.serve_forever.__defaults__ = (0.02,)  # how long stopping it takes: moto leaves it at half a second
WSGIRequestHandler.disable_nagle_algorithm = True  # a body behind its head would wait 40 ms


class MotoServer:
    """Runs until it is stopped.

    Attributes:
        url: its endpoint.
    """

    def __init__(self) -> None:
        self._server: ThreadedMotoServer | None = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        # moto keeps its state in the process, where an earlier server's would be met again.
        urlopen(Request(f"{self.url}/moto-api/reset", method="POST"), timeout=60).close()

    def __enter__(self) -> MotoServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop answering; safe to call twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None
