"""Erasing a person removes them from every table, keeps later batches from restoring them, and affects no one else."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest

from klaviyo_pg.catalogue import TABLES, loads
from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import erase as erase_module
from klaviyo_pg.postgres.erasing import erase_events, erase_rejects, erased_people
from klaviyo_pg.postgres.erasing.erase import Finished, pending, record, request
from klaviyo_pg.postgres.erasing.erase_events import clear, search, to_search
from klaviyo_pg.postgres.event_tables import move_events
from klaviyo_pg.postgres.excluded import merge as merge_swept_exclusions
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.member_lists import derive_member_lists
from klaviyo_pg.postgres.partitions import Partition
from klaviyo_pg.postgres.patience import Patience
from pipeline.erasing import ErasedCounts, Transact, claim_over, erase_people, in_transactions
from tests.driver import PATIENCE
from tests.erasing import erase, erase_with
from tests.integration.conftest import SCHEMA
from tests.locks import assert_waits

NOW = datetime(2026, 7, 1, tzinfo=UTC)
ADDRESS = "Ann@Example.com"
MANY_REJECTS = """
INSERT INTO rejects (key, esp_integration_id, table_name, reason, raw)
SELECT md5(n::text), 'one', 'members', 'It has no address.', repeat('person ', 30) || n + 2000
FROM generate_series(1, 3000) AS n
"""
Result = TypeVar("Result")


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


ATTRIBUTED = (("event_key", "events"), ("attributed_event_key", "clicks"))
PEOPLE = (("one", "p1", ADDRESS), ("one", "p2", "bob@example.com"), ("two", "p1", ADDRESS))


@pytest.fixture(autouse=True)
def registered(connection: psycopg.Connection) -> None:
    """Register account "one"."""
    connection.execute("INSERT INTO integrations (name, esp_integration_id) VALUES ('one', 'one')")


@pytest.fixture
def people(merged: Any, connection: psycopg.Connection) -> None:
    """Store two people with rows in every table, the first of them in two accounts."""
    for integration_id, person, email in PEOPLE:
        own: dict[str, object] = {"id": person, "key": md5(f"Klaviyo:{integration_id}:{person}"), "updated_at": NOW}
        own["member_key"] = md5(person)
        merged(loads.MEMBERS, own | {"email": email}, integration_id=integration_id)
        merged(loads.MEMBER_ATTRIBUTES, own | {"name": "Size", "value": "M"}, integration_id=integration_id)
        engaged = "INSERT INTO member_engagement_stored (key, esp_integration_id, member_key) VALUES (%s, %s, %s)"
        connection.execute(engaged, [own["key"], integration_id, own["member_key"]])
        for name, load in loads.EVENTS.items():
            event = {"key": md5(integration_id + name + person), "id": name + person, "member_key": md5(person)}
            event |= {"email": email, "properties": json.dumps({"to": email}), "value": "3"}
            merged(load, {**event, "event_at": NOW}, integration_id=integration_id)
        attributed = {"key": md5(f"a{integration_id}{person}"), "id": md5(f"a{person}"), "event_at": NOW}
        attributed |= {name: md5(f"{integration_id}{table}{person}") for name, table in ATTRIBUTED}
        merged(loads.EVENT_ATTRIBUTIONS, attributed | {"campaign_id": "C1"}, integration_id=integration_id)
        excluded = [
            {"_sync_id": md5(each), "email": each, "member_id": whose}
            for each, whose in ((ADDRESS, "p1"), ("bob@example.com", "p2"))
        ]
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
        chosen = own | {"key": md5(f"S1{integration_id}{person}"), "segment_id": "S1", "member_id": person}
        merged(loads.SEGMENT_MEMBERS, chosen, integration_id=integration_id)
        for load in (loads.COUPON_CODES, loads.PUSH_TOKENS, loads.MEMBER_PREDICTIONS):
            merged(load, own | {"member_id": person}, integration_id=integration_id)
        review = {"key": own["key"], "id": f"r{person}", "email": email, "content": f"I am {email}."}
        merged(loads.REVIEWS, review, integration_id=integration_id)
        for word in (person, email.upper(), md5(person)):
            reject = {
                "key": md5(integration_id + word),
                "table_name": "events",
                "reason": "bad",
                "raw": f'{{"x": "{word}"}}',
            }
            merged(loads.REJECTS, reject, integration_id=integration_id)
        for stream, key in (("list_members/L1", person), ("exclusions", md5(email))):
            insert = "INSERT INTO missing_rows VALUES (%s, %s, 'some', %s, now()) ON CONFLICT DO NOTHING"
            connection.execute(insert, [integration_id, stream, key])
        derive_member_lists(Account(connection, SCHEMA, integration_id))
    for integration_id, person, email in PEOPLE:
        for kind, key in (("member", person), ("address", md5(email))):
            connection.execute("INSERT INTO touched VALUES (1, %s, %s, %s)", [integration_id, kind, key])


def rows(connection: psycopg.Connection) -> Iterator[str]:
    """Yield every row of every table except those that say who was erased."""
    for table in TABLES:
        if table.name not in ("erased", "erased_addresses"):
            for (row,) in connection.execute(f"SELECT t::text FROM {table.name} AS t"):
                yield f"{table.name} {row}"


def erased(account: Account) -> set[str]:
    """Return the member keys of the people of an account who were erased."""
    return set(account.column("SELECT member_key FROM erased WHERE esp_integration_id = %(account)s"))


def erased_addresses(account: Account) -> set[str]:
    """Return the keys of the addresses of these people."""
    query = "SELECT address_key FROM erased_addresses WHERE esp_integration_id = %(account)s"
    return set(account.column(query))


def of_two(row: str) -> bool:
    """Return whether a row is one of account "two", whichever column names the account."""
    return ",two" in row or "(two," in row


@pytest.mark.parametrize(
    ("addresses", "ids", "number"),
    [([ADDRESS.upper()], [], 1), ([], ["p1"], 1), ([ADDRESS], ["p1"], 1), ([], ["unknown"], 0)],
)
def test_stored_profiles_are_counted_before_they_are_erased(
    people: None, account: Account, addresses: list[str], ids: list[str], number: int
) -> None:
    """A person who is named twice counts once."""
    assert erase_module.stored_profiles(account, addresses, ids) == number


@pytest.mark.parametrize("person", [(ADDRESS.lower(), ()), (None, ("p1",))], ids=["by address", "by id"])
def test_no_trace_of_the_person_is_left(
    people: None, account: Account, connection: psycopg.Connection, person: tuple[str | None, tuple[str, ...]]
) -> None:
    """Rows of other people and accounts stay the same, and so do the numbers of events."""
    before = list(rows(connection))
    events = [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]
    with connection.transaction():
        counts = erase(account, *person)
    assert counts == {
        **dict.fromkeys(loads.EVENTS, 1),
        **dict.fromkeys(("members", "member_attributes", "stg_member_exclusions", "member_exclusions"), 1),
        **dict.fromkeys(("stg_member_lists", "member_lists", "subscription_changes", "swept_members"), 1),
        **dict.fromkeys(("list_suppressions", "member_consents", "missing_profiles", "profile_merges"), 1),
        **dict.fromkeys(("segment_members", "coupon_codes", "push_tokens", "member_predictions", "reviews"), 1),
        "member_engagement_stored": 1,
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
    assert events == [connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in loads.EVENTS]
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

    query = "SELECT email, member_id FROM member_exclusions WHERE esp_integration_id = 'one' ORDER BY email"
    assert connection.execute(query).fetchall() == [(ADDRESS, None), ("bob@example.com", "p2")]


@pytest.mark.parametrize("email", ["earlier@example.com", None], ids=["of an earlier address", "without an address"])
def test_an_exclusion_of_the_profile_is_erased(
    people: None, account: Account, merged: Any, connection: psycopg.Connection, email: str | None
) -> None:
    """Also if nothing else says that the address is the person's, or if the profile itself is not stored."""
    connection.execute("DELETE FROM touched")
    for person in ("p1", "p9"):
        key = md5(f"excluded {person}")
        excluded = {"_sync_id": key, "email": email and f"{person}.{email}", "member_id": person}
        merged(loads.STG_MEMBER_EXCLUSIONS, excluded)
        merged(loads.MEMBER_EXCLUSIONS, excluded)
        merged(loads.SWEPT_EXCLUSIONS, excluded | {"sweep": "s", "part": "exclusions .."})
        connection.execute("INSERT INTO missing_rows VALUES ('one', 'exclusions', 'some', %s, now())", [key])
    assert erase_with(in_transactions(account), [], ["p1", "p9"]).people == Finished(2, 0, 0)
    traces = ("earlier@example.com", md5("excluded p1"), md5("excluded p9"))
    assert [row for row in rows(connection) if not of_two(row) and any(trace in row for trace in traces)] == []
    if email:
        assert {md5(f"one:{person}.{email}") for person in ("p1", "p9")} < erased_addresses(account)


