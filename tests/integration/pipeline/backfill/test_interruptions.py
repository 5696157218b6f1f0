"""Backfills that fail, stop or are postponed: what is stored stays, and the next run reads the rest."""

import pytest

from klaviyo_pg.errors import BadKey, MissingScope, Throttled, Unavailable
from tests.fakes import FakeAccount
from tests.integration.pipeline.backfill.conftest import OPENS, START, Backfill, assert_complete
from tests.integration.pipeline.conftest import Warehouse


def test_a_failing_chunk_leaves_the_run_partial(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    """The ledger has its error, the others are loaded, and the next run reads only that chunk."""
    shop.fail("events", Unavailable("Away."), subject="ORDER")
    ran = backfill()
    assert (ran.state, ran.sentences, ran.exit_code) == ("partial", ["Away."], 3)
    failed = warehouse.rows("SELECT metric_id, state, error FROM backfill_chunks WHERE state <> 'done'")
    assert failed == [("ORDER", "failed", "Away.")]
    assert len(warehouse.column("SELECT id FROM opens")) == OPENS
    shop.recover()
    assert backfill().state == "complete"
    assert {each.subject for each in shop.sent("events")} == {"ORDER"}
    assert_complete(warehouse, shop)
    assert set(warehouse.column("SELECT error FROM backfill_chunks")) == {None}


def test_a_chunk_that_fails_midway_resumes_at_its_checkpoint(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """Batches of 2,000 events are stored, or spooled, as they are read."""
    shop.fail("events", Unavailable("Away."), subject="OPEN", page=5)
    assert backfill(chunk_events=10_000).state == "partial"
    shop.recover()
    assert backfill(chunk_events=10_000).state == "complete"
    assert len(shop.sent("events", "OPEN")) == 3, "a thousand events are left, and those of one second"
    assert shop.sent("events")[0].window.start != START
    assert_complete(warehouse, shop)


def test_a_long_pause_postpones_the_rest(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    """No other chunk begins, and the next run resumes."""
    shop.fail("events", Throttled("Wait a day."))
    ran = backfill(concurrency=1)
    assert (ran.state, ran.sentences, ran.exit_code) == ("to be continued", ["Wait a day."], 4)
    assert len(shop.sent("events")) == 1
    shop.recover()
    assert backfill().state == "complete"
    assert_complete(warehouse, shop)


def test_an_error_that_the_user_has_to_fix_fails_the_run(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """Nothing else begins: it would fail, too."""
    shop.events_per_page = 50  # so that each unit reads a single chunk
    shop.fail("events", BadKey("Revoked."))
    ran = backfill(concurrency=1)
    assert (ran.state, ran.sentences, ran.exit_code) == ("failed", ["Revoked."], 2)
    assert len(shop.sent("events")) == 1


def test_a_stopped_backfill_resumes_where_it_stopped(
    warehouse: Warehouse, shop: FakeAccount, backfill: Backfill
) -> None:
    """Events that are stored or spooled are not requested again."""
    shop.before("events", warehouse.stop, subject="OPEN", page=4)
    stopped = backfill(chunk_events=10_000, spool=False)
    assert stopped.exit_code == 130
    loaded = warehouse.one("SELECT sum(loaded) FROM klaviyo_internal.backfill_chunks")
    assert loaded > 0
    assert stopped.sentences[-1] == f"Stopped after {loaded:,} events. Rerun with the same arguments to resume."
    shop.recover()
    assert backfill(chunk_events=10_000).state == "complete"
    assert len(shop.sent("events", "OPEN")) <= 3
    assert_complete(warehouse, shop)


def test_a_stopped_restart_resumes_and_counts_once(warehouse: Warehouse, shop: FakeAccount, backfill: Backfill) -> None:
    """Also on the next day, as another run. Once it is complete, the next restart reads everything again."""
    assert backfill(chunk_events=10_000).state == "complete"
    shop.before("events", warehouse.stop, subject="OPEN", page=4)
    stopped = backfill(chunk_events=10_000, spool=False, restart=True)
    assert (stopped.state, stopped.exit_code) == ("stopped", 130)
    shop.recover()
    ran = backfill(chunk_events=10_000, spool=False, restart=True)
    assert ran.state == "complete"
    assert ran.run.id == stopped.run.id
    assert len(shop.sent("events", "OPEN")) <= 5
    assert sum(ran.counts["opens"][name] for name in ("inserted", "updated", "unchanged")) <= OPENS + 500
    assert_complete(warehouse, shop)
    shop.before("events", warehouse.stop, subject="OPEN", page=4)
    assert backfill(chunk_events=10_000, spool=False, restart=True).state == "stopped"
    warehouse.execute("UPDATE runs SET as_of = as_of - interval '1 day' WHERE state = 'stopped'")
    shop.recover()
    another = backfill(chunk_events=10_000, spool=False, restart=True)
    assert (another.state, len(shop.sent("events", "OPEN")) <= 5) == ("complete", True)
    assert_complete(warehouse, shop)
    shop.recover()
    assert backfill(chunk_events=10_000, restart=True).state == "complete"
    assert len(shop.sent("events", "OPEN")) >= OPENS // 500


@pytest.mark.parametrize("days", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_a_restart_that_was_finished_without_the_option_is_over(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, days: int, fails: bool
) -> None:
    """The next restart reads everything again, also on the same day, and if the other run was partial otherwise."""
    shop.before("events", warehouse.stop, subject="OPEN", page=4)
    assert spooled(restart=True, chunk_events=10_000).state == "stopped"
    warehouse.execute("UPDATE runs SET as_of = as_of - make_interval(days => %s)", days)
    shop.recover()
    if fails:
        shop.fail("lists", MissingScope("lists:read"))
    assert spooled(chunk_events=10_000).state == ("partial" if fails else "complete")
    shop.recover()
    assert spooled(restart=True, chunk_events=10_000).state == "complete"
    assert len(shop.sent("events", "OPEN")) >= OPENS // 500


@pytest.mark.parametrize("kind", ["events", "counts"])
def test_a_partial_restart_resumes(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, kind: str) -> None:
    """Nothing that was read after the restart is read once more.

    Once everything has been read, the next one starts over, also if that run was partial for another reason.
    """
    spooled()
    failing = {"events": "ORDER", "counts": "OPEN"}[kind]
    shop.fail(kind, Unavailable("It is away."), subject=failing)
    assert spooled(restart=True).state == "partial"
    read = {"OPEN", "ORDER"} - {failing}
    shop.recover()
    shop.fail("lists", MissingScope("lists:read"))
    assert spooled(restart=True).state == "partial"
    assert {each.subject for each in shop.sent("events")} == {failing}
    assert_complete(warehouse, shop)
    shop.recover()
    assert spooled(restart=True).state == "complete"
    assert {each.subject for each in shop.sent("events")} >= read
