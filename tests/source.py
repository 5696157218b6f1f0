"""The source of the project as syntax trees, for tests of its structure. Imports none of it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "pipeline", "transforms", "klaviyo_pg", "sandbox")


class Module(NamedTuple):
    """A module: its full name, and its syntax tree."""

    name: str
    tree: ast.Module


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Return the modules in folders below the root."""
    return tuple(_module(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


@cache
def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, ast.parse(path.read_text(), str(path)))


@cache
def imports(tree: ast.Module) -> frozenset[str]:
    """Return the full names that a module imports, anywhere in it. Each name of a from-import counts as a module."""
    return frozenset(name for node in ast.walk(tree) for name in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def without_program(tree: ast.Module) -> ast.Module:
    """Return a module without what it does only if it is run as a program."""
    return ast.Module([node for node in tree.body if not _is_program(node)], [])


@cache
def without_types(tree: ast.Module) -> ast.Module:
    """Return a module without what it imports only for type checkers."""
    return ast.Module([node for node in tree.body if not _is_if(node, "TYPE_CHECKING")], [])


def _is_program(node: ast.stmt) -> bool:
    return _is_if(node, "__name__ == '__main__'")


def _is_if(node: ast.stmt, condition: str) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == condition


def is_within(name: str, package: str) -> bool:
    """Return whether a name is that of a package, or of something in it."""
    return f"{name}.".startswith(f"{package}.")
