"""The store's audit trail: who did what to it, as a chain of records in which no change goes unseen.

    audit/0000000/0000000001.json    one object per record, a thousand to a folder, each written once

A record is one line of JSON: `sequence`, its number; `previous`, the SHA-256 of the whole object before it ("" in the
first); what `litelambda_serving.audit` says of what happened; and `digest`, the SHA-256 of the record without that
field. Its number is taken with a write that only succeeds where there is none yet: of two writers one is next.

Each change of the store has two records. `begun` comes first: where it cannot be written nothing is changed. `done` or
`failed` follows, with the number of the first in `begun`; a process that was killed in between leaves the first alone.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from litelambda.common.errors import LitelambdaError
from litelambda_serving.audit import make_record
from litelambda_serving.errors import ServingError, StoreConflictError, StoreError

if TYPE_CHECKING:
    from litelambda_serving.objects.base import Objects

__all__ = ["AUDIT_FOLDER", "AuditTrail", "encode", "is_sealed", "key_of"]

AUDIT_FOLDER = "audit"
"""Of a store; no model has this name."""

_PER_FOLDER = 1000
_ATTEMPTS = 100
_PAUSE_S = 0.05
_SEAL_BYTES = len(',"digest":""}') + 64

Head = tuple[int, str]
"""The number of the last record, and the SHA-256 of its object; (0, "") where there is none."""


def key_of(sequence: int) -> str:
    """Where a record lies in its store.

    >>> key_of(1234)
    'audit/0000001/0000001234.json'
    """
    return f"{AUDIT_FOLDER}/{sequence // _PER_FOLDER:07d}/{sequence:010d}.json"


def encode(sequence: int, previous: str, fields: dict[str, Any]) -> bytes:
    """The bytes of a record.

    >>> record = encode(1, "", {"actor": "ann@desk"})
    >>> record[:48], is_sealed(record), is_sealed(record.replace(b"ann", b"bob"))
    (b'{"sequence":1,"previous":"","actor":"ann@desk","', True, False)
    """
    record = {"sequence": sequence, "previous": previous, **fields}
    return _seal(json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[:-1])


def is_sealed(content: bytes) -> bool:
    """Whether a record is as it was written, by its own digest."""
    return content == _seal(content[:-_SEAL_BYTES])


def _seal(opened: bytes) -> bytes:
    return opened + b',"digest":"' + hashlib.sha256(opened + b"}").hexdigest().encode() + b'"}'


class AuditTrail:
    """The writing side of a store's trail."""

    def __init__(self, root: str, objects: Objects) -> None:
        """Open it; nothing is read yet.

        Args:
            root: the store's URL, without a slash at its end.
            objects: what reads and writes there.
        """
        self._root = root
        self._objects = objects
        self._head: Head | None = None

    @cached_property
    def actor(self) -> str:
        """Who writes: the identity that STS knows, or the user of this machine."""
        return (_sts_identity(self._objects) if self._root.startswith("s3://") else "") or _local_user()

    @contextmanager
    def recording(self, action: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Record what the block does, before and after.

        Args:
            action: what it is; see `litelambda_serving.audit.make_record`.
            fields: more of it.

        Yields:
            Further fields for the second record, which the block may fill in.

        Raises:
            StoreError: the first record cannot be written, and the block did not run; or the second, and it did.
        """
        what = f"{action} of {fields.get('model')}"
        with _explained(f"{what}: nothing was changed, since every change is recorded under {AUDIT_FOLDER}/ first"):
            begun = self._append(make_record(action, "begun", actor=self.actor, **fields))
        more: dict[str, Any] = {}
        try:
            yield more
        except BaseException as error:
            failed = {**fields, **more, "reason": f"{type(error).__name__}: {error}"}
            with suppress(ServingError, LitelambdaError):  # the reason itself matters more
                self._append({**make_record(action, "failed", actor=self.actor, **failed), "begun": begun})
            raise
        with _explained(f"{what} is done, but {key_of(begun)} only says that it was begun"):
            self._append({**make_record(action, "done", actor=self.actor, **{**fields, **more}), "begun": begun})

    def head(self) -> Head:
        """The last record that there is now."""
        folder = f"{self._root}/{AUDIT_FOLDER}/"
        for name in reversed(self._objects.folders(folder)):
            numbers = [int(text) for info in self._objects.list(f"{folder}{name}/") if (text := _number(info.url))]
            if numbers and (found := self._objects.get(f"{self._root}/{key_of(max(numbers))}")):
                return max(numbers), hashlib.sha256(found[0]).hexdigest()
        return 0, ""

    def numbers(self) -> Iterator[int]:
        """The numbers that records can have, ascending, by the folders that there are."""
        for name in self._objects.folders(f"{self._root}/{AUDIT_FOLDER}/"):
            if name.isdecimal():
                start = int(name) * _PER_FOLDER
                yield from range(max(start, 1), start + _PER_FOLDER)

    def _append(self, fields: dict[str, Any]) -> int:
        """Write a record after the last one, whoever else writes; return its number."""
        head = self._head or self.head()
        for _ in range(_ATTEMPTS):
            sequence = head[0] + 1
            content, url = encode(sequence, head[1], fields), f"{self._root}/{key_of(sequence)}"
            if self._objects.put(url, content, tag=""):
                self._head = sequence, hashlib.sha256(content).hexdigest()
                return sequence
            other = self._objects.get(url)
            head = (sequence, hashlib.sha256(other[0]).hexdigest()) if other else self.head()
            time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - only spreads the writers
        raise StoreConflictError(f"{url} was written by others {_ATTEMPTS} times: try again")


def _number(url: str) -> str:
    """The digits of a record's name; "" for another object."""
    name = url.rpartition("/")[2].removesuffix(".json")
    return name if name.isdecimal() else ""


@contextmanager
def _explained(consequence: str) -> Iterator[None]:
    """Say of a failure to write a record what it means."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"{error} ({consequence})") from error


def _local_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's, without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _sts_identity(objects: Any) -> str:
    """The ARN of who writes to S3; "" where STS does not answer, or the store is not Amazon's and STS would be."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
    try:
        sts = boto3.session.Session().client("sts", region_name=objects.client.meta.region_name, config=config)
        if _is_amazons(sts) and not _is_amazons(objects.client):
            return ""
        return str(sts.get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return ""


def _is_amazons(client: Any) -> bool:
    return ".amazonaws.com" in client.meta.endpoint_url
