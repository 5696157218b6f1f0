"""Claims: one holder at a time, by name, until its connection ends."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import claims
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.settings import Settings
from pipeline.session import Session
from tests.driver import wait_until
from tests.integration.conftest import SCHEMA


def test_a_claim_has_one_holder_at_a_time(connect: Callable[[], psycopg.Connection]) -> None:
    """Another connection can claim the name once the first releases it. Other names and accounts stay available."""
    one, other = (Account(connect(), SCHEMA, "shop") for _ in range(2))
    assert claims.try_claim(one, "backfill")
    assert not claims.try_claim(other, "backfill")
    assert not claims.try_claim(other, "backfill", for_transaction=True)
    assert claims.try_claim(other, "daily")
    assert claims.try_claim(Account(other.connection, SCHEMA, "shop two"), "backfill")
    assert claims.held(other, ["backfill", "daily", "reconcile"]) == {"backfill", "daily"}
    claims.release(one.connection)
    assert claims.try_claim(other, "backfill")


def test_a_claim_for_a_transaction_ends_with_it(connect: Callable[[], psycopg.Connection]) -> None:
    one, other = (Account(connect(), SCHEMA, "shop") for _ in range(2))
    with one.connection.transaction():
        assert claims.try_claim(one, "backfill", for_transaction=True)
        assert not claims.try_claim(other, "backfill")
    assert claims.try_claim(other, "backfill")


def test_a_claim_ends_with_its_connection(connect: Callable[[], psycopg.Connection]) -> None:
    """Postgres releases the claim a moment later, as it does when the process of the holder is killed."""
    one, other = (Account(connect(), SCHEMA, "shop") for _ in range(2))
    assert claims.try_claim(one, "backfill")
    one.connection.close()
    wait_until(lambda: claims.try_claim(other, "backfill"), "the claim was released")


def test_a_claim_that_was_lost_is_taken_again(database: str, connect: Callable[[], psycopg.Connection]) -> None:
    """A claim is lost with its connection, as when the database restarts. Another connection can take it until then."""
    parts = conninfo_to_dict(database)
    url = f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    other = Account(connect(), SCHEMA, "shop")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with Session(Settings(database_url=SecretStr(url))) as session:
        session.claims.take("shop", "backfill")
        for _ in range(2):
            other.connection.execute(cut)
            wait_until(lambda: not claims.held(other, ["backfill"]), "the claim was lost")
            session.claims.renew()
            assert claims.held(other, ["backfill"])
        other.connection.execute(cut)
        wait_until(lambda: claims.try_claim(other, "backfill"), "the claim was lost")
        with pytest.raises(Busy):
            session.claims.renew()
