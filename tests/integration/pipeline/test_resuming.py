"""Runs that resume an unfinished one: they say so, and read again what may have changed since it was read."""

import pytest

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.rows import Group
from klaviyo_pg.windows import FULL_READ
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import HOUR, Result, Warehouse, days_ago
from tests.rows import campaign_row
from tests.runs import ALL_EVENTS


def wait(warehouse: Warehouse) -> None:
    """Move what the runs so far have done two minutes back."""
    warehouse.execute("UPDATE chunks SET done_at = done_at - interval '2 minutes'")


def note(ran: Result) -> str:
    """Return the sentence about the run that was resumed."""
    return (
        f"Resumed the unfinished run of {ran.run.as_of:%Y-%m-%d %H:%M} UTC. Windows of past events that it had "
        "finished were not read again."
    )


def test_a_run_that_resumes_says_so(warehouse: Warehouse, shop: FakeAccount, caplog: pytest.LogCaptureFixture) -> None:
    """In its log, in its result and in the warehouse. Its state is that of any run."""
    shop.fail("profiles", BadAnswer("Odd."))
    failed = warehouse.daily()
    assert failed.sentences == ["Odd."]
    shop.recover()
    with caplog.at_level("INFO"):
        resumed = warehouse.daily()
    assert (resumed.run.id, resumed.state, resumed.exit_code) == (failed.run.id, "complete", 0)
    assert resumed.sentences == [note(failed)]
    assert note(failed) in caplog.messages
    assert warehouse.rows("SELECT state, message FROM runs") == [("complete", note(failed))]
    assert warehouse.daily().sentences == []


def test_dimensions_are_read_again_after_a_minute(
    warehouse: Warehouse, shop: FakeAccount, caplog: pytest.LogCaptureFixture
) -> None:
    """A run on the same day would otherwise end as complete with the dimensions of the morning."""
    shop.fail("profiles", BadAnswer("Odd."))
    assert warehouse.daily().state == "failed"
    shop.recover()
    shop.segments.append(Group("S1", "Buyers", LONG_AGO))
    shop.campaigns.append(campaign_row("C1"))
    shop.lists[0] = shop.lists[0]._replace(name="Renamed")
    shop.metrics.pop()
    wait(warehouse)
    with caplog.at_level("INFO"):
        assert warehouse.daily().state == "complete"
    assert "5 of 5 chunks end in the present and were read before: they are read again" in caplog.messages
    assert warehouse.one("SELECT name FROM lists WHERE id = 'L1'") == "Renamed"
    assert warehouse.column("SELECT id FROM lists WHERE list_type = 'segment'") == ["S1"]
    assert warehouse.column("SELECT id FROM campaigns") == ["C1"]
    assert warehouse.column("SELECT id FROM metrics WHERE deleted_at IS NOT NULL") == ["ORDER"]


def test_dimensions_that_were_read_just_now_are_not_read_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("profiles", BadAnswer("Odd."))
    assert warehouse.daily().state == "failed"
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert not {"metrics", "lists", "segments", "campaigns", "flows", "tags", "exclusions"} & {
        each.kind for each in shop.requests
    }


def test_people_and_members_are_read_again_by_each_attempt(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The second attempt finished them, and the third one finds what has changed since, also people of new members."""
    shop.fail("events", BadAnswer("Odd."))
    assert warehouse.daily().state == "failed"
    assert warehouse.daily().state == "failed"
    wait(warehouse)
    shop.recover()
    shop.add_person("P0", days_ago(-0.5), first_name="Ada")
    shop.add_person("P8", LONG_AGO)
    shop.add_member("L1", "P8", days_ago(0))
    resumed = warehouse.daily()
    assert (resumed.state, len(warehouse.column("SELECT run_id FROM runs"))) == ("complete", 1)
    assert warehouse.one("SELECT first_name FROM members WHERE id = 'P0'") == "Ada"
    assert "P8" in warehouse.column("SELECT member_id FROM member_lists WHERE list_id = 'L1'")
    assert "P8" in warehouse.column("SELECT id FROM members")


def test_a_sweep_of_a_list_that_was_interrupted_is_resumed(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Although the other list has been read up to the present since."""
    assert warehouse.daily().state == "complete"
    warehouse.execute("UPDATE watermarks SET watermark = watermark - interval '8 days'")
    shop.recover()
    shop.fail("memberships", BadAnswer("Odd."), "L2")
    failed = warehouse.daily()
    assert failed.state == "failed"
    marks = ("list_members/L2", "membership_sweep/L2")
    assert all(warehouse.watermarks()[each] < failed.run.as_of for each in marks)
    shop.recover()
    assert warehouse.daily().state == "complete"
    assert {each.window for each in shop.sent("memberships", "L2")} == {FULL_READ}
    assert all(warehouse.watermarks()[each] == failed.run.as_of for each in marks)


def test_the_order_of_selected_tables_does_not_matter(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("lists", BadAnswer("Odd."))
    failed = warehouse.daily("lists", "metrics")
    shop.recover()
    assert warehouse.daily("metrics", "lists").run.id == failed.run.id


def test_a_run_that_an_earlier_version_began_is_resumed(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Its windows of profiles have no zone."""
    shop.fail("profiles", BadAnswer("Odd."))
    assert warehouse.daily().state == "failed"
    warehouse.execute("UPDATE chunks SET part = '2010-01-01T00:00..', reached = %s WHERE stream = 'profiles'", LONG_AGO)
    shop.recover()
    resumed = warehouse.daily()
    assert resumed.state == "complete"
    assert warehouse.watermarks()["profiles"] == resumed.run.as_of


def test_the_last_window_of_events_is_read_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It has no end. Windows that have one are not."""

    def fail_past_windows() -> None:
        if shop.requests[-1].window.end is not None and shop.requests[-1].window.end < days_ago(3):
            raise BadAnswer("Odd.")

    shop.before("events", fail_past_windows, times=None)
    failed = warehouse.daily(*ALL_EVENTS, concurrency=1)
    assert failed.state == "failed"
    stored = {each.window for each in shop.sent("events")}
    shop.recover()
    wait(warehouse)
    [late] = shop.add_events("ORDER", failed.run.as_of + HOUR)
    assert warehouse.daily(*ALL_EVENTS, concurrency=1).state == "complete"
    assert late in warehouse.event_ids()
    again = stored & {each.window for each in shop.sent("events")}
    assert [each for each in again if each.end is None or each.end >= days_ago(3)] == [
        each for each in stored if each.end is None
    ]


def test_a_backfill_that_resumes_reads_dimensions_again(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.before("events", warehouse.stop)
    stopped = warehouse.backfill(days_ago(8))
    assert stopped.state == "stopped"
    shop.recover()
    wait(warehouse)
    shop.lists[0] = shop.lists[0]._replace(name="Renamed")
    resumed = warehouse.backfill(days_ago(8))
    assert (resumed.state, resumed.sentences) == ("complete", [note(stopped)])
    assert warehouse.one("SELECT name FROM lists WHERE id = 'L1'") == "Renamed"
