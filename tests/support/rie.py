"""Lambda's Runtime Interface Emulator, one execution environment each."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.common.paths import PROJECT
from support.ports import free_port, is_listening
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda.commands.package import Architecture

ARCH: Architecture = "arm64" if os.uname().machine == "aarch64" else "x86_64"
EMULATORS = sorted(PROJECT.glob(f".venv-sam/lib/python3.*/site-packages/samcli/local/rapid/aws-lambda-rie-{ARCH}"))
INVOKE = "/2015-03-31/functions/function/invocations"


class Emulator:
    """One execution environment behind its invoke URL."""

    def __init__(self, command: list[str], tree: Path, environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.port, runtime_port = free_port(), free_port()
        emulator = [
            *(str(EMULATORS[0]), "--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"),
            *("--runtime-api-address", f"127.0.0.1:{runtime_port}"),
        ]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*emulator, *command], cwd=tree, env=environ, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(lambda: is_listening(self.port))

    def invoke(self, event: object) -> Any:
        """What one synchronous invocation gives: an answer, an error's description, or the emulator's own words."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", INVOKE, json.dumps(event))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status in (200, 502), body
        try:
            return json.loads(body)
        except ValueError:
            return body.decode()

    def log(self) -> str:
        """What the emulator and the function have printed."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """Stop the emulator and what it started."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for group in {os.getpgid(int(child)) for child in children}:
            os.killpg(group, signal.SIGKILL)
        self._process.kill()
        self._process.wait(10)
