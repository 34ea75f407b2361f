"""The layout: folders import one way, nothing imports in circles, and the tests' tree is that of the code."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from litelambda.common.paths import FUNCTIONS, PROJECT
from support import schedule
from support.imports import cycles, read_imports, wrong_ways

if TYPE_CHECKING:
    from pathlib import Path

BUILD = PROJECT / "build"
UNIT_TESTS = PROJECT / "tests" / "unit"

# Each folder, or module at the root, imports only what stands to its left.
FUNCTIONS_ORDER = [
    *("errors", "json_codec", "native", "digest", "background", "settings", "lean_runtime", "tensor", "manifest"),
    *("trust", "audit", "access", "store", "objects", "aliases", "artifact", "litert", "preprocessing", "custom_code"),
    *("drift", "servable", "models", "bodies", "http", "observability", "xray", "capture", "recorder", "explain"),
    *("references", "streaming", "tfserving", "hosting", "inference_protocol", "openapi", "page", "router", "scoring"),
    *("turns", "durations", "server_settings", "asgi"),
    *("predict", "score"),
]
TOOLCHAIN_ORDER = [
    *("common", "recipe", "data", "keras_tools", "training", "compression", "artifact", "conversion", "evaluation"),
    *("search", "store", "publishing", "costs", "stacks", "client", "commands", "scaffold", "bench", "cli"),
]

# The store in S3 is a module at the root, not in `store/`: INIT loads it, and a folder's first module costs more.
FAMILIES = {"litelambda_serving.s3_store": "litelambda_serving.store.s3_store"}
# What runs a package as a command belongs to its command line.
FAMILIES |= {"litelambda.__main__": "litelambda.cli.__main__"}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Every import of the toolchain and of the functions."""
    found = read_imports(BUILD, FUNCTIONS)
    # Python imports a package before any module in it; what a module takes from it is checked below.
    del found["litelambda"], found["litelambda_serving"]
    return {
        FAMILIES.get(name, name): {FAMILIES.get(other, other) for other in others if other in found}
        for name, others in found.items()
    }


