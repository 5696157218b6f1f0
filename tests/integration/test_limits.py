"""The state of rate limits in the warehouse: shared, exact, and not needed to get on."""

import time
from collections.abc import Iterator
from threading import Thread

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from pyrate_limiter.abstracts.algorithm import GCRA

from klaviyo_pg.klaviyo.limits import Limit, Pace, rate
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.limits import WarehouseStore

SCHEMA = "klaviyo"


@pytest.fixture
def engine(database: str) -> Iterator[sqlalchemy.Engine]:
    """An engine for a warehouse."""
    with psycopg.connect(database) as connection:
        schema.upgrade(connection, SCHEMA)
    given = conninfo_to_dict(database)
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", given["user"], database=given["dbname"], query={"host": str(given["host"])}
    )
    made = sqlalchemy.create_engine(url)
    yield made
    made.dispose()


def test_two_that_read_one_account_share_its_limit(engine: sqlalchemy.Engine) -> None:
    """As many requests get through as one alone would get."""
    limit, passed = Limit(1000, 3000), []
    until = time.monotonic() + 3

    def read() -> None:
        pace = Pace(0.9, 60, lambda endpoint: WarehouseStore(engine, SCHEMA, "shop", endpoint))
        while time.monotonic() < until:
            pace.wait("events", limit)
            passed.append(time.monotonic())

    began = time.monotonic()
    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    each = rate(limit, 0.9)
    assert len(passed) <= each.burst + each.limit / 60 * (time.monotonic() - began) + 2
    assert len(passed) >= (each.burst + each.limit / 60 * 3) * 0.8


def test_another_account_has_a_limit_of_its_own(engine: sqlalchemy.Engine) -> None:
    """As another endpoint has."""
    limited = [rate(Limit(1, 2), 1.0)]
    for integration, endpoint in (("shop", "events"), ("shop", "metrics"), ("other", "events")):
        store = WarehouseStore(engine, SCHEMA, integration, endpoint)
        assert store.check(GCRA(), limited, 0, 1).allowed
        assert not store.check(GCRA(), limited, 0, 1).allowed
        store.reset()
        assert store.check(GCRA(), limited, 0, 1).allowed


def test_without_a_database_it_gets_on(engine: sqlalchemy.Engine) -> None:
    """Each process keeps to the limit on its own."""
    away = sqlalchemy.create_engine("postgresql+psycopg://127.0.0.1:1/none")
    store = WarehouseStore(away, SCHEMA, "shop", "events")
    limited = [rate(Limit(1, 2), 1.0)]
    assert store.check(GCRA(), limited, 1000, 1).allowed
    assert not store.check(GCRA(), limited, 1001, 1).allowed
