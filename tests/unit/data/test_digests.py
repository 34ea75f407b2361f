"""Digests of data sets, as `sha256sum` has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from litelambda.data.digests import digest_files


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    """Of a file its own, of a folder that of the list of its files."""
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.png").write_bytes(b"one")
    (tmp_path / "pictures" / "a.txt").write_bytes(b"three")
    (found,) = digest_files(tmp_path / "pictures")
    command = "sha256sum a.txt cat/1.png | sha256sum"
    expected = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path / "pictures", capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert found == {"file": "pictures/", "sha256": expected, "size_bytes": 8}
    (file,) = digest_files(tmp_path / "pictures" / "a.txt")
    assert (
        file["sha256"]
        in subprocess.run(
            ["/usr/bin/sha256sum", tmp_path / "pictures" / "a.txt"], capture_output=True, text=True, check=True
        ).stdout
    )
