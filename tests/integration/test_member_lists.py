"""member_lists, derived from what was extracted: who is on which list, since when, and who has left it."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres.membership import derive_member_lists, end_sweep, forget_sweeps

JOINED = datetime(2026, 1, 1, tzinfo=UTC)
SOON = JOINED + timedelta(seconds=2)
BEFORE, LATER, LAST = (JOINED + timedelta(days=days) for days in (-30, 30, 60))


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


class Lists:
    """A person on lists, and what is known of the two."""

    def __init__(self, merged: Any, connection: psycopg.Connection) -> None:
        self._merged, self._connection = merged, connection
        self._lists: dict[str, str] = {}
        self._changes = 0

    def list(
        self, list_id: str, name: str, joined: datetime | None = JOINED, is_subscribed: bool | None = None
    ) -> None:
        self._lists[list_id] = name
        rows = [{"key": each, "id": each, "name": called, "list_type": "list"} for each, called in self._lists.items()]
        self._merged(loads.LISTS, *rows)
        row = {"list_id": list_id, "member_id": "p1", "created_at": joined, "_sync_id": md5(f"{list_id}:p1")}
        self._merged(loads.STG_MEMBER_LISTS, row | {"is_subscribed": is_subscribed})

    def change(self, kind: str, at: datetime | None, **which: str) -> None:
        """Of one list by id or by name, or of all."""
        self._changes += 1
        row = {"id": str(self._changes), "member_id": "p1", "change": kind, "changed_at": at, **which}
        self._merged(loads.SUBSCRIPTION_CHANGES, row)

    def member(self, consent: str | None) -> None:
        row = {"key": md5("Klaviyo:one:p1"), "id": "p1", "email": "a@example.com", "consent": consent}
        self._merged(loads.MEMBERS, row | {"updated_at": JOINED})

    def excluded(self, *addresses: str) -> None:
        rows = [{"_sync_id": md5(each), "email": each} for each in addresses]
        self._merged(loads.MEMBER_EXCLUSIONS, *rows)

    def derive(self) -> dict[str, tuple[Any, ...]]:
        """List id -> subscribed, unsubscribed_at, is_subscribed, left_reason."""
        derive_member_lists(self._connection, "klaviyo", "one")
        query = "SELECT list_id, subscribed, unsubscribed_at, is_subscribed, left_reason FROM member_lists"
        return {list_id: tuple(rest) for list_id, *rest in self._connection.execute(query)}


@pytest.fixture
def lists(merged: Any, connection: psycopg.Connection) -> Lists:
    """An account without lists."""
    return Lists(merged, connection)


@pytest.mark.parametrize(
    ("changes", "subscribed", "left", "reason"),
    [
        pytest.param([], JOINED, None, None, id="no event"),
        pytest.param([("subscribed", SOON, "News")], SOON, None, None, id="subscribe event"),
        pytest.param([("subscribed", SOON, "Sales")], JOINED, None, None, id="subscribe event of another list"),
        pytest.param([("unsubscribed", LATER, "News")], JOINED, LATER, "event", id="left this list"),
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
def test_events_tell_of_joining_and_leaving(
    lists: Lists,
    changes: list[tuple[str, datetime, str | None]],
    subscribed: datetime,
    left: datetime | None,
    reason: str | None,
) -> None:
    """The subscribe event, else the time of joining; the latest leaving, unless the person is back since."""
    lists.list("L1", "News")
    for kind, at, name in changes:
        lists.change(kind, at, **({"list_name": name} if name else {}))
    found_subscribed, found_left, _, found_reason = lists.derive()["L1"]
    assert (found_subscribed, found_left, found_reason) == (subscribed, left, reason)


def test_leaving_one_list_or_all(lists: Lists) -> None:
    """One list's leaving is its own, leaving all is that of each."""
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    lists.change("unsubscribed", LATER, list_name="News")
    assert {each: left for each, (_, left, *_) in lists.derive().items()} == {"L1": LATER, "L2": None}
    lists.change("unsubscribed", LAST)
    assert {each: left for each, (_, left, *_) in lists.derive().items()} == {"L1": LAST, "L2": LAST}


def test_a_list_suppression_concerns_its_list(lists: Lists) -> None:
    """It names the list by id; joining again ends it."""
    lists.list("L1", "News")
    lists.list("L2", "News")
    lists.change("suppressed", LATER, list_id="L1")
    assert {each: row[1:] for each, row in lists.derive().items()} == {
        "L1": (LATER, False, "suppressed"),
        "L2": (None, None, None),
    }
    lists.list("L1", "News", joined=LAST)
    assert lists.derive()["L1"] == (LAST, None, None, None)


