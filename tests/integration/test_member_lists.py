"""member_lists, derived from the extracted tables: who is on which list, since when, and who has left it."""

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL

from klaviyo_pg.catalogue import loads, membership
from klaviyo_pg.postgres import list_names, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.postgres.member_lists import derive_member_lists, mark_absent_again
from klaviyo_pg.postgres.membership_sweeps import SWEEPS, delete_sweeps, end_sweep
from tests.driver import PATIENCE
from tests.integration.conftest import SCHEMA
from tests.locks import assert_waits
from transforms.personal import Protection

JOINED = datetime(2026, 1, 1, tzinfo=UTC)
SOON = JOINED + timedelta(seconds=2)
BEFORE, LATER, LAST = (JOINED + timedelta(days=days) for days in (-30, 30, 60))
NAMES = (membership.LIST_NAMES, membership.SUBSCRIPTION_CHANGES)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def row_key(row_id: str) -> str:
    return md5(f"Klaviyo:one:{row_id}")


class Lists:
    """A person on lists, and records about both."""

    def __init__(self, merged: Any, account: Account, protect: list_names.Protect | None = None) -> None:
        self._merged, self._account, self.protect = merged, account, protect
        self._lists: dict[str, str] = {}
        self._changes = 0

    def list(
        self, list_id: str, name: str, joined: datetime | None = JOINED, is_subscribed: bool | None = None
    ) -> None:
        self._lists[list_id] = name
        rows = [
            {"key": row_key(each), "id": each, "name": called, "list_type": "list"}
            for each, called in self._lists.items()
        ]
        self._merged(loads.LISTS, *rows)
        list_names.record(self._account, self.protect)
        row = {"list_id": list_id, "member_id": "p1", "created_at": joined, "_sync_id": md5(f"{list_id}:p1")}
        self._merged(loads.STG_MEMBER_LISTS, row | {"is_subscribed": is_subscribed})

    def change(self, kind: str, at: datetime | None, **which: str) -> None:
        """Store a change for one list, by name, or for all lists."""
        self._changes += 1
        row = {"id": str(self._changes), "member_id": "p1", "change": kind, "changed_at": at, **which}
        self._merged(loads.SUBSCRIPTION_CHANGES, row | {"scope": "list" if which else "all"})

    def suppressed(self, *list_ids: str, at: datetime | None = LATER) -> None:
        """Store the lists for which the person is suppressed, as a profile returns them: all of them."""
        rows = [{"list_id": each, "member_id": "p1", "suppressed_at": at} for each in list_ids or (None,)]
        self._merged(loads.LIST_SUPPRESSIONS_OF_PEOPLE, *rows)

    def delete(self, list_id: str) -> None:
        """Read all lists without this one."""
        del self._lists[list_id]
        rows = [{"key": row_key(each), "id": each, "name": called} for each, called in self._lists.items()]
        self._merged(loads.LISTS, *({**row, "list_type": "list"} for row in rows))
        list_names.record(self._account, self.protect)

    def rename(self, list_id: str, name: str, seen: datetime) -> None:
        """Rename a list, as if it had been read with the new name at a certain time for the first time."""
        self.list(list_id, name)
        connection = self._account.connection
        connection.execute("UPDATE list_names SET until = %s WHERE until IS NOT NULL", [seen])
        connection.execute("UPDATE list_names SET since = %s, seen_at = %s WHERE until IS NULL", [seen, seen])

    def member(self, consent: str | None, email: str | None = "a@example.com") -> None:
        row = {"key": md5("Klaviyo:one:p1"), "id": "p1", "email": email, "consent": consent}
        self._merged(loads.MEMBERS, row | {"updated_at": JOINED})

    def excluded(self, *addresses: str) -> None:
        rows = [{"_sync_id": md5(each), "email": each} for each in addresses]
        self._merged(loads.MEMBER_EXCLUSIONS, *rows)

    def derive(self, has_status: bool = True) -> dict[str, tuple[Any, ...]]:
        """Return subscribed, unsubscribed_at, is_subscribed and left_reason by list ID."""
        derive_member_lists(self._account, has_status=has_status)
        query = "SELECT list_id, subscribed, unsubscribed_at, is_subscribed, left_reason FROM member_lists"
        return {list_id: tuple(rest) for list_id, *rest in self._account.connection.execute(query)}


