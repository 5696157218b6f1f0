"""Checkpoints: a chunk that fails after some batches is resumed after them, and nothing is lost or stored twice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from klaviyo_pg.errors import BadAnswer, NotFound
from klaviyo_pg.rows import Reject
from klaviyo_pg.windows import FULL_READ
from pipeline.streams import STREAMS
from tests.fake_requests import Request
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago
from tests.runs import ALL_EVENTS

UNREADABLE = Reject('{"id": 7}', "Not a profile.")
ABSENT = "SELECT member_id FROM stg_member_lists WHERE absent_since IS NOT NULL"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch, shop: FakeAccount) -> None:
    """Store a batch for every two rows, and serve two rows a page, so that small accounts have many of both."""
    small = {name: replace(stream, batch_rows=2) for name, stream in STREAMS.items()}
    monkeypatch.setattr("pipeline.read.STREAMS", small)
    shop.events_per_page = shop.rows_per_page = 2


def pages(requests: list[Request]) -> list[int]:
    """Return the numbers of the pages that were requested."""
    return [each.page for each in requests]


class Interruption(NamedTuple):
    """An interruption of a read at a page, and the state in which it leaves the run."""

    happens: Callable[[], None]
    state: str


@pytest.fixture(params=["failed", "stopped"])
def interruption(request: pytest.FixtureRequest, warehouse: Warehouse) -> Interruption:
    """Return an error of the API, or a request to stop."""

    def fail() -> None:
        raise BadAnswer("Odd.")

    return Interruption(fail if request.param == "failed" else warehouse.stop, request.param)


def test_events_resume_at_the_checkpoint(warehouse: Warehouse, shop: FakeAccount, interruption: Interruption) -> None:
    """The checkpoint is the second that the last stored batch stops before."""
    shop.events.clear()
    times = [days_ago(5) + number * HOUR for number in range(10)]
    shop.add_events("OPEN", *times)
    shop.before("events", interruption.happens, page=3)
    failed = warehouse.daily(*ALL_EVENTS, metrics=("OPEN",), reconcile_days=0)
    assert failed.state == interruption.state
    [checkpoint] = warehouse.column("SELECT reached FROM chunks WHERE stream = 'events/OPEN'")
    stored = len(warehouse.column("SELECT id FROM opens"))
    assert checkpoint == times[stored] > times[4]
    shop.recover()
    resumed = warehouse.daily(*ALL_EVENTS, metrics=("OPEN",), reconcile_days=0)
    assert (resumed.run.id, resumed.state) == (failed.run.id, "complete")
    assert shop.sent("events")[0].window.start == checkpoint
    assert pages(shop.sent("events")) == list(range((10 - stored + 1) // 2))
    assert warehouse.column("SELECT id FROM opens ORDER BY event_at") == [event.id for event in shop.events]
    counts = resumed.counts["opens"]
    assert (counts["rows_read"], counts["inserted"]) == (10, 10)


def test_events_dated_in_the_future_resume_in_the_past(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Klaviyo refuses a request for events after a time in the future."""
    shop.events.clear()
    shop.add_events("OPEN", *(datetime.now(UTC) + number * HOUR for number in range(1, 11)))
    shop.fail("events", BadAnswer("Odd."), page=3)
    assert warehouse.daily(*ALL_EVENTS, metrics=("OPEN",), reconcile_days=0).state == "failed"
    assert warehouse.one("SELECT reached > now() FROM chunks WHERE stream = 'events/OPEN'")
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS, metrics=("OPEN",), reconcile_days=0).state == "complete"
    first = shop.sent("events")[0].window.start
    assert first is not None and first < datetime.now(UTC)
    assert warehouse.column("SELECT id FROM opens ORDER BY event_at") == [event.id for event in shop.events]


