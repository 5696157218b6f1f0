"""A year in the life of ten people: whatever happens to them, the warehouse says what a model in plain Python says."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings

from tests.clock import Clock
from tests.histories import NEW_YEAR, History, Stage, histories
from tests.integration.conftest import SCHEMA, cloned
from tests.runs import Warehouse, url_of


@pytest.fixture(scope="module")
def stage(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return a warehouse for all histories, with a clock."""
    for database in cloned(server, template):
        with psycopg.connect(database, autocommit=True) as connection:
            yield _stage(connection, database, tmp_path_factory.mktemp("data"))


def _stage(connection: psycopg.Connection, database: str, folder: Path) -> Stage:
    clock = Clock(connection, NEW_YEAR)
    connection.execute(f"SET search_path = clock, pg_catalog, {SCHEMA}")
    settings = {"database_url": url_of(database), "klaviyo_api_key": "pk_none", "data_dir": folder, "concurrency": 1}
    return Stage(Warehouse(database, settings, now=clock), clock, connection)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(histories(most_runs=5))
def test_a_warehouse_says_of_ten_people_what_the_model_says(stage: Stage, history: History) -> None:
    stage.play(history)
