"""The bookkeeping tables (accounts, runs, chunks, watermarks and counts), and lookups of stored rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import accounts, clock, details, lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.event_tables import move_events
from klaviyo_pg.postgres.ledgers import backfill_ledger, chunk_ledger, run_ledger, watermarks
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState, RunState
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import Window
from tests.driver import PATIENCE
from tests.integration.conftest import SCHEMA
from tests.locks import assert_waits

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOADED = datetime(2026, 1, 1, tzinfo=UTC)


def open_run(account: Account, **changes: Any) -> run_ledger.OpenedRun:
    """Open a daily run at noon, with some of that changed."""
    arguments: dict[str, Any] = {"flow": "daily", "selection": "all", "now": NOON, "is_limited": False}
    return run_ledger.open_run(account, **(arguments | changes))


def test_an_account_keeps_its_id(connection: psycopg.Connection) -> None:
    first = accounts.register(connection, SCHEMA, "shop", None)
    assert accounts.find(connection, SCHEMA, "shop") == (first.integration_id, None, "keep", None)
    assert accounts.register(connection, SCHEMA, "shop", "ACC1") == first
    assert accounts.register(connection, SCHEMA, "shop", None) == first
    assert accounts.find(connection, SCHEMA, "shop") == (first.integration_id, "ACC1", "keep", None)
    another = accounts.register(connection, SCHEMA, "another", "ACC2")
    assert another != first
    assert accounts.all_accounts(connection, SCHEMA) == [("another", another), ("shop", first)]
    assert accounts.find(connection, SCHEMA, "not registered") is None


def test_protection_is_recorded_when_an_account_is_registered(connection: psycopg.Connection) -> None:
    """Registering the account again does not change it. A row from before it was recorded means keep."""
    accounts.register(connection, SCHEMA, "shop", None, "hash", "digest")
    registered = accounts.register(connection, SCHEMA, "shop", None, "keep", None)
    assert accounts.find(connection, SCHEMA, "shop") == (registered.integration_id, None, "hash", "digest")
    connection.execute("UPDATE integrations SET personal_data = NULL, salt_digest = NULL")
    assert accounts.find(connection, SCHEMA, "shop") == (registered.integration_id, None, "keep", None)


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.FAILED, RunState.TO_BE_CONTINUED])
def test_an_unfinished_run_is_resumed(account: Account, state: RunState) -> None:
    """The resumed run keeps its point in time, so that it has the same chunks."""
    first = open_run(account)
    if state is not RunState.RUNNING:
        run_ledger.close_run(account, first.run_id, state, "an error")
    again = open_run(account, now=NOON + timedelta(hours=3))
    assert again == (first.run_id, NOON, True, False)
    rows = account.connection.execute("SELECT state, message, started_at FROM runs").fetchall()
    assert rows == [("running", None, NOON + timedelta(hours=3))]


@pytest.mark.parametrize(
    ("first", "second", "is_limited"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_run_is_limited_if_arguments_always_limited_it(
    account: Account, first: bool, second: bool, is_limited: bool
) -> None:
    """A selection by arguments can be the one of the settings."""
    open_run(account, is_limited=first)
    assert open_run(account, is_limited=second).is_limited == is_limited
    assert account.connection.execute("SELECT is_limited FROM runs").fetchall() == [(is_limited,)]


@pytest.mark.parametrize(
    ("state", "integration_id", "changes"),
    [
        pytest.param(RunState.COMPLETE, "one", {}, id="complete run"),
        pytest.param(RunState.PARTIAL, "one", {}, id="partial run"),
        pytest.param(RunState.FAILED, "one", {"now": NOON + DAY / 2}, id="run of another day"),
        pytest.param(RunState.FAILED, "one", {"selection": "opens"}, id="run of another selection"),
        pytest.param(RunState.FAILED, "one", {"flow": "backfill"}, id="run of another flow"),
        pytest.param(RunState.FAILED, "two", {}, id="run of another account"),
    ],
)
def test_other_runs_are_not_resumed(
    account: Account, state: RunState, integration_id: str, changes: dict[str, Any]
) -> None:
    first = open_run(account)
    run_ledger.close_run(account, first.run_id, state, None)
    second = open_run(Account(account.connection, SCHEMA, integration_id), **changes)
    assert second.run_id != first.run_id
    assert (second.as_of, second.is_resumed) == (changes.get("now", NOON), False)


@pytest.mark.parametrize("start", [NOON + HOUR, NOON + DAY])
def test_a_restart_that_was_stopped_after_its_last_event_resumes(account: Account, start: datetime) -> None:
    """It may still lack people. It is over once another run has ended after it."""
    first = open_run(account)
    assert run_ledger.restart(account, first.run_id, lambda as_of: False)
    run_ledger.close_run(account, first.run_id, RunState.STOPPED, None)
    again = open_run(account, now=start)
    assert not run_ledger.restart(account, again.run_id, lambda as_of: True)
    run_ledger.close_run(account, again.run_id, RunState.STOPPED, None)
    other = open_run(account, selection="without", now=start)
    run_ledger.close_run(account, other.run_id, RunState.COMPLETE, None)
    assert not run_ledger.restart(account, open_run(account, now=start).run_id, lambda as_of: False)
    assert run_ledger.restart(account, open_run(account, now=start).run_id, lambda as_of: as_of == again.as_of)


@pytest.mark.parametrize("state", RunState)
def test_states_are_stored_as_their_values(account: Account, state: RunState) -> None:
    """The tables contain `to be continued`, not the name of the enum member."""
    run_ledger.close_run(account, open_run(account).run_id, state, None)
    assert account.connection.execute("SELECT state FROM runs").fetchall() == [(state.value,)]
    last = run_ledger.last_run(account)
    assert last is not None and last.state is state


def test_the_last_run_of_an_account_is_the_one_that_started_last(account: Account) -> None:
    assert run_ledger.last_run(account) is None
    for flow, days in (("daily", 1), ("backfill", 2), ("reconcile", 0)):
        opened = open_run(account, flow=flow, now=NOON + days * DAY)
        counts = {"opens": {"rows_read": 2 + days, "inserted": 1}, "sends": {"rows_read": 1}}
        run_ledger.add_counts(account, opened.run_id, counts)
    last = run_ledger.last_run(account)
    assert last is not None
    assert (last.flow, last.state, last.started_at) == ("backfill", RunState.RUNNING, NOON + 2 * DAY)
    assert (last.rows_read, last.inserted, last.updated, last.rejected) == (5, 1, 0, 0)
    assert (last.message, last.finished_at, last.duration) == (None, None, None)
    assert run_ledger.last_run(Account(account.connection, SCHEMA, "two")) is None


def test_the_last_duration_is_that_of_a_complete_run_after_the_first(account: Account) -> None:
    """The account's first run reads everything, so it says nothing about later ones; nor does a run that failed."""

    def finished(start: datetime, minutes: int, state: RunState = RunState.COMPLETE) -> None:
        run = open_run(account, now=start)
        run_ledger.close_run(account, run.run_id, state, None)
        end = start + timedelta(minutes=minutes)
        account.execute("UPDATE runs SET finished_at = %(end)s WHERE run_id = %(run)s", end=end, run=run.run_id)

    finished(NOON, 60)
    assert run_ledger.last_duration(account, "daily", "all") is None
    finished(NOON + DAY, 5, RunState.COMPLETE_WITH_DIFFERENCES)
    finished(NOON + 2 * DAY, 1, RunState.PARTIAL)
    assert run_ledger.last_duration(account, "daily", "all") == timedelta(minutes=5)
    assert run_ledger.last_duration(account, "daily", "others") is None
    assert run_ledger.last_duration(account, "backfill", "all") is None