def test_two_lists_of_one_name_are_not_mixed_up(lists: Lists) -> None:
    """An event that names them counts for the one that was joined at that moment, and for no leaving."""
    lists.list("L1", "News", joined=JOINED)
    lists.list("L2", "News", joined=LATER)
    lists.change("subscribed", SOON, list_name="News")
    lists.change("unsubscribed", LAST, list_name="News")
    assert lists.derive() == {"L1": (SOON, None, None, None), "L2": (LATER, None, None, None)}


def test_a_list_that_shares_its_name_with_a_segment_only(lists: Lists, merged: Any) -> None:
    """Segments are not subscribed to, so the name still means the list."""
    lists.list("L1", "News")
    merged(loads.SEGMENTS, {"key": "s", "id": "s", "name": "News", "list_type": "segment"})
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"][1] == LATER


@pytest.mark.parametrize(
    ("consent", "excluded", "told", "expected"),
    [
        pytest.param("SUBSCRIBED", (), None, True, id="consent"),
        pytest.param("UNSUBSCRIBED", (), None, False, id="consent withdrawn"),
        pytest.param("NEVER_SUBSCRIBED", (), None, False, id="never asked"),
        pytest.param(None, (), None, None, id="nothing known"),
        pytest.param("SUBSCRIBED", ("a@example.com",), None, False, id="excluded"),
        pytest.param("SUBSCRIBED", ("b@example.com",), None, True, id="somebody else excluded"),
        pytest.param("UNSUBSCRIBED", (), True, True, id="the list itself says so"),
        pytest.param("SUBSCRIBED", (), False, False, id="the list itself says no"),
    ],
)
def test_whether_a_list_may_write_to_a_person(
    lists: Lists, consent: str | None, excluded: tuple[str, ...], told: bool | None, expected: bool | None
) -> None:
    """On the list, with consent, and not excluded, unless the list itself tells."""
    lists.list("L1", "News", is_subscribed=told)
    lists.member(consent)
    lists.excluded(*excluded)
    assert lists.derive()["L1"][2] is expected


