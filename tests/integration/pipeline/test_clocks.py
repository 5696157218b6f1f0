"""Clocks that are wrong by two days or a year, between runs and during them: nothing is lost, and nothing stays stuck.

The database's clock is real, so it is this machine's clock that tests set. Where both have to be wrong, as with a
database on the same machine, the times that a run has recorded are moved instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from klaviyo_pg.errors import BadAnswer, ClocksDiffer
from klaviyo_pg.rows import Metric
from pipeline import runs
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import DAY, HOUR, LOG, Result, Warehouse, days_ago

YEAR = 365 * DAY
OFFSETS = [pytest.param(2 * DAY, id="two days", marks=pytest.mark.slow), pytest.param(YEAR, id="a year")]
SHIFTS = [
    pytest.param(sign * offset, id=f"{length} {name}")
    for length, offset in (("two days", 2 * DAY), ("a year", YEAR))
    for sign, name in ((1, "fast"), (-1, "slow"))
]


@dataclass
class MachineClock:
    """The clock of this machine: the real one, and how far it is ahead."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock(warehouse: Warehouse, shop: FakeAccount) -> MachineClock:
    """Return the clock of runs and of the API's client. The API's clock and the database's are right."""
    clock = MachineClock()
    warehouse.now = shop.now = clock
    shop.api_now = lambda: datetime.now(UTC)
    return clock


def change(shop: FakeAccount, number: int) -> None:
    """Add an event, a changed person, and a member of a list, all of an hour ago."""
    at = datetime.now(UTC) - HOUR
    shop.add_person(f"N{number}", at, created=at, first_name="Ada")
    shop.add_events("ORDER", at, person=f"N{number}")
    shop.add_member("L2", f"N{number}", at)


