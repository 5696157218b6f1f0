"""Events of a merged profile that are stored while others of it are being moved follow as well."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import departures
from klaviyo_pg.postgres.account import Account
from tests.driver import PATIENCE
from tests.integration.conftest import SCHEMA
from tests.locks import assert_waits

NOW = datetime(2026, 7, 1, tzinfo=UTC)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def event(event_id: str, at: datetime) -> dict[str, Any]:
    """Return an event of the profile that is gone."""
    return {"id": event_id, "key": md5(f"Klaviyo:one:{event_id}"), "member_key": md5("old"), "event_at": at}


@pytest.fixture
def merge(merged: Any) -> None:
    """Store a profile that was merged into another one, with an event that has not been moved yet."""
    for person in ("old", "new"):
        own = {"id": person, "key": md5(f"Klaviyo:one:{person}"), "member_key": md5(person), "updated_at": NOW}
        merged(loads.MEMBERS, own)
    later = NOW + timedelta(days=1)
    merged(loads.MISSING_PROFILES, {"member_id": "old", "missing_since": later, "last_missing_at": later})
    pair = {"old_member_key": md5("old"), "new_member_key": md5("new"), "old_member_id": "old", "new_member_id": "new"}
    merged(loads.PROFILE_MERGES, pair | {"detected_at": later})
    merged(loads.EVENTS["opens"], event("stored", NOW))


def _apply(account: Account) -> None:
    with account.connection.transaction():
        departures.apply(account, 1)


def _store(account: Account) -> None:
    """Store an event as a batch does."""
    key, at = md5("Klaviyo:one:late"), NOW + timedelta(hours=1)
    row = "INSERT INTO opens (key, id, event_at, member_key, esp_integration_id) VALUES (%s, 'late', %s, %s, 'one')"
    account.connection.execute(row, [key, at, md5("old")])
    departures.follow_again(account, {md5("old"), md5("other")})


def _store_at_once(account: Account) -> None:
    with account.connection.transaction():
        _store(account)


def left(account: Account) -> list[str]:
    """Return the events that the profile that is gone still has."""
    rows = account.execute("SELECT id FROM opens WHERE member_key = %(old)s", old=md5("old"))
    return [event_id for (event_id,) in rows]


def test_events_are_moved_once_the_batch_is_stored(merge: None, account: Account, connect: Any) -> None:
    batch = Account(connect(), SCHEMA, "one")
    with ThreadPoolExecutor(1) as pool:
        with batch.connection.transaction():
            _store(batch)
            moving = pool.submit(_apply, account)
            assert_waits(connect(), moving)
        moving.result(PATIENCE)
    assert left(account) == []


def test_a_batch_that_is_stored_while_events_are_moved_lets_them_be_moved_again(
    merge: None, account: Account, connect: Any
) -> None:
    batch = Account(connect(), SCHEMA, "one")
    with ThreadPoolExecutor(1) as pool:
        with account.connection.transaction():
            departures.apply(account, 1)
            storing = pool.submit(_store_at_once, batch)
            assert_waits(connect(), storing)
        storing.result(PATIENCE)
    assert left(account) == ["late"]
    _apply(account)
    assert left(account) == []


def test_events_are_not_moved_to_a_person_who_is_being_erased(
    merge: None, account: Account, connection: psycopg.Connection
) -> None:
    """That person was recorded as erased, and the profile is still stored."""
    connection.execute("INSERT INTO erased (esp_integration_id, member_key) VALUES ('one', %s)", [md5("new")])
    _apply(account)
    assert left(account) == ["stored"]
