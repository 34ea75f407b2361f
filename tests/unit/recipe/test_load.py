"""Recipes: what is accepted, and how mistakes are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.common.errors import RecipeError
from litelambda.common.paths import RECIPES
from litelambda.recipe.load import load_any_recipe, load_recipe
from litelambda.recipe.sections import Scaling
from litelambda.recipe.training import Adam, Momentum

MINIMAL = """
[model]
builder = "mlp"
[data]
format = "npz"
path = "data/set.npz"
[train]
loss = "sparse_categorical_crossentropy"
[publish]
name = "tiny"
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe with nothing but what is required."""
    path = tmp_path / "tiny.toml"
    path.write_text(MINIMAL)
    return path


def problems_of(path: Path, *overrides: str) -> list[str]:
    """The lines of the RecipeError that loading raises, without its headline."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_defaults_fill_a_minimal_recipe(recipe_file: Path) -> None:
    """A recipe needs only model, data, loss and name; the rest has defaults."""
    recipe = load_recipe(recipe_file)
    assert recipe.train.optimizer == Adam()
    assert (recipe.quantize.scheme, recipe.quantize.io) == ("int8", "float32")
    assert recipe.gate.max_accuracy_drop == 0.005
    assert recipe.compress.pruning is None
    assert recipe.publish.aliases == ["latest"]