def assert_complete(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Check that the warehouse has exactly what the account has."""
    assert sorted(warehouse.event_ids()) == sorted(event.id for event in shop.events)
    assert set(warehouse.column("SELECT id FROM members")) == set(shop.profiles)
    joined = warehouse.rows("SELECT list_id, member_id FROM member_lists WHERE unsubscribed_at IS NULL")
    assert set(joined) == {(list_id, each.member_id) for list_id, rows in shop.members.items() for each in rows}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_run_with_a_wrong_clock_is_refused(
    warehouse: Warehouse, shop: FakeAccount, clock: MachineClock, shift: timedelta
) -> None:
    """It stores nothing but that it was refused, and the next run with a right clock stores everything."""
    assert warehouse.daily().state == "complete"
    change(shop, 1)
    before = warehouse.watermarks()
    clock.ahead = shift
    with pytest.raises(ClocksDiffer) as refused:
        warehouse.daily()
    direction = "fast" if shift > timedelta() else "slow"
    assert (
        f"This machine's clock is {abs(shift.days)} days {direction} compared with the database's and the API's."
        in str(refused.value)
    )
    assert refused.value.exit_code == 2
    assert warehouse.watermarks() == before
    refusals = warehouse.rows("SELECT message, finished_at <= clock_timestamp() FROM runs WHERE state <> 'complete'")
    assert refusals == [(str(refused.value), True)]
    clock.ahead = timedelta()
    assert warehouse.daily().state == "complete"
    assert_complete(warehouse, shop)


@pytest.mark.parametrize(
    ("kind", "shift"),
    [
        pytest.param("events", 2 * DAY, id="events, two days ahead"),
        pytest.param("metrics", -2 * DAY, id="metrics, two days slow", marks=pytest.mark.slow),
        pytest.param("profiles", YEAR, id="profiles, a year ahead", marks=pytest.mark.slow),
        pytest.param("memberships", -YEAR, id="memberships, a year slow", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_clock_is_set_stops(
    warehouse: Warehouse, shop: FakeAccount, clock: MachineClock, shift: timedelta, kind: str
) -> None:
    """Nothing is marked as read with the wrong time, and the rerun resumes."""
    assert warehouse.daily().state == "complete"
    change(shop, 1)
    before = warehouse.watermarks()
    shop.before(kind, lambda: setattr(clock, "ahead", shift))
    stopped = warehouse.daily(concurrency=1)
    assert (stopped.state, stopped.exit_code, len(stopped.sentences)) == ("failed", 2, 1)
    assert "clock" in stopped.sentences[0]
    latest = datetime.now(UTC) + HOUR
    assert all(time <= latest for time in warehouse.watermarks().values())
    assert all(warehouse.watermarks()[stream] >= time for stream, time in before.items())
    clock.ahead = timedelta()
    assert warehouse.daily().state == "complete"
    assert_complete(warehouse, shop)
    assert warehouse.one("SELECT max(extracted_at) FROM events") < latest


@pytest.mark.parametrize("shift", [2 * DAY, pytest.param(-2 * DAY, marks=pytest.mark.slow)])
def test_a_clock_that_is_set_and_set_back_is_noticed(
    warehouse: Warehouse, shop: FakeAccount, clock: MachineClock, shift: timedelta
) -> None:
    """Pages that were read in between have a wrong time, although all clocks agree when they would be stored."""
    assert warehouse.daily().state == "complete"

    def read_page_with(ahead: timedelta) -> Callable[[], None]:
        return lambda: setattr(clock, "ahead", ahead)

    shop.rows_per_page = 1
    change(shop, 1)
    change(shop, 2)
    shop.before("profiles", read_page_with(shift), page=0)
    shop.before("profiles", read_page_with(timedelta()), page=1)
    stopped = warehouse.daily("members", concurrency=1)
    assert (stopped.state, stopped.exit_code) == ("failed", 2)
    assert f"This machine's clock was set during the run, by about {abs(shift.days)} days" in stopped.sentences[0]
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert_complete(warehouse, shop)


@pytest.mark.parametrize("spool", [True, False])
def test_a_backfill_whose_clock_is_set_stops(
    warehouse: Warehouse, shop: FakeAccount, clock: MachineClock, spool: bool
) -> None:
    shop.before("events", lambda: setattr(clock, "ahead", YEAR))
    stopped = warehouse.backfill(days_ago(8), spool=spool, concurrency=1)
    assert (stopped.state, stopped.exit_code, warehouse.event_ids()) == ("failed", 2, [])
    clock.ahead = timedelta()
    assert warehouse.backfill(days_ago(8), spool=spool).state == "complete"
    assert sorted(warehouse.event_ids()) == sorted(event.id for event in shop.events)


def test_a_process_with_a_wrong_clock_cannot_join_a_run(warehouse: Warehouse, clock: MachineClock) -> None:
    """As a worker on another machine."""
    with warehouse.open() as session, warehouse.open() as other:
        run = runs.begin(session, "backfill", {}, LOG)
        clock.ahead = -2 * DAY
        with pytest.raises(ClocksDiffer, match="2 days slow"):
            runs.join(other, run.id, "backfill", "backfill_part a", 0.5)


def test_only_the_api_s_clock_differs(warehouse: Warehouse, shop: FakeAccount) -> None:
    """As where the database runs on this machine, whose clock is wrong."""
    shop.api_now = lambda: datetime.now(UTC) - 2 * DAY
    with pytest.raises(
        ClocksDiffer, match=r"^The API's clock .* is 2 days slow compared with this machine's and the database's\."
    ):
        warehouse.daily()


def test_only_the_database_s_clock_differs(warehouse: Warehouse, shop: FakeAccount, clock: MachineClock) -> None:
    clock.ahead = 2 * DAY
    shop.api_now = clock
    with pytest.raises(
        ClocksDiffer, match=r"^The database's clock is 2 days slow compared with this machine's and the API's\."
    ):
        warehouse.daily()


def test_without_a_date_of_the_api_the_database_s_clock_counts(
    warehouse: Warehouse, shop: FakeAccount, clock: MachineClock
) -> None:
    shop.api_now = lambda: None
    assert warehouse.daily().state == "complete"
    clock.ahead = -2 * DAY
    with pytest.raises(ClocksDiffer, match=r"^This machine's clock is 2 days slow compared with the database's\."):
        warehouse.daily()


def test_the_tolerance_is_a_setting(warehouse: Warehouse, shop: FakeAccount, clock: MachineClock) -> None:
    clock.ahead = timedelta(minutes=10)
    with pytest.raises(
        ClocksDiffer, match=r"clock is 10 minutes fast compared with .* increase CLOCK_TOLERANCE_SECONDS\.$"
    ):
        warehouse.daily()
    ran = warehouse.daily(clock_tolerance_seconds=900)
    assert ran.state == "complete"
    assert ran.run.as_of <= datetime.now(UTC), "a run reads up to the earliest of the times, so that it leaves no gap"


def run_ahead(warehouse: Warehouse, shop: FakeAccount, ahead: timedelta, fails: bool = False) -> Result:
    """Run with a clock that is ahead, as before the project compared clocks: the database's clock is right."""
    shop.now = warehouse.now = MachineClock(ahead)
    shop.api_now = None
    if fails:
        shop.fail("profiles", BadAnswer("Odd."))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.clocks.Clocks.check", lambda clocks, tolerance: None)
        patch.setattr("pipeline.clocks.Clocks.earliest", property(lambda clocks: clocks.machine))
        ran = warehouse.daily()
    shop.recover()
    shop.now = warehouse.now = MachineClock()
    return ran


@pytest.mark.parametrize("ahead", OFFSETS)
def test_watermarks_of_a_run_that_was_ahead_are_set_back(
    warehouse: Warehouse, shop: FakeAccount, ahead: timedelta
) -> None:
    """Everything since the last correct run is read again, also of metrics and lists that it did not know."""
    first = warehouse.daily()
    change(shop, 1)
    shop.metrics.append(Metric("NEW", "Viewed Product", None, LONG_AGO, LONG_AGO))
    shop.add_list("L3", "New list")
    late = run_ahead(warehouse, shop, ahead)
    assert max(warehouse.watermarks().values()) == late.run.as_of
    change(shop, 2)
    shop.add_events("NEW", datetime.now(UTC) - DAY, person="P1")
    shop.add_member("L3", "P1", datetime.now(UTC) - HOUR)
    repaired = warehouse.daily()
    assert repaired.state == "complete"
    [sentence] = repaired.sentences
    assert sentence.startswith(
        f"An earlier run's clock was ahead ({late.run.as_of:%Y-%m-%d %H:%M} UTC). This run set back "
    )
    assert_complete(warehouse, shop)
    read_to = warehouse.column("SELECT DISTINCT watermark FROM watermarks WHERE table_name IS NOT NULL")
    assert read_to == [repaired.run.as_of]
    assert warehouse.one("SELECT count(*) FROM runs WHERE as_of > now() OR started_at > now()") == 0
    assert first.run.id != repaired.run.id
    change(shop, 3)
    again = warehouse.daily()
    assert (again.state, again.sentences) == ("complete", [])
    assert_complete(warehouse, shop)


@pytest.mark.parametrize("ahead", OFFSETS)
def test_a_first_run_that_was_ahead_is_repeated(warehouse: Warehouse, shop: FakeAccount, ahead: timedelta) -> None:
    """A year ahead it reads no events at all, since the days of a first run lie in the future."""
    run_ahead(warehouse, shop, ahead)
    change(shop, 1)
    assert warehouse.daily().state == "complete"
    assert_complete(warehouse, shop)


@pytest.mark.parametrize("ahead", OFFSETS)
def test_an_unfinished_run_from_the_future_is_closed(warehouse: Warehouse, shop: FakeAccount, ahead: timedelta) -> None:
    """Later runs do not continue it, not even on the day at which it believed to be."""
    assert warehouse.daily().state == "complete"
    late = run_ahead(warehouse, shop, ahead, fails=True)
    assert late.state == "failed"
    change(shop, 1)
    repaired = warehouse.daily()
    assert (repaired.state, repaired.run.resumed_at) == ("complete", None)
    assert "closed 1 unfinished run" in repaired.sentences[0]
    assert_complete(warehouse, shop)
    [(state, selection, message)] = warehouse.rows(
        "SELECT state, selection, message FROM runs WHERE run_id = %s", late.run.id
    )
    assert (state, selection) == ("failed", None)
    assert message == f"Odd. The clock was ahead: this run recorded {late.run.as_of:%Y-%m-%d %H:%M} UTC."


@pytest.mark.slow
def test_a_run_that_was_ahead_is_recognised_once_its_time_has_come(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The run on Monday believed that it was Wednesday. A profile changed on Tuesday, before the run on Friday."""
    warehouse.daily()
    run_ahead(warehouse, shop, 2 * DAY)
    for table, columns in {
        "runs": ("as_of", "started_at", "finished_at"),
        "chunks": ("done_at",),
        "watermarks": ("watermark", "since"),
    }.items():
        changes = ", ".join(f"{column} = {column} - interval '4 days'" for column in columns)
        warehouse.execute(f"UPDATE {table} SET {changes}")
    shop.add_person("LATE", datetime.now(UTC) - 3.5 * DAY)
    repaired = warehouse.daily()
    assert "An earlier run's clock was ahead" in repaired.sentences[0]
    assert_complete(warehouse, shop)


@pytest.mark.slow
def test_watermarks_whose_run_was_deleted_are_set_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Runs in between have read nothing, because the watermarks were in the future. They show nothing."""
    warehouse.daily()
    late = run_ahead(warehouse, shop, YEAR)
    warehouse.execute("DELETE FROM runs WHERE run_id = %s", late.run.id)
    change(shop, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klaviyo_pg.postgres.future._set_back", lambda *_: [])
        assert warehouse.daily().state == "complete"
    assert "N1" not in warehouse.column("SELECT id FROM members WHERE first_name IS NOT NULL")
    change(shop, 2)
    assert warehouse.daily().state == "complete"
    assert_complete(warehouse, shop)
    assert warehouse.one("SELECT count(first_name) FROM members WHERE id IN ('N1', 'N2')") == 2


@pytest.mark.parametrize("ahead", OFFSETS)
def test_rows_from_the_future_are_replaced(warehouse: Warehouse, shop: FakeAccount, ahead: timedelta) -> None:
    """People, their properties, and events: a row that was stored with a later time would otherwise stay for ever."""
    warehouse.daily()
    shop.add_person("P1", datetime.now(UTC) - HOUR, first_name="Wrong", properties={"size": "1", "color": "red"})
    run_ahead(warehouse, shop, ahead)
    shop.add_person("P1", datetime.now(UTC), first_name="Right", properties={"size": "2"})
    index = next(number for number, event in enumerate(shop.events) if event.at > days_ago(2))
    shop.events[index] = shop.events[index]._replace(profile_id="P3")
    warehouse.daily()
    assert warehouse.one("SELECT first_name FROM members WHERE id = 'P1'") == "Right"
    properties = "SELECT name, value FROM member_attributes AS a JOIN members AS m USING (key) WHERE m.id = 'P1'"
    assert len(warehouse.rows(properties)) == 1
    event = "SELECT m.id FROM events AS e JOIN members AS m USING (member_key) WHERE e.id = %s"
    everything = " UNION ALL ".join(event.replace("FROM events", f"FROM {table}") for table in ("events", "opens"))
    assert warehouse.column(everything, *[shop.events[index].id] * 2) == ["P3"]


@pytest.mark.parametrize("ahead", OFFSETS)
def test_a_profile_that_was_missing_in_the_future_is_not_confirmed(
    warehouse: Warehouse, shop: FakeAccount, ahead: timedelta
) -> None:
    """Two days are needed to erase a profile. A run that was ahead is not the second one."""
    for profile_id, (person, updated) in shop.profiles.items():
        shop.profiles[profile_id] = (person._replace(created=days_ago(20)), updated)
    warehouse.daily()
    removed = shop.profiles.pop("P3")
    warehouse.execute("DELETE FROM watermarks WHERE stream LIKE 'profile_sweep%%'")
    warehouse.daily()
    assert warehouse.one("SELECT left_reason FROM members WHERE id = 'P3'") == "deleted"
    run_ahead(warehouse, shop, ahead)
    warehouse.execute("UPDATE missing_profiles SET last_missing_at = last_missing_at + %s", ahead)
    assert warehouse.daily(deleted_profiles="erase").state == "complete"
    assert warehouse.one("SELECT count(*) FROM erased") == 0
    shop.profiles["P3"] = (removed[0], datetime.now(UTC))
    warehouse.daily()
    assert warehouse.one("SELECT deleted_at FROM members WHERE id = 'P3'") is None


def test_sweeps_from_the_future_are_due_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Someone who has left a list is noticed, although the last sweep was recorded for next year."""
    warehouse.daily()
    warehouse.execute("DELETE FROM watermarks WHERE stream LIKE 'membership_sweep%%'")
    run_ahead(warehouse, shop, YEAR)
    shop.members["L1"] = shop.members["L1"][:1]
    warehouse.daily()
    assert_complete(warehouse, shop)


def test_history_from_the_future_is_read_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Chunks of days that had not come when they were read are forgotten, also once these days are over."""
    assert warehouse.backfill(days_ago(8)).state == "complete"
    warehouse.execute("UPDATE backfill_chunks SET window_end = window_end + interval '2 days' WHERE metric_id = 'OPEN'")
    late = shop.events[-1]._replace(id="LATE", at=days_ago(0.5))
    warehouse.execute("UPDATE backfill_chunks SET updated_at = window_end - interval '1 day' WHERE metric_id = 'ORDER'")
    shop.events.append(late)
    again = warehouse.backfill(days_ago(8))
    assert again.state == "complete" and "chunks of history" in again.sentences[0]
    assert "LATE" in warehouse.event_ids()
    assert warehouse.backfill(days_ago(8)).sentences == []


def test_large_losses_from_the_future_can_be_confirmed(warehouse: Warehouse, shop: FakeAccount) -> None:
    for number in range(20):
        shop.add_list(f"X{number}", f"List {number}")
    warehouse.daily("lists")
    del shop.lists[2:]
    assert warehouse.daily("lists").state == "partial"
    warehouse.execute("UPDATE missing_rows SET missed_at = now() + interval '1 year'")
    assert warehouse.daily("lists").state == "partial"
    warehouse.wait_for_the_next_second()
    assert warehouse.daily("lists").state == "complete"
