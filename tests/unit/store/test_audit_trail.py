"""The store's audit trail: what it says, who may write next, and that no change of it goes unseen."""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litelambda.cli.main import main
from litelambda.common.errors import PublishError
from litelambda.store.artifact_store import Store
from litelambda.store.audit_check import Finding, check_chain, check_head, check_store, read_trail
from litelambda.store.audit_trail import encode, key_of
from litelambda.store.signatures import sign_version
from litelambda.store.signing import LocalSigner, make_key, one_line, write_new
from litelambda_serving import objects
from litelambda_serving.errors import StoreAccessError, StoreUnavailableError
from litelambda_serving.objects.files import FileObjects
from support.moto_server import MotoServer

ME = f"{getpass.getuser()}@{socket.gethostname()}"
MANIFEST = b'{"artifact": "model.tflite", "version": 1, "files": {}, "created": "2026-11-29T12:00:00Z"}'
DIGEST = hashlib.sha256(MANIFEST).hexdigest()


def publish(store: Store, version: int, model: str = "digits") -> None:
    """Publish as much of a version as the store looks at."""
    store.publish(model, version, {"model.tflite": b"flatbuffer"}, MANIFEST)


def said(store: Store) -> list[tuple[Any, ...]]:
    """What the trail's records say was done, in short."""
    names = ("action", "outcome", "model", "version", "alias", "from", "to")
    return [tuple(each.get(name) for name in names) for each in read_trail(store).records]


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The URL of an empty store, and who writes there."""
    if request.param == "file":
        yield tmp_path.as_uri(), ME
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setattr(objects, "_s3", None)
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket/models", boto3.client("sts").get_caller_identity()["Arn"]


def test_every_change_is_recorded_before_and_after(place: tuple[str, str], tmp_path: Path) -> None:
    """Publishing, moving an alias and signing: who, what, from what to what, and the digest; a chain that holds."""
    url, actor = place
    store = Store(url)
    for version in (1, 2):
        publish(store, version)
        store.advance_alias("digits", "latest", version)
    store.advance_alias("digits", "latest", 1)  # it stays where it is
    store.set_alias("digits", "latest", 1, canary={2: 10})
    pem, public = make_key()
    write_new(tmp_path / "key.pem", pem, is_secret=True)
    sign_version(Store(url), "digits:2", LocalSigner(tmp_path / "key.pem"))
    trail = read_trail(store)
    assert trail.findings == check_store(store, trail.records) == []
    assert said(store)[1::2] == [
        ("publish", "done", "digits", 1, None, None, None),
        ("alias", "done", "digits", 1, "latest", 0, 1),
        ("publish", "done", "digits", 2, None, None, None),
        ("alias", "done", "digits", 2, "latest", 1, 2),
        ("alias", "done", "digits", 1, "latest", 2, {"version": 1, "canary": {"2": 10}}),
        ("sign", "done", "digits", 2, None, "unsigned", f"signed with {one_line(public)}"),
    ]
    assert [each["outcome"] for each in trail.records[::2]] == ["begun"] * 6
    assert [each["begun"] for each in trail.records[1::2]] == [each["sequence"] for each in trail.records[::2]]
    assert {each["actor"] for each in trail.records} == {actor}
    assert {each["manifest_sha256"] for each in trail.records} == {DIGEST}
    assert [each["signature"] for each in trail.records if "signature" in each] == ["unsigned"] * 4 + ["valid"] * 2


def test_writers_at_the_same_time_take_turns(place: tuple[str, str]) -> None:
    """Of two writers of one number one is next: every change has its two records, and the chain holds."""
    stores = [Store(place[0]) for _ in range(3)]
    stores[0].list_models()  # makes the client: boto3's default session is not thread-safe
    threads = [threading.Thread(target=publish, args=(store, 1, f"m{i}")) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_trail(stores[0]).findings == []
    assert sorted(said(stores[0]), key=str) == [
        ("publish", outcome, f"m{i}", 1, None, None, None) for outcome in ("begun", "done") for i in range(3)
    ]


def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to write the trail nothing is changed, and the error says so."""
    store = Store(tmp_path)
    publish(store, 1)
    store.set_alias("digits", "latest", 1)
    put = FileObjects.put

    def refuse(self: FileObjects, url: str, *args: Any, **more: Any) -> bool:
        if "/audit/" in url:
            raise StoreAccessError(f"no right to write {url}")
        return put(self, url, *args, **more)

    monkeypatch.setattr(FileObjects, "put", refuse)
    with pytest.raises(StoreAccessError, match=r"no right to write .*publish of digits: nothing was changed"):
        publish(Store(tmp_path), 2)
    with pytest.raises(StoreAccessError, match="alias of digits: nothing was changed"):
        Store(tmp_path).set_alias("digits", "stable", 1)
    assert store.list_versions("digits") == [1]
    assert not (tmp_path / "digits/2").exists()
    assert store.read_aliases("digits") == {"latest": 1}


