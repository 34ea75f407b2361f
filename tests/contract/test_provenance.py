"""What others' tools say of signatures and provenance: OpenSSF's model_signing, validators of CycloneDX and in-toto."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from litelambda.cli.main import main
from litelambda.store.signing import LocalSigner, one_line
from litelambda_serving.errors import TrustError
from support.contract_clients import tool
from support.golden_store import golden, publish
from support.handler_client import load_module, send

ENVIRONMENT = "provenance"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two keys, ours.pem and other.pem, each with its public one."""
    for name in ("ours", "other"):
        assert main(["keygen", str(tmp_path / f"{name}.pem")]) == 0
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a version that is not signed."""
    publish(tmp_path / "store", "m", 1, golden("half_plus_two"))
    return tmp_path / "store"


def model_signing(what: str, folder: Path, key: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Have model_signing sign or verify a folder; its signature lies in it."""
    option = "--private_key" if what == "sign" else "--public_key"
    command = [
        tool(ENVIRONMENT, "model_signing"),
        what,
        "key",
        folder,
        "--signature",
        folder / "model.sig",
        option,
        key,
    ]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=120, check=False)


def test_model_signing_accepts_what_we_sign(store: Path, keys: Path) -> None:
    """With our key it verifies; with another, or once a file was changed, added or removed, it does not."""
    for name in ("other", "ours"):  # the second replaces the first
        assert main(["sign", "m", "--key", str(keys / f"{name}.pem"), "--store", str(store)]) == 0
    folder = store / "m/1"
    verified = model_signing("verify", folder, keys / "ours.pub.pem")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert model_signing("verify", folder, keys / "other.pub.pem").returncode
    (folder / "added").write_bytes(b"")
    assert model_signing("verify", folder, keys / "ours.pub.pem").returncode
    (folder / "added").unlink()
    (folder / "model.tflite").write_bytes(b"changed")
    assert model_signing("verify", folder, keys / "ours.pub.pem").returncode


def test_we_accept_what_model_signing_signs(store: Path, keys: Path) -> None:
    """Its bundle alone: `litelambda verify` and the function take it, and neither takes one of another key."""
    done = model_signing("sign", store / "m/1", keys / "ours.pem")
    assert done.returncode == 0, done.stdout + done.stderr
    verify: list[Any] = ["verify", "m", "--store", str(store), "--public-key"]
    assert main([*verify, str(keys / "ours.pub.pem")]) == 0
    assert main([*verify, str(keys / "other.pub.pem")]) == 1
    ours, other = (one_line(LocalSigner(keys / f"{name}.pem").public_key()) for name in ("ours", "other"))
    handler = load_module(store, "m", MODEL_PUBLIC_KEY=ours).handler
    assert send(handler, "POST", "/v1/models/m:predict", {"instances": [1.0]}).status == 200
    with pytest.raises(TrustError):
        load_module(store, "m", MODEL_PUBLIC_KEY=other)
