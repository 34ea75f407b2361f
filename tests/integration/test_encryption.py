"""Encrypted versions: written here by hand as the documentation says, read by the function, refused once changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zlib

import boto3
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litelambda.artifact.stored_form import store_form
from litelambda.cli.main import main
from litelambda.commands.import_tflite import read_tflite
from litelambda.common.paths import FUNCTIONS
from litelambda.publishing.encryption import Encryption, seal
from litelambda.publishing.publish import Description
from litelambda.publishing.publish import publish as publish_version
from litelambda.recipe.sections import Publish
from litelambda.store.artifact_store import Store
from litelambda.store.signatures import decrypt_file
from litelambda.store.signing import LocalSigner, one_line
from litelambda_serving.artifact import ARTIFACT_NAME, fetch_artifact, kms
from litelambda_serving.artifact.decryption import Decrypter
from litelambda_serving.errors import ModelTooLargeError, ServingError, StoreUnavailableError, TrustError
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.store import open_store
from litelambda_serving.trust import Trust
from litelambda_serving.trust.libcrypto import AesGcm
from support.golden_store import golden, make_manifest, publish, set_aliases
from support.handler_client import load_module, send
from support.moto_server import MotoServer

PREDICT, BODY = "/v1/models/m:predict", {"instances": [1.0, 2.0, 5.0]}


def sealed_by_hand(key, place, content, chunk_bytes):
    """A file as docs/how-to/sign-and-encrypt.md describes it."""
    prefix = os.urandom(7)
    header = b"LITEENC1" + chunk_bytes.to_bytes(4, "big") + prefix
    chunks = [content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes)] or [b""]
    return header + b"".join(
        AESGCM(key).encrypt(
            prefix + number.to_bytes(4, "big") + bytes([number == len(chunks) - 1]), chunk, header + place
        )
        for number, chunk in enumerate(chunks)
    )


def pin(content, **more):
    """A file's entry of the manifest."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content), **more}


def publish_by_hand(root, version, key_file, encoding="", chunk_bytes=256, model="half_plus_two"):
    """An encrypted version of a golden model, compressed before where an encoding is given."""
    data = golden(model)
    packed = zlib.compress(data) if encoding else data
    inner = pin(packed, encoding="zlib", unpacked=pin(data)) if encoding else pin(data)
    name = "model.tflite.z.enc" if encoding else "model.tflite.enc"
    data_key, nonce = os.urandom(32), os.urandom(12)
    place = f"m/{version}/".encode()
    wrapped = nonce + AESGCM(base64.b64decode(key_file.read_text())).encrypt(nonce, data_key, place)
    sealed = sealed_by_hand(data_key, place + name.encode(), packed, chunk_bytes)
    document = make_manifest(
        "m",
        version,
        data,
        artifact=name,
        files={name: pin(sealed, encoding="aes-256-gcm", unpacked=inner)},
        encryption={"key": "file", "data_key": base64.b64encode(wrapped).decode()},
    )
    folder = root / f"m/{version}"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(sealed)
    (folder / "manifest.json").write_text(json.dumps(document))
    set_aliases(root, {"latest": version})
    return data


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two key files."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        assert main(["keygen", str(folder / f"{name}.key"), "--encryption"]) == 0
    return folder


@pytest.mark.parametrize("encoding", ["", "zlib"])
@pytest.mark.parametrize("chunk_bytes", [100, 1 << 20])
def test_what_is_written_by_the_documentation_is_served(tmp_path, keys, encoding, chunk_bytes):
    """Encrypted, or compressed and encrypted, in many chunks or in one: by alias, by number and in batch scoring."""
    data = publish_by_hand(tmp_path, 1, keys / "ours.key", encoding, chunk_bytes)
    for version in ("latest", "1"):
        handler = load_module(tmp_path, "m", MODEL_VERSION=version, MODEL_DECRYPTION_KEY=str(keys / "ours.key")).handler
        assert send(handler, "POST", PREDICT, BODY).json() == {"predictions": [2.5, 3.0, 4.5]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_DECRYPTION_KEY", str(keys / "ours.key"))
        source = ModelSource(tmp_path.as_uri())
        assert source.load(source.pin("m")).artifact == data


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3 * 65536])
@pytest.mark.parametrize("piece", [1 << 30, 40_000, 19])
def test_every_length_arrives_in_any_pieces(size, piece):
    """What the toolchain seals the function opens, however it is cut on its way."""
    key, content = os.urandom(32), os.urandom(size)
    sealed = seal(key, b"m/1/f", content)
    decrypter = Decrypter(AesGcm(key), b"m/1/f", len(sealed))
    pieces = (sealed[start : start + piece] for start in range(0, len(sealed), piece))
    assert b"".join(bytes(part) for each in pieces for part in decrypter(each)) == content


