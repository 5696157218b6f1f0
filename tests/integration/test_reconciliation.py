"""Counts of stored events, windows that have been loaded, and stored comparisons."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, reconciliation, watermarks
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison, LastCheck
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import Window
from tests.driver import PATIENCE
from tests.integration.conftest import SCHEMA

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MIDNIGHT = NOON - timedelta(hours=12)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AROUND = Window(MIDNIGHT - 30 * DAY, NOON)
ALWAYS = datetime.min.replace(tzinfo=UTC)


def put(connection: psycopg.Connection, table: str, integration_id: str, metric_id: str, *moments: datetime) -> None:
    """Store a metric, and events of it at these times."""
    metric_key = f"md5('Klaviyo:{integration_id}:{metric_id}')"
    connection.execute(
        f"INSERT INTO metrics (key, id, esp_integration_id) VALUES ({metric_key}, %s, %s) ON CONFLICT DO NOTHING",
        [metric_id, integration_id],
    )
    for moment in moments:
        connection.execute(
            f"INSERT INTO {table} (key, metric_key, event_at, esp_integration_id)"
            f" VALUES (md5(random()::text), {metric_key}, %s, %s)",
            [moment, integration_id],
        )


def test_stored_events_are_counted_by_metric_and_step(account: Account, connection: psycopg.Connection) -> None:
    """All event tables count; other accounts and times do not. The session's time zone makes no difference."""
    connection.execute("SET timezone TO 'Asia/Kolkata'")
    put(connection, "opens", "one", "a", MIDNIGHT, MIDNIGHT + HOUR - timedelta(seconds=1), MIDNIGHT + HOUR, NOON)
    put(connection, "events", "one", "a", MIDNIGHT)
    put(connection, "sends", "one", "b", MIDNIGHT - timedelta(seconds=1))
    put(connection, "sends", "two", "a", MIDNIGHT)
    assert reconciliation.stored(account, ["a", "b"], AROUND, HOUR) == {
        "a": {MIDNIGHT: 3, MIDNIGHT + HOUR: 1},
        "b": {MIDNIGHT - HOUR: 1},
    }
    assert reconciliation.stored(account, ["a", "b"], AROUND, DAY) == {"a": {MIDNIGHT: 4}, "b": {MIDNIGHT - DAY: 1}}
    assert reconciliation.stored(account, [], AROUND, DAY) == {}


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        pytest.param([(0, 30)], [(0, 30)], id="the first run"),
        pytest.param([(0, 30), (27, 31)], [(0, 31)], id="a day later"),
        pytest.param([(10, 30), (5, 31)], [(5, 31)], id="an earlier start"),
        pytest.param([(10, 20), (25, 31)], [(10, 20)], id="a gap"),
        pytest.param([(30, 20)], [], id="nothing"),
    ],
)
def test_daily_runs_load_one_window_without_gaps(
    account: Account, periods: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    for start, end in periods:
        watermarks.advance(account, "events/a", NOON + start * DAY, NOON + end * DAY, "opens", "a")
    watermarks.advance(account, "profiles", NOON, NOON + DAY, "members")
    loaded = reconciliation.loaded_windows(account, ALWAYS)
    assert loaded.keys() <= {"a"}
    assert loaded.get("a", []) == [Window(NOON + start * DAY, NOON + end * DAY) for start, end in expected]


def test_a_watermark_without_a_start_counts_after_the_next_run(
    account: Account, connection: psycopg.Connection
) -> None:
    """Older versions did not record the start. The next run records where it started to read."""
    connection.execute("INSERT INTO watermarks VALUES ('one', 'events/a', %s, NULL)", [NOON])
    assert reconciliation.loaded_windows(account, ALWAYS) == {}
    watermarks.advance(account, "events/a", NOON - 7 * DAY, NOON + DAY, "opens", "a")
    assert reconciliation.loaded_windows(account, ALWAYS) == {"a": [Window(NOON - 7 * DAY, NOON + DAY)]}


def test_a_backfill_loads_chunks_up_to_their_checkpoints(account: Account) -> None:
    chunks = [BackfillChunk("a", MIDNIGHT + day * DAY, MIDNIGHT + (day + 1) * DAY, 10) for day in range(3)]
    backfill_ledger.add(account, chunks)
    backfill_ledger.advance(account, chunks[0], 10, 1.0, None)
    backfill_ledger.advance(account, chunks[1], 5, 1.0, MIDNIGHT + DAY + HOUR)
    loaded = reconciliation.loaded_windows(account, ALWAYS)["a"]
    assert sorted(loaded) == [Window(MIDNIGHT, MIDNIGHT + DAY), Window(MIDNIGHT + DAY, MIDNIGHT + DAY + HOUR)]


def test_a_difference_that_could_not_be_counted_again_is_not_taken_for_counted(account: Account) -> None:
    """It keeps what is known, and the time of its count. The metric is without counts until it is counted again."""
    differing = Comparison("a", MIDNIGHT, NOON, 10, 9, CountState.DIFFERS)
    reconciliation.write(account, [differing], {}, NOON)
    reconciliation.write(account, [differing], {differing.key: differing}, NOON + HOUR, uncounted={differing.key})
    assert reconciliation.comparisons(account, Window(MIDNIGHT, NOON)) == {differing.key: differing}
    assert reconciliation.counted_metrics(account) == set()
    assert reconciliation.last_checks(account) == {"a": LastCheck(NOON + HOUR, NOON)}
    reconciliation.write(account, [differing], {differing.key: differing}, NOON + 2 * HOUR)
    assert reconciliation.counted_metrics(account) == {"a"}
    assert reconciliation.last_checks(account) == {"a": LastCheck(NOON + 2 * HOUR, NOON + 2 * HOUR)}


def test_a_comparison_replaces_earlier_ones_that_overlap_it(account: Account, connection: psycopg.Connection) -> None:
    """A complete day replaces its hours and its own beginning. Other metrics and days stay."""
    hour = Comparison("a", MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR, 3, 2, CountState.DIFFERS, NOON)
    today = Comparison("a", MIDNIGHT, MIDNIGHT + 9 * HOUR, 10, 9, CountState.DIFFERS, NOON)
    others = [
        Comparison("a", MIDNIGHT - DAY, MIDNIGHT, 5, 5, CountState.COMPLETE),
        Comparison("b", MIDNIGHT, NOON, None, 7, CountState.UNCOUNTED),
    ]
    two = Account(connection, SCHEMA, "two")
    reconciliation.write(account, [today, hour, *others], {}, NOON)
    reconciliation.write(two, [today], {}, NOON)
    window = Window(MIDNIGHT - DAY, NOON)
    comparisons = reconciliation.comparisons(account, window)
    assert comparisons == {each.key: each for each in (today, hour, *others)}
    assert all(isinstance(each.state, CountState) for each in comparisons.values())
    assert reconciliation.counted_metrics(account) == {"a"}

    later = Comparison("a", MIDNIGHT, NOON, 12, 12, CountState.COMPLETE, NOON)
    reconciliation.write(account, [later], {}, NOON + HOUR)
    assert reconciliation.comparisons(account, window).keys() == {each.key for each in (later, *others)}
    assert len(reconciliation.comparisons(two, window)) == 1
    differences = connection.execute("SELECT difference FROM reconciliation WHERE metric_id = 'a' ORDER BY 1")
    assert [row[0] for row in differences] == [-1, 0, 0]
    assert bookkeeping.RECONCILIATION.primary_key == ("esp_integration_id", "metric_id", "window_start", "window_end")


def test_two_runs_store_the_comparisons_of_one_day(account: Account, database: str) -> None:
    """A daily run and a reconcile run can check counts at the same time. The second replaces what the first stored."""
    [first, second] = [Comparison("a", MIDNIGHT, NOON, 10, stored, CountState.DIFFERS) for stored in (8, 9)]
    with psycopg.connect(database) as other, ThreadPoolExecutor(1) as pool:
        reconciliation.write(Account(other, SCHEMA, "one"), [first], {}, NOON)
        writing = pool.submit(reconciliation.write, account, [second], {}, NOON)
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.5)
        other.commit()
        writing.result(PATIENCE)
    assert list(reconciliation.comparisons(account, Window(MIDNIGHT, NOON)).values()) == [second]