def test_a_first_load_after_a_failure_is_a_first_run_too(account: Account) -> None:
    """On another day it does not resume the run that failed, but it reads everything."""
    run_ledger.close_run(account, open_run(account, now=NOON).run_id, RunState.FAILED, "the key is wrong")
    account.execute("UPDATE runs SET finished_at = started_at")
    loading = open_run(account, now=NOON + DAY)
    assert not loading.is_resumed
    run_ledger.close_run(account, loading.run_id, RunState.COMPLETE, None)
    account.execute("UPDATE runs SET finished_at = started_at + interval '5 hours' WHERE state = 'complete'")
    assert run_ledger.last_duration(account, "daily", "all") is None


def test_a_run_is_found_by_the_name_of_its_account(connection: psycopg.Connection) -> None:
    shop = accounts.register(connection, SCHEMA, "shop", "ACC1")
    accounts.register(connection, SCHEMA, "another", "ACC2")
    run = open_run(shop)
    assert run_ledger.find_run(connection, SCHEMA, "shop", run.run_id) == (shop.integration_id, "ACC1", NOON, False)
    run_ledger.take(shop, "daily", run.run_id, "session")
    assert run_ledger.find_run(connection, SCHEMA, "shop", run.run_id) == (shop.integration_id, "ACC1", NOON, True)
    assert run_ledger.find_run(connection, SCHEMA, "another", run.run_id) is None
    assert run_ledger.find_run(connection, SCHEMA, "shop", "no such run") is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.none() | st.integers(0, 30), st.integers(0, 30)), min_size=1))