def test_what_fails_or_stops_in_between_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that fails is recorded with its reason; where its end cannot be recorded, that is an error too."""
    store = Store(tmp_path)
    publish(store, 1)
    with pytest.raises(PublishError, match="taken by another"):
        publish(store, 1)
    failed = read_trail(store).records[-1]
    assert (failed["outcome"], failed["begun"]) == ("failed", 3)
    assert failed["reason"].startswith("PublishError: version 1 of digits was taken")
    put = FileObjects.put

    def stop(self: FileObjects, url: str, *args: Any, **more: Any) -> bool:
        if url.endswith("6.json"):
            raise StoreUnavailableError("S3 is away")
        return put(self, url, *args, **more)

    monkeypatch.setattr(FileObjects, "put", stop)
    with pytest.raises(StoreUnavailableError, match=r"is done, but audit/0000000/0000000005.json only says .* begun"):
        store.set_alias("digits", "latest", 1)
    assert store.read_aliases("digits") == {"latest": 1}
    monkeypatch.undo()
    store.set_alias("digits", "stable", 1)
    trail = read_trail(store)
    assert trail.findings == check_store(store, trail.records) == []


def test_no_model_takes_the_trails_place(tmp_path: Path) -> None:
    """The folder's name is reserved."""
    with pytest.raises(PublishError, match="cannot be named 'audit'"):
        publish(Store(tmp_path), 1, "audit")


def chain(length: int) -> dict[int, bytes]:
    """Records by number."""
    records: dict[int, bytes] = {}
    for number in range(1, length + 1):
        previous = hashlib.sha256(records[number - 1]).hexdigest() if number > 1 else ""
        records[number] = encode(number, previous, {"actor": "ann@desk", "action": "alias", "version": number})
    return records


CHAIN = chain(9)
HEAD = f"9:{hashlib.sha256(CHAIN[9]).hexdigest()}"


@st.composite
def mutations(draw: st.DrawFn) -> tuple[dict[int, bytes], int]:
    """A chain with one change, and the number where it was made."""
    mutant = dict(CHAIN)
    number = draw(st.sampled_from(sorted(CHAIN)))
    kind = draw(st.sampled_from(["bit", "length", "remove", "copy", "swap", "insert", "forge", "append"]))
    other = draw(st.sampled_from(sorted(set(CHAIN) - {number})))
    if kind == "bit":
        content = bytearray(CHAIN[number])
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        mutant[number] = bytes(content)
    elif kind == "length":
        mutant[number] = CHAIN[number][: draw(st.integers(0, len(CHAIN[number]) - 1))]
    elif kind == "remove":
        del mutant[number]
    elif kind == "copy":
        mutant[number] = CHAIN[other]
    elif kind == "swap":
        mutant[number], mutant[other] = CHAIN[other], CHAIN[number]
        number = min(number, other)
    elif kind == "insert":  # the rest moves by one place
        mutant |= {each + 1: CHAIN[each] for each in CHAIN if each > number}
        mutant[number + 1] = CHAIN[other]
        number += 1
    elif kind == "forge":  # by somebody who knows how a record is made
        fields = {"actor": "eve@desk", "action": "alias", "version": number}
        mutant[number] = encode(number, json.loads(CHAIN[number])["previous"], fields)
    else:  # a record that was replayed at the end
        mutant[10], number = CHAIN[number], 10
    return mutant, number


@settings(max_examples=400, deadline=None)
@given(mutations())
def test_any_change_of_a_chain_is_found_in_its_place(mutation: tuple[dict[int, bytes], int]) -> None:
    """Edited, cut, removed, copied, swapped, inserted, forged or replayed: found there, or in the record after it."""
    mutant, number = mutation
    trail = check_chain(sorted(mutant.items()))
    findings = [*trail.findings, *check_head(trail, HEAD)]
    assert findings
    assert findings[0].place in (key_of(number), key_of(number + 1))


def test_a_trail_that_was_cut_off_is_found_by_its_head() -> None:
    """What is left is a chain that holds: only who knows the head sees that the end is missing."""
    cut = check_chain(sorted(chain(7).items()))
    assert cut.findings == []
    assert check_head(cut, cut.head) == []
    missing = "is missing: the trail was cut off, or is another store's"
    assert check_head(cut, HEAD) == [Finding("audit/0000000/0000000009.json", missing)]
    assert check_chain(sorted(CHAIN.items())).head == HEAD


def test_the_command_lists_verifies_and_names_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was changed past the trail, in the store or in the trail itself, is named, and the exit code is 1."""
    store, arguments = Store(tmp_path), ["audit", "--store", str(tmp_path), "--verify"]
    for version in (1, 2):
        publish(store, version)
        publish(store, version, "letters")
        store.set_alias("digits", "latest", version)
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert f"{ME}  alias done  digits:2  latest 1 -> 2  {DIGEST[:16]}" in out.splitlines()[-1]
    assert "12 records; they are whole, and the store is as they say" in err
    head = err.split()[-1]
    assert main([*arguments, "--model", "letters", "--since", "2026", "--json", "--expect-head", head]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (len(document["records"]), document["head"], document["findings"]) == (4, head, [])
    assert main([*arguments, "--since", "2999"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*arguments, "--expect-head", "latest"]) == 2

    (tmp_path / "digits/2/manifest.json").write_bytes(MANIFEST + b" ")
    (tmp_path / "letters/3").mkdir()
    (tmp_path / "letters/3/manifest.json").write_bytes(MANIFEST)
    aliases = tmp_path / "digits/aliases.json"
    aliases.write_text(json.dumps({**json.loads(aliases.read_text()), "latest": 1}))
    (tmp_path / key_of(5)).unlink()
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "litelambda: audit/0000000/0000000005.json: is missing" in said
    assert "digits/2/manifest.json: is not the manifest that was published" in said
    assert "letters/3/manifest.json: was published without a record" in said
    assert "digits/aliases.json: latest means version 1, but its last record says 2" in said