def test_another_chunk_or_another_file_is_refused():
    """Chunks that were swapped, doubled, left out, cut off, or taken from another file or version never come out."""
    key, content, chunk = os.urandom(32), os.urandom(300), 116
    good = sealed_by_hand(key, b"m/1/f", content, 100)
    header, chunks = good[:19], [good[start : start + chunk] for start in range(19, len(good), chunk)]
    one, two, three = chunks
    bad = {
        "swapped": header + two + one + three,
        "doubled": header + one + one + three,
        "without the first": header + two + three,
        "without the last": header + one + two,
        "cut in a chunk": good[:-1],
        "longer": good + b"x",
        "empty": header,
        "of another file": sealed_by_hand(key, b"m/1/g", content, 100),
        "of another version": sealed_by_hand(key, b"m/2/f", content, 100),
        "of another key": sealed_by_hand(os.urandom(32), b"m/1/f", content, 100),
        "of another header": b"LITEENC1" + (100).to_bytes(4, "big") + os.urandom(7) + good[19:],
    }
    for what, sealed in bad.items():
        out = []
        with pytest.raises(TrustError):
            out.extend(map(bytes, Decrypter(AesGcm(key), b"m/1/f", len(sealed))(sealed)))
        assert content.startswith(b"".join(out)), what
        assert sum(map(len, out)) < len(content) or what == "longer", what
    assert b"".join(map(bytes, Decrypter(AesGcm(key), b"m/1/f", len(good))(good))) == content


