"""What is known of the work itself: accounts, runs, chunks, watermarks and counts."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.postgres import ledger

SCHEMA = "klaviyo"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def open_run(connection: psycopg.Connection, **changes: Any) -> ledger.Opened:
    """A daily run of account one at noon, but for the changes."""
    run = {"integration_id": "one", "flow": "daily", "selection": "all", "now": NOON} | changes
    return ledger.open_run(connection, SCHEMA, **run)


def test_an_account_keeps_its_id(connection: psycopg.Connection) -> None:
    """Made once for each name, whatever is learned of the account later."""
    first = ledger.register(connection, SCHEMA, "shop", None)
    assert ledger.known_account(connection, SCHEMA, "shop") is None
    assert ledger.register(connection, SCHEMA, "shop", "ACC1") == first
    assert ledger.register(connection, SCHEMA, "shop", None) == first
    assert ledger.known_account(connection, SCHEMA, "shop") == "ACC1"
    assert ledger.register(connection, SCHEMA, "another", "ACC2") != first


def test_protection_is_noted_when_an_account_is_first_seen(connection: psycopg.Connection) -> None:
    """What a later run would rather have does not change it; a row of before it was noted means that all is kept."""
    shop = ledger.register(connection, SCHEMA, "shop", None, "hash", "digest")
    assert ledger.register(connection, SCHEMA, "shop", None, "keep", None) == shop
    assert ledger.protection(connection, SCHEMA, shop) == ("hash", "digest")
    connection.execute("UPDATE integrations SET personal_data = NULL, salt_digest = NULL")
    assert ledger.protection(connection, SCHEMA, shop) == ("keep", None)
    assert ledger.known_account(connection, SCHEMA, "unheard of") is None


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_run_that_did_not_finish_is_gone_on_with(connection: psycopg.Connection, state: str) -> None:
    """The same run with the same present, so that its chunks are the same."""
    first = open_run(connection)
    if state != "running":
        ledger.close_run(connection, SCHEMA, first.run_id, state, "it broke")
    again = open_run(connection, now=NOON + timedelta(hours=3))
    assert again == (first.run_id, NOON, True)
    row = connection.execute("SELECT state, message, started_at FROM runs").fetchall()
    assert row == [("running", None, NOON + timedelta(hours=3))]


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        pytest.param("complete", {}, id="it was complete"),
        pytest.param("partial", {}, id="all that could be read was"),
        pytest.param("failed", {"now": NOON + DAY / 2}, id="another day"),
        pytest.param("failed", {"selection": "opens"}, id="another selection"),
        pytest.param("failed", {"flow": "backfill"}, id="another flow"),
        pytest.param("failed", {"integration_id": "two"}, id="another account"),
    ],
)
def test_a_new_run_begins(connection: psycopg.Connection, state: str, changes: dict[str, Any]) -> None:
    """Where there is nothing to go on with."""
    first = open_run(connection)
    ledger.close_run(connection, SCHEMA, first.run_id, state, None)
    second = open_run(connection, **changes)
    assert second.run_id != first.run_id
    assert (second.as_of, second.continued) == (changes.get("now", NOON), False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.none() | st.integers(0, 30), st.integers(0, 30)), min_size=1))
def test_watermarks_never_go_back_and_never_over_a_gap(
    connection: psycopg.Connection, stretches: list[tuple[int | None, int]]
) -> None:
    """A watermark says that everything up to it was read: it only rises, by stretches that begin at or before it."""
    connection.execute("TRUNCATE watermarks")
    seen: list[datetime] = []
    for start, until in stretches:
        begin = None if start is None else NOON + start * DAY
        ledger.advance_watermark(connection, SCHEMA, "one", "events/a", begin, NOON + until * DAY)
        seen.append(ledger.watermarks(connection, SCHEMA, "one")["events/a"])
    for (before, after), (start, until) in zip(pairwise(seen), stretches[1:], strict=True):
        joins = start is None or NOON + start * DAY <= before
        assert after == (max(before, NOON + until * DAY) if joins else before)


def test_watermarks_of_streams_and_accounts_are_apart(connection: psycopg.Connection) -> None:
    """Each stream of each account has its own."""
    for account, stream, days in (("one", "events/a", 1), ("one", "profiles", 2), ("two", "events/a", 3)):
        ledger.advance_watermark(connection, SCHEMA, account, stream, None, NOON + days * DAY)
    assert ledger.watermarks(connection, SCHEMA, "one") == {"events/a": NOON + DAY, "profiles": NOON + 2 * DAY}
    assert ledger.watermarks(connection, SCHEMA, "three") == {}


def test_chunks_that_are_done_are_known_when_the_run_goes_on(connection: psycopg.Connection) -> None:
    """Planning again adds what is new, and forgets nothing."""
    run = open_run(connection).run_id
    assert ledger.plan_chunks(connection, SCHEMA, run, "one", [("a", "1"), ("a", "2")]) == set()
    ledger.finish_chunk(connection, SCHEMA, run, "a", "1")
    assert ledger.plan_chunks(connection, SCHEMA, run, "one", [("a", "1"), ("a", "2"), ("b", "1")]) == {("a", "1")}
    assert ledger.plan_chunks(connection, SCHEMA, "another run", "one", [("a", "1")]) == set()


def test_the_last_chunk_of_a_stream_says_so(connection: psycopg.Connection) -> None:
    """The last one that ends, whichever it is; other streams do not count."""
    run = open_run(connection).run_id
    ledger.plan_chunks(connection, SCHEMA, run, "one", [("a", "1"), ("a", "2"), ("b", "1")])
    assert not ledger.finish_chunk(connection, SCHEMA, run, "a", "2")
    assert ledger.finish_chunk(connection, SCHEMA, run, "a", "1")
    assert ledger.finish_chunk(connection, SCHEMA, run, "b", "1")


def test_of_two_chunks_that_end_at_the_same_time_one_is_the_last(connect: Any) -> None:
    """The second waits until the first is committed, and sees it; else neither would advance the watermark."""
    one, two = connect(), connect()
    run = open_run(one).run_id
    ledger.plan_chunks(one, SCHEMA, run, "one", [("a", "1"), ("a", "2")])
    started = Event()

    def second() -> bool:
        with two.transaction():
            started.set()
            return ledger.finish_chunk(two, SCHEMA, run, "a", "2")

    with ThreadPoolExecutor(1) as pool:
        with one.transaction():
            first = ledger.finish_chunk(one, SCHEMA, run, "a", "1")
            waiting = pool.submit(second)
            started.wait(5)
            while not connect().execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                pass
        assert (first, waiting.result(10)) == (False, True)


def test_a_chunk_that_is_rolled_back_is_not_done(connection: psycopg.Connection) -> None:
    """Rows and their bookkeeping share a transaction."""
    run = open_run(connection).run_id
    ledger.plan_chunks(connection, SCHEMA, run, "one", [("a", "1")])
    with pytest.raises(ZeroDivisionError), connection.transaction():
        ledger.finish_chunk(connection, SCHEMA, run, "a", "1")
        raise ZeroDivisionError
    assert ledger.plan_chunks(connection, SCHEMA, run, "one", []) == set()


def test_counts_add_up(connection: psycopg.Connection) -> None:
    """Over batches, by table and run; what a batch does not count is zero."""
    run, other = open_run(connection).run_id, open_run(connection, selection="other").run_id
    ledger.add_counts(connection, SCHEMA, run, "one", {"opens": {"rows_read": 3, "inserted": 2, "unchanged": 1}})
    ledger.add_counts(connection, SCHEMA, run, "one", {"opens": {"rows_read": 1, "rejected": 1}, "sends": {}})
    ledger.add_counts(connection, SCHEMA, other, "one", {"opens": {"rows_read": 9}})
    nothing = dict.fromkeys(ledger.COUNTS, 0)
    assert ledger.run_counts(connection, SCHEMA, run) == {
        "opens": nothing | {"rows_read": 4, "inserted": 2, "unchanged": 1, "rejected": 1},
        "sends": nothing,
    }


def test_requests_add_up(connection: psycopg.Connection) -> None:
    """Over the parts of a run, and of its attempts."""
    run = open_run(connection).run_id
    ledger.add_requests(connection, SCHEMA, run, Traffic(5, 1))
    open_run(connection)
    ledger.add_requests(connection, SCHEMA, run, Traffic(2, 2))
    assert ledger.run_requests(connection, SCHEMA, run) == (7, 3)
    assert ledger.run_requests(connection, SCHEMA, "unheard of") == (0, 0)


def test_events_move_with_their_metric(merged: Any, connection: psycopg.Connection) -> None:
    """Those of the metric, all their columns, and of this account only."""
    ours = connection.execute("SELECT md5('Klaviyo:one:m')").fetchone()
    assert ours is not None
    event = {"id": "e", "value": "1.50", "properties": '{"a": 1}', "email": "a@example.com"}
    merged(loads.EVENTS["events"], event | {"key": "k1", "metric_key": ours[0]})
    merged(loads.EVENTS["events"], event | {"key": "k2", "metric_key": "another"})
    before = connection.execute("SELECT * FROM events WHERE key = 'k1'").fetchall()
    assert ledger.move_events(connection, SCHEMA, "two", "m", "events", "opens") == 0
    assert ledger.move_events(connection, SCHEMA, "one", "m", "events", "opens") == 1
    assert connection.execute("SELECT * FROM opens").fetchall() == before
    assert connection.execute("SELECT key FROM events").fetchall() == [("k2",)]


def test_metrics_and_lists_that_are_known(merged: Any, connection: psycopg.Connection) -> None:
    """Deleted metrics still have events, and are told apart; deleted lists have no members; segments are no lists."""
    for account in ("two", "one"):
        metric = {"key": f"{account}m", "id": "m", "name": "Opened Email", "destination": "opens"}
        merged(loads.METRICS, metric, integration_id=account)
        both = [{"key": f"{account}{each}", "id": each, "list_type": "list"} for each in ("l1", "l2")]
        merged(loads.LISTS, *both, integration_id=account)
        segment = {"key": f"{account}s", "id": "s", "list_type": "segment"}
        merged(loads.SEGMENTS, segment, integration_id=account)
    merged(loads.METRICS)
    merged(loads.LISTS, both[0])
    assert ledger.metrics(connection, SCHEMA, "one") == [("m", "Opened Email", "opens", True)]
    assert ledger.metrics(connection, SCHEMA, "two") == [("m", "Opened Email", "opens", False)]
    assert ledger.list_ids(connection, SCHEMA, "one") == ["l1"]
    assert ledger.list_ids(connection, SCHEMA, "two") == ["l1", "l2"]