def test_an_exclusion_that_ended_is_none(lists: Lists) -> None:
    """An address that is no longer excluded may be written to."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.excluded("a@example.com")
    assert lists.derive()["L1"][2] is False
    lists.excluded()
    assert lists.derive()["L1"][2] is True


def test_who_has_left_is_not_written_to_whatever_the_consent(lists: Lists) -> None:
    """Leaving one list leaves the consent as it is."""
    lists.list("L1", "News")
    lists.member("SUBSCRIBED")
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"] == (JOINED, LATER, False, "event")


def test_deriving_again_writes_nothing(lists: Lists, connection: psycopg.Connection) -> None:
    """Counts are true, and rows that are the same are not touched."""
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    assert derive_member_lists(connection, "klaviyo", "one") == (2, 2, 0)
    before = connection.execute("SELECT xmin::text, * FROM member_lists ORDER BY key").fetchall()
    assert derive_member_lists(connection, "klaviyo", "one") == (2, 0, 0)
    assert connection.execute("SELECT xmin::text, * FROM member_lists ORDER BY key").fetchall() == before
    lists.change("unsubscribed", LATER, list_name="News")
    assert derive_member_lists(connection, "klaviyo", "one") == (2, 0, 1)


def test_a_row_is_keyed_by_its_own_id(lists: Lists, connection: psycopg.Connection) -> None:
    """As SQL computes it, and the row says where it is from."""
    lists.list("L1", "News")
    lists.derive()
    query = (
        "SELECT id, member_id, esp_integration_id, esp_source,"
        " key = md5(esp_source || ':' || esp_integration_id || ':' || id) FROM member_lists"
    )
    assert connection.execute(query).fetchall() == [("L1:p1", "p1", "one", "Klaviyo", True)]


def test_accounts_do_not_share_members(lists: Lists, connection: psycopg.Connection) -> None:
    """What one account knows of a person or a list is nothing to another."""
    lists.list("L1", "News")
    assert derive_member_lists(connection, "klaviyo", "two") == (0, 0, 0)
    assert connection.execute("SELECT count(*) FROM member_lists").fetchone() == (0,)


SWEEP = "sweep one"


@pytest.fixture
def swept(merged: Any, connection: psycopg.Connection) -> Callable[..., int]:
    """Sweeps list L1: notes whom it found, and ends it, unless it breaks off; answers how many left."""

    def swept(*found: str, asked: Sequence[str] | None = None, sweep: str = SWEEP, breaks_off: bool = False) -> int:
        answers = [(each, "found") for each in found] + [(each, "asked") for each in asked or ()]
        rows = [{"list_id": "L1", "sweep": sweep, "member_id": each, "answer": answer} for each, answer in answers]
        merged(loads.SWEPT_MEMBERS, *rows)
        if breaks_off:
            return 0
        left = end_sweep(connection, "klaviyo", "one", "L1", sweep, asked is not None)
        forget_sweeps(connection, "klaviyo", "one", "L1")
        return left

    return swept


def test_who_is_absent_from_a_sweep_has_left(lists: Lists, swept: Callable[..., int]) -> None:
    """At the time of the sweep, once; whoever is read again is back as before."""
    lists.list("L1", "News")
    before = lists.derive()["L1"]
    assert swept("somebody else") == 1
    subscribed, left, is_subscribed, reason = lists.derive()["L1"]
    assert (subscribed, is_subscribed, reason) == (JOINED, False, "absent")
    assert left is not None and datetime.now(UTC) - left < timedelta(minutes=1)
    assert swept("somebody else") == 0
    assert lists.derive()["L1"][1] == left
    lists.list("L1", "News")
    assert swept("p1") == 0
    assert lists.derive()["L1"] == before


def test_an_event_of_leaving_goes_before_absence(lists: Lists, swept: Callable[..., int]) -> None:
    """It tells when; that it came after the sweep makes no difference."""
    lists.list("L1", "News")
    swept()
    lists.change("unsubscribed", LATER, list_name="News")
    assert lists.derive()["L1"][1::2] == (LATER, "event")


def test_joining_after_an_absence(lists: Lists, swept: Callable[..., int], connection: psycopg.Connection) -> None:
    """An event of joining ends the absence, until another sweep does not find the person either."""
    lists.list("L1", "News")
    swept()
    connection.execute("UPDATE stg_member_lists SET absent_since = %s", [LATER])
    lists.change("subscribed", LAST, list_name="News")
    assert lists.derive()["L1"] == (LAST, None, None, None)
    assert swept() == 1
    assert lists.derive()["L1"][3] == "absent"


def test_only_who_was_asked_for_can_be_absent(lists: Lists, swept: Callable[..., int]) -> None:
    """Where the source has to be asked for each, silence on others means nothing."""
    lists.list("L1", "News")
    assert swept(asked=["somebody else"]) == 0
    assert swept("p1", asked=["p1"]) == 0
    assert swept(asked=["p1"]) == 1


def test_a_sweep_that_broke_off_tells_another_nothing(
    lists: Lists, swept: Callable[..., int], connection: psycopg.Connection
) -> None:
    """Neither whom it found nor whom it asked for; and nothing of it is kept."""
    lists.list("L1", "News")
    swept("p1", asked=["p1"], sweep="broken", breaks_off=True)
    assert swept() == 1
    assert connection.execute("SELECT count(*) FROM swept_members").fetchone() == (0,)


def test_a_sweep_concerns_its_list_and_account(lists: Lists, swept: Callable[..., int], merged: Any) -> None:
    """The same person stays on other lists, and a list of the same id in another account keeps its members."""
    lists.list("L1", "News")
    lists.list("L2", "Sales")
    row = {"list_id": "L1", "member_id": "p1", "created_at": JOINED, "_sync_id": md5("L1:p1")}
    merged(loads.STG_MEMBER_LISTS, row, integration_id="two")
    assert swept() == 1
    assert {each: found[3] for each, found in lists.derive().items()} == {"L1": "absent", "L2": None}


def test_a_large_sweep_does_not_take_each_member_with_each(connection: psycopg.Connection) -> None:
    """Ten times the members take about ten times as long, also where Postgres knows nothing of the table yet."""
    stage = (
        "INSERT INTO klaviyo.stg_member_lists (list_id, member_id, _sync_id, esp_integration_id)"
        " SELECT 'L1', each::text, md5('L1:' || each), 'one' FROM generate_series(1, %s) AS each"
    )
    found = (
        "INSERT INTO klaviyo.swept_members (esp_integration_id, list_id, sweep, member_id, answer)"
        " SELECT 'one', 'L1', 's', each::text, 'found' FROM generate_series(1, %s) AS each WHERE each %% 1000 <> 0"
    )
    connection.execute(stage, [30_000])
    connection.execute(found, [30_000])
    connection.execute("SET LOCAL statement_timeout = '10s'")  # each with each takes a minute
    assert end_sweep(connection, "klaviyo", "one", "L1", "s", False) == 30