@pytest.mark.parametrize("kind", ["no key", "another key", "another version", "without encryption"])
def test_what_cannot_be_decrypted_is_not_served(tmp_path, keys, capsys, kind):
    """The version that served before goes on; the client gets a 500, and the log the reason."""
    publish(tmp_path, "m", 1, golden("half_plus_two"))
    publish_by_hand(tmp_path, 2, keys / ("other.key" if kind == "another key" else "ours.key"))
    path = tmp_path / "m/2/manifest.json"
    document = json.loads(path.read_text())
    if kind == "another version":
        publish_by_hand(tmp_path, 3, keys / "ours.key")
        document["encryption"] = json.loads((tmp_path / "m/3/manifest.json").read_text())["encryption"]
    if kind == "without encryption":
        del document["encryption"]
    path.write_text(json.dumps(document))
    set_aliases(tmp_path, {"latest": 1})
    key = "" if kind == "no key" else str(keys / "ours.key")
    handler = load_module(tmp_path, "m", MODEL_DECRYPTION_KEY=key, ALIAS_REFRESH_SECONDS="0").handler
    assert send(handler, "POST", "/v1/models/m/versions/2:predict", BODY).status == 500
    log = capsys.readouterr().out
    assert "Error" in log
    records = [json.loads(line)["audit"] for line in log.splitlines() if line.startswith('{"audit"')]
    assert [each["outcome"] for each in records if each["version"] == 2] == ["refused"]
    set_aliases(tmp_path, {"latest": 2})
    for _ in range(20):
        assert send(handler, "POST", PREDICT, BODY).headers["x-model-version"] == "1"
    with pytest.raises(ServingError):
        load_module(tmp_path, "m", MODEL_DECRYPTION_KEY=key)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, keys):
    """An encrypted version, and a reader with its key."""
    root = tmp_path_factory.mktemp("encrypted")
    data = publish_by_hand(root, 1, keys / "ours.key", "zlib")
    store = open_store(root.as_uri())
    store.trust = Trust(decryption_key=str(keys / "ours.key"))
    return root / "m/1", store, data


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutant_is_served(encrypted, data):
    """One bit or the length of the file is changed, and the manifest's pin with it: nothing comes out but what was."""
    folder, store, model = encrypted
    path, manifest = folder / "model.tflite.z.enc", folder / "manifest.json"
    good, document = path.read_bytes(), manifest.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    mutant = bytearray(good)
    if data.draw(st.booleans()):
        mutant[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del mutant[position:]
    fields = json.loads(document)
    fields["files"][path.name] |= pin(mutant)
    try:
        path.write_bytes(mutant)
        manifest.write_text(json.dumps(fields))
        with pytest.raises(ServingError):
            fetch_artifact(store, "m", "1")
    finally:
        path.write_bytes(good)
        manifest.write_bytes(document)
    assert bytes(fetch_artifact(store, "m", "1").model) == model


def test_nothing_decrypted_is_written_to_a_disk(monkeypatch):
    """Where a plain model would be mapped from /tmp, an encrypted one asks for more memory."""
    from litelambda_serving.store.memory import allocate

    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
    size = 150 * 1024 * 1024
    allocate("m", size).close()
    with pytest.raises(ModelTooLargeError, match="set MemorySize to at least 356"):
        allocate("m", size, in_memory=True)


def test_import_signs_and_encrypts(tmp_path, keys, capsys):
    """The artifact is ciphertext in the store, and served where both keys are; the report stays readable."""
    (tmp_path / "m.tflite").write_bytes(golden("half_plus_two"))
    assert main(["keygen", str(tmp_path / "sign.pem")]) == 0
    command = ["import", str(tmp_path / "m.tflite"), "--name", "m", "--store", str(tmp_path / "s")]
    assert main([*command, "--sign", str(tmp_path / "sign.pem"), "--encrypt", str(keys / "ours.key")]) == 0
    folder = tmp_path / "s/m/1"
    readable = {"manifest.json", "report.json", "bom.cdx.json", "provenance.intoto.json"}
    signatures = {"manifest.json.sig", "model.sig"}
    assert {path.name for path in folder.iterdir()} == {"model.tflite.enc", *readable, *signatures}
    assert golden("half_plus_two")[:64] not in (folder / "model.tflite.enc").read_bytes()
    json.loads((folder / "report.json").read_text())
    public = one_line(LocalSigner(tmp_path / "sign.pem").public_key())
    trust = {"MODEL_PUBLIC_KEY": public, "MODEL_DECRYPTION_KEY": str(keys / "ours.key")}
    assert send(load_module(tmp_path / "s", "m", **trust).handler, "POST", PREDICT, BODY).status == 200
    out = tmp_path / "out.tflite"
    decrypt = ["decrypt", "m", "model.tflite.enc", "--store", str(tmp_path / "s"), "--output", str(out), "--key"]
    assert main([*decrypt, str(keys / "other.key")]) == 1
    assert main([*decrypt, str(keys / "ours.key")]) == 0
    assert out.read_bytes() == golden("half_plus_two")
    assert main([*decrypt, str(keys / "ours.key")]) == 2
    verify = ["verify", "m", "--public-key", str(tmp_path / "sign.pub.pem"), "--store", str(tmp_path / "s")]
    assert main(verify) == 0
    assert main([*command, "--encrypt", str(tmp_path / "sign.pem")]) == 2
    assert "expected a file that `litelambda keygen --encryption` made" in capsys.readouterr().err


def test_a_build_compresses_before_it_encrypts(tmp_path, keys):
    """Every file but the reports is ciphertext, the artifact under a name that says so, and each comes back."""
    artifact, files = golden("half_plus_two"), {"model.keras": b"source", "report.json": b"{}"}
    (tmp_path / "m.tflite").write_bytes(artifact)
    description = Description(
        signature=read_tflite(tmp_path / "m.tflite").signature,
        batching={"dynamic": False},
        quantization={},
        labels=None,
        preprocessing={},
        metrics={},
        size_bytes={},
        recipe={},
    )
    store, key = Store(tmp_path / "s"), keys / "ours.key"
    stored = store_form(artifact, Publish(name="m", stored="zlib"))
    publishing = {ARTIFACT_NAME: artifact, **files}
    publish_version(store, "m", ["latest"], publishing, description, stored, encryption=Encryption(str(key)))
    folder = tmp_path / "s/m/1"
    provenance = {"bom.cdx.json", "provenance.intoto.json"}
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model.tflite.z.enc", *files, *provenance}
    (about,) = [each for each in json.loads((folder / "provenance.intoto.json").read_text())["subject"]
                if each["name"] == "model.tflite.z.enc"]  # fmt: skip
    assert about["digest"] == {"sha256": hashlib.sha256((folder / "model.tflite.z.enc").read_bytes()).hexdigest()}
    assert (folder / "report.json").read_bytes() == b"{}"
    assert (folder / "model.keras").read_bytes().startswith(b"LITEENC1")
    assert decrypt_file(store, "m", "model.keras", str(key)) == b"source"
    assert decrypt_file(store, "m", "model.tflite.z.enc", str(key)) == artifact
    handler = load_module(tmp_path / "s", "m", MODEL_DECRYPTION_KEY=str(key)).handler
    assert send(handler, "POST", PREDICT, {"instances": [1.0]}).json() == {"predictions": [2.5]}


def test_assets_are_encrypted_too(tmp_path, keys):
    """A file that preprocessing reads comes out as it was; from another file's place it is refused."""
    publish_by_hand(tmp_path, 1, keys / "ours.key")
    path, vocabulary = tmp_path / "m/1/manifest.json", b'["a", "b"]'
    document = json.loads(path.read_text())
    wrapped = base64.b64decode(document["encryption"]["data_key"])
    kek = AESGCM(base64.b64decode((keys / "ours.key").read_text()))
    data_key = kek.decrypt(wrapped[:12], wrapped[12:], b"m/1/")
    store = open_store(tmp_path.as_uri())
    store.trust = Trust(decryption_key=str(keys / "ours.key"))
    for place in ("v.json", "w.json"):
        sealed = sealed_by_hand(data_key, f"m/1/{place}".encode(), vocabulary, 4)
        (tmp_path / "m/1/v.json").write_bytes(sealed)
        document["files"]["v.json"] = pin(sealed, encoding="aes-256-gcm", unpacked=pin(vocabulary))
        path.write_text(json.dumps({**document, "format_version": 2, "assets": ["v.json"]}))
        if place == "v.json":
            assert fetch_artifact(store, "m", "1").assets == {"v.json": vocabulary}
    with pytest.raises(TrustError, match=r"m/1/v\.json cannot be decrypted"):
        fetch_artifact(store, "m", "1")


def test_a_store_on_s3_is_decrypted_and_checked_on_the_way(tmp_path, keys, monkeypatch):
    """Signature, manifest and ciphertext come from S3, the latter opened while it streams in."""
    data = publish_by_hand(tmp_path, 1, keys / "ours.key", "zlib")
    assert main(["keygen", str(tmp_path / "sign.pem")]) == 0
    assert main(["sign", "m", "--key", str(tmp_path / "sign.pem"), "--store", str(tmp_path)]) == 0
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(tmp_path / "sign.pub.pem"))
    monkeypatch.setenv("MODEL_DECRYPTION_KEY", str(keys / "ours.key"))
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="models")
        for path in filter(lambda path: path.is_file(), (tmp_path / "m").rglob("*")):
            client.put_object(Bucket="models", Key=str(path.relative_to(tmp_path)), Body=path.read_bytes())
        assert bytes(fetch_artifact(open_store("s3://models"), "m").model) == data
        client.delete_object(Bucket="models", Key="m/1/manifest.json.sig")
        assert bytes(fetch_artifact(open_store("s3://models"), "m").model) == data  # by model.sig
        client.delete_object(Bucket="models", Key="m/1/model.sig")
        with pytest.raises(TrustError, match="is not signed"):
            fetch_artifact(open_store("s3://models"), "m")