def test_a_full_read_that_ends_meanwhile_does_not_restore_an_exclusion(
    people: None, account: Account, connect: Any
) -> None:
    """It fills the exclusions from what it has collected, after erasing has waited for the batches in progress."""
    other, work_of = Account(connect(), SCHEMA, "one"), in_transactions(account)
    account.connection.execute("DELETE FROM member_exclusions WHERE member_id = 'p1' AND esp_integration_id = 'one'")

    def transact(work: Callable[[Account], Result], /) -> Result:
        result = work_of(work)
        if work is erase_module.lock_out_batches:
            other.connection.execute("BEGIN")
            merge_swept_exclusions(other, "s", False, Guard("exclusions", 1, NOW))
        elif work is erase_events.rename_campaigns:
            other.connection.execute("COMMIT")
        return result

    erase_with(transact, [], ["p1"])
    query = "SELECT member_id FROM member_exclusions WHERE esp_integration_id = 'one'"
    assert account.connection.execute(query).fetchall() == [("p2",)]


def test_the_profile_of_an_exclusion_with_a_named_address_is_erased(
    people: None, account: Account, connection: psycopg.Connection
) -> None:
    """Or the next full read would store the exclusion again."""
    for table in ("members", *loads.EVENTS):
        connection.execute(f"DELETE FROM {table}")
    erase(account, ADDRESS)
    assert erased(account) == {md5("p1")}


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
    account.connection.execute("UPDATE events SET metric_key = %s", [md5("Klaviyo:one:M")])
    account.connection.execute("DELETE FROM member_lists")
    with ThreadPoolExecutor(1) as pool:
        with other.connection.transaction():
            if work == "move":
                assert move_events(other, "M", "events", "opens") == 3
            else:
                derive_member_lists(other)
            erasing = pool.submit(_erase, account)
            assert_waits(connect(), erasing)
        counts = erasing.result(PATIENCE)
    assert (counts["opens"], counts["member_lists"]) == ((2, 0) if work == "move" else (1, 1))
    assert [row for row in rows(account.connection) if not of_two(row) and md5("p1") in row] == []


