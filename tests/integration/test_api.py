"""`import litelambda`: what it promises, and the examples of its slow functions."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import litelambda


def test_every_promised_name_is_there_and_documented() -> None:
    """What `__all__` names can be imported, says what it is for, and functions say what each argument means."""
    for name in litelambda.__all__:
        found = getattr(litelambda, name)
        if name == "__version__":
            continue
        documentation = inspect.getdoc(found) or ""
        assert documentation, name
        if inspect.isfunction(found):
            missing = [each for each in inspect.signature(found).parameters if f"    {each}: " not in documentation]
            assert missing == [], name
            assert re.search(r"^Example:", documentation, re.MULTILINE), name
    with pytest.raises(AttributeError, match="'litelambda' has no attribute 'nothing'"):
        litelambda.nothing  # noqa: B018 - the access is what is tested


def test_importing_it_costs_nothing() -> None:
    """No library is loaded before a name is used that needs it."""
    script = "import json, sys, litelambda; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert not {"tensorflow", "keras", "boto3", "numpy", "pydantic", "click", "yaml", "uvicorn"} & set(loaded)


def example_of(name: str) -> str:
    """The code of a function's example."""
    documentation = inspect.getdoc(getattr(litelambda, name)) or ""
    example = re.search(r"^Example::\n\n((?:    .*\n?|\n)+)", documentation, re.MULTILINE)
    assert example, name
    return textwrap.dedent(example[1])


def run_example(name: str) -> None:
    """Run it, as a user would paste it."""
    exec(compile(example_of(name), f"the example of {name}", "exec"), {})


@pytest.mark.slow
def test_the_examples_run(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Build a recipe, import the .keras file of that build, score with the import, and serve it."""
    monkeypatch.chdir(tmp_path)
    for file in tiny_recipe.parent.iterdir():
        shutil.copy(file, tmp_path)
    run_example("build")
    assert re.match(r"file:///.*/models/tiny/1 \{'accuracy': [\d.]+", capsys.readouterr().out)

    shutil.copy("models/tiny/1/model.keras", "model.keras")
    np.save("rows.npy", np.random.default_rng(0).random((64, 4), np.float32))
    run_example("import_model")
    assert re.match(r"file:///.*/models/fruit/1 0\.\d+\n", capsys.readouterr().out)

    run_example("score")
    assert capsys.readouterr().out.startswith(f"64 rows by version 1 in {tmp_path.as_uri()}/predictions.jsonl")
    assert len(Path("predictions.jsonl").read_text().splitlines()) == 64

    served = example_of("serve").replace("8080", "0")
    with subprocess.Popen([sys.executable, "-c", served], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            served_at = re.compile(r"litelambda: serving file:///.*/models on http://127\.0\.0\.1:\d+")
            assert any(served_at.match(line) for line in server.stderr)
        finally:
            server.terminate()