@pytest.fixture
def key_arn(monkeypatch):
    """A key of KMS for encryption."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.url)
        client = boto3.client("kms", region_name="eu-west-1")
        yield client.create_key()["KeyMetadata"]["Arn"]


def test_kms_opens_the_data_key_of_this_version_alone(tmp_path, key_arn):
    """The data key comes from KMS, bound to model and version; for others KMS refuses, and so does the function."""
    (tmp_path / "m.tflite").write_bytes(golden("half_plus_two"))
    command = ["import", str(tmp_path / "m.tflite"), "--name", "m", "--store", str(tmp_path / "s")]
    assert main([*command, "--encrypt", key_arn]) == 0
    assert send(load_module(tmp_path / "s", "m").handler, "POST", PREDICT, BODY).status == 200
    made = Encryption(key_arn).encrypt("m", 1, {})
    wrapped = base64.b64decode(made.document["data_key"])
    context = {"litelambda:model": "m", "litelambda:version": "1"}
    assert kms.decrypt(wrapped, key_arn, context) == made.data_key
    for bad in ({**context, "litelambda:version": "2"}, {"litelambda:model": "m"}, {}):
        with pytest.raises(TrustError, match="InvalidCiphertext"):
            kms.decrypt(wrapped, key_arn, bad)
    with pytest.raises(TrustError):
        kms.decrypt(wrapped[:-1] + bytes([wrapped[-1] ^ 1]), key_arn, context)
    with pytest.raises(TrustError, match="NotFound"):
        kms.decrypt(wrapped, key_arn[:-1] + "z", context)


def test_a_silent_kms_is_a_failure_to_try_again(monkeypatch):
    """Without an answer the error is transient (503) and names the key."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    monkeypatch.setattr(kms, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(StoreUnavailableError, match="key/1"):
        kms.decrypt(b"", "arn:aws:kms:eu-west-1:1:key/1", {})