def _erase(account: Account) -> Mapping[str, int]:
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


@pytest.mark.parametrize("step", [request, erase_module.lock_out_batches], ids=["requested", "recorded"])
def test_a_merge_that_is_noticed_while_the_person_is_erased_counts(
    people: None, account: Account, merged: Any, step: object
) -> None:
    """Nothing is deleted that says that a profile was merged into the person, unless the profile is erased as well."""
    work_of = in_transactions(account)

    def transact(work: Callable[[Account], Result], /) -> Result:
        result = work_of(work)
        if step in (work, getattr(work, "func", None)) and md5("p2") not in erased(account):
            merged(loads.PROFILE_MERGES, {"old_member_key": md5("p2"), "new_member_key": md5("p1"), "detected_at": NOW})
        return result

    assert erase_with(transact, [], ["p1"]).people.found == 2
    assert erased(account) == {md5("p1"), md5("p2")}
    assert md5("one:bob@example.com") in erased_addresses(account)
    query = "SELECT count(email) FROM opens WHERE esp_integration_id = 'one'"
    assert account.connection.execute(query).fetchone() == (0,)
    assert account.connection.execute(
        "SELECT count(*) FROM profile_merges WHERE esp_integration_id = 'one'"
    ).fetchone() == (0,)


def test_an_address_that_is_stored_before_the_person_is_recorded_is_erased(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    request(account, [], ["p1"])
    changed = "UPDATE members SET email = 'new@example.com', key = %s WHERE id = 'p1' AND esp_integration_id = 'one'"
    connection.execute(changed, [md5("Klaviyo:one:p1")])
    merged(loads.MEMBER_EXCLUSIONS, {"_sync_id": md5("new@example.com"), "email": "new@example.com"})
    erase(account, None)
    assert [row for row in rows(connection) if "new@example.com" in row] == []
    assert md5("one:new@example.com") in erased_addresses(account)


def test_the_addresses_of_the_person_are_recognised_later(
    people: None, account: Account, connection: psycopg.Connection
) -> None:
    """They are kept as digests with the account's ID, unless someone else has them now."""
    connection.execute("UPDATE members SET email = 'bob@example.com' WHERE id = 'p1' AND esp_integration_id = 'one'")
    with connection.transaction():
        erase(account, None, ["p1"])
    assert erased_addresses(account) == {md5(f"one:{ADDRESS.lower()}")}
    assert erased_people.owned(account, ["bob@example.com", ADDRESS.lower()]) == {"bob@example.com"}


def test_what_identifies_a_person_leaves_their_events(
    people: None, account: Account, merged: Any, connection: psycopg.Connection
) -> None:
    """The ID becomes its digest where it is an address, and so does the key; a currency stays if it is one."""
    load = loads.EVENTS["sends"]
    own = {"member_key": md5("p1"), "event_at": NOW, "value": "3", "email_domain": "a.example"}
    odd = {"id": ADDRESS, "key": md5(f"Klaviyo:one:{ADDRESS}"), "value_currency": "Ann"}
    usual = {"id": "3qvdbYg3", "key": "k", "value_currency": "usd", "variation": "v1", "is_machine_open": True}
    merged(load, own | odd | {"variation": "Ann Smith"}, own | usual)
    with connection.transaction():
        erase(account, None, ["p1"])
    query = "SELECT id, key, value_currency FROM sends WHERE id <> 'sendsp1' AND member_key IS NULL ORDER BY 3"
    digest = md5(ADDRESS)
    assert connection.execute(query).fetchall() == [
        ("3qvdbYg3", "k", "usd"),
        (digest, md5(f"Klaviyo:one:{digest}"), None),
    ]
    query = query.replace("id, key, value_currency", "variation, is_machine_open, email_domain").replace("BY 3", "BY 1")
    assert connection.execute(query).fetchall() == [("v1", True, None), (None, None, None)]


def test_an_address_that_no_index_could_hold_stays_out_of_erasing(people: None, account: Account, merged: Any) -> None:
    """Only events can have one, and the person's events are cleared by the profile's ID."""
    long = "".join(md5(str(number)) for number in range(300)) + "@example.com"
    event = {"id": "3qvdbYg3", "key": "k", "member_key": md5("p1"), "email": long, "event_at": NOW}
    merged(loads.EVENTS["sends"], event)
    assert erase(account, None, ["p1"])["sends"] == 2
    assert account.connection.execute("SELECT email FROM sends WHERE id = '3qvdbYg3'").fetchone() == (None,)


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
    done = erase_with(in_transactions(account), named, ["p1", "unknown"])
    assert done.people == Finished(found=2, unknown_ids=1, unknown_addresses=1)
    assert (done.rows["members"], done.rows["opens"]) == (2, 2)
    assert erased(account) == {md5(each) for each in ("p1", "p2", "unknown")}
    assert erased_addresses(account) == {md5(f"one:{each}") for each in (ADDRESS.lower(), "bob@example.com")}


def test_many_rejects_are_compared_with_many_people(people: None, account: Account) -> None:
    """In one pass: a statement that compared each pair would time out."""
    account.connection.execute(MANY_REJECTS)
    account.connection.execute("SET statement_timeout = '5s'")
    erase(account, None, [f"profile {number}" for number in range(2_000)])
    query = "SELECT count(*) FROM rejects WHERE table_name = 'members'"
    assert account.connection.execute(query).fetchone() == (3_000,)


def test_a_reject_with_an_encoded_address_is_erased(
    people: None, account: Account, merged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As batches recognise it, and whichever records are compared together."""
    monkeypatch.setattr(erase_rejects, "COMPARED_AT_ONCE", 2)
    for encoded in ("ann%40example.com", r"ANN\u0040example.com"):
        merged(loads.REJECTS, {"key": md5(encoded), "reason": "bad", "raw": f'{{"link": "/?to={encoded}"}}'})
    assert erase(account, ADDRESS)["rejects"] == 5


def test_interrupted_erasing_is_resumed(people: None, account: Account, connection: psycopg.Connection) -> None:
    """After each of its transactions. Another call does the rest, without naming anyone."""
    steps = 0

    def interrupted(work: Callable[[Account], Result], /) -> Result:
        nonlocal steps
        steps -= work is not pending  # which is looked at once all is done
        if steps < 0:
            raise InterruptedError
        return in_transactions(account)(work)

    for number in range(1, 100):  # transactions, of which the first one notes the people
        steps = number
        try:
            done = erase_with(interrupted, [ADDRESS] if number == 1 else ())
        except InterruptedError:
            assert pending(account) == 1
        else:
            break
    assert number > len(loads.EVENTS)  # at least one transaction for each table
    assert (done.people.found, pending(account)) == (1, 0)
    traces = ("ann@example.com", md5("p1"), md5(ADDRESS))
    assert [row for row in rows(connection) if not of_two(row) and any(each in row.lower() for each in traces)] == []


@pytest.mark.parametrize("named", [((), ("p2",)), (("bob@example.com",), ())], ids=["by ID", "by address"])
def test_people_who_are_requested_while_others_are_erased_are_erased_too(
    people: None, account: Account, connect: Any, named: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """Also at the last moment, and where another process has recorded them already."""
    other, work_of = Account(connect(), SCHEMA, "one"), in_transactions(account)
    other.connection.execute("DELETE FROM members WHERE id = 'p2'")

    def transact(work: Callable[[Account], Result], /) -> Result:
        result = work_of(work)
        if work is erase_events.rename_campaigns and "p2" not in requested:
            requested.append("p2")
            with other.connection.transaction():
                request(other, *named)
            with other.connection.transaction():
                record(other)
        return result

    requested = list[str]()
    assert erase_with(transact, (), ["p1"]).people.found == 2
    query = "SELECT count(*) FROM opens WHERE esp_integration_id = 'one' AND email IS NOT NULL"
    assert account.connection.execute(query).fetchone() == (0,)
    assert erased(account) == {md5("p1"), md5("p2")}


def test_a_table_is_searched_again_for_people_who_are_added(people: None, account: Account, connect: Any) -> None:
    """They can be added before the search is recorded, or after it."""
    other = Account(connect(), SCHEMA, "one")
    request(account, [], ["p1"])
    first, second, *_ = to_search(account)
    with ThreadPoolExecutor(1) as pool:
        with account.connection.transaction():
            search(account, first)
            adding = pool.submit(_request, other, "p2")
            assert_waits(connect(), adding)
        adding.result(PATIENCE)
        assert first in to_search(account)
        with other.connection.transaction():
            request(other, [], ["p3"])
            searching = pool.submit(_search, account, second)
            assert_waits(connect(), searching)
        searching.result(PATIENCE)
        assert second in to_search(account)


def _request(account: Account, member_id: str) -> None:
    with account.connection.transaction():
        request(account, [], [member_id])


def _search(account: Account, partition: Partition) -> None:
    with account.connection.transaction():
        search(account, partition)


def test_one_process_erases_at_a_time(people: None, connect: Any) -> None:
    """The people of another one are left to it, also if it has finished its own but not released its claim yet."""
    one, holder, other, third = (Account(connect(), SCHEMA, "one") for _ in range(4))
    claims_of_other = claim_over(other, third)
    results: list[ErasedCounts | None] = []

    @contextmanager
    def claim() -> Iterator[Transact | None]:
        with claim_over(one, holder)() as transact:
            yield transact
            if not results:
                results.append(erase_people(in_transactions(other), claims_of_other, (), ["p2"]))

    done = erase_people(in_transactions(one), claim, (), ["p1"])
    assert results == [None]
    assert done is not None and done.people.found == 2
    assert erased(one) == {md5("p1"), md5("p2")}
    assert pending(one) == 0


def test_batches_are_stored_while_events_are_cleared(people: None, account: Account, connect: Any, merged: Any) -> None:
    """Once the people are recorded, no step holds a lock that a batch of other people waits for."""
    other = Account(connect(), SCHEMA, "one")
    request(account, [], ["p1"])
    with account.connection.transaction():
        record(account)
    assert erased_people.among(other, [md5("p1"), md5("p2")], []) == ({md5("p1")}, set())
    for partition in to_search(account):
        search(account, partition)
    with account.connection.transaction():
        assert clear(account, loads.EVENTS["opens"].table) == (1, 1)
        with other.connection.transaction():
            other.connection.execute("SET LOCAL lock_timeout = '1s'")
            assert erased_people.exist(other)
            other.connection.execute("UPDATE opens SET value = 4 WHERE id = 'opensp2'")


def test_a_batch_that_does_not_end_stops_erasing(
    people: None, account: Account, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for it longer would keep all others from loading."""
    monkeypatch.setattr(erase_module, "_PATIENCE", Patience("20ms", 0.01, 2))
    account.connection.execute("SET lock_timeout = '5s'")
    request(account, [], ["p1"])
    other = Account(connect(), SCHEMA, "one")
    with other.connection.transaction():
        assert not erased_people.exist(other)
        with pytest.raises(Busy, match="table erased"), account.connection.transaction():
            record(account)
    with account.connection.transaction():
        record(account)
        assert account.connection.execute("SHOW lock_timeout").fetchone() == ("5s",)
    assert erased(account) == {md5("p1")}


def test_people_can_be_requested_while_the_end_waits_for_a_batch(people: None, account: Account, connect: Any) -> None:
    batch, ending, adding = (Account(connect(), SCHEMA, "one") for _ in range(3))
    request(account, [], ["p1"])

    def lock_out() -> None:
        with ending.connection.transaction():
            erase_module.lock_out_batches_and_people(ending)

    with ThreadPoolExecutor(1) as pool:
        with batch.connection.transaction():
            erased_people.exist(batch)
            locking = pool.submit(lock_out)
            assert_waits(connect(), locking)
            adding.connection.execute("SET lock_timeout = '1s'")
            _request(adding, "p2")
        locking.result(PATIENCE)
    assert pending(account) == 2


def test_no_one_can_be_added_while_erasing_ends(
    people: None, account: Account, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be forgotten with those who have been erased."""
    finish, other = erase_module.finish, Account(connect(), SCHEMA, "one")
    with ThreadPoolExecutor(1) as pool:

        def finish_and_add(account: Account) -> Finished | None:
            monkeypatch.setattr(erase_module, "finish", finish)
            adding.append(pool.submit(_request, other, "p2"))
            assert_waits(connect(), adding[0])
            return finish(account)

        adding = list[Future[None]]()
        monkeypatch.setattr(erase_module, "finish", finish_and_add)
        erase(account, None, ["p1"])
        adding[0].result(PATIENCE)
    erase(account, None)
    assert erased(account) == {md5("p1"), md5("p2")}


def test_an_event_is_cleared_at_each_of_its_times(
    people: None, account: Account, merged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event whose time has changed can be stored twice, and each row in another batch."""
    monkeypatch.setattr(erase_events, "CLEARED_AT_ONCE", 2)
    first, second = NOW + timedelta(days=1), NOW + timedelta(days=2)
    account.connection.execute("DELETE FROM opens")
    for key, at in (("b", first), ("a", second), ("b", second)):
        row = "INSERT INTO opens (key, event_at, esp_integration_id, id, member_key) VALUES (%s, %s, 'one', %s, %s)"
        account.connection.execute(row, [key, at, "3qvdbYg3", md5("p1")])
    assert erase(account, None, ["p1"])["opens"] == 3
    assert account.connection.execute("SELECT count(member_key) FROM opens").fetchone() == (0,)


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
