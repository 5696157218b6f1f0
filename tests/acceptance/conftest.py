"""Fixtures for the commands as processes, with a sandbox account, a real Postgres and a real Prefect server."""

import os
from collections.abc import Iterator

import psycopg
import pytest

from tests.driver import Warehouse, postgres_server, shared_prefect_server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an empty Postgres server's first database."""
    return postgres_server(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Prefect server that all test processes share."""
    folder = tmp_path_factory.getbasetemp()
    with shared_prefect_server(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as environment:
        yield environment


@pytest.fixture(scope="module")
def warehouse(
    postgres: str, prefect: dict[str, str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Warehouse:
    """An empty database for the tests of one module."""
    name = request.module.__name__.rpartition(".")[2]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = psycopg.conninfo.conninfo_to_dict(postgres)
    data = str(tmp_path_factory.mktemp("data"))
    return Warehouse(f"postgresql://{url['user']}@/{name}?host={url['host']}", {**prefect, "DATA_DIR": data})
