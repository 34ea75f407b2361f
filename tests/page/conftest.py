"""The service that the page is opened on: models of each kind of input, below a base path as well as without one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litelambda.common.paths import PROJECT
from support.golden_store import golden, publish
from support.service import read_address

VOCABULARY = ["[UNK]", "good", "bad", "very", "not"]
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None, "decoder": None,
    "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(VOCABULARY)}, "unk_token": "[UNK]"},
}  # fmt: skip
TEXT = {"kind": "text", "field": "review", "tokenizer": "tokenizer.json", "length": 8, "padding": 0,
        "max_characters": 1000}  # fmt: skip
TABLE = {
    "kind": "table",
    "label": "species",
    "columns": [
        {"name": "mass", "type": "number", "scale": 1.0, "offset": 0.0, "missing": 0.25},
        {"name": "island", "type": "category", "vocabulary": ["Biscoe", "Dream", "Torgersen"],
         "encoding": "one_hot", "unknown": "refuse"},
    ],
}  # fmt: skip
PICTURE = {"kind": "image", "field": "photo", "shape": [32, 32, 3], "fit": "crop", "scale": 1 / 127.5, "offset": -1.0}
METRICS = {"float": {"accuracy": 0.99}, "quantized": {"accuracy": 0.98}, "agreement": 0.995, "num_examples": 400}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the browser to `make test-page`, which knows whether there is one."""
    if not os.environ.get("LITELAMBDA_TEST_PAGE"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="a real Chromium: run `make test-page`"))


def publish_words(root: Path) -> None:
    """A model that reads text, with its tokenizer, which says a word's place in the vocabulary."""
    publish(root, "words", format_version=2, labels=["negative", "positive"], preprocessing={"ids": TEXT})
    folder = root / "words" / "1"
    data = json.dumps(TOKENIZER).encode()
    (folder / "tokenizer.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["tokenizer.json"] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    manifest["assets"] = ["tokenizer.json"]
    document = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(document)
    aliases = json.loads((root / "words" / "aliases.json").read_text())
    aliases["versions"]["1"]["manifest_sha256"] = hashlib.sha256(document).hexdigest()
    (root / "words" / "aliases.json").write_text(json.dumps(aliases))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Address of the service, "127.0.0.1:port"."""
    root = tmp_path_factory.mktemp("store")
    for name in ("half_plus_two", "two_by_two", "whole"):
        publish(root, name)
    publish(root, "penguins", 1, golden("tiny_int8"), format_version=2, task="classification", metrics=METRICS,
            labels=["Adelie", "Chinstrap", "Gentoo"], preprocessing={"x": TABLE})  # fmt: skip
    publish(root, "photos", 1, golden("mobilenet"), format_version=2, labels=[f"class {index}" for index in range(10)],
            preprocessing={"image": PICTURE})  # fmt: skip
    publish(root, "strokes", labels=["horizontal", "vertical"])
    publish_words(root)
    command = [sys.executable, "-m", "litelambda", "serve", "--store", root.as_uri(), "--port", "0", "--log-level",
               "ERROR"]  # fmt: skip
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, "BASE_PATH": "/ml"}
    ) as server:
        try:
            assert server.stderr is not None
            yield read_address(server.stderr)
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def results(service: str) -> dict[str, str]:
    """What failed, by check: all are run in one browser, in the environment that `make test-page` makes."""
    python = PROJECT / ".venv-page" / "bin" / "python"
    script = Path(__file__).with_name("checks.py")
    runner = PROJECT / "tests" / "contract" / "clients" / "run_checks.py"
    command = [str(python), str(runner), str(script), service]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found