def test_watermarks_move_neither_back_nor_over_a_gap(account: Account, periods: list[tuple[int | None, int]]) -> None:
    """Everything before a watermark has been read, so only a period that starts at or before it can move it."""
    account.connection.execute("TRUNCATE watermarks")
    seen: list[datetime] = []
    for start, until in periods:
        begin = None if start is None else NOON + start * DAY
        watermarks.advance(account, "events/a", begin, NOON + until * DAY, "opens", "a")
        seen.append(watermarks.read(account)["events/a"])
    for (before, after), (start, until) in zip(pairwise(seen), periods[1:], strict=True):
        joins = start is None or NOON + start * DAY <= before
        assert after == (max(before, NOON + until * DAY) if joins else before)


def test_each_stream_of_each_account_has_its_watermark(account: Account) -> None:
    others = [Account(account.connection, SCHEMA, name) for name in ("two", "three")]
    watermarks.advance(account, "events/a", None, NOON + DAY, "opens", "a")
    watermarks.advance(account, "profiles", None, NOON + 2 * DAY, "members")
    watermarks.advance(others[0], "events/a", None, NOON + 3 * DAY, "opens", "a")
    assert watermarks.read(account) == {"events/a": NOON + DAY, "profiles": NOON + 2 * DAY}
    assert watermarks.read(others[1]) == {}
    assert [watermarks.find(each, "events/a") for each in (account, *others)] == [NOON + DAY, NOON + 3 * DAY, None]


def test_a_watermark_does_not_count_while_what_was_read_is_out_of_date(account: Account) -> None:
    """A later read makes it count again, unless something was out of date up to its time."""
    for stream in ("list_members/L1", "list_members/L2", "profiles"):
        watermarks.advance(account, stream, None, NOON, "members")
    watermarks.outdate(account, ["list_members"])
    assert watermarks.valid(account) == {"profiles": NOON} | {
        watermarks.outdated(f"list_members/{each}"): NOON for each in ("L1", "L2")
    }
    watermarks.advance(account, "list_members/L1", None, NOON + DAY, "members")
    assert watermarks.valid(account)["list_members/L1"] == NOON + DAY
    watermarks.outdate(account, ["list_members"])
    assert "list_members/L1" not in watermarks.valid(account)
    details.record_outdated(account, NOON - DAY)
    assert watermarks.valid(account)["profiles"] == NOON
    details.record_outdated(account, NOON + DAY)
    assert "profiles" not in watermarks.valid(account)


def test_a_watermark_of_an_older_version_gets_its_table_and_subject(account: Account) -> None:
    insert = "INSERT INTO watermarks (esp_integration_id, stream, watermark) VALUES ('one', 'list_members/L1', %s)"
    account.connection.execute(insert, [NOON])
    watermarks.advance(account, "list_members/L1", None, NOON + DAY, "stg_member_lists", "L1")
    rows = account.connection.execute("SELECT watermark, table_name, subject FROM watermarks").fetchall()
    assert rows == [(NOON + DAY, "stg_member_lists", "L1")]


