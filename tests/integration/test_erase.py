"""Erasing a person removes them from every table, keeps later batches from restoring them, and affects no one else."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from klaviyo_pg.catalogue import TABLES, loads
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erase import Finished, erased_among, has_erased, owned, pending, record, request
from klaviyo_pg.postgres.erase_events import clear, search, to_search
from klaviyo_pg.postgres.event_tables import move_events
from klaviyo_pg.postgres.member_lists import derive_member_lists
from pipeline.erasing import erase_people, in_transactions
from tests.driver import PATIENCE, wait_until
from tests.erasing import erase
from tests.integration.conftest import SCHEMA

NOW = datetime(2026, 7, 1, tzinfo=UTC)
ADDRESS = "Ann@Example.com"
Result = TypeVar("Result")
_OF_TWO = re.compile(r"[(,]two,")  # a row of the other account


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


ATTRIBUTED = (("event_key", "events"), ("attributed_event_key", "clicks"))
PEOPLE = (("one", "p1", ADDRESS), ("one", "p2", "bob@example.com"), ("two", "p1", ADDRESS))


@pytest.fixture
def people(merged: Any, connection: psycopg.Connection) -> None:
    """Store two people with rows in every table, the first of them in two accounts."""
    for integration_id, person, email in PEOPLE:
        own = {"id": person, "key": md5(f"{integration_id}{person}"), "member_key": md5(person), "updated_at": NOW}
        merged(loads.MEMBERS, own | {"email": email}, integration_id=integration_id)
        merged(loads.MEMBER_ATTRIBUTES, own | {"name": "Size", "value": "M"}, integration_id=integration_id)
        for name, load in loads.EVENTS.items():
            event = {"key": md5(integration_id + name + person), "id": name + person, "member_key": md5(person)}
            event |= {"email": email, "event_at": NOW, "properties": json.dumps({"to": email}), "value": "3"}
            merged(load, event, integration_id=integration_id)
        attributed = {"key": md5(f"a{integration_id}{person}"), "id": md5(f"a{person}"), "event_at": NOW}
        attributed |= {name: md5(f"{integration_id}{table}{person}") for name, table in ATTRIBUTED}
        merged(loads.EVENT_ATTRIBUTIONS, attributed | {"campaign_id": "C1"}, integration_id=integration_id)
        excluded = [{"_sync_id": md5(each), "email": each} for each in (ADDRESS, "bob@example.com")]
        merged(loads.STG_MEMBER_EXCLUSIONS, *excluded, integration_id=integration_id)
        merged(loads.MEMBER_EXCLUSIONS, *excluded, integration_id=integration_id)
        swept = [each | {"sweep": "s", "part": "exclusions .."} for each in excluded]
        merged(loads.SWEPT_EXCLUSIONS, *swept, integration_id=integration_id)
        on = {"list_id": "L1", "member_id": person, "created_at": NOW, "_sync_id": md5(f"L1:{person}")}
        merged(loads.STG_MEMBER_LISTS, on, integration_id=integration_id)
        change = {"id": f"c{person}", "member_id": person, "change": "subscribed", "changed_at": NOW, "scope": "list"}
        merged(loads.SUBSCRIPTION_CHANGES, change, integration_id=integration_id)
        suppressed = {"list_id": "L1", "member_id": person, "suppressed_at": NOW}
        merged(loads.LIST_SUPPRESSIONS, suppressed, integration_id=integration_id)
        consent = own | {"key": md5(f"{integration_id}{person}email"), "member_id": person, "channel": "email"}
        merged(loads.MEMBER_CONSENTS, consent, integration_id=integration_id)
        missing = {"member_id": person, "missing_since": NOW, "last_missing_at": NOW}
        merged(loads.MISSING_PROFILES, missing, integration_id=integration_id)
        merge = {"old_member_key": md5(person), "new_member_key": md5("p3"), "detected_at": NOW}
        merged(loads.PROFILE_MERGES, merge, integration_id=integration_id)
        answer = {"list_id": "L1", "sweep": "s", "member_id": person, "answer": "found"}
        merged(loads.SWEPT_MEMBERS, answer, integration_id=integration_id)
        for word in (person, email.upper(), md5(person)):
            reject = {
                "key": md5(integration_id + word),
                "table_name": "events",
                "reason": "bad",
                "raw": f'{{"x": "{word}"}}',
            }
            merged(loads.REJECTS, reject, integration_id=integration_id)
        for stream, key in (("list_members/L1", person), ("exclusions", md5(email))):
            missing = "INSERT INTO missing_rows VALUES (%s, %s, 'some', %s, now()) ON CONFLICT DO NOTHING"
            connection.execute(missing, [integration_id, stream, key])
        derive_member_lists(Account(connection, SCHEMA, integration_id))
    for integration_id, person, email in PEOPLE:
        for kind, key in (("member", person), ("address", md5(email))):
            connection.execute("INSERT INTO touched VALUES (1, %s, %s, %s)", [integration_id, kind, key])


def rows(connection: psycopg.Connection) -> Iterator[str]:
    """Yield every row of every table except those that say who was erased."""
    for table in TABLES:
        if table.name not in ("erased", "erased_addresses"):
            for (row,) in connection.execute(f"SELECT t::text FROM {table.name} AS t"):  # type: ignore[arg-type]
                yield f"{table.name} {row}"


def erased(account: Account) -> set[str]:
    """Return the member keys of the people of an account who were erased."""
    return {key for (key,) in account.execute("SELECT member_key FROM erased WHERE esp_integration_id = %(account)s")}


def erased_addresses(account: Account) -> set[str]:
    """Return the keys of the addresses of these people."""
    query = "SELECT address_key FROM erased_addresses WHERE esp_integration_id = %(account)s"
    return {key for (key,) in account.execute(query)}


def of_two(row: str) -> bool:
    """Return whether a row is one of account "two", whichever column names the account."""
    return ",two" in row or "(two," in row


@pytest.mark.parametrize("person", [(ADDRESS.lower(), ()), (None, ("p1",))], ids=["by address", "by id"])
def test_no_trace_of_the_person_is_left(
    people: None, account: Account, connection: psycopg.Connection, person: tuple[str | None, tuple[str, ...]]
) -> None:
    """Rows of other people and accounts stay the same, and so do the numbers of events."""
    before = list(rows(connection))
    events = [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]  # type: ignore[arg-type]
    with connection.transaction():
        counts = erase(account, *person)
    assert counts == {
        **dict.fromkeys(loads.EVENTS, 1),
        **dict.fromkeys(("members", "member_attributes", "stg_member_exclusions", "member_exclusions"), 1),
        **dict.fromkeys(("stg_member_lists", "member_lists", "subscription_changes", "swept_members"), 1),
        **dict.fromkeys(("list_suppressions", "member_consents", "missing_profiles", "profile_merges"), 1),
        "campaigns": 0,
        "missing_rows": 2,
        "touched": 2,
        "swept_exclusions": 1,
        "rejects": 3,
    }
    after = list(rows(connection))
    traces = ("ann@example.com", md5("p1"), md5(ADDRESS))
    mine = [row for row in after if not of_two(row) and any(trace in row.lower() for trace in traces)]
    assert mine == []
    assert sorted(row for row in before if "p2" in row or of_two(row)) == sorted(
        row for row in after if "p2" in row or of_two(row)
    )
    assert events == [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]  # type: ignore[arg-type]
    assert erased(account) == {md5("p1")}
    assert erased(Account(connection, SCHEMA, "two")) == set()


def test_an_address_that_now_belongs_to_someone_else_is_kept(
    people: None, account: Account, connection: psycopg.Connection
) -> None:
    """Erasing by ID removes only what belongs to that profile."""
    connection.execute("UPDATE members SET email = %s WHERE id = 'p2'", [ADDRESS])
    with connection.transaction():
        counts = erase(account, None, ["p1"])
    assert counts["member_exclusions"] == 0
    assert connection.execute("SELECT count(*) FROM opens WHERE email = 'bob@example.com'").fetchone() == (1,)


def test_a_person_with_events_only_is_erased(people: None, account: Account, connection: psycopg.Connection) -> None:
    """The member key is taken from the events, so that later batches do not restore the person."""
    connection.execute("DELETE FROM members WHERE esp_integration_id = 'one'")
    with connection.transaction():
        counts = erase(account, ADDRESS)
    assert (counts["members"], counts["opens"], counts["member_lists"]) == (0, 1, 1)
    assert erased(account) == {md5("p1")}


@pytest.mark.parametrize("work", ["move", "derive"])
def test_rows_that_are_being_moved_or_derived_are_erased_too(
    people: None, account: Account, connect: Any, work: str
) -> None:
    """Erasing waits until rows have been moved from one table to another."""
    other = Account(connect(), SCHEMA, "one")
    with ThreadPoolExecutor(1) as pool:
        with other.connection.transaction():
            if work == "move":
                move_events(other, "none", "events", "opens")
            else:
                derive_member_lists(other)
            erasing = pool.submit(_erase, account)
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            wait_until(lambda: connect().execute(waiting).fetchone(), "it waited")
            assert not erasing.done()
        assert sum(erasing.result(PATIENCE).values()) > 0


def _erase(account: Account) -> dict[str, int]:
    with account.connection.transaction():
        return erase(account, ADDRESS)


def test_a_profile_that_was_merged_into_the_person_is_erased_too(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    merge = {"old_member_key": md5("p1"), "new_member_key": md5("p2"), "old_member_id": "p1", "detected_at": NOW}
    merged(loads.PROFILE_MERGES, merge)
    with connection.transaction():
        erase(account, None, ["p2"])
    query = "SELECT id FROM members WHERE esp_integration_id = 'one'"
    assert connection.execute(query).fetchall() == []
    assert erased(account) == {md5("p1"), md5("p2")}


def test_the_addresses_of_the_person_are_recognised_later(
    people: None, account: Account, connection: psycopg.Connection
) -> None:
    """They are kept as digests with the account's ID, unless someone else has them now."""
    connection.execute("UPDATE members SET email = 'bob@example.com' WHERE id = 'p1' AND esp_integration_id = 'one'")
    with connection.transaction():
        erase(account, None, ["p1"])
    assert erased_addresses(account) == {md5(f"one:{ADDRESS.lower()}")}
    assert owned(account, ["bob@example.com", ADDRESS.lower()]) == {"bob@example.com"}