def test_the_request_is_signed_as_botocore_signs(monkeypatch):
    """The signature is that of botocore's signer for the same request at the same time."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    headers = kms._headers("kms.eu-west-1.amazonaws.com", "eu-west-1", b'{"a":1}')
    sent = {name: headers[name] for name in ("content-length", "content-type", "x-amz-target")}
    request = AWSRequest("POST", "https://kms.eu-west-1.amazonaws.com/", sent, b'{"a":1}')
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "token"), "kms", "eu-west-1")
    for name in ("host", "x-amz-date", "x-amz-security-token"):
        request.headers[name] = headers[name]
    canonical = signer.canonical_request(request)
    assert headers["authorization"].endswith(signer.signature(signer.string_to_sign(request, canonical), request))


def test_init_of_a_plain_model_loads_nothing_of_this(tmp_path, keys):
    """Decryption's modules come with an encrypted version, and with a key file neither boto3, ssl nor cryptography."""
    publish(tmp_path / "plain", "m", 1, golden("half_plus_two"))
    publish_by_hand(tmp_path / "encrypted", 1, keys / "ours.key")
    script = "import predict, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = {}
    for kind in ("plain", "encrypted"):
        environment = {"PYTHONPATH": str(FUNCTIONS), "MODEL_STORE": (tmp_path / kind).as_uri(), "MODEL_NAME": "m"}
        if kind == "encrypted":
            environment["MODEL_DECRYPTION_KEY"] = str(keys / "ours.key")
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        loaded[kind] = set(json.loads(done.stdout.splitlines()[-1]))  # after the record of its load
    more = {
        f"litelambda_serving.{name}" for name in ("trust", "trust.libcrypto", "artifact.decryption", "artifact.unpack")
    }
    assert not more & loaded["plain"]
    assert more <= loaded["encrypted"]
    assert not {"boto3", "ssl", "cryptography", "litelambda_serving.artifact.kms"} & loaded["encrypted"]