def test_planning_again_keeps_chunks_that_are_done(account: Account) -> None:
    run = open_run(account).run_id
    assert chunk_ledger.plan_chunks(account, run, [("a", "1"), ("a", "2")]) == set()
    chunk_ledger.finish(account, run, "a", "1")
    assert chunk_ledger.plan_chunks(account, run, [("a", "1"), ("a", "2"), ("b", "1")]) == {("a", "1")}
    assert chunk_ledger.plan_chunks(account, "another run", [("a", "1")]) == set()


def test_the_last_chunk_of_a_stream_to_finish_is_reported(account: Account) -> None:
    """The order does not matter, and chunks of other streams do not count."""
    run = open_run(account).run_id
    chunk_ledger.plan_chunks(account, run, [("a", "1"), ("a", "2"), ("b", "1")])
    assert not chunk_ledger.finish(account, run, "a", "2")
    assert chunk_ledger.finish(account, run, "a", "1")
    assert chunk_ledger.finish(account, run, "b", "1")


def finish_second(connect: Any, act: Callable[[Account, str], object]) -> bool:
    """Act in a transaction on a run whose stream `a` has the chunks 1 and 2, while another one finishes chunk 2.

    Return whether that one reported chunk 2 as the last.
    """
    one, two = (Account(connect(), SCHEMA, "one") for _ in range(2))
    run = open_run(one).run_id
    chunk_ledger.plan_chunks(one, run, [("a", "1"), ("a", "2")])

    def second() -> bool:
        with two.connection.transaction():
            return chunk_ledger.finish(two, run, "a", "2")

    with ThreadPoolExecutor(1) as pool:
        with one.connection.transaction():
            act(one, run)
            waiting = pool.submit(second)
            assert_waits(connect(), waiting)
        return waiting.result(PATIENCE)


def test_one_of_two_chunks_that_finish_at_the_same_time_is_the_last(connect: Any) -> None:
    """The second waits for the first to commit. Otherwise neither would advance the watermark."""
    first: list[bool] = []
    second = finish_second(connect, lambda account, run: first.append(chunk_ledger.finish(account, run, "a", "1")))
    assert (first, second) == ([False], True)


def test_a_chunk_that_finishes_while_another_one_is_divided_is_not_the_last(connect: Any) -> None:
    """New chunks have the rest of the other one. Otherwise the watermark would pass what they have not read."""
    assert not finish_second(connect, lambda account, run: chunk_ledger.divide(account, run, "a", "1", ["1a", "1b"]))


def test_a_chunk_that_is_rolled_back_is_not_done(account: Account) -> None:
    """Rows and their bookkeeping share a transaction."""
    run = open_run(account).run_id
    chunk_ledger.plan_chunks(account, run, [("a", "1")])
    with pytest.raises(ZeroDivisionError), account.connection.transaction():
        chunk_ledger.finish(account, run, "a", "1")
        raise ZeroDivisionError
    assert chunk_ledger.plan_chunks(account, run, []) == set()


@pytest.mark.parametrize(
    ("done", "reopened"),
    [
        pytest.param("- interval '1 hour'", 1, id="an hour ago"),
        pytest.param("", 0, id="just now"),
        pytest.param("+ interval '1 day'", 1, id="before the database's clock was set back"),
    ],
)
def test_chunks_that_were_not_done_just_now_are_reopened(account: Account, done: str, reopened: int) -> None:
    run = open_run(account).run_id
    chunk_ledger.plan_chunks(account, run, [("a", "1")])
    chunk_ledger.finish(account, run, "a", "1")
    account.connection.execute(f"UPDATE chunks SET done_at = done_at {done}")
    with account.connection.transaction():
        assert chunk_ledger.reopen(account, run, [("a", "1")], timedelta(minutes=1)) == reopened


def test_the_checkpoint_of_a_chunk_never_moves_back(account: Account) -> None:
    """A finished chunk keeps its checkpoint; other chunks, of this run or another, have their own."""
    run, other = open_run(account).run_id, open_run(account, selection="other").run_id
    for each in (run, other):
        chunk_ledger.plan_chunks(account, each, [("a", "1"), ("a", "2")])
    assert chunk_ledger.progress(account, run, "a", "1") == (ChunkState.PLANNED, None)
    for reached in (NOON, NOON + HOUR, NOON):
        chunk_ledger.advance(account, run, "a", "1", reached)
    assert chunk_ledger.progress(account, run, "a", "1") == (ChunkState.PLANNED, NOON + HOUR)
    chunk_ledger.finish(account, run, "a", "1")
    done = chunk_ledger.progress(account, run, "a", "1")
    assert done.state is ChunkState.DONE
    assert done == (ChunkState.DONE, NOON + HOUR)
    assert chunk_ledger.progress(account, run, "a", "2") == (ChunkState.PLANNED, None)
    assert chunk_ledger.progress(account, other, "a", "1") == (ChunkState.PLANNED, None)