def test_profiles_resume_at_the_checkpoint(warehouse: Warehouse, shop: FakeAccount, interruption: Interruption) -> None:
    """The person with the time of the checkpoint is read again, since others may have the same time."""
    for number in range(10):
        shop.add_person(f"P{number}", days_ago(20) + number * HOUR)
    shop.before("profiles", interruption.happens, page=3)
    failed = warehouse.daily("member_attributes", reconcile_days=0, concurrency=1)
    assert failed.state == interruption.state
    [checkpoint] = warehouse.column("SELECT reached FROM chunks WHERE stream = 'profiles'")
    left = [each for each, (_, updated) in shop.profiles.items() if updated >= checkpoint]
    assert left in (["P3", *left[1:]], ["P5", *left[1:]])
    assert shop.profiles.keys() - left <= set(warehouse.column("SELECT id FROM members"))
    shop.recover()
    resumed = warehouse.daily("member_attributes", reconcile_days=0, concurrency=1)
    assert (resumed.run.id, resumed.state) == (failed.run.id, "complete")
    assert {each.window.start for each in shop.sent("profiles")} == {checkpoint}
    assert pages(shop.sent("profiles")) == list(range((len(left) + 1) // 2))
    assert warehouse.column("SELECT id FROM members ORDER BY id") == sorted(shop.profiles)


def fill_list(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Store a list of nine members, remove P4 from it at the source, and make its sweep due."""
    for number in range(9):
        shop.add_person(f"P{number}", days_ago(20))
    shop.members = {"L1": []}
    shop.lists = shop.lists[:1]
    for number in range(9):
        shop.add_member("L1", f"P{number}", days_ago(19) + number * HOUR)
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert len(warehouse.column("SELECT member_id FROM stg_member_lists")) == 9
    shop.members["L1"] = [each for each in shop.members["L1"] if each.member_id != "P4"]
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    shop.recover()


def test_an_interrupted_sweep_still_finds_who_has_left(
    warehouse: Warehouse, shop: FakeAccount, interruption: Interruption
) -> None:
    """It resumes at the checkpoint. Members that it found before the interruption count as present."""
    fill_list(warehouse, shop)
    shop.before("memberships", interruption.happens, page=2)
    failed = warehouse.daily("stg_member_lists")
    assert failed.state == interruption.state
    assert warehouse.column(ABSENT) == []
    assert len(warehouse.column("SELECT member_id FROM swept_members")) > 0
    shop.recover()
    resumed = warehouse.daily("stg_member_lists")
    assert (resumed.run.id, resumed.state) == (failed.run.id, "complete")
    assert FULL_READ not in [each.window for each in shop.sent("memberships")]
    assert warehouse.column(ABSENT) == ["P4"]
    assert warehouse.column("SELECT member_id FROM swept_members") == []
    assert warehouse.watermarks()["membership_sweep/L1"] == resumed.run.as_of


def test_a_sweep_that_the_database_has_lost_begins_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A crash of Postgres empties unlogged tables. Members that were found before it are not absent."""
    fill_list(warehouse, shop)
    shop.fail("memberships", BadAnswer(), page=2, times=1)
    assert warehouse.daily("stg_member_lists").state == "failed"
    warehouse.execute("TRUNCATE swept_members, sweeps")
    shop.recover()
    assert warehouse.daily("stg_member_lists").state == "complete"
    windows = [each.window for each in shop.sent("memberships")]
    assert windows[0] != FULL_READ == windows[-1]
    assert warehouse.column(ABSENT) == ["P4"]


def test_a_resumed_sweep_remembers_an_unreadable_record(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It need not meet it again: a record whose time is unreadable, too, is not in any window that has a start."""
    fill_list(warehouse, shop)
    before = warehouse.watermarks()["membership_sweep/L1"]
    shop.unreadable["memberships", 1] = UNREADABLE
    shop.fail("memberships", BadAnswer(), page=3, times=1)
    assert warehouse.daily("stg_member_lists").state == "failed"
    shop.unreadable.clear()
    shop.recover()
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert FULL_READ not in [each.window for each in shop.sent("memberships")]
    assert warehouse.column(ABSENT) == []
    assert warehouse.watermarks()["membership_sweep/L1"] == before


def test_a_list_that_is_deleted_during_its_sweep_makes_no_one_absent(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its members are on the pages that are not there any more."""
    fill_list(warehouse, shop)
    before = warehouse.watermarks()["membership_sweep/L1"]
    shop.fail("memberships", NotFound(), page=2)
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert warehouse.column(ABSENT) == []
    assert warehouse.watermarks()["membership_sweep/L1"] == before


def test_an_interrupted_sweep_means_nothing_to_another_run(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The next run with another selection sweeps the list from the beginning."""
    fill_list(warehouse, shop)
    shop.fail("memberships", BadAnswer(), page=2, times=1)
    assert warehouse.daily("stg_member_lists").state == "failed"
    shop.recover()
    assert warehouse.daily("stg_member_lists", lookback_days=5).state == "complete"
    assert {each.window for each in shop.sent("memberships")} == {FULL_READ}
    assert warehouse.column(ABSENT) == ["P4"]


def test_a_sweep_with_an_unreadable_record_marks_no_one(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The record may be the member that seems to be missing. The list is swept again by the next run."""
    fill_list(warehouse, shop)
    shop.unreadable["memberships", 1] = UNREADABLE
    ran = warehouse.daily("stg_member_lists")
    assert ran.state == "complete"
    assert warehouse.column(ABSENT) == []
    assert warehouse.column("SELECT raw FROM rejects") == [UNREADABLE.raw]
    assert warehouse.watermarks()["list_members/L1"] == ran.run.as_of
    assert warehouse.watermarks()["membership_sweep/L1"] < ran.run.as_of
    shop.unreadable.clear()
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert warehouse.column(ABSENT) == ["P4"]


def test_no_checkpoint_follows_an_unreadable_record(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The resumed sweep meets the record again, and does not take the list for complete."""
    fill_list(warehouse, shop)
    shop.unreadable["memberships", 0] = UNREADABLE
    shop.fail("memberships", BadAnswer(), page=3, times=1)
    assert warehouse.daily("stg_member_lists").state == "failed"
    shop.recover()
    assert warehouse.daily("stg_member_lists").state == "complete"
    assert {each.window for each in shop.sent("memberships")} == {FULL_READ}
    assert warehouse.column(ABSENT) == []


def test_a_reader_that_fails_drops_only_its_own_people(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Windows are read from the newest to the oldest: P1 is stored, P0 is read but not stored, both come again."""
    shop.events.clear()
    shop.events_per_page = 1
    shop.add_events("OPEN", days_ago(0.5), person="P1")
    shop.add_events("OPEN", days_ago(2.5), days_ago(2.5), person="P0")  # in one window, whatever the time of day
    shop.add_events("OPEN", days_ago(4.5), person="P0")
    shop.add_events("OPEN", days_ago(4.5), person="P1")
    shop.fail("events", BadAnswer(), page=1, times=1)
    ran = warehouse.daily(*ALL_EVENTS, concurrency=1)
    assert ran.state == "failed"
    assert warehouse.column("SELECT id FROM members ORDER BY id") == ["P0", "P1"]
    assert ran.counts["members"]["rows_read"] == 2, "each person is stored once"


def test_a_run_that_is_resumed_in_a_new_process_stores_its_people(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The cache of stored people lasts as long as a session."""
    shop.events_per_page = 1
    shop.fail("events", BadAnswer(), page=1)
    assert warehouse.daily(*ALL_EVENTS, concurrency=1, metrics=("OPEN",)).state == "failed"
    shop.recover()
    assert warehouse.daily(*ALL_EVENTS, concurrency=1, metrics=("OPEN",)).state == "complete"
    assert warehouse.column("SELECT id FROM members") == ["P0"]
