"""The direction of imports: which package may use which, and which library is known where."""

import ast
from collections.abc import Container, Iterable, Iterator
from graphlib import TopologicalSorter

import pytest

from tests.source import PACKAGES, Module, imports, is_within, modules, without_program, without_types

_VOCABULARY = "klaviyo_pg"
"""The modules directly in klaviyo_pg: rows, windows, states, errors and settings."""
_CLI = "klaviyo_pg.cli"
LAYERS = {
    "sandbox": (),
    _VOCABULARY: (),
    "klaviyo_pg.catalogue": (),
    "klaviyo_pg.klaviyo": (_VOCABULARY,),
    "klaviyo_pg.postgres": (_VOCABULARY, "klaviyo_pg.catalogue"),
    "transforms": (_VOCABULARY, "klaviyo_pg.catalogue"),
    "pipeline": (_VOCABULARY, "klaviyo_pg.catalogue", "klaviyo_pg.klaviyo", "klaviyo_pg.postgres", "transforms"),
    "pipeline.commands": (
        *(_VOCABULARY, "klaviyo_pg.catalogue", "klaviyo_pg.klaviyo", "klaviyo_pg.postgres", "transforms", "pipeline"),
    ),
    "tasks": (_VOCABULARY, "klaviyo_pg.postgres", "transforms", "pipeline"),
    "flows": (_VOCABULARY, "pipeline", "tasks"),
    _CLI: (
        *(_VOCABULARY, "klaviyo_pg.catalogue", "klaviyo_pg.klaviyo", "klaviyo_pg.postgres"),
        *("pipeline", "pipeline.commands", "tasks", "flows", "sandbox"),
    ),
}
"""Each package, and the packages that it may import. Programs (`if __name__ == "__main__"`) belong to no package."""
LIBRARIES = {
    "prefect": ("tasks", "flows"),
    "prefect_sqlalchemy": ("tasks",),
    "requests": ("klaviyo_pg.klaviyo", "sandbox"),
    "pyrate_limiter": ("klaviyo_pg.klaviyo", "klaviyo_pg.postgres", "pipeline"),
    "psycopg": ("klaviyo_pg.postgres", "pipeline", "pipeline.commands", _CLI),
    "sqlalchemy": ("klaviyo_pg.postgres",),
    "polars": ("klaviyo_pg.catalogue", "klaviyo_pg.postgres", "transforms", "pipeline"),
    "pydantic_settings": (_VOCABULARY,),
    "rich": ("tasks", _CLI),
    "matplotlib": ("pipeline", "pipeline.commands"),
    "jinja2": ("pipeline.commands",),
    "argparse": (_CLI, "sandbox"),
}
"""Libraries, and the packages that may import them."""


def package_of(name: str) -> str | None:
    """Return the package that a name belongs to; `python -m klaviyo_pg` belongs to the command line."""
    if name == "klaviyo_pg.__main__":
        return _CLI
    return max((package for package in LAYERS if is_within(name, package)), key=len, default=None)


def of(package: str) -> Iterator[Module]:
    """Yield the modules of a package, without those of packages within it."""
    return (module for module in modules(*PACKAGES) if package_of(module.name) == package)


def imported(packages: Iterable[str]) -> set[tuple[str, str]]:
    """Return the pairs of a module in these packages and a name that it imports."""
    return {
        (module.name, name)
        for package in packages
        for module in of(package)
        for name in imports(without_program(module.tree))
    }


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    """Imports point one way, also those within functions."""
    pairs = imported([package])
    allowed = {package, *LAYERS[package], None}
    assert list(of(package))
    assert [(module, name) for module, name in sorted(pairs) if package_of(name) not in allowed] == []


def test_packages_form_layers_without_cycles() -> None:
    """There is an order in which the packages can be understood one by one, and the command line is the last."""
    order = list(TopologicalSorter(LAYERS).static_order())
    assert order[-1] == _CLI
    assert order.index("pipeline") < order.index("tasks") < order.index("flows")


def test_no_modules_import_each_other() -> None:
    """Nor through others, or within functions: each module can be understood after those that it imports."""
    names = {module.name: imports(without_types(without_program(module.tree))) for module in modules(*PACKAGES)}
    graph = {module: {_module_of(name, names) for name in names[module]} - {module, None} for module in names}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("tasks.blocks") < order.index("tasks.warehouse_block") < order.index("tasks.flow_settings")


def _module_of(name: str, modules: Container[str]) -> str | None:
    """Return the module that an imported name is or belongs to; None if it is no module of the project."""
    return next((each for each in (name, name.rpartition(".")[0]) if each in modules), None)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_in_few_places(library: str) -> None:
    """Another package would have to learn its errors, its types and its settings."""
    others = [package for package in LAYERS if package not in LIBRARIES[library]]
    assert [pair for pair in sorted(imported(others)) if is_within(pair[1], library)] == []
    assert any(is_within(name, library) for _, name in imported(LIBRARIES[library])), "the table is out of date"


def test_the_command_line_is_imported_by_programs_only() -> None:
    """Whoever imports a flow or a task gets no command line with it."""
    importing = {
        module.name
        for module in modules(*PACKAGES)
        if package_of(module.name) != _CLI and any(is_within(name, _CLI) for name in imports(module.tree))
    }
    assert importing == {"flows.daily", "flows.backfill", "flows.reconcile", "tasks.save_blocks"}


def test_modules_import_no_private_names_of_others() -> None:
    """A name with a leading underscore belongs to its module."""
    private = [
        f"{module.name}: {node.module}.{alias.name}"
        for module in modules(*PACKAGES)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and package_of(node.module or "") is not None
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert private == []