def backfill_chunk(metric_id: str, day: int, **changes: Any) -> BackfillChunk:
    return BackfillChunk(metric_id, NOON + day * DAY, NOON + (day + 1) * DAY, 10)._replace(**changes)


def test_backfill_chunks_are_recorded_once(account: Account) -> None:
    """Adding a chunk again keeps its progress. Empty chunks can be added as done."""
    planned = [
        backfill_chunk("b", 0),
        backfill_chunk("a", 1, expected=0, state=ChunkState.DONE),
        backfill_chunk("a", 0),
    ]
    backfill_ledger.add(account, planned)
    backfill_ledger.advance(account, planned[0], 4, 0.5, NOON + HOUR)
    backfill_ledger.add(account, planned)
    recorded = backfill_ledger.chunks(account)
    assert recorded == [planned[2], planned[1], planned[0]._replace(loaded=4, seconds=0.5, reached=NOON + HOUR)]
    assert [each.state for each in recorded] == [ChunkState.PLANNED, ChunkState.DONE, ChunkState.PLANNED]
    assert all(isinstance(each.state, ChunkState) for each in recorded)
    assert backfill_ledger.chunks(Account(account.connection, SCHEMA, "two")) == []


def test_a_backfill_chunk_keeps_the_run_that_planned_it(account: Account) -> None:
    """Another run that counts or adds it does not change that."""
    [added] = backfill_ledger.add(account, [backfill_chunk("a", 0)], "one")
    assert added.planned_by == "one"
    backfill_ledger.add(account, [added], "two")
    backfill_ledger.recount(account, [added], "two")
    assert backfill_ledger.chunks(account) == [added]


def test_a_backfill_chunk_advances_fails_and_finishes(account: Account) -> None:
    """A failure keeps the checkpoint, a new attempt clears the error, and finishing reaches the end of the window.

    Only a reader that knows the checkpoint advances it, and what is done does not fail.
    """
    chunk = backfill_chunk("a", 0)
    error = "SELECT attempts, error FROM backfill_chunks"
    backfill_ledger.add(account, [chunk])
    backfill_ledger.begin(account, chunk)
    backfill_ledger.advance(account, chunk, 3, 1.0, NOON + HOUR)
    backfill_ledger.fail(account, chunk, "an error")
    failed = backfill_ledger.chunk(account, chunk)
    assert failed == chunk._replace(loaded=3, seconds=1.0, reached=NOON + HOUR, state=ChunkState.FAILED)
    assert (failed.left, failed.waiting) == (Window(NOON + HOUR, NOON + DAY), 7)
    assert account.connection.execute(error).fetchall() == [(1, "an error")]
    backfill_ledger.begin(account, chunk)
    assert not backfill_ledger.advance(account, chunk, 5, 1.0, NOON + 2 * HOUR)
    assert backfill_ledger.advance(account, failed, 8, 1.5, None)
    backfill_ledger.fail(account, failed, "a late error")
    backfill_ledger.begin(account, chunk)
    done = backfill_ledger.chunk(account, chunk)
    assert done == chunk._replace(loaded=11, seconds=2.5, reached=NOON + DAY, state=ChunkState.DONE)
    assert done.waiting == 0
    assert account.connection.execute(error).fetchall() == [(2, None)]


def test_backfill_chunks_in_a_window_are_forgotten(account: Account) -> None:
    """One that is partly outside is planned again as a whole."""
    planned = [backfill_chunk(metric, day) for metric in ("a", "b", "c") for day in range(4)]
    backfill_ledger.add(account, planned)
    for each in planned:
        backfill_ledger.advance(account, each, 10, 1.0, None)
    backfill_ledger.forget(account, ["a", "b"], Window(NOON + DAY, NOON + 2 * DAY + HOUR), "restart")
    stored = {(each.metric_id, each.window_start): each for each in backfill_ledger.chunks(account)}
    for each in planned:
        left = stored.get((each.metric_id, each.window_start))
        if each.metric_id == "c" or each.window_start in (NOON, NOON + 3 * DAY):
            assert left is not None and left.state is ChunkState.DONE
        else:
            assert left == (
                None if each.window_start == NOON + DAY else each._replace(expected=None, planned_by="restart")
            )


