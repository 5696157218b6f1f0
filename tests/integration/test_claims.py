"""Claims: one holder at a time, by name, until its connection ends."""

from collections.abc import Callable

import psycopg

from klaviyo_pg.postgres import claims

SCHEMA = "klaviyo"


def test_one_holder_at_a_time(connect: Callable[[], psycopg.Connection]) -> None:
    """Another connection gets it when the first one is gone; other names and accounts are free all the time."""
    one, other = connect(), connect()
    assert claims.claim(one, SCHEMA, "shop", "backfill")
    assert not claims.claim(other, SCHEMA, "shop", "backfill")
    assert not claims.claim(other, SCHEMA, "shop", "backfill", for_transaction=True)
    assert claims.claim(other, SCHEMA, "shop", "daily")
    assert claims.claim(other, SCHEMA, "shop two", "backfill")
    assert claims.held(other, SCHEMA, "shop", ["backfill", "daily", "reconcile"]) == {"backfill", "daily"}
    one.close()
    other.rollback()
    assert claims.claim(other, SCHEMA, "shop", "backfill")
