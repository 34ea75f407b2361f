"""Which module imports which, read from the source: at the top, inside functions and for type checkers alike."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Imports = Mapping[str, set[str]]


def read_imports(*roots: Path) -> dict[str, set[str]]:
    """The modules below some folders by dotted name, each with the modules below them that it imports."""
    files = {_module_name(path.relative_to(root).parts): path for root in roots for path in sorted(root.rglob("*.py"))}
    return {name: set(_imported(name, path, files)) - {name} for name, path in files.items()}


def wrong_ways(imports: Imports, order: Sequence[str]) -> list[str]:
    """Imports of what stands further right in an order of folders and modules, such as `"a.one -> b.two"`.

    Raises:
        ValueError: a module is in no folder of the order.
    """
    return [
        f"{name} -> {other}"
        for name, others in imports.items()
        for other in sorted(others)
        if order.index(_room(name)) < order.index(_room(other))
    ]


def cycles(imports: Imports) -> list[list[str]]:
    """Groups of modules that import one another, directly or through others, each sorted."""
    reachable = {name: _reachable(imports, name) for name in imports}
    groups = {tuple(sorted(other for other in reachable[name] if name in reachable[other])) for name in imports}
    return sorted(list(group) for group in groups if group)


def _module_name(parts: Sequence[str]) -> str:
    return ".".join(parts).removesuffix(".py").removesuffix(".__init__")


def _room(name: str) -> str:
    """Where a module stands in an order: its folder below the package, or itself below the package or at the top."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else name


def _imported(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                found = (each for each in (f"{source}.{alias.name}", source) if each in files)
                yield from list(found)[:1]


def _reachable(imports: Imports, start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports[name]
    return found