@pytest.fixture
def lists(merged: Any, account: Account) -> Lists:
    """Return the lists of an account that has none yet."""
    return Lists(merged, account)


@pytest.mark.parametrize(
    ("changes", "subscribed", "left", "reason"),
    [
        pytest.param([], JOINED, None, None, id="no event"),
        pytest.param([("subscribed", SOON, "News")], SOON, None, None, id="subscribe event"),
        pytest.param([("subscribed", SOON, "Sales")], JOINED, None, None, id="subscribe event of another list"),
        pytest.param([("unsubscribed", LATER, "News")], JOINED, LATER, "event", id="left this list"),
        pytest.param([("unsubscribed", JOINED, "News")], JOINED, JOINED, "event", id="left in the second of joining"),
        pytest.param([("unsubscribed", LATER, "Sales")], JOINED, None, None, id="left another list"),
        pytest.param([("unsubscribed", LATER, None)], JOINED, LATER, "event", id="left all lists"),
        pytest.param([("unsubscribed", BEFORE, None)], JOINED, None, None, id="left before joining"),
        pytest.param(
            [("unsubscribed", LATER, None), ("subscribed", LAST, "News")], LAST, None, None, id="left and came back"
        ),
        pytest.param(
            [("subscribed", SOON, "News"), ("unsubscribed", LATER, "News"), ("unsubscribed", LAST, None)],
            SOON,
            LAST,
            "event",
            id="left twice",
        ),
    ],
)
def test_joining_and_leaving_are_derived_from_events(
    lists: Lists,
    changes: list[tuple[str, datetime, str | None]],
    subscribed: datetime,
    left: datetime | None,
    reason: str | None,
) -> None:
    """The subscribe event wins over the time of joining. The latest leaving counts unless the person has rejoined."""
    lists.list("L1", "News")
    for kind, at, name in changes:
        lists.change(kind, at, **({"list_name": name} if name else {}))
    derived = lists.derive()["L1"]
    assert (*derived[:2], derived[3]) == (subscribed, left, reason)


@pytest.mark.parametrize(
    ("event", "subscribed", "joined"),
    [
        pytest.param(None, JOINED, JOINED, id="no event"),
        pytest.param(SOON, SOON, SOON, id="an event later than the joining that the list has"),
        pytest.param(BEFORE, BEFORE, JOINED, id="joined again after the event, as by an import"),
    ],
)
def test_the_time_of_joining_is_that_of_the_last_time(
    lists: Lists, account: Account, event: datetime | None, subscribed: datetime, joined: datetime
) -> None:
    """`subscribed` is the time of the event, if there is one."""
    lists.list("L1", "News")
    if event:
        lists.change("subscribed", event, list_name="News")
    lists.derive()
    assert account.connection.execute("SELECT subscribed, joined_at FROM member_lists").fetchall() == [
        (subscribed, joined)
    ]


def test_people_leave_one_list_or_all_lists(lists: Lists) -> None:
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    lists.change("unsubscribed", LATER, list_name="News")
    assert {each: left for each, (_, left, *_) in lists.derive().items()} == {"L1": LATER, "L2": None}
    lists.change("unsubscribed", LAST)
    assert {each: left for each, (_, left, *_) in lists.derive().items()} == {"L1": LAST, "L2": LAST}


def test_a_suppression_from_a_list_applies_to_that_list_until_it_is_lifted(lists: Lists) -> None:
    """Joining the list again does not end it."""
    lists.list("L1", "News")
    lists.list("L2", "News")
    lists.suppressed("L1")
    assert {each: row[1:] for each, row in lists.derive().items()} == {
        "L1": (LATER, False, "suppressed"),
        "L2": (None, None, None),
    }
    lists.list("L1", "News", joined=LAST)
    assert lists.derive()["L1"] == (LAST, LATER, False, "suppressed")
    lists.suppressed()
    assert lists.derive()["L1"] == (LAST, None, None, None)


def test_a_suppression_without_a_time_begins_when_it_is_stored(lists: Lists, connection: psycopg.Connection) -> None:
    lists.list("L1", "News")
    lists.suppressed("L1", at=None)
    [(stored,)] = connection.execute("SELECT __synced_at FROM list_suppressions").fetchall()
    assert stored is not None
    assert lists.derive()["L1"] == (JOINED, stored, False, "suppressed")


