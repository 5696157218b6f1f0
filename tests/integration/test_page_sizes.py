"""Page sizes that were learned from refusals: shared between processes, and forgotten after a week."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy

from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.postgres.connect import Database
from klaviyo_pg.postgres.page_sizes import WarehousePageSizes
from tests.integration.conftest import SCHEMA
from tests.runs import url_of

EVENTS, LISTS = Endpoint("api/events", page_size=1000, name="events"), Endpoint("api/lists", page_size=10, name="lists")


@pytest.fixture
def pool(database: str) -> Iterator[Database]:
    """Return the database of a warehouse, with a pool."""
    pool = Database(sqlalchemy.create_engine(url_of(database).replace("postgresql:", "postgresql+psycopg:", 1)))
    yield pool
    pool.close()


def sizes(pool: Database, integration: str = "shop", schema: str = SCHEMA) -> PageSizes:
    """Return the page sizes as a new process finds them."""
    return PageSizes(lambda: WarehousePageSizes(pool, schema, integration))


def test_another_process_begins_with_the_size_that_was_learned(pool: Database) -> None:
    """Only for the same account and endpoint. The smallest size that a process has learned counts."""
    sizes(pool).learn(EVENTS, 200)
    stale = sizes(pool, "other")
    stale.learn(EVENTS, 500)
    found = sizes(pool)
    assert (found.of(EVENTS), found.of(LISTS), sizes(pool, "other").of(EVENTS)) == (200, 10, 500)
    WarehousePageSizes(pool, SCHEMA, "shop").write("events", 500)
    assert sizes(pool).of(EVENTS) == 200


def test_a_size_of_more_than_a_week_ago_is_forgotten(pool: Database, database: str) -> None:
    """The largest page is requested again. If it is refused again, the new size is learned."""
    sizes(pool).learn(EVENTS, 100)
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE {SCHEMA}_internal.page_sizes SET learned_at = learned_at - interval '8 days'")
    again = sizes(pool)
    assert again.of(EVENTS) == 1000
    again.learn(EVENTS, 500)
    assert sizes(pool).of(EVENTS) == 500


def test_a_size_from_the_future_is_forgotten(pool: Database, database: str) -> None:
    """It was learned while the database's clock was ahead. Smaller pages would be requested until then."""
    sizes(pool).learn(EVENTS, 100)
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE {SCHEMA}_internal.page_sizes SET learned_at = learned_at + interval '1 year'")
    again = sizes(pool)
    assert again.of(EVENTS) == 1000
    again.learn(EVENTS, 500)
    assert sizes(pool).of(EVENTS) == 500


def test_a_smaller_setting_is_kept(pool: Database) -> None:
    sizes(pool).learn(EVENTS, 500)
    assert sizes(pool).of(EVENTS._replace(page_size=300)) == 300


def test_without_a_warehouse_sizes_are_kept_in_memory(pool: Database) -> None:
    lost = sizes(pool, schema="no_such_schema")
    lost.learn(EVENTS, 500)
    assert lost.of(EVENTS) == 500
