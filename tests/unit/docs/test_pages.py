"""The pages: what they quote, link to and tell people to type exists."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT, RECIPES
from litelambda.recipe.load import load_recipe
from support.markdown import anchors_of, blocks_of, links_of, read_examples
from support.pages import DOCS, NOT_RUN, PAGES, runner_of

README, CONTRIBUTING = PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every string of the code, with "…" for what is filled in."""
    folders = [PROJECT / "build" / "litelambda", PROJECT / "functions"]
    found = []
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def quoted_errors() -> list[str]:
    """The texts in the headings of the page on troubleshooting, and of that on the gate."""
    pages = [DOCS / "troubleshooting.md", DOCS / "how-to" / "gate-refused.md"]
    headings = [line for page in pages for line in page.read_text().splitlines() if re.match("##+ .*`", line)]
    return [text for heading in headings for text in re.findall("`([^`]+)`", heading)]


@pytest.mark.parametrize("quoted", quoted_errors())
def test_every_error_that_a_page_explains_is_one_that_the_code_raises(quoted: str) -> None:
    """The quoted text stands in the code: its parts between the "…" follow each other in one message."""
    pattern = ".*".join(re.escape(part.strip()) for part in quoted.split("…") if part.strip())
    assert any(re.search(pattern, text, re.DOTALL) for text in texts_of_the_code())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file leads to one of the repository, and its fragment to a heading there."""
    for link in links_of(page):
        if re.match("https?://", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_commands_that_pages_show_exist(page: Path) -> None:
    """Every `litelambda` command in a block for the shell has only options that the reference has for it."""
    reference = (DOCS / "reference" / "command-line.md").read_text()
    for line in (line for block in blocks_of(page, "sh", "console") for line in block.splitlines()):
        if found := re.match(r"(?:\$ )?(?:\w+=\S+ )?litelambda ((?:bench )?\w+)(.*)", line):
            section = reference.partition(f"\n## litelambda {found[1]}\n")[2].partition("\n## ")[0]
            assert section, line
            assert [flag for flag in re.findall(r" (--[a-z-]+)", found[2]) if f"`{flag}" not in section] == [], line


def test_what_no_test_runs_stands_on_a_page() -> None:
    """Every entry of `NOT_RUN` is how some command of a page begins; all other commands are run by a test."""
    commands = [example.command for page in PAGES for example in read_examples(page)]
    assert [begun for begun in NOT_RUN if not any(command.startswith(begun) for command in commands)] == []
    runners = {runner_of(page, example.command) for page in PAGES for example in read_examples(page)}
    assert all((PROJECT / runner).is_file() for runner in runners if runner)


def test_the_readme_is_a_front_page() -> None:
    """150 lines at most: what is longer belongs into docs/."""
    assert len(README.read_text().splitlines()) <= 150


def test_the_readme_quotes_the_benchmarks() -> None:
    """Ratios of cold starts that the README names stand in the table of the benchmarks."""
    section = README.read_text().partition("## How cold is it?")[2].partition("\n## ")[0]
    figures = (DOCS / "reference" / "benchmarks.md").read_text()
    quoted = re.findall(r"\d+\.\d+", section)
    assert quoted
    assert [ratio for ratio in quoted if not re.search(rf"\*\*{re.escape(ratio)}\d*\*\*", figures)] == []


def test_the_commands_of_the_readme_are_targets_that_ci_runs() -> None:
    """`make demo` and `make test` exist, and continuous integration runs them."""
    shown = re.findall(r"^\$ make (\w+) ", "".join(blocks_of(README, "console")), re.MULTILINE)
    assert {"demo", "test"} <= set(shown)
    ci, makefile = (PROJECT / ".ci" / "run").read_text(), (PROJECT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"step make {target}\n" in ci


def test_recipes_on_pages_are_valid(tmp_path: Path) -> None:
    """A recipe that a page shows loads, alone or added to what every recipe needs."""
    minimal = {
        "model": {"builder": "mlp"},
        "data": {"format": "npz", "path": "data.npz"},
        "train": {"loss": "sparse_categorical_crossentropy"},
        "publish": {"name": "shown"},
    }
    shown = [text for page in PAGES for text in blocks_of(page, "toml")]
    assert len(shown) >= 2
    for number, text in enumerate(shown):
        tables = tomllib.loads(text)
        missing = "".join(
            f"[{name}]\n" + "".join(f"{key} = '{value}'\n" for key, value in keys.items())
            for name, keys in minimal.items()
            if name not in tables
        )
        path = tmp_path / f"{number}.toml"
        path.write_text(f"{missing}{text}")
        assert load_recipe(path)


def test_the_recipe_of_the_reference_is_the_ready_one() -> None:
    """The recipe that is shown whole is `mnist_mlp.toml`."""
    (shown,) = blocks_of(DOCS / "reference" / "recipe.md", "toml")
    assert tomllib.loads(shown) == tomllib.loads((RECIPES / "mnist_mlp.toml").read_text())


def order_of_folders(name: str) -> list[str]:
    """One of the orders that `test_layout.py` holds the code to."""
    tree = ast.parse((PROJECT / "tests" / "unit" / "test_layout.py").read_text())
    (order,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name)
    return [node.value for node in ast.walk(order) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("name", ["TOOLCHAIN_ORDER", "FUNCTIONS_ORDER"])
def test_contributors_read_the_order_that_is_held(name: str) -> None:
    """CONTRIBUTING lists the folders in the order in which they may import each other."""
    text = " ".join(CONTRIBUTING.read_text().split())
    assert f"`{' → '.join(order_of_folders(name))}`" in text


def test_the_picture_names_folders_of_the_code_in_their_order() -> None:
    """The README's picture goes through the toolchain's folders in the order in which they may import each other."""
    picture = blocks_of(README, "")[0]
    order = order_of_folders("TOOLCHAIN_ORDER")
    named = [word for word in re.findall(r"\w+", picture) if word in order]
    assert named == [folder for folder in order if folder in named]
    assert {"recipe", "data", "training", "compression", "conversion", "evaluation", "publishing"} <= set(named)
    for folder in ("lean_runtime", "models", "litert"):
        assert folder in picture
        assert (PROJECT / "functions" / "litelambda_serving" / folder).is_dir()


def test_the_glossary_knows_where_things_are() -> None:
    """Every folder and module that the glossary names is there."""
    table = (DOCS / "glossary.md").read_text().partition("## Where they are in the code")[2]
    names = re.findall(r"`(litelambda[\w.]*)`", table)
    assert names
    roots = {"litelambda": PROJECT / "build", "litelambda_serving": PROJECT / "functions"}
    paths = {name: roots[name.partition(".")[0]] / name.replace(".", "/") for name in names}
    assert [name for name, path in paths.items() if not (path.is_dir() or path.with_suffix(".py").is_file())] == []
