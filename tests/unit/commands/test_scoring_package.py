"""The batch function's package: what the predict function has, what it imports besides, and nothing more."""

from __future__ import annotations

import zipfile

import pytest

from litelambda.commands import package as package_module
from litelambda.commands.package import ARCHITECTURES, package
from litelambda.common.paths import FUNCTIONS


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_contents(arch, tmp_path, monkeypatch):
    """Handler, engine and wheels of one architecture, without tests and stubs, within what Lambda takes directly."""
    monkeypatch.setattr(package_module, "_COMPRESSION_LEVEL", 1)  # fast; what fits like this fits as it ships, too
    result = package(arch, tmp_path, "score")
    names = set(zipfile.ZipFile(result.archive).namelist())
    engine = {
        path.relative_to(FUNCTIONS).with_suffix(".pyc" if result.bytecode else ".py").as_posix()
        for path in (FUNCTIONS / "litelambda_serving" / "scoring").rglob("*.py")
    }
    assert {"score.py", "lib/libLiteRt.so", *engine} <= names
    assert "predict.py" not in names
    for module in ("numpy", "orjson", "simdjson", "PIL", "aws_lambda_powertools"):
        assert f"{module}/__init__.py" in names
    assert not [
        name for name in names if "/tests/" in name or name.endswith((".pyi", ".cpp", ".h")) or name.startswith("boto")
    ]
    assert result.size_bytes < 50_000_000
    libraries = [name for name in names if ".cpython-313" in name and name.endswith(".so")]
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[arch]
    assert libraries
    assert all(machine in name for name in libraries)
