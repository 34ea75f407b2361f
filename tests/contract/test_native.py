"""What is compiled and committed is what the source compiles to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from litelambda.common.paths import PROJECT, SERVING


def test_the_same_bytes_come_out_again(tmp_path: Path) -> None:
    """Of both architectures, with the locked compiler."""
    subprocess.run(["make", "native", f"NATIVE_OUTPUT={tmp_path}"], cwd=PROJECT, check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == ["native-aarch64.so", "native-x86_64.so", "native.sha256"]
    for name, data in made.items():
        assert (SERVING / "native" / name).read_bytes() == data, name
