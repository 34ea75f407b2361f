"""Signed versions: made by the command or by OpenSSL, asked for by the function, refused through every way in."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from functools import partial

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.kms.utils import ECDSAPrivateKey

from litelambda.cli.main import main
from litelambda.common.paths import FUNCTIONS
from litelambda.store.model_signing import make_bundle
from litelambda.store.signing import KmsSigner, LocalSigner, make_key, one_line
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.errors import ServingError, TrustError
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.store import open_store
from litelambda_serving.trust import Trust, read_public_keys
from litelambda_serving.trust.bundle import encode_for_signing
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.moto_server import MotoServer

PREDICT, BODY = "/v1/models/m:predict", {"instances": [1.0, 2.0, 5.0]}
LOAD = "/v2/repository/models/m/load"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two private keys, ours and another's, each with its public one next to it."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        assert main(["keygen", str(folder / f"{name}.pem")]) == 0
    return folder


@pytest.fixture(scope="module")
def ours(keys):
    """The public key that functions trust, in one line."""
    return one_line(LocalSigner(keys / "ours.pem").public_key())


def publish_signed(root, version, signer):
    """A version of half_plus_two, signed; None leaves it unsigned."""
    publish(root, "m", version, golden("half_plus_two"))
    if signer is not None:
        manifest = root / f"m/{version}/manifest.json"
        (root / f"m/{version}/manifest.json.sig").write_bytes(signer.sign(manifest.read_bytes()))


def served(handler, path=PREDICT):
    """The version that answers."""
    answer = send(handler, "POST", path, BODY)
    assert answer.status == 200, answer.body
    return int(answer.headers["x-model-version"])


def test_what_openssl_signs_is_served_and_what_we_sign_openssl_verifies(tmp_path, keys, ours):
    """The signature is a plain one of ECDSA over the manifest's bytes, in both directions."""
    publish_signed(tmp_path, 1, None)
    manifest, signature = tmp_path / "m/1/manifest.json", tmp_path / "m/1/manifest.json.sig"
    sign = ["openssl", "dgst", "-sha256", "-sign", keys / "ours.pem", "-out", signature, manifest]
    subprocess.run(sign, check=True, timeout=60)
    assert served(load_module(tmp_path, "m", MODEL_PUBLIC_KEY=ours).handler) == 1
    assert main(["sign", "m", "--key", str(keys / "ours.pem"), "--store", str(tmp_path)]) == 0
    check = ["openssl", "dgst", "-sha256", "-verify", keys / "ours.pub.pem", "-signature", signature, manifest]
    subprocess.run(check, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert served(load_module(tmp_path, "m", MODEL_PUBLIC_KEY=str(keys / "ours.pub.pem")).handler) == 1


def test_the_commands_say_who_signed(tmp_path, keys, capsys):
    """No key is written over another; verify tells the key, a wrong one and a changed file apart."""
    publish_signed(tmp_path, 1, None)
    store = ["--store", str(tmp_path)]
    verify = ["verify", "m:1", "--public-key", str(keys / "ours.pub.pem"), *store]
    assert main(verify) == 1
    assert "is not signed" in capsys.readouterr().err
    assert main(["sign", "m@latest", "--key", str(keys / "ours.pem"), *store]) == 0
    assert main(verify) == 0
    assert main(["verify", "m", "--public-key", str(keys / "other.pub.pem"), *store]) == 1
    assert "signed with another key" in capsys.readouterr().err
    (tmp_path / "m/1/model.tflite").write_bytes(b"")
    assert main(verify) == 1
    assert "is not what the manifest pins" in capsys.readouterr().err
    assert main(["keygen", str(keys / "ours.pem")]) == 2
    assert (keys / "ours.pem").stat().st_mode & 0o777 == 0o600
    assert main(["sign", "m", "--key", str(keys / "ours.pub.pem"), *store]) == 2
    assert "expected a private key of P-256" in capsys.readouterr().err


def refused_version(root, kind, keys):
    """Publish version 2 in one of the ways that must be refused; version 1 is good."""
    publish_signed(root, 1, LocalSigner(keys / "ours.pem"))
    publish_signed(root, 2, None if kind == "unsigned" else LocalSigner(keys / "other.pem"))
    folder = root / "m"
    if kind == "changed":
        (folder / "2/manifest.json.sig").write_bytes(
            LocalSigner(keys / "ours.pem").sign((folder / "2/manifest.json").read_bytes())
        )
        document = json.loads((folder / "2/manifest.json").read_text())
        (folder / "2/manifest.json").write_text(json.dumps({**document, "labels": None, "task": "classification"}))
    if kind == "of another version":
        for name in ("manifest.json", "manifest.json.sig"):
            (folder / "2" / name).write_bytes((folder / "1" / name).read_bytes())


def refusals(log):
    """The audit records of refused versions in a function's log."""
    records = [json.loads(line)["audit"] for line in log.splitlines() if line.startswith('{"audit"')]
    return [each for each in records if (each["action"], each["outcome"]) == ("load", "refused")]


KINDS = ["unsigned", "of another key", "changed", "of another version"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_way_in_leads_past_the_signature(tmp_path, keys, ours, capsys, monkeypatch, kind):
    """By number, alias, canary, shadow, load, refresh and in batch: refused, and the good version keeps serving."""
    refused_version(tmp_path, kind, keys)
    set_aliases(tmp_path, {"latest": 1, "new": 2})
    handler = load_module(
        tmp_path, "m", MODEL_PUBLIC_KEY=ours, ALIAS_REFRESH_SECONDS="0", MODEL_CONTROL="explicit"
    ).handler
    for path in ("/v1/models/m/versions/2:predict", "/v1/models/m/labels/new:predict"):
        answer = send(handler, "POST", path, BODY)
        assert answer.status == 500
        assert b"signature" not in answer.body  # the reason is the log's
    for traffic in ({"canary": {"latest": {"2": 100}}}, {"shadow": {"latest": 2}}, {}):
        set_aliases(tmp_path, {"latest": 1, "new": 2, **traffic})
        assert {served(handler) for _ in range(20)} == {1}
    set_aliases(tmp_path, {"latest": 2})
    assert send(handler, "POST", LOAD, {}).status == 500
    assert {served(handler) for _ in range(20)} == {1}
    log = capsys.readouterr().out
    assert "TrustError" in log or "is the manifest of m version 1" in log
    states = {"unsigned": {"unsigned"}, "of another version": {None}}
    assert {each.get("signature") for each in refusals(log)} == states.get(kind, {"invalid"})
    assert {(each["actor"], each["model"], each["version"]) for each in refusals(log)} == {("function:local", "m", 2)}
    monkeypatch.setenv("MODEL_PUBLIC_KEY", ours)
    source = ModelSource(tmp_path.as_uri())
    with pytest.raises(ServingError):
        source.load(source.pin("m:2"))
    assert source.load(source.pin("m:1")).pin.version == 1
    with pytest.raises(ServingError):  # INIT, by alias and by number
        load_module(tmp_path, "m", MODEL_PUBLIC_KEY=ours)
    with pytest.raises(ServingError):
        load_module(tmp_path, "m", MODEL_PUBLIC_KEY=ours, MODEL_VERSION="2")


def test_a_rolled_back_alias_is_refused(tmp_path, keys, ours, capsys):
    """A good signature of an old version does not help: what serves stays, and INIT says which version is too old."""
    for version in (1, 2):
        publish_signed(tmp_path, version, LocalSigner(keys / "ours.pem"))
    trust = {"MODEL_PUBLIC_KEY": ours, "MODEL_MINIMUM_VERSION": "other=9,m=2"}
    handler = load_module(tmp_path, "m", ALIAS_REFRESH_SECONDS="0", **trust).handler
    set_aliases(tmp_path, {"latest": 1})
    assert {served(handler) for _ in range(20)} == {2}
    assert send(handler, "POST", "/v1/models/m/versions/1:predict", BODY).status == 500
    assert "version 1 of m is older than version 2" in capsys.readouterr().out
    with pytest.raises(TrustError, match="older than version 2"):
        load_module(tmp_path, "m", **trust)
    assert served(load_module(tmp_path, "m", MODEL_MINIMUM_VERSION="1").handler) == 1


def test_init_of_an_unsigned_model_loads_nothing_more(tmp_path, keys, ours):
    """The check's modules are imported where a key is set, and the package `cryptography` never."""
    publish_signed(tmp_path, 1, LocalSigner(keys / "ours.pem"))
    script = "import predict, sys, json; print(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": str(FUNCTIONS), "MODEL_STORE": tmp_path.as_uri(), "MODEL_NAME": "m"}
    loaded = []
    for more in ({}, {"MODEL_PUBLIC_KEY": ours}):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        loaded.append(set(json.loads(done.stdout.splitlines()[-1])))
    plain, checked = loaded
    assert not [name for name in plain if "trust" in name or "decryption" in name or "kms" in name]
    assert not [name for name in plain if "audit" in name]
    assert checked - plain == {f"litelambda_serving.{name}" for name in ("audit", "trust", "trust.libcrypto")}
    assert not [name for name in checked if name.split(".")[0] in {"cryptography", "ssl", "_ssl", "_hashlib"}]


@pytest.mark.parametrize(
    "setting",
    [
        {"MODEL_PUBLIC_KEY": "missing.pem"},
        {"MODEL_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"},
        {"MODEL_PUBLIC_KEY": "-----BEGIN PUBLIC KEY-----"},
        {"MODEL_PUBLIC_KEY": "A" * 43 + "="},
        {"MODEL_PUBLIC_KEY": ","},
        {"MODEL_MINIMUM_VERSION": "latest"},
        {"MODEL_MINIMUM_VERSION": "m="},
        {"MODEL_DECRYPTION_KEY": "missing.key"},
    ],
    ids=str,
)
def test_an_impossible_setting_trusts_nothing(tmp_path, setting):
    """A key or a version that cannot be read fails INIT, instead of being left out."""
    publish_signed(tmp_path, 1, None)
    with pytest.raises(ServingError, match=next(iter(setting))):
        load_module(tmp_path, "m", **setting)


def test_a_file_of_several_keys_trusts_each(tmp_path, keys, ours):
    """While keys are changed, both the old and the new one are good, in one file or in one line."""
    both = b"".join((keys / f"{name}.pub.pem").read_bytes() for name in ("other", "ours"))
    (tmp_path / "both.pem").write_bytes(both)
    assert len(read_public_keys(str(tmp_path / "both.pem"))) == 2
    other = one_line(LocalSigner(keys / "other.pem").public_key())
    publish_signed(tmp_path, 1, LocalSigner(keys / "ours.pem"))
    assert served(load_module(tmp_path, "m", MODEL_PUBLIC_KEY=f"{other},{ours}").handler) == 1


def test_a_key_of_kms_signs(tmp_path, monkeypatch, capsys):
    """A version that KMS signed is served by a function that holds the key's public half."""
    publish_signed(tmp_path, 1, None)
    # moto does not implement MessageType=DIGEST, and hashes what is a digest already; AWS signs it as it is.
    monkeypatch.setattr(
        ECDSAPrivateKey,
        "sign",
        lambda key, message, _algorithm: key.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256()))),
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client = boto3.client("kms", region_name="eu-west-1")
        arn = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
        assert main(["keygen", str(tmp_path / "kms.pem"), "--kms", arn]) == 0
        printed = capsys.readouterr().out.strip().removeprefix("ModelPublicKey=")
        assert printed == one_line(KmsSigner(arn).public_key())
        assert main(["sign", "m", "--key", arn, "--store", str(tmp_path)]) == 0
        assert not (tmp_path / "kms.pem").exists()
    assert served(load_module(tmp_path, "m", MODEL_PUBLIC_KEY=printed).handler) == 1


