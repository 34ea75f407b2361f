"""An AWS on loopback (ministack) that takes whole stacks and runs their functions, for the tests of `make test-sam`.

It enforces the roles' policies (AUTH) and refuses unsigned calls to an API with IAM authorization. Functions run in
processes of their own on the emulator's Python, which is Lambda's version, through a client of the emulator's: the real
runtime client and the lean bootstrap are for the other tests of this folder.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from litelambda.common.paths import PROJECT
from support.ports import free_port
from support.sam import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = PROJECT / ".venv-emulator" / "bin" / "python"
REGION = "eu-west-1"
KEY, SECRET = "test", "test"
_START_TIMEOUT_S = 60

needs_emulator = pytest.mark.skipif(
    not PYTHON.exists(), reason="the emulator is not installed: no CPython 3.13 here, see `make test-sam`"
)


class Emulator:
    """A running ministack.

    Attributes:
        url: where it answers.
        environment: of commands that are to use it.
    """

    def __init__(self, folder: Path) -> None:
        """Start it, its files and its log in a folder."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.environment = {
            **ENVIRONMENT,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "PATH": os.pathsep.join(
                [*(str(PROJECT / name / "bin") for name in (".venv", ".venv-sam")), os.environ["PATH"]]
            ),
        }
        self._log = folder / "emulator.log"
        own = {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "MINISTACK_REGION": REGION,
            "TMPDIR": str(folder),
        }
        with self._log.open("w") as sink:
            self._process = subprocess.Popen(
                [PYTHON, "-m", "ministack"], env={**self.environment, **own}, cwd=folder, stdout=sink, stderr=sink
            )
        self.wait_for(self._answers, _START_TIMEOUT_S)

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()

    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def client(self, service: str) -> Any:
        """A client of one of its services."""
        return boto3.client(
            service,  # type: ignore[call-overload] # boto3's stubs want literals
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def wait_for(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Ask until the answer is true, and return it; fail with the log when the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            if answer := condition():
                return answer
            time.sleep(0.2)
        pytest.fail(f"not in {seconds} s:\n{self.log()[-4000:]}")

    def call(
        self,
        url: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        signed: bool,
    ) -> tuple[int, dict[str, str], bytes]:
        """Call a deployed API; its host name stays in the request, which goes to the emulator."""
        host = url.removeprefix("https://").split(".")[0] + f".execute-api.localhost:{self._port}"
        request = AWSRequest(method, f"http://{host}{path}", data=body, headers={"Host": host, **(headers or {})})
        if signed:
            SigV4Auth(Credentials(KEY, SECRET), "execute-api", REGION).add_auth(request)
        sent = urllib.request.Request(f"{self.url}{path}", body or None, dict(request.headers), method=method)
        try:
            with urllib.request.urlopen(sent, timeout=60) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=5) as response,
        ):
            return bool(response.status == 200)
        return False

    def at(self, url: str) -> str:
        """Where the emulator answers for the URL of a deployed API."""
        return f"{self.url}/_aws/execute-api/{url.removeprefix('https://').partition('.')[0]}"

    def run(self, command: str, timeout_s: int = 900, folder: Path = PROJECT) -> str:
        """Run a documented command line in the project's folder against the emulator; return what it said."""
        done = subprocess.run(
            ["bash", "-euc", command], cwd=folder, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.log()[-4000:]}"
        return done.stdout + done.stderr