def test_two_lists_with_the_same_name_are_kept_apart(lists: Lists) -> None:
    """A subscribe event counts for the list that was joined at that moment. An unsubscribe event counts for both."""
    lists.list("L1", "News", joined=JOINED)
    lists.list("L2", "News", joined=LATER)
    lists.change("subscribed", SOON, list_name="News")
    assert lists.derive() == {"L1": (SOON, None, None, None), "L2": (LATER, None, None, None)}
    lists.change("unsubscribed", LAST, list_name="News")
    assert lists.derive() == {"L1": (SOON, LAST, False, "event"), "L2": (LATER, LAST, False, "event")}


def test_names_of_lists_are_compared_as_hashes(merged: Any, account: Account) -> None:
    """If personal data is protected, events name lists by hashes, and so does the history of names."""
    protection = Protection(False, "a salt of this test only")
    lists = Lists(merged, account, protection.hashed)
    lists.list("L1", "News")
    lists.change("unsubscribed", SOON, list_name=protection.hashed("News"))
    assert lists.derive()["L1"] == (JOINED, SOON, False, "event")
    lists.rename("L1", "Offers", LATER)
    lists.change("unsubscribed", LAST, list_name=protection.hashed("Offers"))
    assert lists.derive()["L1"] == (JOINED, LAST, False, "event")
    names = set(account.column("SELECT name FROM {}", membership.LIST_NAMES))
    assert names == {protection.hashed("News"), protection.hashed("Offers")}


def test_names_that_an_earlier_version_stored_readable_are_hashed(merged: Any, account: Account) -> None:
    """Unresolved changes keep matching, and no name stays readable."""
    lists = Lists(merged, account)
    lists.list("L1", "News")
    lists.change("unsubscribed", LATER, list_name="News")
    lists.change("unsubscribed", LAST, list_name="Ann's list")
    lists.protect = Protection(False, "a salt of this test only").hashed
    lists.list("L1", "News")
    assert lists.derive()["L1"] == (JOINED, LATER, False, "event")
    stored = account.execute("SELECT name FROM {} UNION ALL SELECT list_name FROM {}", *NAMES).fetchall()
    assert sorted(stored) == sorted((lists.protect(name),) for name in ("News", "News", "Ann's list"))


def test_a_renamed_list_keeps_those_who_left_it(lists: Lists) -> None:
    """Neither the new name, nor a second list with the old one, nor its deletion makes them subscribers again."""
    lists.list("L1", "News")
    lists.change("unsubscribed", LATER, list_name="News")
    left = {"L1": (JOINED, LATER, False, "event")}
    assert lists.derive() == left
    lists.list("L1", "Offers")
    assert lists.derive() == left
    lists.list("L2", "News", joined=LAST)
    assert lists.derive() == left | {"L2": (LAST, None, None, None)}
    lists.delete("L2")
    assert lists.derive()["L1"] == left["L1"]


def test_an_event_names_a_list_by_its_name_at_that_time(lists: Lists) -> None:
    """This also holds for events that are read after the list was renamed."""
    lists.list("L1", "News")
    lists.rename("L1", "Offers", seen=LATER)
    lists.change("unsubscribed", SOON, list_name="News")
    assert lists.derive()["L1"][1] == SOON
    lists.change("unsubscribed", LAST, list_name="News")
    assert lists.derive()["L1"][1] == SOON
    lists.change("unsubscribed", LAST, list_name="Offers")
    assert lists.derive()["L1"][1] == LAST


def test_a_later_subscription_to_email_marketing_ends_leaving_all_lists(lists: Lists) -> None:
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.change("unsubscribed", LATER)
    assert lists.derive()["L1"] == (JOINED, LATER, False, "event")
    lists.change("subscribed", LAST)
    assert lists.derive()["L1"] == (JOINED, None, True, None)


def test_a_subscription_to_email_marketing_does_not_put_people_back_on_a_list(lists: Lists) -> None:
    lists.list("L1", "News")
    lists.change("unsubscribed", LATER, list_name="News")
    lists.change("subscribed", LAST)
    assert lists.derive()["L1"] == (JOINED, LATER, False, "event")


