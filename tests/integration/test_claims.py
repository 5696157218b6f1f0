"""Claims: one holder at a time, by name, until its connection ends."""

import time
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import claims
from klaviyo_pg.settings import Settings
from tasks import edges

SCHEMA = "klaviyo"


def test_one_holder_at_a_time(connect: Callable[[], psycopg.Connection]) -> None:
    """Another connection gets it once the first has let go; other names and accounts are free all the time."""
    one, other = connect(), connect()
    assert claims.claim(one, SCHEMA, "shop", "backfill")
    assert not claims.claim(other, SCHEMA, "shop", "backfill")
    assert not claims.claim(other, SCHEMA, "shop", "backfill", for_transaction=True)
    assert claims.claim(other, SCHEMA, "shop", "daily")
    assert claims.claim(other, SCHEMA, "shop two", "backfill")
    assert claims.held(other, SCHEMA, "shop", ["backfill", "daily", "reconcile"]) == {"backfill", "daily"}
    claims.release(one)
    assert claims.claim(other, SCHEMA, "shop", "backfill")


def test_a_claim_ends_with_its_connection(connect: Callable[[], psycopg.Connection]) -> None:
    """As when its process is killed: Postgres drops the claim when it notices, a moment later."""
    one, other = connect(), connect()
    assert claims.claim(one, SCHEMA, "shop", "backfill")
    one.close()
    deadline = time.monotonic() + 10
    while not claims.claim(other, SCHEMA, "shop", "backfill"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_claim_that_was_lost_is_taken_again(database: str) -> None:
    """With the connection that held it, as when the database is restarted; unless somebody else has it by then."""
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    settings = Settings(database_url=SecretStr(url))
    edges.claim(settings, "shop", "backfill")
    try:
        with psycopg.connect(database, autocommit=True) as other:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            for _ in range(2):
                other.execute(cut)
                while claims.held(other, SCHEMA, "shop", ["backfill"]):
                    time.sleep(0.01)
                edges.keep_claims()
                assert claims.held(other, SCHEMA, "shop", ["backfill"])
            other.execute(cut)
            while not claims.claim(other, SCHEMA, "shop", "backfill"):
                time.sleep(0.01)
            with pytest.raises(Busy):
                edges.keep_claims()
    finally:
        edges.release()