def test_relative_paths_start_at_the_recipe(recipe_file: Path) -> None:
    """A path resolves against the recipe's folder, wherever the command runs."""
    recipe = load_recipe(recipe_file)
    assert recipe.resolve(recipe.data.path) == recipe_file.parent / "data" / "set.npz"
    assert recipe.resolve("/elsewhere/set.npz") == Path("/elsewhere/set.npz")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_ready_recipes_are_valid(name: str) -> None:
    """The recipes that ship load by path and by name, carry their file's name and find their data."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    assert recipe.to_json() == load_recipe(name).to_json()
    assert recipe.publish.name == name
    assert recipe.resolve(recipe.data.path).is_file()


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=3", "train.epochs", 3),
        ("train.optimizer.name=momentum", "train.optimizer", Momentum(name="momentum")),
        ("model.hidden=[8, 4]", "model.hidden", [8, 4]),
        ("data.path=../other.npz", "data.path", "../other.npz"),
        ("data.normalize={scale = 0.5}", "data.normalize", Scaling(scale=0.5)),
        ("publish.name=2026-11-23", "publish.name", "2026-11-23"),
        ('publish.name="quoted"', "publish.name", "quoted"),
        ("compress.pruning.final_sparsity=0.5", "compress.pruning.final_sparsity", 0.5),
    ],
)
def test_overrides_are_read_as_toml_or_bare_words(recipe_file: Path, override: str, path: str, value: object) -> None:
    """`--set` takes TOML values, plain words, and makes sections that were not there."""
    found: object = load_recipe(recipe_file, [override])
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.epohs=3", "train.epohs: unknown key; choose loss, from_logits,"),
        ("train.epohs=3", "did you mean 'epochs'?"),
        ("trainn.epochs=3", "trainn: unknown key; choose model, data, train,"),
        ("train.epochs=three", 'train.epochs: input should be a valid integer, got "three"'),
        ("train.epochs=-1", "train.epochs: input should be greater than or equal to 0, got -1"),
        ("train.epochs=true", "train.epochs: input should be a valid integer, got true"),
        (
            "train.optimizer.name=adaam",
            "\"adaam\" is not valid; choose sgd, momentum, rmsprop, adam or adamw; did you mean 'adam'?",
        ),
        ("train.optimizer.beta_1=0.5", "train.optimizer.name: is missing; choose sgd, momentum,"),
        ("train.optimizer={name='momentum', momentum=2}", "train.optimizer.momentum: input should be less than 1"),
        ("train.optimizer=adam", 'train.optimizer: expected a table, got "adam"'),
        ("train.loss=mean", 'train.loss: "mean" is not valid; choose mse, mae,'),
        (
            "model.builder=mlpp",
            "model.builder: \"mlpp\" is not valid; choose mlp, cnn, text or two_tower; did you mean 'mlp'?",
        ),
        ("model.hidden=[8, 'x']", 'model.hidden[1]: input should be a valid integer, got "x"'),
        ("model.path=x.h5", "model: needs exactly one of builder"),
        (
            "data.format=npzz",
            'data.format: "npzz" is not valid; choose npz, npy, images, csv, parquet, text or interactions',
        ),
        ("data.label=y", "data.label: unknown key; choose path, task, labels,"),
        ("data.targets=standardise", 'data.targets: "standardise" is not valid; choose none or standardize'),
        ("data.targets=standardize", "data.targets: 'standardize' needs data.task = 'regression'"),
        ("gate.max_difference=-1", "gate.max_difference: input should be greater than or equal to 0, got -1"),
        ("gate.max_difference=nan", "gate.max_difference: input should be a finite number"),
        ("data.normalize=0-2", 'data.normalize: "0-2" is not valid; choose none, 0-1 or standardize'),
        ("data.normalize={scael=1}", "data.normalize.scael: unknown key; choose scale or offset; did you mean"),
        ("data.normalize={scale=nan}", "data.normalize.scale: input should be a finite number"),
        ("quantize.io=uint16", 'quantize.io: "uint16" is not valid; choose float32, int8 or uint8'),
        ("publish.name=a/b", "publish.name: string should match pattern"),
        ("publish.aliases=['7']", "publish.aliases[0]: an alias cannot be a number or one of the reserved words"),
        ("publish=3", "publish: expected a table, got 3"),
    ],
)
def test_a_mistake_is_named_by_its_path(recipe_file: Path, override: str, problem: str) -> None:
    """A wrong key or value is named with its path, what came and what is valid."""
    assert problem in "\n".join(problems_of(recipe_file, override))


def test_all_mistakes_are_reported_at_once(recipe_file: Path) -> None:
    """Every wrong key of every section has its line."""
    problems = problems_of(recipe_file, "train.loss=x", "model.builder=y", "data.seed=-1", "gaet.max_accuracy_drop=1")
    assert [problem.partition(":")[0] for problem in problems] == ["model.builder", "data.seed", "train.loss", "gaet"]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["data.task=regression"], "train.loss"),
        (["data.task=regression", "train.loss=mse", "data.labels=['a', 'b']"], "data.labels"),
        (["data.task=regression", "train.loss=mse", "data.format=images"], "data.task"),
        (["data.task=multi_label"], "train.loss"),
        (
            ["data.task=multi_label", "train.loss=binary_crossentropy", "train.class_weights={a=2.0}"],
            "train.class_weights",
        ),
        (["data.format=csv", "data.label=['a', 'b']"], "data.label"),
        (["train.loss=mse", "train.from_logits=true"], "train.from_logits"),
        (["quantize.scheme=dynamic", "quantize.io=int8"], "quantize.io"),
        (
            ["data.task=regression", "train.loss=mae", "train.early_stopping.monitor=val_accuracy"],
            "train.early_stopping.monitor",
        ),
        (["compress.pruning={final_sparsity=0.5, initial_sparsity=0.6}"], "compress.pruning.initial_sparsity"),
    ],
)
def test_contradictions_between_sections_are_named(recipe_file: Path, overrides: list[str], path: str) -> None:
    """Settings that are right alone but not together are refused by the path of the one to change."""
    assert [problem.partition(":")[0] for problem in problems_of(recipe_file, *overrides)] == [path]


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "train.loss.name=3"])
def test_an_override_that_sets_nothing_is_refused(recipe_file: Path, override: str) -> None:
    """`--set` names its own mistake."""
    with pytest.raises(RecipeError, match="--set"):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[model\n", "not valid TOML.*line 1"),
        (b"\xff\xfe", "not a text file"),
        (None, "no such recipe: .* that ships: arrows, mnist_cnn, mnist_cnn_auto, "),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A missing file, a binary one and broken TOML are errors that name the file."""
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"broken\.toml: {message}"):
        load_recipe(path)


def test_loading_a_recipe_is_light() -> None:
    """A typo is answered before TensorFlow, Keras or numpy are imported."""
    script = "import sys, litelambda.recipe; print([m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("path = 'm.tflite'\nlabel = 'x'", "import.label: unknown key; choose path, .* did you mean 'labels'?"),
        ("labels = 'x'", "import.path: is missing"),
        ("path = 'm.tflite'\n[model]\nbuilder = 'mlp'", "model: unknown key; choose import or publish"),
    ],
)
def test_a_recipe_that_imports_has_keys_of_its_own(tmp_path: Path, content: str, problem: str) -> None:
    """What is wrong in it is named as in any recipe; `load_recipe`, which is for training, says what to call."""
    path = tmp_path / "recipe.toml"
    path.write_text(f"[import]\n{content}\n[publish]\nname = 'm'\n")
    with pytest.raises(RecipeError, match=problem):
        load_any_recipe(path)
    with pytest.raises(RecipeError, match="imports a model, it does not train one"):
        load_recipe(path)