def below(package: str, imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports within a package."""
    inside = {name for name in imports if name.startswith(package)}
    return {name: imports[name] & inside for name in inside}


def test_the_functions_import_one_way(imports):
    """What is shipped is layered: no module imports one that builds on it."""
    scripts = {name: imports[name] for name in ("predict", "score")}
    assert wrong_ways({**below("litelambda_serving.", imports), **scripts}, FUNCTIONS_ORDER) == []


def test_the_toolchain_imports_one_way(imports):
    """A stage of the toolchain imports only what runs before it."""
    assert wrong_ways(below("litelambda.", imports), TOOLCHAIN_ORDER) == []


def test_the_public_api_is_for_users():
    """`litelambda` offers what all folders have: a module of it takes nothing from there but the version."""
    trees = [ast.parse(path.read_text()) for path in (BUILD / "litelambda").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.name for node in nodes if node.module == "litelambda" for name in node.names} == {"__version__"}


def test_nothing_imports_in_circles(imports):
    """Every module can be read, and loaded, after what it imports."""
    assert cycles(imports) == []


TREE = {
    "app/__init__.py": "",
    "app/low/__init__.py": "",
    "app/low/one.py": "import os",
    "app/low/two.py": "from app.low.one import something",
    "app/high/__init__.py": "from app.low import one",
    "app/high/three.py": "def function():\n    from app.low.two import something\n    import app.low.one",
}


def write(tree: dict[str, str], folder: Path) -> dict[str, set[str]]:
    """Write a tree of source files and read its imports."""
    for name, source in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    found = read_imports(folder)
    del found["app"]
    return found


def test_a_right_tree_passes(tmp_path):
    """Imports to the left, and within a folder, are what the layout asks for."""
    found = write(TREE, tmp_path)
    assert found["app.high.three"] == {"app.low.two", "app.low.one"}
    assert (wrong_ways(found, ["low", "high"]), cycles(found)) == ([], [])


@pytest.mark.parametrize(
    "source",
    [
        "from app.high.three import function",
        "from app.high import three",
        "from ..high import three",
        "import app.high.three",
        "import app.high.three as other",
        "def function():\n    from app.high.three import function",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from app.high.three import Type",
        "try:\n    import app.high.three\nexcept ImportError:\n    pass",
    ],
    ids=["name", "module", "relative", "import", "renamed", "lazy", "type-only", "guarded"],
)
def test_an_arrow_turned_round_is_found(tmp_path, source):
    """However an import is written and whenever it runs, one to the right is seen."""
    found = write({**TREE, "app/low/one.py": source}, tmp_path)
    assert wrong_ways(found, ["low", "high"]) == ["app.low.one -> app.high.three"]
    assert cycles(found) == [["app.high.three", "app.low.one", "app.low.two"]]


@pytest.mark.parametrize(
    ("changes", "cycle"),
    [
        ({"app/low/one.py": "def f():\n    from app.low import two"}, ["app.low.one", "app.low.two"]),
        (
            {"app/low/__init__.py": "from app.low import two", "app/low/one.py": "from app.low import Name"},
            ["app.low", "app.low.one", "app.low.two"],
        ),
    ],
    ids=["siblings", "a folder and its member"],
)
def test_a_circle_within_a_folder_is_found(tmp_path, changes, cycle):
    """A folder's members, and its `__init__`, do not import one another in circles either."""
    found = write({**TREE, **changes}, tmp_path)
    assert wrong_ways(found, ["low", "high"]) == []
    assert cycles(found) == [cycle]


def test_a_folder_without_a_place_is_found(tmp_path):
    """A new folder has to be given its place in the order."""
    found = write({**TREE, "app/new/four.py": "from app.low import one"}, tmp_path)
    with pytest.raises(ValueError, match="new"):
        wrong_ways(found, ["low", "high"])


def test_the_tree_of_the_unit_tests_is_that_of_the_code():
    """A folder of unit tests has the name of the folder that it tests."""
    code = {path.relative_to(BUILD / "litelambda") for path in folders(BUILD / "litelambda")}
    package = FUNCTIONS / "litelambda_serving"
    serving = {path.relative_to(package) for path in folders(package)}
    tests = {path.relative_to(UNIT_TESTS) for path in folders(UNIT_TESTS)}
    in_serving = {path.relative_to("serving") for path in tests if path.parts[0] == "serving" and len(path.parts) > 1}
    others = {str(path) for path in tests - code if path.parts[0] != "serving"}
    assert in_serving - serving == set()
    assert others == {"docs", "infra"}


def test_the_files_that_the_workers_start_with_are_there():
    """A file of tests that was renamed keeps its place in the order, and its worker."""
    named = {*schedule.LONGEST, *(name for group in schedule.TOGETHER for name in group)}
    assert [name for name in sorted(named) if not (UNIT_TESTS.parent / name).is_file()] == []
    assert len(set(schedule.LONGEST)) == len(schedule.LONGEST)


def test_files_that_belong_together_go_to_one_worker():
    """Each in the scope of the first, in its place among the longest."""
    build, proofs = (f"tests/integration/test_build{ending}.py::test" for ending in ("", "_proofs"))
    items = [SimpleNamespace(nodeid=nodeid) for nodeid in ("tests/unit/test_layout.py::test", proofs, build)]
    schedule.longest_first(items)
    assert [item.nodeid for item in items] == [proofs, build, "tests/unit/test_layout.py::test"]
    assert schedule.scope_of(proofs) == schedule.scope_of(build) == "tests/integration/test_build.py"


def folders(top: Path) -> list[Path]:
    """The folders below one that hold Python files."""
    return sorted({path.parent for path in top.rglob("*.py")} - {top})
