"""Runs in this process against a sandbox over HTTP, without Prefect. Each module has one database for all its tests."""

from collections.abc import Iterator

import pytest

from sandbox.launcher import Sandbox
from tests.integration.databases import Databases
from tests.runs import Warehouse, url_of


@pytest.fixture(scope="module")
def database(databases: Databases) -> Iterator[str]:
    """Return the conninfo of a warehouse that all tests of a module share."""
    with databases.lend() as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def warehouse(database: str, box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Return the module's warehouse, for the account `box`, a fixture of the module.

    Tests that need a separate schema or account name use a variant of it.
    """
    settings = {
        "database_url": url_of(database),
        "klaviyo_base_url": box.url,
        "klaviyo_api_key": box.api_key,
        "klaviyo_integration": "default",
        "data_dir": tmp_path_factory.mktemp("data"),
    }
    return Warehouse(database, settings)