def test_a_bundle_of_model_signing_is_as_good(tmp_path, keys, ours, capsys):
    """`sign` writes both signatures; a version with `model.sig` alone is served, and refused once changed."""
    publish_signed(tmp_path, 1, None)
    store = ["--store", str(tmp_path)]
    verify = ["verify", "m", "--public-key", str(keys / "ours.pub.pem"), *store]
    assert main(["sign", "m", "--key", str(keys / "ours.pem"), *store]) == 0
    (tmp_path / "m/1/manifest.json.sig").unlink()
    handler = load_module(tmp_path, "m", MODEL_PUBLIC_KEY=ours).handler
    assert (served(handler), main(verify)) == (1, 0)
    with pytest.raises(TrustError, match="is not signed with MODEL_PUBLIC_KEY"):
        load_module(tmp_path, "m", MODEL_PUBLIC_KEY=one_line(LocalSigner(keys / "other.pem").public_key()))
    manifest = tmp_path / "m/1/manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    set_aliases(tmp_path, {"latest": 1})
    with pytest.raises(TrustError, match="signs another manifest"):
        load_module(tmp_path, "m", MODEL_PUBLIC_KEY=ours)
    manifest.with_suffix(".json.sig").write_bytes(LocalSigner(keys / "ours.pem").sign(manifest.read_bytes()))
    assert main(verify) == 1
    assert "does not sign manifest.json as the manifest pins them" in capsys.readouterr().err