def test_row_counts_add_up(account: Account) -> None:
    """They are added up over batches, by run and table. Counts that a batch does not pass are 0."""
    run, other = open_run(account).run_id, open_run(account, selection="other").run_id
    run_ledger.add_counts(account, run, {"opens": {"rows_read": 3, "inserted": 2, "unchanged": 1}})
    run_ledger.add_counts(account, run, {"opens": {"rows_read": 1, "rejected": 1}, "sends": {}})
    run_ledger.add_counts(account, other, {"opens": {"rows_read": 9}})
    nothing = dict.fromkeys(run_ledger.COUNTS, 0)
    assert run_ledger.run_counts(account, run) == {
        "opens": nothing | {"rows_read": 4, "inserted": 2, "unchanged": 1, "rejected": 1},
        "sends": nothing,
    }


def test_requests_add_up(account: Account) -> None:
    """A run that is resumed keeps its requests."""
    run = open_run(account).run_id
    run_ledger.add_requests(account, run, Traffic(5, 1))
    open_run(account)
    run_ledger.add_requests(account, run, Traffic(2, 2))
    assert run_ledger.run_requests(account, run) == (7, 3)
    assert run_ledger.run_requests(account, "no such run") == (0, 0)


def test_events_move_with_their_metric(merged: Any, account: Account) -> None:
    """All columns move, and events of other metrics and accounts stay."""
    [[metric_key]] = account.connection.execute("SELECT md5('Klaviyo:one:m')").fetchall()
    event = {"id": "e", "value": "1.50", "properties": '{"a": 1}', "email": "a@example.com"}
    merged(loads.EVENTS["events"], event | {"key": "k1", "metric_key": metric_key})
    merged(loads.EVENTS["events"], event | {"key": "k2", "metric_key": "another"})
    before = account.connection.execute("SELECT * FROM events WHERE key = 'k1'").fetchall()
    assert move_events(Account(account.connection, SCHEMA, "two"), "m", "events", "opens") == 0
    assert move_events(account, "m", "events", "opens") == 1
    assert account.connection.execute("SELECT * FROM opens").fetchall() == before
    assert account.connection.execute("SELECT key FROM events").fetchall() == [("k2",)]


def test_metrics_and_lists_are_looked_up(merged: Any, account: Account) -> None:
    """Deleted metrics are included and marked, because they still have events. Deleted lists and segments are not."""
    two = Account(account.connection, SCHEMA, "two")
    for name in ("two", "one"):
        metric = {"key": f"{name}m", "id": "m", "name": "Opened Email", "destination": "opens"}
        merged(loads.METRICS, metric, integration_id=name)
        both = [{"key": f"{name}{each}", "id": each, "list_type": "list"} for each in ("l1", "l2")]
        merged(loads.LISTS, *both, integration_id=name)
        segment = {"key": f"{name}s", "id": "s", "list_type": "segment"}
        merged(loads.SEGMENTS_AS_LISTS, segment, integration_id=name)
    merged(loads.METRICS)
    merged(loads.LISTS, both[0])
    assert lookups.metrics(account) == [("m", "Opened Email", "opens", True, None)]
    assert lookups.metrics(two) == [("m", "Opened Email", "opens", False, None)]
    assert lookups.list_ids(account) == ["l1"]
    assert lookups.list_ids(two) == ["l1", "l2"]


