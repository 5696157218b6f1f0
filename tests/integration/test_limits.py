"""The state of rate limits in the warehouse: shared between processes, exact, and optional."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from pyrate_limiter.abstracts.algorithm import GCRA

from klaviyo_pg.klaviyo.pace import Limit, Pace, rate
from klaviyo_pg.postgres.connect import Database
from klaviyo_pg.postgres.limits import WarehouseStore
from tests.integration.conftest import SCHEMA

LIMIT, SHARE, REQUESTS = Limit(1000, 3000), 0.9, 200


@pytest.fixture
def warehouse(database: str) -> Iterator[Database]:
    """Return the database of a warehouse, with a pool."""
    parts = {name: str(value) for name, value in conninfo_to_dict(database).items()}
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", parts["user"], database=parts["dbname"], query={"host": parts["host"]}
    )
    pool = Database(sqlalchemy.create_engine(url))
    yield pool
    pool.close()


def seconds_of(readers: int, warehouse: Database, integration: str) -> float:
    """Return the seconds in which this many processes together send REQUESTS requests."""

    def read(_: int) -> None:
        pace = Pace(SHARE, 600, lambda endpoint: WarehouseStore(warehouse, SCHEMA, integration, endpoint))
        for _ in range(REQUESTS // readers):
            pace.wait("events", LIMIT)

    began = time.monotonic()
    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(read, range(readers)))
    return time.monotonic() - began


def test_two_processes_share_the_limit_of_an_account(warehouse: Database) -> None:
    """Together they send requests as fast as one alone could, and no faster than the limit allows."""
    with ThreadPoolExecutor(2) as side_by_side:  # what slows the machine down slows both
        alone, shared = side_by_side.map(seconds_of, (1, 2), (warehouse, warehouse), ("alone", "shop"))
    pace = rate(LIMIT, SHARE)
    assert pace.burst + pace.limit / 60 * shared + 2 >= REQUESTS
    assert shared <= alone / 0.8


def test_each_account_and_endpoint_has_its_limit(warehouse: Database) -> None:
    limited = [rate(Limit(1, 2), 1.0)]
    for integration, endpoint in (("shop", "events"), ("shop", "metrics"), ("other", "events")):
        store = WarehouseStore(warehouse, SCHEMA, integration, endpoint)
        assert store.check(GCRA(), limited, 0, 1).allowed
        assert not store.check(GCRA(), limited, 0, 1).allowed
        store.reset()
        assert store.check(GCRA(), limited, 0, 1).allowed


def test_a_state_from_the_future_is_forgotten(warehouse: Database) -> None:
    """The database's clock was ahead by a year, and was set back. Otherwise, no request would be sent for a year."""
    store, limited = WarehouseStore(warehouse, SCHEMA, "shop", "events"), [rate(Limit(1, 2), 1.0)]
    assert store.check(GCRA(), limited, 0, 1).allowed
    with warehouse.transaction() as connection:
        later = "SET state = (state::bigint + 365 * 86400 * 1000000::bigint)::text"
        connection.execute(f"UPDATE {SCHEMA}_internal.rate_limits {later}")
    assert store.check(GCRA(), limited, 0, 1).allowed
    decision = store.check(GCRA(), limited, 0, 1)
    assert not decision.allowed and decision.retry_after_ms is not None and decision.retry_after_ms < 120_000


def test_each_process_keeps_the_limit_while_the_database_is_away() -> None:
    away = Database(sqlalchemy.create_engine("postgresql+psycopg://127.0.0.1:1/none"))
    store = WarehouseStore(away, SCHEMA, "shop", "events")
    limited = [rate(Limit(1, 2), 1.0)]
    assert store.check(GCRA(), limited, 1000, 1).allowed
    assert not store.check(GCRA(), limited, 1001, 1).allowed