def test_nobody_is_subscribed_to_a_deleted_list(lists: Lists) -> None:
    """If the list is back, so are its members."""
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    lists.member("SUBSCRIBED")
    lists.delete("L1")
    subscribed, left, is_subscribed, reason = lists.derive()["L1"]
    assert left is not None and (subscribed, is_subscribed, reason) == (JOINED, False, "list_deleted")
    lists.list("L1", "News")
    assert lists.derive()["L1"] == (JOINED, None, True, None)


def test_a_segment_with_the_name_of_a_list_makes_no_difference(lists: Lists, merged: Any) -> None:
    """People cannot subscribe to segments, so the name still identifies the list."""
    lists.list("L1", "News")
    merged(loads.SEGMENTS_AS_LISTS, {"key": "s", "id": "s", "name": "News", "list_type": "segment"})
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"][1] == LATER


@pytest.mark.parametrize(
    ("consent", "excluded", "status", "expected"),
    [
        pytest.param("SUBSCRIBED", (), None, True, id="consent"),
        pytest.param("UNSUBSCRIBED", (), None, False, id="consent withdrawn"),
        pytest.param("NEVER_SUBSCRIBED", (), None, False, id="never asked"),
        pytest.param(None, (), None, None, id="no consent recorded"),
        pytest.param("SUBSCRIBED", ("a@example.com",), None, False, id="excluded"),
        pytest.param("SUBSCRIBED", ("b@example.com",), None, True, id="another address excluded"),
        pytest.param("UNSUBSCRIBED", (), True, True, id="subscribed according to the list"),
        pytest.param("SUBSCRIBED", (), False, False, id="unsubscribed according to the list"),
    ],
)
def test_a_member_with_consent_who_is_not_excluded_is_subscribed(
    lists: Lists, consent: str | None, excluded: tuple[str, ...], status: bool | None, expected: bool | None
) -> None:
    """The status that the list returns, if any, takes precedence."""
    lists.list("L1", "News", is_subscribed=status)
    lists.member(consent)
    lists.excluded(*excluded)
    assert lists.derive()["L1"][2] is expected


def test_an_exclusion_without_a_profile_counts_in_the_current_dialect(lists: Lists, account: Account) -> None:
    """It can be left from the legacy dialect, or from someone who had the address before and was erased."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.excluded("a@example.com")
    derive_member_lists(account, has_status=False)
    assert account.connection.execute("SELECT is_subscribed FROM member_lists").fetchall() == [(False,)]


def test_a_person_is_subscribed_while_the_profile_has_an_address(lists: Lists) -> None:
    lists.list("L1", "News")
    lists.member("SUBSCRIBED", email=None)
    assert lists.derive(has_status=False)["L1"] == (JOINED, None, False, None)
    lists.member("SUBSCRIBED")
    assert lists.derive(has_status=False)["L1"][2] is True
    lists.member("SUBSCRIBED", email=None)
    assert lists.derive(has_status=False)["L1"][2] is False


def test_an_exclusion_that_ended_no_longer_counts(lists: Lists) -> None:
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.excluded("a@example.com")
    assert lists.derive()["L1"][2] is False
    lists.excluded()
    assert lists.derive()["L1"][2] is True


def test_a_person_who_left_is_not_subscribed_despite_consent(lists: Lists) -> None:
    """Leaving a list does not change the consent."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"] == (JOINED, LATER, False, "event")