def test_subscribers_are_looked_up_in_pages(merged: Any, account: Account) -> None:
    """Only people whose joining was stored since then, by ID, with their email address or else their phone number."""
    people: list[dict[str, Any]] = [
        {"key": "1", "id": "p1", "email": "a@example.com", "phone_number": "+353"},
        {"key": "2", "id": "p2", "phone_number": "+354"},
        {"key": "3", "id": "p3"},
        {"key": "4", "id": "p4", "email": "d@example.com"},
    ]
    merged(loads.MEMBERS, *people)
    kinds = {"p1": "subscribed", "p2": "subscribed", "p3": "subscribed", "p4": "unsubscribed"}
    merged(
        loads.SUBSCRIPTION_CHANGES,
        *({"id": f"c{who}", "member_id": who, "change": each} for who, each in kinds.items()),
    )
    everyone = [("p1", "a@example.com"), ("p2", "+354"), ("p3", None)]
    assert lookups.subscribers(account, None, "", 10) == everyone
    assert lookups.subscribers(account, None, "p1", 1) == everyone[1:2]
    assert lookups.subscribers(account, datetime.now(UTC) + DAY, "", 10) == []
    assert lookups.subscribers(Account(account.connection, SCHEMA, "two"), None, "", 10) == []


def test_subscribers_of_several_lists_count_once(merged: Any, account: Account) -> None:
    joined = [("p1", "c1"), ("p1", "c2"), ("p2", "c3")]
    merged(
        loads.SUBSCRIPTION_CHANGES,
        *({"id": change, "member_id": who, "change": "subscribed"} for who, change in joined),
        {"id": "c4", "member_id": "p3", "change": "unsubscribed"},
    )
    assert lookups.count_subscribers(account) == 2
    assert lookups.count_subscribers(Account(account.connection, SCHEMA, "two")) == 0


def test_incomplete_people_are_found_in_order_by_the_digits_of_their_keys(merged: Any, account: Account) -> None:
    """Someone who was missing is looked for again once, a day later."""
    stubs = [{"key": f"{number}", "id": f"p{number}", "member_key": "k"} for number in range(1, 7)]
    merged(loads.MEMBER_STUBS, *stubs)
    merged(loads.MEMBERS, {"key": "1", "id": "p1", "created_at": LOADED, "updated_at": LOADED})
    merged(loads.MEMBERS, {"key": "2", "id": "p2", "updated_at": LOADED})
    now = datetime.now(UTC)
    missing = {"p3": (now, now), "p4": (now - 2 * DAY, now - 2 * DAY), "p5": (now - 9 * DAY, now - 2 * DAY)}
    for each, (first, last) in missing.items():
        merged(loads.MISSING_PROFILES, {"member_id": each, "missing_since": first, "last_missing_at": last})
    everyone = lookups.incomplete_members(account, None, lookups.DIGITS, "", 10)
    assert everyone == ["p4", "p6"]
    assert lookups.count_incomplete(account, 10) == 2 and lookups.count_incomplete(account, 1) == 1
    assert lookups.incomplete_members(account, None, "456", "", 1) == ["p4"]
    assert lookups.incomplete_members(account, None, "456", "p4", 1) == ["p6"]
    assert lookups.incomplete_members(account, None, "45", "p4", 1) == []
    assert lookups.incomplete_members(account, LOADED, lookups.DIGITS, "", 10) == ["p2", "p4", "p6"]
    assert lookups.incomplete_members(Account(account.connection, SCHEMA, "two"), None, lookups.DIGITS, "", 10) == []


def test_a_chunk_that_was_divided_is_done_and_its_pieces_are_planned(account: Account) -> None:
    chunk_ledger.plan_chunks(account, "run", [("profiles", "..")])
    chunk_ledger.divide(account, "run", "profiles", "..", ["a..b", "b.."])
    assert chunk_ledger.parts(account, "run", "profiles") == ["a..b", "b.."]
    assert chunk_ledger.progress(account, "run", "profiles", "..").state == ChunkState.DONE
    assert not chunk_ledger.finish(account, "run", "profiles", "a..b")
    assert chunk_ledger.finish(account, "run", "profiles", "b..")


def test_the_oldest_transaction_can_be_that_of_another_connection(connect: Callable[[], psycopg.Connection]) -> None:
    """Rows that it stores have the time of its start, and are visible once it is no longer open."""
    one, other = connect(), connect()
    with one.transaction():
        began = clock.present(one)
        with other.transaction():
            assert clock.oldest_transaction(other) == began < clock.present(other)
    with other.transaction():
        assert clock.oldest_transaction(other) == clock.present(other)
