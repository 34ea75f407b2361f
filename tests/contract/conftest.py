"""The service that clients are held against: `litelambda serve`, or the container that LITELAMBDA_TEST_IMAGE names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.containers import container
from support.golden_store import golden, publish
from support.service import read_address

LABELS = ["cat", "dog", "fox"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the clients to `make test-contract`: their environments take more room than everything else together."""
    if not os.environ.get("LITELAMBDA_TEST_CONTRACT"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="real clients: run `make test-contract`"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Address of a service with a store of golden models, "127.0.0.1:port"."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "half_plus_two", version=123)
    publish(root, "tiny", 1, golden("tiny_int8"), labels=LABELS)
    publish(root, "tiny", 2, golden("tiny_int8"), labels=LABELS)
    aliases = json.loads((root / "tiny/aliases.json").read_text())
    (root / "tiny/aliases.json").write_text(json.dumps({**aliases, "stable": 1}))
    publish(root, "two_by_two")
    publish(root, "mobilenet", labels=[f"class {index}" for index in range(10)])
    for name in ("strings", "labelled"):
        publish(root, name, batching={"dynamic": False})
    for name in ("bool", "float16", "int8", "int64", "uint8", "float64"):
        publish(root, f"dtype_{name}")
    settings = {"CORS_ALLOW_ORIGIN": "*", "MODEL_CONTROL": "explicit"}
    if image := os.environ.get("LITELAMBDA_TEST_IMAGE"):
        environment = {**settings, "MODEL_NAME": "tiny", "LOG_LEVEL": "ERROR", "PAGE": "on"}
        with container(image, root, ready="/v2/health/ready", **environment) as (_, port):
            yield f"127.0.0.1:{port}"
        return
    command = [sys.executable, "-m", "litelambda", "serve", "--store", root.as_uri(), "--port", "0",
               "--model", "tiny", "--log-level", "ERROR"]  # fmt: skip
    environment = {**os.environ, **settings}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        try:
            assert server.stderr is not None
            yield read_address(server.stderr)
        finally:
            server.terminate()
