"""What others' tools say of signatures and provenance: OpenSSF's model_signing, validators of CycloneDX and in-toto."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from litelambda.cli.main import main
from litelambda.commands.image import make_image
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


VALIDATE_BOM = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(error) if error else 0)
"""

VALIDATE_STATEMENT = """
import json, sys
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
text = sys.stdin.read()
Statement.copy_from_pb(Parse(text, Message())).validate()
document = json.loads(text)
assert document["predicateType"] == "https://slsa.dev/provenance/v1", document["predicateType"]
predicate = ParseDict(document["predicate"], Provenance())
assert predicate.build_definition.build_type and predicate.run_details.builder.id
for each in (*predicate.build_definition.resolved_dependencies, *predicate.run_details.byproducts):
    ResourceDescriptor.copy_from_pb(each).validate()
"""


def validate(script: str, document: bytes) -> str:
    """What a validator says of a document, "" for nothing."""
    command = [tool(ENVIRONMENT), "-W", "ignore", "-c", script]
    done = subprocess.run(command, input=document, capture_output=True, timeout=120, check=False)
    return done.stderr.decode() if done.returncode else ""


@pytest.fixture(scope="module", params=["built", "imported"])
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a version: of a recipe's build, or of an import."""
    if request.param == "built":
        return Path(request.getfixturevalue("built_artifact").folder)
    folder = tmp_path_factory.mktemp("imported")
    (folder / "m.tflite").write_bytes(golden("tiny_int8"))
    assert main(["import", str(folder / "m.tflite"), "--name", "m", "--store", str(folder / "store")]) == 0
    return folder / "store/m/1"


def test_the_bill_of_materials_is_valid(version: Path) -> None:
    """CycloneDX's own strict validator takes it, and not one with a field that is not of the specification."""
    document = (version / "bom.cdx.json").read_bytes()
    assert validate(VALIDATE_BOM, document) == ""
    assert validate(VALIDATE_BOM, json.dumps({**json.loads(document), "invented": 1}).encode())
    component = json.loads(document)["metadata"]["component"]
    assert component["hashes"][0]["content"] == hashlib.sha256((version / "model.tflite").read_bytes()).hexdigest()


def test_the_bill_of_materials_of_an_image_is_valid(tmp_path: Path) -> None:
    """The same validator takes what a container says that it holds."""
    document = (make_image("container", "x86_64", tmp_path).directory / "bom.cdx.json").read_bytes()
    assert validate(VALIDATE_BOM, document) == ""


def test_the_statement_is_valid(version: Path) -> None:
    """in-toto's own package takes it, SLSA's predicate included, and not one without what it is about."""
    document = (version / "provenance.intoto.json").read_bytes()
    assert validate(VALIDATE_STATEMENT, document) == ""
    assert "subject" in validate(VALIDATE_STATEMENT, json.dumps({**json.loads(document), "subject": []}).encode())
    digests = {each["name"]: each["digest"]["sha256"] for each in json.loads(document)["subject"]}
    assert digests["model.tflite"] == hashlib.sha256((version / "model.tflite").read_bytes()).hexdigest()
