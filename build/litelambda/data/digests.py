"""Digests of a data set's files, by which a build says what it was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def digest_files(path: Path) -> list[dict[str, Any]]:
    """The SHA-256 and size of a data set: of its file; of a folder, of the list that `sha256sum` makes of its files.

    Args:
        path: the file, or the folder, whose digest is that of its lines "<sha256>  <path>" in order of the paths.

    Returns:
        `file`, `sha256`, `size_bytes` of it.
    """
    if path.is_file():
        return [{"file": path.name, "sha256": _digest(path), "size_bytes": path.stat().st_size}]
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{_digest(file)}  {name}\n" for name, file in files)
    size = sum(file.stat().st_size for _, file in files)
    return [{"file": f"{path.name}/", "sha256": hashlib.sha256(lines.encode()).hexdigest(), "size_bytes": size}]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
