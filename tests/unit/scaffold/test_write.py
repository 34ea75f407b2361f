"""`litelambda init` as a command: what it writes, what it leaves alone, and what it says."""

from __future__ import annotations

import json
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from litelambda.cli.main import main
from litelambda.common.paths import RECIPES
from litelambda.scaffold import write
from support.damaged_zips import damaged_zip
from support.golden_store import GOLDEN

DATA = RECIPES.parent / "data"
PENGUINS = DATA / "penguins.csv"
FILES = {
    ".github/workflows/deploy.yml", ".gitignore", "README.md", "data/penguins.csv", "recipe.toml", "requirements.txt",
    "tests/expected.json", "tests/rows.json", "tests/test_serving.py",
}  # fmt: skip


def files_of(folder: Path) -> set[str]:
    """The files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the penguins."""
    folder = tmp_path_factory.mktemp("projects") / "new" / "penguins"
    assert main(["init", str(folder), "--data", str(PENGUINS), "--label", "species"]) == 0
    return folder


def test_a_project_has_all_it_needs(project: Path) -> None:
    """Recipe, data, test, workflow and a page; nothing else."""
    assert files_of(project) == FILES
    assert (project / "data" / "penguins.csv").read_bytes() == PENGUINS.read_bytes()
    rows = json.loads((project / "tests" / "rows.json").read_text())["instances"]
    expected = json.loads((project / "tests" / "expected.json").read_text())
    assert len(rows) == len(expected) == 50
    lines = [line.split(",") for line in PENGUINS.read_text().splitlines()]
    keyed = {(line[2], line[3], line[4], line[5]): line[0] for line in lines[1:]}
    shown = [
        keyed["NA" if row["bill_length_mm"] is None else f"{row['bill_length_mm']:g}",
              "NA" if row["bill_depth_mm"] is None else f"{row['bill_depth_mm']:g}",
              "NA" if row["flipper_length_mm"] is None else f"{row['flipper_length_mm']:g}",
              "NA" if row["body_mass_g"] is None else f"{row['body_mass_g']:g}"]
        for row in rows
    ]  # fmt: skip
    assert shown == expected