class Envelope:
    """Signs statements that are not about files."""

    def __init__(self, signer, **changes):
        self.signer, self.changes = signer, changes

    def bundle(self, manifest):
        """A bundle whose statement has these changes, signed well."""
        bundle = json.loads(make_bundle(manifest, self.signer))
        statement = {**json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])), **self.changes}
        payload = json.dumps(statement).encode()
        signature = self.signer.sign(encode_for_signing(payload))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
        return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"predicate": {"serialization": {"method": "shards"}, "resources": []}},
        {"predicate": {"serialization": {"method": "files"}, "resources": [{"name": "manifest.json"}]}},
        {"predicate": []},
    ],
    ids=str,
)
def test_what_is_signed_must_be_files(keys, ours, changes):
    """A good signature over a statement of another kind says nothing of a version."""
    signer, trust = LocalSigner(keys / "ours.pem"), Trust(read_public_keys(ours))
    manifest = b'{"version": 1, "files": {}}'
    digest = hashlib.sha256(manifest).hexdigest()
    trust.check_bundle(digest, Envelope(signer).bundle(manifest), "it")
    with pytest.raises(TrustError, match="signs something else than files"):
        trust.check_bundle(digest, Envelope(signer, **changes).bundle(manifest), "it")


@pytest.fixture(scope="module", params=["manifest.json.sig", "model.sig"])
def signed(request, tmp_path_factory, keys):
    """A version that is signed in this form alone, and a reader that trusts its key."""
    root = tmp_path_factory.mktemp("signed")
    publish_signed(root, 1, None)
    signer, manifest = LocalSigner(keys / "ours.pem"), (root / "m/1/manifest.json").read_bytes()
    sign = signer.sign if request.param == "manifest.json.sig" else partial(make_bundle, signer=signer)
    (root / "m/1" / request.param).write_bytes(sign(manifest))
    store = open_store(root.as_uri())
    store.trust = Trust(read_public_keys(str(keys / "ours.pub.pem")))
    return root / "m/1", store, request.param


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutant_is_served(signed, data):
    """One bit, or the length, of manifest, signature or artifact changed: refused, unless it says nothing."""
    folder, store, signature = signed
    name = data.draw(st.sampled_from(["manifest.json", signature, "model.tflite"]))
    good = (folder / name).read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    mutant = bytearray(good)
    if data.draw(st.booleans()):
        mutant[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del mutant[position:]
    try:
        (folder / name).write_bytes(mutant)
        # JSON and base64 around a signature have bits that say nothing: what they still sign is the manifest as it is.
        with pytest.raises(ServingError) if name != "model.sig" else suppress(ServingError):
            artifact = fetch_artifact(store, "m", "1")
            assert bytes(artifact.model) == golden("half_plus_two")
    finally:
        (folder / name).write_bytes(good)
    assert fetch_artifact(store, "m", "1").manifest.version == 1


def test_a_malleable_signature_changes_nothing_that_is_signed():
    """The other root of ECDSA (r, n - s) is as good, and of the same bytes; r or s out of range is refused."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    pem, public = make_key()
    r, s = decode_dss_signature(load_pem_private_key(pem, None).sign(b"document", ec.ECDSA(hashes.SHA256())))
    trust = Trust(read_public_keys(one_line(public)))
    trust.check_signature(b"document", encode_dss_signature(r, order - s), "it")
    for bad in ((0, s), (r, 0), (r + order, s), (r, s + order), (order, s), (1, 1)):
        with pytest.raises(TrustError):
            trust.check_signature(b"document", encode_dss_signature(*bad), "it")
