"""A function's own audit records: what it loaded and refused, and who called the model repository."""

from __future__ import annotations

import json
import re

import pytest

from litelambda.store.signing import LocalSigner, make_key, one_line, write_new
from litelambda_serving.errors import ServingError
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send

BODY = {"instances": [1.0, 2.0, 5.0]}


def records(capsys):
    """The audit records that were logged since the last call."""
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line)["audit"] for line in lines if line.startswith('{"audit"')]


def test_a_version_that_is_loaded_is_recorded_with_the_state_of_its_signature(tmp_path, capsys):
    """Where a key is set, INIT's load names function, version, digest, time and the good signature, and no more."""
    pem, public = make_key()
    write_new(tmp_path / "key.pem", pem, is_secret=True)
    digest = publish(tmp_path, "m", 1, golden("half_plus_two"))
    manifest = tmp_path / "m/1/manifest.json"
    manifest.with_suffix(".json.sig").write_bytes(LocalSigner(tmp_path / "key.pem").sign(manifest.read_bytes()))
    load_module(tmp_path, "m", MODEL_PUBLIC_KEY=one_line(public))
    (loaded,) = records(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", loaded.pop("time"))
    assert loaded == {
        "actor": "function:local",
        "action": "load",
        "outcome": "done",
        "model": "m",
        "version": 1,
        "manifest_sha256": digest,
        "signature": "valid",
    }
    load_module(tmp_path, "m", MODEL_MINIMUM_VERSION="1")
    assert [each["signature"] for each in records(capsys)] == ["unchecked"]
    load_module(tmp_path, "m")
    assert records(capsys) == []


def test_a_version_with_another_digest_is_recorded(tmp_path, capsys):
    """A changed file and a planted manifest are refused with a record, at a request and at INIT; the good serves."""
    for version in (1, 2, 3):
        publish(tmp_path, "m", version, golden("half_plus_two"))
    (tmp_path / "m/2/model.tflite").write_bytes(golden("half_plus_two")[:-1] + b"x")
    planted = tmp_path / "m/3/manifest.json"
    planted.write_bytes(planted.read_bytes() + b" ")
    set_aliases(tmp_path, {"latest": 1})
    aliases = tmp_path / "m/aliases.json"
    pins = json.loads(aliases.read_text())
    pins["versions"]["3"]["manifest_sha256"] = pins["versions"]["1"]["manifest_sha256"]
    aliases.write_text(json.dumps({**pins, "next": 3}))
    handler = load_module(tmp_path, "m").handler
    for path in ("/v1/models/m/versions/2:predict", "/v1/models/m/labels/next:predict"):
        assert send(handler, "POST", path, BODY).status == 500
    assert send(handler, "POST", "/v1/models/m:predict", BODY).status == 200
    for environment in ({"MODEL_VERSION": "2"}, {"MODEL_VERSION": "next"}):
        with pytest.raises(ServingError):
            load_module(tmp_path, "m", **environment)
    found = records(capsys)
    assert {each["outcome"] for each in found} == {"refused"}
    assert [each.get("version") or each["alias"] for each in found] == [2, 3, 2, "next"]
    assert all(each["reason"].startswith("DigestError: ") for each in found)


def test_repository_calls_are_recorded(tmp_path, capsys):
    """Loading and unloading, allowed, refused or failed, and the index: one record each, without what was sent."""
    publish(tmp_path, "m", 1, golden("half_plus_two"))
    for control in ("none", "explicit"):
        handler = load_module(tmp_path, MODEL_CONTROL=control).handler
        for call in ("models/m/load", "models/nothing/load", "models/m/unload", "index"):
            send(handler, "POST", f"/v2/repository/{call}", {"secret": "word"})
    log = records(capsys)
    assert [(each["action"], each["outcome"]) for each in log] == [
        ("repository:load", "refused"),
        ("repository:load", "refused"),
        ("repository:unload", "refused"),
        ("repository:index", "done"),
        ("repository:load", "done"),
        ("repository:load", "failed"),
        ("repository:unload", "done"),
        ("repository:index", "done"),
    ]
    assert [each.get("model") for each in log] == ["m", "nothing", "m", None] * 2
    assert "word" not in json.dumps(log)