def test_the_workflow_is_pinned_and_asks_for_no_more_than_it_needs(project: Path) -> None:
    """Actions by their commits, no secret, and the token of OIDC for the job that deploys alone."""
    text = (project / ".github" / "workflows" / "deploy.yml").read_text()
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert [action for action in actions if len(action.partition("@")[2]) != 40] == []
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["deploy"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert "permissions" not in workflow["jobs"]["test"]
    assert "secrets." not in text
    assert "%{" not in text
    commands = [step["run"] for step in steps if "run" in step]
    assert "litelambda build" in commands
    assert commands[-1] == 'litelambda deploy "$MODEL" --store "$STORE" --stack "$STACK"'


def test_what_was_guessed_is_said_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen, as comments in the recipe, in the README, and in --json."""
    arguments = ["--data", str(PENGUINS), "--label", "species"]
    assert main(["init", str(tmp_path / "a"), *arguments]) == 0
    said = capsys.readouterr().out
    assert 'data.missing = "median"' in said
    assert "sex 11 of 344 rows have no value" in said
    assert f"cd {tmp_path / 'a'}\n  litelambda build\n  litelambda serve" in said
    assert main(["init", str(tmp_path / "b"), *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {*document["files"]} == FILES
    keys = [each["key"] for each in document["guesses"]]
    recipe, page = ((tmp_path / "b" / name).read_text() for name in ("recipe.toml", "README.md"))
    for key, each in zip(keys, document["guesses"], strict=True):
        section, _, name = key.partition(".")
        assert json.dumps(tomllib.loads(recipe)[section][name]) == each["value"]
        assert f"`{key} = {each['value']}`" in page


@pytest.mark.parametrize("taken", ["recipe.toml", "tests/test_serving.py", "data/penguins.csv"])
def test_nothing_is_overwritten(tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the user's that is in the way is named; it stays as it is, and nothing is written."""
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    assert main(["init", str(tmp_path), "--data", str(PENGUINS), "--label", "species"]) == 2
    assert f"nothing is overwritten: {taken}. Move it away, or choose another folder" in capsys.readouterr().err
    assert files_of(tmp_path) == {taken}
    assert (tmp_path / taken).read_text() == "mine"


def test_data_in_the_folder_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual start: a folder with the data, and `litelambda init` in it; data from elsewhere is copied."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(PENGUINS, "birds.csv")
    assert main(["init", "--data", "birds.csv", "--label", "species"]) == 0
    assert files_of(tmp_path) == FILES - {"data/penguins.csv"} | {"birds.csv"}
    assert tomllib.loads(Path("recipe.toml").read_text())["data"]["path"] == "birds.csv"
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir("beside")
    assert main(["init", "--data", "../birds.csv", "--label", "species"]) == 0
    assert Path("data/birds.csv").read_bytes() == PENGUINS.read_bytes()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_what_ends_it_leaves_nothing_behind(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C, or a full disk, while it writes: files and folders that it made are gone, those of the user stay."""

    def copy(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        raise error

    monkeypatch.setattr(write, "_copy", copy)
    (tmp_path / "tests").mkdir()
    code = main(["init", str(tmp_path), "--data", str(PENGUINS), "--label", "species"])
    assert code == (130 if error is KeyboardInterrupt else 2)
    assert ("interrupted" if error is KeyboardInterrupt else "disk full") in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["tests"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to start from: --data PATH, --model PATH or --example NAME"),
        (["--data", "a.csv", "--example", "plays"], "give one of --data, --model and --example"),
        (["--data", "gone.csv"], "gone.csv does not exist"),
        (["--example", "pinguins"], "unknown example 'pinguins': choose one of arrows, "),
        (["--model", "model.docx"], "model.docx: expected a .tflite, .keras or .h5 file"),
        (["--example", "penguins", "--name", "a/b"], "invalid model name 'a/b': use letters, digits, '_', '.' and '-'"),
    ],
)
def test_wrong_usage_writes_nothing(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is one line, with exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("model.docx").touch()
    assert main(["init", "new", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("new").exists()


def test_it_asks_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to start from and what to predict; Ctrl-C at a question ends it with exit code 130, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(PENGUINS, "birds.csv")
    answers: list[str | type[BaseException]] = ["birds.csv", KeyboardInterrupt, "birds.csv", "bill", "species"]

    def answered(_prompt: str) -> str:
        answer = answers.pop(0)
        if not isinstance(answer, str):
            raise answer
        return answer

    monkeypatch.setattr("click.termui.visible_prompt_func", answered)
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    assert main(["init"]) == 130
    assert files_of(tmp_path) == {"birds.csv"}
    assert main(["init"]) == 0  # "bill" is not a column: asked again
    assert tomllib.loads(Path("recipe.toml").read_text())["data"]["label"] == "species"
    assert answers == []


def test_a_damaged_zip_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given as an answer: one line, whatever it was to be."""
    monkeypatch.chdir(tmp_path)
    Path("half.zip").write_bytes(damaged_zip("'utf-8' codec can't decode", {"model.keras": b""}))
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: "half.zip")
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    assert main(["init"]) == 1
    assert "half.zip is not a readable .zip file" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "section"), [("half.zip", "import"), ("arrows.zip", "data")])
def test_a_zip_file_has_a_model_or_pictures(
    tmp_path: Path, name: str, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as an answer, it is what is in it."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("half.zip", "w") as archive:
        archive.write(GOLDEN / "half_plus_two.tflite", "exported/model.tflite")
    shutil.copy(DATA / "arrows.zip", tmp_path)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: name)
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    assert main(["init"]) == 0
    assert tomllib.loads(Path("recipe.toml").read_text())[section]["path"] == name