def test_deriving_again_writes_nothing(lists: Lists, account: Account, connection: psycopg.Connection) -> None:
    """Rows that did not change keep their version in the database, and are not counted as updated.

    Without a change, no rows are derived.
    """
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    assert derive_member_lists(account) == (2, 2, 0)
    before = connection.execute("SELECT xmin::text, * FROM member_lists ORDER BY key").fetchall()
    assert derive_member_lists(account) == (0, 0, 0)
    assert derive_member_lists(account, whole=True) == (2, 0, 0)
    assert connection.execute("SELECT xmin::text, * FROM member_lists ORDER BY key").fetchall() == before
    lists.change("unsubscribed", LATER, list_name="News")
    assert derive_member_lists(account) == (2, 0, 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param("UPDATE members SET consent = 'SUBSCRIBED' WHERE id = 'p1'", True, id="consent"),
        pytest.param("UPDATE members SET deleted_at = now() WHERE id = 'p1'", False, id="profile deleted"),
        pytest.param("DELETE FROM members WHERE id = 'p1'", None, id="profile without a row"),
        pytest.param(
            "UPDATE member_exclusions SET email = 'a@example.com', _sync_id = md5('a@example.com')",
            False,
            id="excluded",
        ),
        pytest.param("UPDATE member_exclusions SET member_id = 'p1'", False, id="excluded by ID"),
        pytest.param("UPDATE lists SET deleted_at = now()", False, id="list deleted"),
        pytest.param("UPDATE stg_member_lists SET is_subscribed = true", True, id="status of the list"),
        pytest.param("UPDATE stg_member_lists SET absent_since = '2030-01-01Z'", False, id="absent"),
        pytest.param("UPDATE subscription_changes SET change = 'unsubscribed'", False, id="event"),
        pytest.param("UPDATE list_names SET name = 'Offers'", False, id="name of the list"),
        pytest.param("UPDATE list_suppressions SET lifted_at = NULL", False, id="suppressed"),
    ],
)
def test_a_change_made_by_hand_is_noticed(
    lists: Lists, account: Account, connection: psycopg.Connection, change: LiteralString, expected: bool | None
) -> None:
    """The result is that of a derivation as a whole, which then finds nothing to write."""
    lists.list("L1", "News")
    lists.member("UNSUBSCRIBED")
    lists.excluded("b@example.com")
    lists.change("subscribed", JOINED)
    lists.change("unsubscribed", LATER, list_name="Offers")
    lists.suppressed("L1")
    lists.suppressed()
    connection.execute("UPDATE members SET consent = NULL WHERE id = 'p1'")
    if expected is False and "consent" not in change:
        connection.execute("UPDATE members SET consent = 'SUBSCRIBED' WHERE id = 'p1'")
    lists.derive()
    connection.execute(change)
    assert lists.derive()["L1"][2] is expected
    assert derive_member_lists(account, whole=True)[1:] == (0, 0)


def test_a_name_of_another_list_concerns_those_who_left_a_list_of_that_name(
    lists: Lists, account: Account, connection: psycopg.Connection
) -> None:
    """An event is resolved to their list once the other one turns out not to have had the name at that time."""
    lists.list("L1", "News")
    lists.list("L2", "News")
    connection.execute("DELETE FROM stg_member_lists WHERE list_id = 'L1'")
    lists.change("unsubscribed", SOON, list_name="News")
    lists.change("subscribed", LATER, list_name="News")
    assert lists.derive() == {"L2": (JOINED, SOON, False, "event")}
    connection.execute("UPDATE list_names SET until = %s WHERE list_id = 'L1'", [BEFORE])
    assert lists.derive() == {"L2": (LATER, None, None, None)}


def test_only_the_people_concerned_are_derived(merged: Any, account: Account, connection: psycopg.Connection) -> None:
    """A change that no rule depends on concerns no one. Other accounts' changes wait for their own derivation."""
    connection.execute(
        "INSERT INTO stg_member_lists (list_id, member_id, _sync_id, esp_integration_id)"
        " SELECT 'L1', 'p' || each, md5('L1:p' || each), 'one' FROM generate_series(1, 100) AS each"
    )
    connection.execute(
        "INSERT INTO members (key, id, email, esp_integration_id)"
        " SELECT md5('Klaviyo:one:p' || each), 'p' || each, 'p' || each || '@example.com', 'one'"
        " FROM generate_series(1, 100) AS each"
    )
    assert derive_member_lists(account) == (100, 100, 0)
    connection.execute("UPDATE members SET city = 'Rome', updated_at = now()")
    assert derive_member_lists(account) == (0, 0, 0)
    merged(
        loads.MEMBER_EXCLUSIONS,
        *({"_sync_id": md5(f"p{each}@example.com"), "email": f"p{each}@example.com"} for each in (7, 8)),
    )
    merged(loads.LISTS, {"key": row_key("L1"), "id": "L1", "list_type": "list"}, integration_id="two")
    assert derive_member_lists(account) == (2, 0, 2)
    assert connection.execute("SELECT DISTINCT esp_integration_id FROM touched").fetchall() == [("two",)]


