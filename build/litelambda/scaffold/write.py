"""Writes a project: all of its files, or none."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from litelambda import __version__
from litelambda.common.errors import UsageError
from litelambda.common.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from litelambda.scaffold.project import Project

__all__ = ["check_free", "project_files", "write_project"]

_TEMPLATES = Path(__file__).parent / "templates"
_EXTRAS = {"text": "text", "parquet": "parquet"}  # by format of the data, what else the build needs
_FILES = {
    ".gitignore": "gitignore",
    "README.md": "README",
    "requirements.txt": "requirements",
    "tests/test_serving.py": "test_serving",
    ".github/workflows/deploy.yml": "workflow",
}


class _Template(Template):
    """`%{name}`, since GitHub's workflows are full of dollar signs."""

    delimiter = "%"


def project_files(project: Project) -> dict[str, str]:
    """The files of a project by their paths in it, but for the copies of what the user has."""
    major, minor, *_ = __version__.split(".")
    values = {
        "name": project.name,
        "summary": f"{project.summary[:1].upper()}{project.summary[1:]}.",
        "findings": _findings(project),
        "stack": _stack_name(project.name),
        "extras": ",".join(["build", *filter(None, [_EXTRAS.get(project.format)])]),
        "range": f">={__version__},<{major}.{int(minor) + 1}",
        "test": _read(project.task).rstrip(),
    }
    files = {path: _Template(_read(name)).substitute(values) for path, name in _FILES.items()}
    return files | {
        "recipe.toml": project.recipe,
        "tests/rows.json": json.dumps({"instances": project.examples.rows}, ensure_ascii=False) + "\n",
        "tests/expected.json": json.dumps(project.examples.expected, ensure_ascii=False) + "\n",
    }


def write_project(folder: Path, files: Mapping[str, str], copies: Mapping[str, Path]) -> None:
    """Write the files of a project, and copy what the user has; an interrupted or failed one leaves nothing behind.

    Args:
        folder: of the project; made where it does not exist.
        files: the content by path in the folder.
        copies: by path in the folder, the file or folder to copy there.

    Raises:
        UsageError: files of these names are there already, or the folder cannot be written to.
    """
    check_free(folder, [*files, *copies])
    try:
        with ExitStack() as undo:
            for path, content in files.items():
                _make_folders((folder / path).parent, undo)
                with (folder / path).open("x", encoding="utf-8") as file:
                    undo.callback((folder / path).unlink, missing_ok=True)
                    file.write(content)
            for path, source in copies.items():
                _make_folders((folder / path).parent, undo)
                undo.callback(_remove, folder / path)
                _copy(source, folder / path)
            undo.pop_all()
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error}") from error


def check_free(folder: Path, paths: Iterable[str]) -> None:
    """See that a project's files are not there yet.

    Raises:
        UsageError: some are.
    """
    if taken := [path for path in sorted(paths) if (folder / path).exists() or (folder / path).is_symlink()]:
        raise UsageError(
            f"{folder} has {counted(len(taken), 'file')} of the project already, and nothing is overwritten: "
            f"{', '.join(taken)}. Move {'it' if len(taken) == 1 else 'them'} away, or choose another folder"
        )


def _make_folders(folder: Path, undo: ExitStack) -> None:
    """Make a folder and those above it, and have those removed that were made."""
    if not folder.exists():
        _make_folders(folder.parent, undo)
        folder.mkdir()
        undo.callback(folder.rmdir)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(name: str) -> str:
    return (_TEMPLATES / f"{name}.template").read_text(encoding="utf-8")


def _findings(project: Project) -> str:
    found = project.found
    lines = [f"- `{each.key} = {each.value}`: {each.reason}." for each in found.guesses]
    lines += [f"- {note[:1].upper()}{note[1:]}." for note in found.notes]
    return "\n".join(lines) or "- Nothing had to be guessed."


def _stack_name(name: str) -> str:
    """A name that CloudFormation takes: letters, digits and hyphens, a letter first."""
    stack = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    return stack if stack[:1].isalpha() else f"model-{stack}"