def test_what_identifies_a_person_leaves_their_events(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    """The ID becomes its digest where it is an address, and so does the key; a currency stays if it is one."""
    load = loads.EVENTS["sends"]
    own = {"member_key": md5("p1"), "event_at": NOW, "value": "3"}
    odd = {"id": ADDRESS, "key": md5(f"Klaviyo:one:{ADDRESS}"), "value_currency": "Ann"}
    merged(load, own | odd, own | {"id": "3qvdbYg3", "key": "k", "value_currency": "usd"})
    with connection.transaction():
        erase(account, None, ["p1"])
    query = "SELECT id, key, value_currency FROM sends WHERE id <> 'sendsp1' AND member_key IS NULL ORDER BY 3"
    digest = md5(ADDRESS)
    assert connection.execute(query).fetchall() == [
        ("3qvdbYg3", "k", "usd"),
        (digest, md5(f"Klaviyo:one:{digest}"), None),
    ]


def test_flow_campaigns_get_their_names_from_other_events(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    """A campaign without other events loses its name and subject. If its ID is an address, it is deleted."""

    def send(person: str, day: int, message: str, subject: str) -> None:
        key, at = f"{person}{message}{day}", NOW + timedelta(days=day)
        document = json.dumps({"Campaign Name": f"To {subject}", "Subject": subject})
        event = {"id": key, "key": key, "member_key": md5(person), "event_at": at, "properties": document}
        merged(loads.EVENTS["sends"], event | {"campaign_key": md5(message), "automation_key": "flow"})
        campaign = {"id": message, "key": message, "campaign_key": md5(message), "automation_key": "flow"}
        named = {"name": f"To {subject}", "subject": subject, "created_at": at, "updated_at": at}
        merged(loads.FLOW_CAMPAIGNS, campaign | named)

    send("p2", 1, "both", "Bob")
    for message in ("both", "hers", ADDRESS):
        send("p1", 2, message, "Ann")
    send("p2", 3, "his", "Bob, again")
    with connection.transaction():
        counts = erase(account, None, ["p1"])
    assert counts["campaigns"] == 3
    assert connection.execute("SELECT id, name, subject FROM campaigns ORDER BY id").fetchall() == [
        ("both", "To Bob", "Bob"),
        ("hers", None, None),
        ("his", "To Bob, again", "Bob, again"),
    ]


def test_many_people_are_erased_at_once(people: None, account: Account) -> None:
    """People who are not found are counted. IDs of them are recorded, addresses are not."""
    named = ["BOB@example.com", "unknown@example.com"]
    done = erase_people(in_transactions(account), named, ["p1", "unknown"])
    assert done.people == Finished(found=2, unknown_ids=1, unknown_addresses=1)
    assert (done.rows["members"], done.rows["opens"]) == (2, 2)
    assert erased(account) == {md5(each) for each in ("p1", "p2", "unknown")}
    assert erased_addresses(account) == {md5(f"one:{each}") for each in (ADDRESS.lower(), "bob@example.com")}


def test_interrupted_erasing_is_resumed(people: None, account: Account, connection: psycopg.Connection) -> None:
    """Wherever it is interrupted, another call does the rest, without naming anyone."""
    steps = 0

    def interrupted(work: Callable[[Account], Result], /) -> Result:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise InterruptedError
        return in_transactions(account)(work)

    for number in range(1, 100):  # transactions, of which the first one notes the people
        steps = number
        try:
            done = erase_people(interrupted, [ADDRESS] if number == 1 else ())
        except InterruptedError:
            assert pending(account) == 1
        else:
            break
    assert (done.people.found, pending(account)) == (1, 0)
    traces = ("ann@example.com", md5("p1"), md5(ADDRESS))
    assert [row for row in rows(connection) if not of_two(row) and any(each in row.lower() for each in traces)] == []


def test_batches_are_stored_while_events_are_cleared(people: None, account: Account, connect: Any, merged: Any) -> None:
    """Once the people are recorded, no step holds a lock that a batch of other people waits for."""
    other = Account(connect(), SCHEMA, "one")
    request(account, [], ["p1"])
    with account.connection.transaction():
        record(account)
    assert erased_among(other, [md5("p1"), md5("p2")], []) == ({md5("p1")}, set())
    for part in to_search(account):
        search(account, part)
    with account.connection.transaction():
        assert clear(account, loads.EVENTS["opens"].table) == (1, 1)
        with other.connection.transaction():
            other.connection.execute("SET LOCAL lock_timeout = '1s'")
            assert has_erased(other)
            other.connection.execute("UPDATE opens SET value = 4 WHERE id = 'opensp2'")


def test_an_event_that_a_later_batch_has_stored_with_its_digest_stays_once(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    load, digest = loads.EVENTS["sends"], md5(ADDRESS)
    keys = {each: md5(f"Klaviyo:one:{each}") for each in (ADDRESS, digest)}
    merged(load, {"id": ADDRESS, "key": keys[ADDRESS], "member_key": md5("p1"), "event_at": NOW})
    merged(load, {"id": digest, "key": keys[digest], "event_at": NOW})
    erase(account, None, ["p1"])
    query = "SELECT id, key FROM sends WHERE id IN (%s, %s) AND esp_integration_id = 'one'"
    assert connection.execute(query, [ADDRESS, digest]).fetchall() == [(digest, keys[digest])]


def test_events_that_are_moved_while_people_are_erased_are_cleared(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    """The table that they are moved to may have been searched already."""
    metric = md5("Klaviyo:one:M")
    event = {"id": "m1", "key": "m1", "member_key": md5("p1"), "email": ADDRESS, "event_at": NOW, "metric_key": metric}
    merged(loads.EVENTS["events"], event)
    request(account, [], ["p1"])
    with connection.transaction():
        move_events(account, "M", "events", "opens")
    assert connection.execute("SELECT member_key, email FROM opens WHERE id = 'm1'").fetchall() == [(None, None)]


def test_events_of_a_partition_are_found(people: None, account: Account, connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE opens RENAME TO opens_2026")
    connection.execute("CREATE TABLE opens (LIKE opens_2026 INCLUDING DEFAULTS) PARTITION BY RANGE (event_at)")
    connection.execute("ALTER TABLE opens ATTACH PARTITION opens_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')")
    counts = erase(account, None, ["p1"])
    assert counts["opens"] == 1
