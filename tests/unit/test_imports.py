"""The direction of imports: what each package may not know."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("klaviyo_pg.klaviyo", "klaviyo_pg.postgres", "klaviyo_pg.catalogue", "transforms", "tasks", "flows")


def modules(package: str) -> Iterator[Path]:
    folder = ROOT / package.replace(".", "/")
    yield from folder.rglob("*.py") if package != "klaviyo_pg" else folder.glob("*.py")


def imports(path: Path) -> Iterator[str]:
    """The full names that a module imports, wherever in it; each name of a from-import counts as a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        pytest.param(
            "klaviyo_pg.klaviyo",
            ("polars", "psycopg", "sqlalchemy", "prefect", "klaviyo_pg.postgres", "klaviyo_pg.catalogue"),
            id="HTTP knows no tables",
        ),
        pytest.param("klaviyo_pg.postgres", ("requests", "prefect", "klaviyo_pg.klaviyo"), id="SQL knows no API"),
        pytest.param(
            "klaviyo_pg.catalogue",
            ("requests", "psycopg", "sqlalchemy", "prefect", "klaviyo_pg.klaviyo", "klaviyo_pg.postgres"),
            id="the catalogue knows neither edge",
        ),
        pytest.param("klaviyo_pg", ("prefect", "prefect_sqlalchemy"), id="the library knows no Prefect"),
        pytest.param(
            "transforms",
            ("prefect", "requests", "psycopg", "sqlalchemy", "klaviyo_pg.postgres", "klaviyo_pg.settings"),
            id="transforms do no I/O",
        ),
        *(
            pytest.param(package, later, id=f"{package} knows nothing of what is above")
            for package, later in {
                "klaviyo_pg": ("transforms", "tasks", "flows", "sandbox"),
                "klaviyo_pg.klaviyo": ("transforms", "tasks", "flows", "sandbox"),
                "klaviyo_pg.postgres": ("transforms", "tasks", "flows", "sandbox"),
                "klaviyo_pg.catalogue": ("transforms", "tasks", "flows", "sandbox"),
                "transforms": ("tasks", "flows", "sandbox"),
                "tasks": ("flows",),
            }.items()
        ),
    ],
)
def test_a_package_does_not_import(package: str, forbidden: tuple[str, ...]) -> None:
    """Imports point one way."""
    found = [(path.name, name) for path in modules(package) for name in imports(path)]
    assert found
    assert [each for each in found if any(within(each[1], other) for other in forbidden)] == []


def test_packages_are_without_cycles() -> None:
    """There is an order in which the packages can be understood one by one."""
    knows = {
        package: {
            other
            for path in modules(package)
            for name in imports(path)
            for other in PACKAGES
            if other != package and within(name, other)
        }
        for package in PACKAGES
    }
    order = list(TopologicalSorter(knows).static_order())
    assert order[-2:] == ["tasks", "flows"]
