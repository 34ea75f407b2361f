"""What is committed is what `make native` wrote down."""

from __future__ import annotations

import hashlib
from pathlib import Path

from litelambda_serving import native
from litelambda_serving.native import library_path

SOURCE = Path(native.__file__).with_name("native.c")
MAX_BYTES = 16_384


def test_the_compiled_files_are_of_this_source() -> None:
    """The digests of source and results belong together; `make test-contract` compiles it again."""
    written = dict(reversed(line.split()) for line in SOURCE.with_suffix(".sha256").read_text().splitlines())
    compiled = [Path(library_path(machine)) for machine in ("aarch64", "x86_64")]
    assert written == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (SOURCE, *compiled)}
    assert all(path.stat().st_size < MAX_BYTES for path in compiled)
