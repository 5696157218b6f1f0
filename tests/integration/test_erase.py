"""Erasing a person: no trace in any table, no return with the next batch, and nobody else is touched."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import TABLES, loads
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import ledger
from klaviyo_pg.postgres.erase import erase, erased
from klaviyo_pg.postgres.membership import derive_member_lists

NOW = datetime(2026, 7, 1, tzinfo=UTC)
ADDRESS = "Ann@Example.com"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def people(merged: Any, connection: psycopg.Connection) -> Any:
    """Two people with everything that tables can hold of them; the first one in two accounts."""
    for account, person, email in (("one", "p1", ADDRESS), ("one", "p2", "bob@example.com"), ("two", "p1", ADDRESS)):
        own = {"id": person, "key": md5(f"{account}{person}"), "member_key": md5(person), "updated_at": NOW}
        merged(loads.MEMBERS, own | {"email": email}, integration_id=account)
        merged(loads.MEMBER_ATTRIBUTES, own | {"name": "Size", "value": "M"}, integration_id=account)
        for name, load in loads.EVENTS.items():
            event = {"key": md5(account + name + person), "id": name + person, "member_key": md5(person)}
            event |= {"email": email, "event_at": NOW, "properties": json.dumps({"to": email}), "value": "3"}
            merged(load, event, integration_id=account)
        excluded = [{"_sync_id": md5(each), "email": each} for each in (ADDRESS, "bob@example.com")]
        merged(loads.STG_MEMBER_EXCLUSIONS, *excluded, integration_id=account)
        merged(loads.MEMBER_EXCLUSIONS, *excluded, integration_id=account)
        on = {"list_id": "L1", "member_id": person, "created_at": NOW, "_sync_id": md5(f"L1:{person}")}
        merged(loads.STG_MEMBER_LISTS, on, integration_id=account)
        change = {"id": f"c{person}", "member_id": person, "change": "subscribed", "changed_at": NOW}
        merged(loads.SUBSCRIPTION_CHANGES, change, integration_id=account)
        found = {"list_id": "L1", "sweep": "s", "member_id": person, "answer": "found"}
        merged(loads.SWEPT_MEMBERS, found, integration_id=account)
        for word in (person, email.upper(), md5(person)):
            reject = {"key": md5(account + word), "table_name": "events", "reason": "bad", "raw": f'{{"x": "{word}"}}'}
            merged(loads.REJECTS, reject, integration_id=account)
        derive_member_lists(connection, "klaviyo", account)


def rows(connection: psycopg.Connection) -> Iterator[str]:
    """Every row of every table, but of who was erased."""
    for table in TABLES:
        if table.name != "erased":
            for (row,) in connection.execute(f"SELECT t::text FROM {table.name} AS t"):  # type: ignore[arg-type]
                yield f"{table.name} {row}"


@pytest.mark.parametrize("person", [(ADDRESS.lower(), None), (None, "p1")], ids=["by address", "by id"])
def test_no_trace_is_left(people: None, connection: psycopg.Connection, person: tuple[str | None, str | None]) -> None:
    """Of the person, in this account; everything of others stays as it is, and so do the counts of events."""
    before = list(rows(connection))
    events = [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]  # type: ignore[arg-type]
    with connection.transaction():
        counts = erase(connection, "klaviyo", "one", *person)
    assert counts == {
        **dict.fromkeys(loads.EVENTS, 1),
        **dict.fromkeys(("members", "member_attributes", "stg_member_exclusions", "member_exclusions"), 1),
        **dict.fromkeys(("stg_member_lists", "member_lists", "subscription_changes", "swept_members"), 1),
        "rejects": 3,
    }
    after = list(rows(connection))
    traces = ("ann@example.com", md5("p1"), md5(ADDRESS))
    mine = [row for row in after if ",two" not in row and any(trace in row.lower() for trace in traces)]
    assert mine == []
    assert sorted(row for row in before if "p2" in row or ",two" in row) == sorted(
        row for row in after if "p2" in row or ",two" in row
    )
    assert events == [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]  # type: ignore[arg-type]
    assert erased(connection, "klaviyo", "one") == [md5("p1")]
    assert erased(connection, "klaviyo", "two") == []


def test_an_address_that_somebody_else_bears_is_theirs(people: None, connection: psycopg.Connection) -> None:
    """By id only what is that profile's own goes."""
    connection.execute("UPDATE members SET email = %s WHERE id = 'p2'", [ADDRESS])
    with connection.transaction():
        counts = erase(connection, "klaviyo", "one", None, "p1")
    assert counts["member_exclusions"] == 0
    assert connection.execute("SELECT count(*) FROM opens WHERE email = 'bob@example.com'").fetchone() == (1,)


def test_somebody_of_whom_only_events_are_left(people: None, connection: psycopg.Connection) -> None:
    """The events tell the key, so that the person does not come back."""
    connection.execute("DELETE FROM members WHERE esp_integration_id = 'one'")
    with connection.transaction():
        counts = erase(connection, "klaviyo", "one", ADDRESS, None)
    assert (counts["members"], counts["opens"], counts["member_lists"]) == (0, 1, 1)
    assert erased(connection, "klaviyo", "one") == [md5("p1")]


def test_nobody_is_erased_behind_a_backfill(people: None, connection: psycopg.Connection, connect: Any) -> None:
    """What it has read waits to be stored."""
    name = "klaviyo_pg klaviyo one backfill"
    connect().execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [name])
    with pytest.raises(Busy), connection.transaction():
        erase(connection, "klaviyo", "one", ADDRESS, None)


@pytest.mark.parametrize("work", ["move", "derive"])
def test_what_is_being_moved_or_derived_is_erased_as_well(
    people: None, connection: psycopg.Connection, connect: Any, work: str
) -> None:
    """Erasing waits for rows that are on their way from one table to another."""
    other = connect()
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            if work == "move":
                ledger.move_events(other, "klaviyo", "one", "none", "events", "opens")
            else:
                derive_member_lists(other, "klaviyo", "one")
            erasing = pool.submit(_erased, connection)
            with pytest.raises(TimeoutError):
                erasing.result(0.5)
        assert sum(erasing.result(10).values()) > 0


def _erased(connection: psycopg.Connection) -> dict[str, int]:
    with connection.transaction():
        return erase(connection, "klaviyo", "one", ADDRESS, None)