def test_a_change_that_is_committed_during_a_derivation_is_left_to_the_next_one(
    lists: Lists, account: Account, connect: Any, connection: psycopg.Connection
) -> None:
    """Its transaction may have begun long before."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.derive()
    with connect() as other:
        other.execute("BEGIN")
        other.execute("UPDATE members SET consent = 'UNSUBSCRIBED'")
        lists.change("unsubscribed", BEFORE, list_name="News")
        assert derive_member_lists(account) == (1, 0, 0)
        other.execute("COMMIT")
    assert derive_member_lists(account) == (1, 0, 1)


def test_one_derivation_waits_for_another(lists: Lists, account: Account, connect: Any) -> None:
    """Otherwise it could be overtaken by one that has seen an earlier state."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.derive()
    first = Account(connect(), SCHEMA, "one")
    with ThreadPoolExecutor(1) as pool:
        with first.connection.transaction():
            assert derive_member_lists(first) == (0, 0, 0)
            account.connection.execute("UPDATE members SET consent = 'UNSUBSCRIBED'")
            second = pool.submit(derive_member_lists, account)
            assert_waits(connect(), second)
        assert second.result(PATIENCE) == (1, 0, 1)


def test_all_rows_are_derived_after_what_recorded_the_changes_was_lost(
    lists: Lists, account: Account, connection: psycopg.Connection
) -> None:
    """A crash of Postgres empties unlogged tables. So do a missing trigger, other rules, and time."""
    lists.list("L1", "News")
    lists.derive()
    connection.execute("TRUNCATE touched, derivations")
    assert derive_member_lists(account) == (1, 0, 0)
    connection.execute("DROP TRIGGER touched_by_lists_update ON lists")
    connection.execute("UPDATE lists SET deleted_at = now()")
    with connection.transaction():
        schema.upgrade(connection, SCHEMA)
    assert derive_member_lists(account) == (1, 0, 1)
    for column in ("rules = 'others'", "derived_at = now() - interval '31 days'"):
        connection.execute(SQL("UPDATE derivations SET ") + SQL(column))
        assert derive_member_lists(account) == (1, 0, 0)
        assert derive_member_lists(account) == (0, 0, 0)


