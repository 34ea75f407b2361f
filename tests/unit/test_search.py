"""`compress.auto`: what it finds within its bounds, that it repeats, goes on where it stopped, and gives up clearly."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.errors import GateError, RecipeError
from litelambda.recipe import load_recipe
from litelambda.stages import candidates
from litelambda.stages import search as search_module
from litelambda.stages.convert import Conversion, _convert
from litelambda.stages.data import load_data
from litelambda.stages.latency import measure_latency_us
from litelambda.stages.search import search
from litelambda.stages.train import Trained, train
from litelambda.stages.trials import Tried, pareto


def convert_here(conversions: Sequence[Conversion], folder: Path) -> None:
    """The converter in this process: a child would take seconds to import TensorFlow, for each candidate."""
    for conversion in conversions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converter calibrates with an Interpreter that TensorFlow deprecates
            Path(conversion.output).write_bytes(_convert(conversion))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litelambda.stages.quantize.convert", convert_here)
    monkeypatch.setattr(search_module, "measure_latency_us", lambda artifact: len(artifact) / 100)
    for name, start, stop in (("shapes", 2, 3), ("weights", 1, 3)):  # not all candidates: each takes a second
        every = getattr(candidates, name)
        monkeypatch.setattr(candidates, name, lambda *a, f=every, i=start, j=stop, **k: islice(f(*a, **k), i, j))


@pytest.fixture(scope="module")
def wide(tiny_recipe: Path) -> tuple[Path, Trained]:
    """The tiny recipe with a hidden layer worth compressing, trained."""
    path = tiny_recipe.with_name("wide.toml")
    path.write_text(tiny_recipe.read_text().replace("hidden = [8]", "hidden = [64, 64]"))
    recipe = load_recipe(path)
    return path, train(recipe, load_data(recipe), lambda *_: None)


def run(wide: tuple[Path, Trained], **auto: Any) -> Any:
    path, trained = wide
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in auto.items())
    recipe = load_recipe(path, [f"compress.auto={{{table}}}"])
    return search(recipe, trained, load_data(recipe), lambda *_: None)


@pytest.mark.slow
def test_the_best_within_the_gate_is_found_and_repeats(wide: tuple[Path, Trained], here: None, tmp_path: Path) -> None:
    """Fewer bytes than plain int8, as accurate on validation rows; again from the kept state, without training."""
    settings = {"max_accuracy_drop": 0.1, "epochs": 1, "max_candidates": 11, "state": str(tmp_path / "state")}
    first = run(wide, **settings)
    report = first.figures["auto"]
    tried = {each["name"]: each for each in report["tried"]}
    chosen = tried[report["chosen"]]
    assert list(tried)[:3] == ["float32", "int8", "dynamic"]
    assert chosen["stored"] <= min(each["stored"] for each in tried.values() if each["accuracy"] >= chosen["accuracy"])
    assert chosen["stored"] < tried["int8"]["stored"]
    assert chosen["accuracy"] >= tried["float32"]["accuracy"] - 0.1
    assert report["chosen"] in report["pareto"]
    kept = len(list((tmp_path / "state").iterdir()))
    again = run(wide, **settings)
    assert again.figures["auto"] == report
    assert len(list((tmp_path / "state").iterdir())) == kept == len(tried)
    assert all(np.array_equal(a, b) for a, b in zip(first.model.get_weights(), again.model.get_weights(), strict=True))


def test_latency_decides_between_schemes(
    wide: tuple[Path, Trained], here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where int8 is slower than float and time is what counts, float is chosen."""
    monkeypatch.setattr(search_module, "measure_latency_us", lambda artifact: 1e6 / len(artifact))
    assert run(wide, minimise="latency", max_candidates=3, max_accuracy_drop=0.5).scheme == "float32"


def test_a_gate_out_of_reach_shows_the_best(
    wide: tuple[Path, Trained], here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing is good enough, the error has the best candidate's figures."""
    monkeypatch.setattr("litelambda.stages.search._Search._passes", lambda self, tried: False)
    with pytest.raises(GateError, match=r"found nothing within .* the best was '.*' with 0\.\d+ and [\d,]+ bytes"):
        run(wide, max_candidates=2)


def test_what_another_beats_is_not_in_the_pareto_set() -> None:
    """A candidate stays if no other is at least as good in all figures and better in one."""
    best = Tried("best", "int8", 0.9, 10, 100, 5.0)
    smaller = Tried("smaller", "int8", 0.8, 5, 100, 5.0)
    beaten = Tried("beaten", "int8", 0.8, 11, 100, 5.0)
    broken = Tried("broken", "int8", problem="does not convert")
    assert [each.name for each in pareto([best, smaller, beaten, broken])] == ["best", "smaller"]


def test_latency_is_measured_in_the_shipped_runtime(tiny_tflite: bytes) -> None:
    """A tiny model takes more than nothing and less than a tenth of a second."""
    assert 0.1 < measure_latency_us(tiny_tflite) < 100_000


def test_auto_chooses_alone(tiny_recipe: Path) -> None:
    """Steps beside `auto` are a contradiction, named with the steps."""
    with pytest.raises(RecipeError, match=r"compress\.auto: chooses the steps itself; take out compress\.clustering"):
        load_recipe(tiny_recipe, ["compress.auto={}", "compress.clustering={}"])
