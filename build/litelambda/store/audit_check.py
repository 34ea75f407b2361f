"""Reading a store's audit trail, and finding where it, or the store that it speaks of, was changed past it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from litelambda.common.errors import UsageError
from litelambda.store.audit_trail import is_sealed, key_of
from litelambda.store.reading import open_reader
from litelambda_serving.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from litelambda.store.artifact_store import Store

__all__ = ["Finding", "Trail", "check_chain", "check_head", "check_store", "read_trail"]

_MAX_RECORD_BYTES = 1 << 20
_STREAMS = 32

Record = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written.

    Attributes:
        place: where: a key of the store.
        what: a sentence about it.
    """

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True)
class Trail:
    """A trail that was read.

    Attributes:
        records: those that could be read, in their order.
        digests: by number, the SHA-256 of each record's object.
        findings: where the chain does not hold.
    """

    records: list[Record]
    digests: dict[int, str]
    findings: list[Finding]

    @property
    def head(self) -> str:
        """`NUMBER:SHA-256` of the last record, "" where there is none: what `check_head` takes."""
        last = max(self.digests, default=0)
        return f"{last}:{self.digests[last]}" if last else ""


def read_trail(store: Store) -> Trail:
    """Read a store's trail, many records at once, and check the chain.

    Raises:
        StoreError: it cannot be read.
    """
    url = store.url.rstrip("/")
    reader = open_reader(url)

    def read(number: int) -> tuple[int, bytes]:
        try:
            return number, bytes(reader.fetch(key_of(number), _MAX_RECORD_BYTES))
        except ObjectNotFoundError:
            return number, b""

    last = store.trail.head()[0]
    numbers = [number for number in store.trail.numbers() if number <= last]
    if url.startswith("file://"):  # files are read faster one by one
        return check_chain(map(read, numbers))
    with ThreadPoolExecutor(_STREAMS) as executor:
        return check_chain(executor.map(read, numbers))


def check_chain(objects: Iterable[tuple[int, bytes]]) -> Trail:
    """Check a trail's records.

    Args:
        objects: numbers, ascending, and contents; b"" where there is nothing.

    >>> from litelambda.store.audit_trail import encode
    >>> first = encode(1, "", {"actor": "ann"})
    >>> second = encode(2, hashlib.sha256(first).hexdigest(), {"actor": "ben"})
    >>> check_chain([(1, first), (2, second)]).findings
    []
    >>> print(*check_chain([(1, first), (3, second)]).findings, sep="; ")
    audit/0000000/0000000002.json: is missing; audit/0000000/0000000003.json: is a copy of record 2
    """
    records: list[Record] = []
    digests: dict[int, str] = {}
    findings: list[Finding] = []
    expected, previous = 1, ""
    for number, content in objects:
        if not content:
            continue
        if number > expected:
            findings.append(_gap(expected, number - 1))
        record, what = _read(content, number)
        # The link to a record that is missing, or was edited, says nothing more.
        is_linked = number == expected and (previous or number == 1)
        if record and is_linked and record.get("previous") != previous:
            what = f"does not follow record {number - 1}: that one, or this one, was replaced"
        if what:
            findings.append(Finding(key_of(number), what))
        if record:
            records.append(record)
        digests[number] = hashlib.sha256(content).hexdigest()
        expected, previous = number + 1, digests[number] if record else ""
    return Trail(records, digests, findings)


def _gap(first: int, last: int) -> Finding:
    return Finding(key_of(first), "is missing" if first == last else f"and those up to {key_of(last)} are missing")


def _read(content: bytes, number: int) -> tuple[Record, str]:
    """A record, and what is wrong with it."""
    try:
        record: Record = orjson.loads(content)
    except ValueError:
        return {}, "was edited: it is not JSON"
    if not isinstance(record, dict) or not is_sealed(content):
        return {}, "was edited: its digest is another"
    if record.get("sequence") != number:
        return {}, f"is a copy of record {str(record.get('sequence'))[:20]}"
    return record, ""


def check_head(trail: Trail, head: str) -> list[Finding]:
    """Check that a trail still holds a record that was once its last one.

    Args:
        trail: what was read.
        head: `NUMBER:SHA-256`, as it was printed then.

    Raises:
        UsageError: `head` is something else.
    """
    number, _, digest = head.partition(":")
    if not number.isdecimal() or len(digest) != 64:
        raise UsageError(f"expected the head as NUMBER:SHA-256, as `litelambda audit` prints it, got {head[:80]!r}")
    found = trail.digests.get(int(number))
    if found is None:
        return [Finding(key_of(int(number)), "is missing: the trail was cut off, or is another store's")]
    return [] if found == digest else [Finding(key_of(int(number)), "is another record than it was")]


def check_store(store: Store, records: Sequence[Record]) -> list[Finding]:
    """Check what the store holds against what its trail says: a change without a record was made past the trail.

    Versions older than a model's first record were there before the trail was, and are left out.

    Raises:
        StoreError: the store cannot be read.
    """
    published: dict[str, dict[int, str]] = {}
    aliases: dict[tuple[str, str], list[Any]] = {}
    for record in records:
        model, outcome = record.get("model", ""), record.get("outcome")
        if record.get("action") == "publish" and outcome != "failed":
            published.setdefault(model, {})[record["version"]] = record["manifest_sha256"]
        if record.get("action") == "alias" and outcome != "failed":
            # One that was begun may have ended in either way.
            others = aliases.get((model, record["alias"]), []) if outcome == "begun" else []
            aliases[model, record["alias"]] = [*others, record["to"]]
    findings = []
    for model in store.list_models():
        findings += _check_versions(store, model, published.get(model, {}))
        current = store.read_aliases(model)
        for (name, alias), said in aliases.items():
            now = current.get(alias, 0)
            if name == model and now not in [each["version"] if isinstance(each, dict) else each for each in said]:
                what = f"{alias} means version {now}, but its last record says {said[-1]}"
                findings.append(Finding(f"{model}/aliases.json", what))
    return findings


def _check_versions(store: Store, model: str, published: dict[int, str]) -> list[Finding]:
    findings = []
    for version in store.list_versions(model):
        place = f"{model}/{version}/manifest.json"
        if version in published:
            if hashlib.sha256(store.read_manifest(model, version)).hexdigest() != published[version]:
                findings.append(Finding(place, "is not the manifest that was published"))
        elif published and version > min(published):
            findings.append(Finding(place, "was published without a record"))
    return findings
