"""`litelambda bench conversion`: which models, what is kept of an interrupted run, and the table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from litelambda.bench.conversion import benchmark
from litelambda.bench.conversion.cases import ARCHITECTURES, all_cases, choose
from litelambda.bench.conversion.child import convert_case
from litelambda.bench.conversion.table import markdown
from litelambda.cli.main import main
from litelambda.common.child_process import call_in_child
from litelambda.common.errors import UsageError

YES = {
    "parameters": 10, "float_ops": {}, "size_bytes": {"float": 4000, "int8": 1000}, "seconds": 1.0,
    "difference": {"float": 3.2e-7, "int8": 0.01}, "latency_us": {"float": 20.0, "int8": 10.0},
    "batching": {"dynamic": True, "verified_sizes": [1, 2]},
}  # fmt: skip
PARTLY = YES | {"float_ops": {"ELU": 2, "NEG": 1}, "batching": {"dynamic": False, "reason": "a reason"}}
ELSEWHERE = {
    "command": "a command",
    "settings": {"tools": {"keras": "3.15"}, "image_size": 128},
    "machine": {"python": "3.13.0", "cpu": "a processor", "int8_instructions": []},
}
NO = {"parameters": 10, "error": "cannot be converted: a | b", "instead": "float32", "seconds": 1.0}


def test_the_usual_choice_has_every_family_of_architectures_and_all_layers() -> None:
    """By default the small members of each family run, with --all every one, by name only what is named."""
    usual, every = choose([]), choose([], every=True)
    architectures = {case.name for case in usual if case.family == ARCHITECTURES}
    assert {"MobileNetV3Large", "ConvNeXtTiny", "VGG16"} <= architectures
    assert not architectures & {"VGG19", "EfficientNetB7", "ConvNeXtXLarge"}
    assert {case.name for case in usual} | {"VGG19"} < {case.name for case in every} == set(all_cases())
    assert [case.name for case in choose(["elu", "VGG19"])] == ["VGG19", "elu"]
    assert {case.family for case in choose(["activations"])} == {"activations"}
    with pytest.raises(UsageError, match=r"family Perceptron: expected one of keras\.applications; dense and"):
        choose(["Perceptron"])


@pytest.mark.slow
def test_a_case_is_measured_through_the_stages_of_a_build() -> None:
    """A model with a float island: what stayed float, sizes, difference, latency, batches."""
    row = call_in_child(convert_case, "elu", None, 12 * 2**30)
    assert row["float_ops"] == {"ELU": 1}
    assert "What to change: ELU" in row["note"]
    assert row["batching"]["dynamic"]
    assert 0 < row["difference"]["float"] < 1e-5
    assert 0 < row["difference"]["int8"] < 0.1
    assert min(row["latency_us"].values()) > 0
    assert row["size_bytes"].keys() == {"float", "int8"}


def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are kept as they are made; --fresh makes them again."""
    made: list[str] = []

    def interrupted_at_second(case: Any, *_: Any) -> dict[str, Any]:
        made.append(case.name)
        if made == ["Dense", "elu"]:
            raise KeyboardInterrupt
        return YES

    monkeypatch.setattr(benchmark, "_convert", interrupted_at_second)
    command = ["bench", "conversion", "--json", "--state", str(tmp_path / "state.json"), "--model", "Dense", "elu"]
    assert main(command) == 130
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert made == ["Dense", "elu", "elu"]
    assert document["kept"] == 1
    assert document["cases"]["elu"] == {"family": "activations", **YES}
    assert main([*command, "--fresh"]) == 0
    assert made[3:] == ["Dense", "elu"]


def test_rows_of_other_versions_are_not_kept(tmp_path: Path) -> None:
    """A state file that another TensorFlow made counts for nothing; one that is damaged is an error."""
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"settings": {"tools": {"tensorflow": "1.0"}}, "rows": {"Dense": YES}}))
    assert benchmark._read_state(state, {"tools": {"tensorflow": "2.0"}}) == {}
    assert benchmark._read_state(state, {"tools": {"tensorflow": "1.0"}}) == {"Dense": YES}
    state.write_text("{")
    with pytest.raises(UsageError, match="not a state of a conversion benchmark"):
        benchmark._read_state(state, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "error"),
    [
        # TensorFlow without memory either ends or waits for threads that never started, until the time is over.
        (["--memory-gb", "0.1", "--timeout-s", "20"], "0.1 GB allowed|not done after 20 s"),
        (["--timeout-s", "0.5"], "not done after 0.5 s"),
    ],
)
def test_a_model_beyond_the_limits_is_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limits: list[str], error: str
) -> None:
    """Too little memory or time ends one conversion, not the benchmark."""
    command = ["bench", "conversion", "--json", "--state", str(tmp_path / "state.json"), "--model", "Dense", *limits]
    assert main(command) == 0
    assert re.search(error, json.loads(capsys.readouterr().out)["cases"]["Dense"]["error"])


def test_the_table_names_what_stayed_float_what_failed_and_why() -> None:
    """A line for each model, reasons below, advice at the end; what would break a cell is escaped."""
    result = {
        "cases": {
            "good": YES | {"family": "layers"},
            "island": PARTLY | {"family": "layers"},
            "bad": NO | {"family": "others"},
        },
        **ELSEWHERE,
    }
    lines = markdown(result).splitlines()
    assert "| good | yes | 0.000032% | 1% |  | 4 → 1 | 20 → 10 | 2.0 | yes |" in lines
    assert "| island | partly | 0.000032% | 1% | 2 ELU, 1 NEG | 4 → 1 | 20 → 10 | 2.0 | no |" in lines
    assert "- **island**, rows one by one: a reason" in lines
    assert "| bad | no; float32 does |  |  |  |  |  |  |  |" in lines
    assert "- **bad**: cannot be converted: a | b" in lines
    assert any(line.startswith("| ELU | island | activation elu: use relu") for line in lines)
    assert {"2 of 2 convert.", "0 of 1 convert."} <= set(lines)
    assert {"## Layers", "## Others", "## What to change"} <= set(lines)


def test_the_table_names_the_models_of_a_family_that_were_left_out() -> None:
    """A table of some of keras.applications does not look like one of all."""
    family = [name for name, case in all_cases().items() if case.family == "normalization"]
    cases = {name: YES | {"family": "normalization"} for name in family}
    assert f"{len(family)} of {len(family)} convert." in markdown({"cases": cases, **ELSEWHERE}).splitlines()
    del cases["LayerNormalization"], cases["RMSNormalization"]
    line = f"{len(cases)} of {len(cases)} convert. Not run: LayerNormalization, RMSNormalization."
    assert line in markdown({"cases": cases, **ELSEWHERE}).splitlines()