def test_another_role_can_change_a_table_that_it_may_write_to(
    lists: Lists, account: Account, connection: psycopg.Connection
) -> None:
    """It needs no rights on the table that records changes."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.derive()
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE ROLE touching")
        connection.execute("GRANT USAGE ON SCHEMA klaviyo TO touching")
        connection.execute("GRANT SELECT, UPDATE ON members TO touching")
        connection.execute("SET LOCAL ROLE touching")
        connection.execute("UPDATE members SET consent = 'UNSUBSCRIBED'")
        connection.execute("RESET ROLE")
        assert derive_member_lists(account) == (1, 0, 1)


def test_rows_have_their_key_and_origin(lists: Lists, connection: psycopg.Connection) -> None:
    lists.list("L1", "News")
    lists.derive()
    query = (
        "SELECT id, member_id, esp_integration_id, esp_source,"
        " key = md5(esp_source || ':' || esp_integration_id || ':' || id) FROM member_lists"
    )
    assert connection.execute(query).fetchall() == [("L1:p1", "p1", "one", "Klaviyo", True)]


def test_accounts_do_not_share_members(lists: Lists, connection: psycopg.Connection) -> None:
    lists.list("L1", "News")
    assert derive_member_lists(Account(connection, SCHEMA, "two")) == (0, 0, 0)
    assert connection.execute("SELECT count(*) FROM member_lists").fetchone() == (0,)


FILL = (
    """
    INSERT INTO stg_member_lists (list_id, member_id, created_at, _sync_id, esp_integration_id)
    SELECT 'L' || list, 'p' || each, '2026-01-01Z', md5('L' || list || ':p' || each), %(account)s
    FROM generate_series(1, %(people)s) AS each, generate_series(1, 2) AS list
    """,
    """
    INSERT INTO members (key, id, email, consent, esp_integration_id)
    SELECT md5('Klaviyo:' || %(account)s || ':p' || each), 'p' || each, each || '@example.com', 'SUBSCRIBED',
        %(account)s
    FROM generate_series(1, %(people)s) AS each
    """,
    """
    INSERT INTO subscription_changes (id, member_id, change, list_name, changed_at, scope, esp_integration_id)
    SELECT each::text, 'p' || each, change, 'List ' || 1 + each %% 2, '2026-02-01Z', 'list', %(account)s
    FROM generate_series(1, %(people)s) AS each, unnest(ARRAY['subscribed', 'unsubscribed']) AS change
    """,
    """
    INSERT INTO subscription_changes (id, member_id, change, changed_at, scope, esp_integration_id)
    SELECT 'all' || each, 'p' || each, 'unsubscribed', '2025-12-01Z', 'all', %(account)s
    FROM generate_series(1, %(people)s) AS each
    """,
    """
    INSERT INTO list_names (list_id, name, seen_at, esp_integration_id)
    SELECT 'L' || list, 'List ' || list, now(), %(account)s FROM generate_series(1, 40) AS list
    """,
    """
    INSERT INTO member_exclusions (email, _sync_id, esp_integration_id)
    SELECT 'x' || each || '@example.com', md5('x' || each || '@example.com'), %(account)s
    FROM generate_series(1, %(people)s) AS each
    """,
    """
    INSERT INTO list_suppressions (list_id, member_id, suppressed_at, esp_integration_id)
    SELECT 'L1', 'p' || each, '2026-03-01Z', %(account)s FROM generate_series(1, %(people)s, 3) AS each
    """,
)


@pytest.mark.parametrize("analyzed", [None, "klaviyo_internal.touched"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "changes"])
def test_the_time_for_an_account_without_statistics_grows_linearly(
    connection: psycopg.Connection, whole: bool, analyzed: str | None
) -> None:
    """Postgres only knows the account that was there when it last looked, and expects no row of another one.

    It can look again at any time at the table of recorded changes alone, of which there are many then.
    """
    for account, people in (("one", 4_000), ("two", 3_000)):
        if account == "two" and not whole:
            derive_member_lists(Account(connection, SCHEMA, "two"))
        for statement in FILL:
            connection.execute(statement, {"account": account, "people": people})
        if account == "one":
            derive_member_lists(Account(connection, SCHEMA, account))
            connection.execute("ANALYZE")
    if analyzed is not None:
        connection.execute(f"ANALYZE {analyzed}")
    connection.execute("SET statement_timeout = '15s'")
    assert derive_member_lists(Account(connection, SCHEMA, "two")) == (6_000, 6_000, 0)


def test_the_id_of_a_list_can_contain_a_percent_sign(lists: Lists, account: Account) -> None:
    mark_absent_again(account, "50%s")


SWEEP = "sweep one"
GUARD = Guard("list_members", 1, JOINED)


def absences(account: Account) -> set[Any]:
    """Return who is absent since when, of all lists and accounts."""
    query = "SELECT esp_integration_id, _sync_id, absent_since FROM {stg_member_lists} WHERE absent_since IS NOT NULL"
    return set(account.execute(query))


@pytest.fixture
def swept(merged: Any, account: Account) -> Callable[..., int]:
    """Return a function that sweeps list L1 and returns the number of people who left.

    `looked_up` are the people whose addresses the sweep looked up, for a source that returns no others.
    """

    def swept(
        *found: str, looked_up: Sequence[str] | None = None, sweep: str = SWEEP, is_interrupted: bool = False
    ) -> int:
        answers = [(each, "found") for each in found] + [(each, "asked") for each in looked_up or ()]
        rows = [{"list_id": "L1", "sweep": sweep, "member_id": each, "answer": answer} for each, answer in answers]
        merged(loads.SWEPT_MEMBERS, *rows)
        if is_interrupted:
            return 0
        before = absences(account)
        assert end_sweep(account, GUARD, "L1", sweep, looked_up is not None)
        delete_sweeps(account, "L1")
        return len(absences(account) - before)

    return swept


def test_people_missing_from_a_sweep_have_left(lists: Lists, swept: Callable[..., int]) -> None:
    """They left at the time of the first such sweep. If they are read again, their row is as before."""
    lists.list("L1", "News")
    before = lists.derive()["L1"]
    assert swept("another person") == 1
    subscribed, left, is_subscribed, reason = lists.derive()["L1"]
    assert (subscribed, is_subscribed, reason) == (JOINED, False, "absent")
    assert left is not None and datetime.now(UTC) - left < timedelta(minutes=1)
    assert swept("another person") == 0
    assert lists.derive()["L1"][1] == left
    lists.list("L1", "News")
    assert swept("p1") == 0
    assert lists.derive()["L1"] == before


def test_an_event_of_leaving_takes_precedence_over_absence(lists: Lists, swept: Callable[..., int]) -> None:
    """The event has the exact time, even if it is loaded after the sweep."""
    lists.list("L1", "News")
    swept()
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"][1::2] == (LATER, "event")


def test_a_subscribe_event_ends_an_absence(
    lists: Lists, swept: Callable[..., int], connection: psycopg.Connection
) -> None:
    """The person becomes absent again if another sweep does not find them."""
    lists.list("L1", "News")
    swept()
    connection.execute("UPDATE stg_member_lists SET absent_since = %s", [LATER])
    lists.change("subscribed", LAST, list_name="News")
    assert lists.derive()["L1"] == (LAST, None, None, None)
    assert swept() == 1
    assert lists.derive()["L1"][3] == "absent"


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("event", "absent_since", "last_sweep", "left"),
    [
        pytest.param(None, JOINED, None, JOINED, id="absent in the second of joining"),
        pytest.param(None, JOINED - SECOND, None, None, id="absent before joining"),
        pytest.param(LATER, SOON, LATER, LATER, id="swept in the second of joining again"),
        pytest.param(LATER, SOON, LATER - SECOND, None, id="swept before joining again"),
    ],
)
def test_a_sweep_of_the_second_of_joining_is_later_than_joining(
    lists: Lists,
    account: Account,
    event: datetime | None,
    absent_since: datetime,
    last_sweep: datetime | None,
    left: datetime | None,
) -> None:
    lists.list("L1", "News")
    account.connection.execute("UPDATE stg_member_lists SET absent_since = %s", [absent_since])
    if event:
        lists.change("subscribed", event, list_name="News")
    if last_sweep:
        watermarks.advance(account, f"{SWEEPS}/L1", None, last_sweep, None, "L1")
    assert lists.derive()["L1"][1::2] == (left, left and "absent")


def test_only_people_who_were_looked_up_can_be_absent(lists: Lists, swept: Callable[..., int]) -> None:
    """A source that has to be asked about each person says nothing about the others."""
    lists.list("L1", "News")
    assert swept(looked_up=["another person"]) == 0
    assert swept("p1", looked_up=["p1"]) == 0
    assert swept(looked_up=["p1"]) == 1


def test_an_interrupted_sweep_does_not_affect_the_next_one(
    lists: Lists, swept: Callable[..., int], connection: psycopg.Connection
) -> None:
    """Its answers are ignored, and then deleted."""
    lists.list("L1", "News")
    swept("p1", looked_up=["p1"], sweep="interrupted", is_interrupted=True)
    assert swept() == 1
    assert connection.execute("SELECT count(*) FROM swept_members").fetchone() == (0,)


def test_a_sweep_affects_one_list_of_one_account(lists: Lists, swept: Callable[..., int], merged: Any) -> None:
    """The person stays on other lists, and on a list with the same ID in another account."""
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    row = {"list_id": "L1", "member_id": "p1", "created_at": JOINED, "_sync_id": md5("L1:p1")}
    merged(loads.STG_MEMBER_LISTS, row, integration_id="two")
    assert swept() == 1
    assert {each: row[3] for each, row in lists.derive().items()} == {"L1": "absent", "L2": None}


def test_the_time_of_a_sweep_grows_linearly(account: Account, connection: psycopg.Connection) -> None:
    """This holds even when Postgres has no statistics about the table yet."""
    stage = (
        "INSERT INTO klaviyo.stg_member_lists (list_id, member_id, _sync_id, esp_integration_id)"
        " SELECT 'L1', each::text, md5('L1:' || each), 'one' FROM generate_series(1, %s) AS each"
    )
    found = (
        "INSERT INTO klaviyo_internal.swept_members (esp_integration_id, list_id, sweep, member_id, answer)"
        " SELECT 'one', 'L1', 's', each::text, 'found' FROM generate_series(1, %s) AS each WHERE each %% 1000 <> 0"
    )
    began = time.monotonic()
    connection.execute(stage, [30_000])
    connection.execute(found, [30_000])
    limit = round(40_000 * (time.monotonic() - began))  # milliseconds; comparing all pairs takes longer still
    connection.execute(SQL("SET statement_timeout = {}").format(limit))
    assert end_sweep(account, GUARD, "L1", "s", only_looked_up=False)
    assert len(absences(account)) == 30
