"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from litelambda.common.paths import FUNCTIONS, PROJECT, REQUIREMENTS

TEST_FILES = sorted((PROJECT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_every_test_says_what_behavior_it_holds(path):
    """A test's docstring is its specification, so every test has one."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    tests = [node for node in functions if node.name.startswith("test_")]
    assert tests
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_locks_pin_by_hash_and_name_no_registry(path):
    """Every requirement has hashes; where packages come from is the installer's business."""
    text = path.read_text()
    assert "://" not in text
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if "==" in line and line[0] != "#"]
    assert requirements
    assert [line for line in requirements if "--hash=sha256:" not in line] == []


def test_ranges_and_locks_agree():
    """What pyproject.toml asks for is in the lock that `make setup` installs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in wanted}
    locked = set(
        re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==", (REQUIREMENTS / "dev.txt").read_text(), re.MULTILINE)
    )
    assert names <= {name.lower() for name in locked}


def test_serving_never_imports_the_toolchain():
    """What is deployed does not know what built it."""
    for path in FUNCTIONS.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) litelambda\b", path.read_text(), re.MULTILINE), path


def test_the_toolchain_imports_without_doing_work():
    """Importing the command loads no TensorFlow, so that `--help` and a typo answer at once."""
    script = "import litelambda.cli.main, sys, json; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert not {"tensorflow", "keras", "boto3"} & set(json.loads(output))


def test_no_tracked_file_knows_this_machine():
    """No path of a home directory or of a checkout is written into the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    for name in filter(None, listed.stdout.split("\0")):
        path = PROJECT / name
        if path.suffix in {".npz", ".tflite", ".png"} or not path.exists():
            continue
        text = path.read_text(errors="replace")
        assert str(Path.home()) + "/" not in text, name
        assert str(PROJECT.parent) + "/" not in text or PROJECT.parent == Path("/"), name


SOURCES = sorted(
    path for folder in (PROJECT / "build", FUNCTIONS) for path in folder.rglob("*.py") if ".venv" not in path.parts
)
TWIN_LINES = 10
MAX_LINES = 330
LONGER = {
    "functions/litelambda_serving/litert/__init__.py": "INIT loads all of it, and one module more costs 0.12 ms",
    "functions/litelambda_serving/http.py": "as litert",
    "functions/litelambda_serving/lean_runtime/__init__.py": "as litert",
    "functions/litelambda_serving/models/__init__.py": "as litert",
    "functions/litelambda_serving/servable/__init__.py": "as litert",
    "functions/litelambda_serving/settings.py": "as litert",
    "functions/litelambda_serving/tfserving/__init__.py": "as litert",
}
"""Modules of more than `MAX_LINES`, and why."""

BANNED = re.compile(
    r"\b(?:(?<!there )(?:is|are) no (?!longer|more|better|worse|less|fewer)\w+|nobody|anew|told by|cannot be had"
    r"|goes on with|held against|(?:beside|behind) (?:it|them))\b",
    re.IGNORECASE,
)
"""Word-by-word translations: "is not a …", "again", "reported by", "is not available", "resumes", "checked against"."""


def statements(text: str) -> list[str]:
    """The lines of a module that could be shared: whitespace normalized, without blank lines and imports."""
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    skipped = {line for node in imports for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for number, line in enumerate(lines, 1) if line and number not in skipped]


def twins(modules: dict[str, str]) -> list[tuple[str, str, str]]:
    """Runs of `TWIN_LINES` lines that stand twice: both modules' names, and the first line."""
    seen: dict[tuple[str, ...], str] = {}
    found = []
    for name, text in modules.items():
        lines = statements(text)
        for start in range(len(lines) - TWIN_LINES + 1):
            run = tuple(lines[start : start + TWIN_LINES])
            if run in seen:
                found.append((seen[run], name, run[0]))
            seen.setdefault(run, name)
    return found


def test_no_code_stands_twice():
    """Ten lines that are the same in two places are one function that was not written."""
    assert twins({str(path.relative_to(PROJECT)): path.read_text() for path in SOURCES}) == []


def test_twins_are_found():
    """Also where one of them is indented, has blank lines or imports in between; nine lines are none."""
    lines = [f"a{number} = {number}" for number in range(TWIN_LINES)]
    inside = "def f():\n" + "".join(f"\n    {line}\n    import os\n" for line in lines)
    assert twins({"one": "\n".join(lines), "two": inside}) == [("one", "two", "a0 = 0")]
    assert twins({"one": "\n".join(lines), "two": inside.replace("a5", "b5")}) == []


def test_modules_are_short():
    """A module is read in one sitting, but for those that are listed with their reason."""
    lengths = {str(path.relative_to(PROJECT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name for name, length in lengths.items() if length > MAX_LINES} == set(LONGER)


def unexplained(text: str) -> list[int]:
    """Lines with `# noqa` and no reason after it; a block of imports shares the first one's."""
    lines, shared = [], False
    for number, line in enumerate(text.splitlines(), 1):
        found = re.search(r"#\s*noqa(: [A-Z]+\d+(, [A-Z]+\d+)*( - \S.*)?)?$", line)
        of_block = bool(found) and "E402" in line
        if found and not found[3] and not (shared and of_block):
            lines.append(number)
        shared = of_block
    return lines


def test_every_exception_to_a_lint_rule_has_its_reason():
    """`# noqa: CODE - reason`: a reader must not guess."""
    found = {str(path.relative_to(PROJECT)): unexplained(path.read_text()) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_exceptions_without_a_reason_are_found():
    """Bare, with a code alone, and after a block of imports whose reason is not its own."""
    assert unexplained("a  # noqa\nb  # noqa: S101\nc  # noqa: S101, E501 - as S3 does") == [1, 2]
    imports = "import a  # noqa: E402 - after the path\nimport b  # noqa: E402\n"
    assert unexplained(imports + "c  # noqa: E501") == [3]


def banned_words(text: str) -> list[str]:
    """The words of a module that do not read as English, across the breaks of lines and strings."""
    joined = re.sub(r'"\s+f?"', "", " ".join(text.split()))
    return [match[0] for match in BANNED.finditer(joined)]


def test_words_that_were_swept_stay_out():
    """Docstrings, comments and messages read as a maintainer of the field would say them."""
    found = {str(path.relative_to(PROJECT)): banned_words(path.read_text()) for path in SOURCES}
    assert {name: words for name, words in found.items() if words} == {}


def test_banned_words_are_found():
    """Also where a string goes on in the next line; "is no longer" is English."""
    assert banned_words('raise Error(\n    "the file is "\n    f"no model"\n)') == ["is no model"]
    assert banned_words('"""It is written anew,\n    told by nobody."""') == ["anew", "told by", "nobody"]
    assert banned_words('"it is no longer there"') == []


SECTIONS = {"Args", "Attributes", "Example", "Raises", "Returns", "Yields"}
PROPER_NAMES = {"CloudWatch", "Functional", "Keras", "Lambda", "Pillow", "Python", "Sequential", "TensorFlow"}


def odd_docstrings(text: str) -> list[str]:
    """The lines of a module's docstrings that do not follow Google's form as the house has it.

    Sections are those of `SECTIONS`; an entry of Args, Attributes and Raises goes on in lower case after its colon,
    unless with a name; what Returns and Yields say begins as a sentence does. All end with a period, and Args are those
    that there are.
    """
    return [line for node in ast.walk(ast.parse(text)) for line in odd_lines(node)]


def odd_lines(node: ast.AST) -> list[str]:
    """Those of one docstring."""
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    text = (ast.get_docstring(node) if documented else None) or ""
    odd = []
    for heading, body in re.findall(r"^([A-Z]\w+)::?\n((?:(?: {4}.*)?\n)+)", text + "\n\n", re.MULTILINE):
        if heading not in SECTIONS:
            odd.append(f"{heading}:")
            continue
        entries = [" ".join(each.split()) for each in re.split(r"\n {4}(?! )", "\n" + body.rstrip())[1:]]
        if heading in ("Returns", "Yields"):
            odd += [entry for entry in [" ".join(entries)] if not re.match(r"[A-Z`0-9(].*[.:]$", entry)]
        elif heading != "Example":
            odd += [entry for entry in entries if not is_entry(entry)]
        if heading == "Args":
            odd += [entry for entry in entries if not set(re.findall(r"\w+", entry.split(":")[0])) <= parameters(node)]
    return odd


def parameters(node: ast.AST) -> set[str]:
    """The names of what a function takes, or a class when it is made."""
    body = node.body if isinstance(node, ast.ClassDef) else [node]
    made_by = [each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    if isinstance(node, ast.ClassDef):
        made_by = [each for each in made_by if each.name == "__init__"]
    return {each.arg for function in made_by for each in ast.walk(function.args) if isinstance(each, ast.arg)}


def is_entry(entry: str) -> bool:
    """Whether an entry names something and says what it is, beginning in lower case and ending with a period."""
    found = re.fullmatch(r"[\w*., ]+: (\S+).*[.)]", entry)
    word = re.split(r"\W", found[1])[0] if found else ""
    return bool(found) and (not word[:1].isupper() or word in PROPER_NAMES or bool(re.search(r"[A-Z\d]", word[1:])))


def test_docstrings_have_one_form():
    """Google's sections, in one case: a reader who knows one docstring reads all."""
    found = {str(path.relative_to(PROJECT)): odd_docstrings(path.read_text()) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_odd_docstrings_are_found():
    """A section of another name, an entry that begins as a sentence, has no end or no argument; names are allowed."""
    right = "Do it.\n\nArgs:\n    url: URL of it.\n    kind: Keras' name,\n        or none.\n\nReturns:\n    A number."
    assert odd_docstrings(f'def f(url, *, kind): """{right}"""') == []
    wrong = right.replace("Keras' name", "The name").replace("of it.", "of it").replace("A number", "a number")
    assert odd_docstrings(f'def f(url, kinds): """{wrong}\n\nUsage:\n    none."""') == [
        *("url: URL of it", "kind: The name, or none.", "kind: The name, or none.", "a number.", "Usage:"),
    ]
