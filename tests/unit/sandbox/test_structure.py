"""The structure of the sandbox: the direction of its imports."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHARED = {"sandbox.encoding", "sandbox.hashing"}
ALLOWED = {
    "account": set(),
    "api": set(),
    "derived": {"account"},
    "faults": {"api"},
    "current": {"account", "api"},
    "legacy": {"account", "api"},
    "server": {"account", "api", "current", "derived", "faults", "legacy"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_packages(package: str) -> set[str]:
    """Return the other packages of the sandbox that a package imports."""
    names = {name for path in (ROOT / "sandbox" / package).rglob("*.py") for name in imports(path)}
    return {name.split(".")[1] for name in names - SHARED if name.startswith("sandbox.")} - {package}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_those_below_them(package: str) -> None:
    assert imported_packages(package) <= ALLOWED[package]


def test_every_package_has_its_place() -> None:
    """A new package of the sandbox must be added to the table above."""
    folders = {path.parent.name for path in (ROOT / "sandbox").glob("*/__init__.py")}
    assert folders == set(ALLOWED)


def test_modules_import_each_other_without_cycles() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "sandbox").rglob("*.py")
    }
    graph = {name: {other for other in imports(path) if other in paths} for name, path in paths.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(paths)


def test_the_launcher_imports_no_server() -> None:
    """Starting a sandbox must not load the packages that the sandbox itself needs."""
    assert {name for name in imports(ROOT / "sandbox/launcher.py") if name.startswith("sandbox.")} == {
        "sandbox.api.keys"
    }
