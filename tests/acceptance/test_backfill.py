"""The backfill: its plan, its completeness, and what happens when it is killed, stopped or loses the database.

What needs no separate process runs in this one, over the same warehouse.
"""

import random
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from klaviyo_pg.cli import preview
from klaviyo_pg.windows import Window
from sandbox.launcher import Sandbox, running
from tests import runs
from tests.driver import MIDNIGHT, Command, StoppablePostgres, Warehouse, account

DAYS = 400
EVENTS = 12_000
IN_FUTURE = 6  # events that the sandbox dates after its end, which a backfill up to midnight leaves out
KILLS = 3  # early, in the middle and late
OUTAGE = 3  # seconds
LATENCY = 3  # milliseconds
REQUESTS_OF_A_CHECK = 1  # that a command sends before its run begins
START = MIDNIGHT - timedelta(days=DAYS + 5)  # before the history begins
EVENT_TABLES = ("sends", "bounces", "opens", "clicks", "spams", "unsubscribes", "events")
CONTENTS = (
    "SELECT m.id, count(*), md5(string_agg(e.id, ',' ORDER BY e.id COLLATE \"C\")) FROM ("
    + " UNION ALL ".join(f"SELECT id, metric_key FROM {{schema}}.{name}" for name in EVENT_TABLES)
    + ") AS e JOIN {schema}.metrics m ON m.key = e.metric_key GROUP BY 1 ORDER BY 1"
)
Contents = list[tuple[str, int, str]]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with more than a year of history, which ends before its future-dated events begin."""
    with running(members=300, events=EVENTS, days=DAYS, until=MIDNIGHT, latency_ms=LATENCY) as box:
        yield box


@pytest.fixture(scope="module")
def start() -> str:
    """The date before which there is no history, as an argument."""
    return f"{START:%Y-%m-%d}"


@pytest.fixture(scope="module")
def uninterrupted(warehouse: Warehouse, box: Sandbox, start: str) -> Contents:
    """The contents of an uninterrupted backfill, by metric: id, number of events, digest of the events' ids."""
    ran = warehouse.run(["flows/backfill.py", "--start", start], settings(box, "whole"))
    assert ran.code == 0, ran.err[-3000:]
    return contents(warehouse, "whole")


def settings(box: Sandbox, schema: str) -> dict[str, str]:
    """Return the settings for a separate schema, with chunks so small that there are many."""
    return {**account(box), "WAREHOUSE_SCHEMA": schema, "CHUNK_EVENTS": "2000"}


def contents(warehouse: Warehouse, schema: str) -> Contents:
    """Return the stored events by metric: id, number of events, digest of the events' ids."""
    return warehouse.rows(CONTENTS.format(schema=schema))


def stored(warehouse: Warehouse, schema: str) -> int:
    """Return the number of stored events."""
    return sum(count for _, count, _ in contents(warehouse, schema))


def ledger(warehouse: Warehouse, schema: str) -> tuple[int, int, int]:
    """Return the ledger's totals: chunks that are not done, events expected, events loaded."""
    [row] = warehouse.rows(
        "SELECT count(*) FILTER (WHERE state <> 'done'), coalesce(sum(expected), 0), coalesce(sum(loaded), 0)"
        f" FROM {schema}_internal.backfill_chunks"
    )
    return row


def loaded(warehouse: Warehouse, schema: str) -> int:
    """Return the number of events that the ledger records as loaded; 0 if there is no ledger yet."""
    has_ledger = warehouse.one("SELECT to_regclass(%s) IS NOT NULL", f"{schema}_internal.backfill_chunks")
    return ledger(warehouse, schema)[2] if has_ledger else 0


def wait_until_loaded(events: int, warehouse: Warehouse, schema: str, command: Command) -> None:
    """Wait until a backfill in progress has loaded more than this many events."""
    command.wait_until(lambda: loaded(warehouse, schema) > events, f"more than {events:,} events were loaded")


def backfill(warehouse: Warehouse, box: Sandbox, schema: str, start: datetime) -> runs.Result:
    """Run a backfill in this process. It must complete."""
    ran = runs.in_process(warehouse, settings(box, schema)).backfill(start)
    assert ran.exit_code == 0, ran.sentences
    return ran


def planned_events(printed: str) -> int:
    """Return the total of a printed plan."""
    [total] = [line for line in printed.splitlines() if line.startswith("│ all")]
    return int(total.split("│")[2].replace(",", ""))


def requests(box: Sandbox, endpoint: str) -> int:
    """Return the number of requests to an endpoint so far."""
    return int(box.state()["requests"].get(endpoint, 0))


def times_by_metric(box: Sandbox) -> dict[str, list[int]]:
    """Return the Unix times of the account's events before midnight, by metric."""
    times: dict[str, list[int]] = {}
    for event in box.events():
        if event["timestamp"] < MIDNIGHT.timestamp():
            times.setdefault(event["metric_id"], []).append(event["timestamp"])
    return times


def test_a_backfill_loads_every_event(warehouse: Warehouse, box: Sandbox, uninterrupted: Contents) -> None:
    """For each metric the warehouse holds exactly the events that the account has before midnight."""
    expected: dict[str, list[str]] = {}
    for event in box.events():
        if event["timestamp"] < MIDNIGHT.timestamp():
            expected.setdefault(event["metric_id"], []).append(event["id"])
    digest = warehouse.one("SELECT md5(%s)", ",".join(sorted(expected[uninterrupted[0][0]])))
    assert {metric: count for metric, count, _ in uninterrupted} == {
        metric: len(ids) for metric, ids in expected.items()
    }
    assert uninterrupted[0][2] == digest
    total = sum(len(ids) for ids in expected.values())
    assert ledger(warehouse, "whole") == (0, total, total)


def test_plan_counts_every_event_and_writes_nothing(
    warehouse: Warehouse, box: Sandbox, start: str, uninterrupted: Contents
) -> None:
    """--plan prints the exact number of events and creates no schema."""
    ran = warehouse.run(["flows/backfill.py", "--start", start, "--plan"], settings(box, "planned"))
    assert ran.code == 0, ran.err
    assert planned_events(ran.out) == sum(count for _, count, _ in uninterrupted)
    assert warehouse.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'planned'") == 0


def test_plan_requests_counts_only_for_large_metrics_since_their_first_event(
    warehouse: Warehouse, box: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan asks for no counts of the years before a metric's first event, nor of a metric that fits on one page."""
    times = times_by_metric(box)
    years = [-(-(MIDNIGHT.timestamp() - min(each) // 3600 * 3600) // 31_536_000) for each in times.values()]
    large = [count for count, each in zip(years, times.values(), strict=True) if len(each) > 1_000]
    assert 0 < len(large) < len(times)
    before = requests(box, "POST /api/metric-aggregates")
    show_plan(warehouse, account(box), datetime(2010, 1, 1, tzinfo=UTC))
    assert requests(box, "POST /api/metric-aggregates") - before == sum(large)
    assert planned_events(capsys.readouterr().out) == sum(map(len, times.values()))


def test_plan_needs_only_counts(
    warehouse: Warehouse, box: Sandbox, uninterrupted: Contents, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the API serves no events, the plan is made from counts alone."""
    box.set_faults({"endpoint": "GET /api/events", "status": 503, "times": 10_000})
    try:
        show_plan(warehouse, {**account(box), "REQUEST_ATTEMPTS": "1"}, START)
    finally:
        box.set_faults()
    assert planned_events(capsys.readouterr().out) == sum(count for _, count, _ in uninterrupted)


def show_plan(warehouse: Warehouse, settings: dict[str, str], start: datetime) -> None:
    """Print the plan of a backfill up to midnight, as --plan does."""
    preview.show(runs.in_process(warehouse, settings).configured(), Window(start, MIDNIGHT), restart=False)


@pytest.mark.usefixtures("uninterrupted")
def test_a_rerun_only_counts(warehouse: Warehouse, box: Sandbox) -> None:
    """A rerun of a complete backfill counts, which takes a request or two for each metric, and stores no events."""
    before = requests(box, "GET /api/events")
    ran = backfill(warehouse, box, "whole", START)
    assert requests(box, "GET /api/events") - before <= 2 * warehouse.one("SELECT count(*) FROM whole.metrics")
    assert not {*EVENT_TABLES} & ran.counts.keys()


@pytest.mark.slow
def test_an_earlier_start_loads_what_is_missing(warehouse: Warehouse, box: Sandbox) -> None:
    """A backfill with an earlier start reads only what the previous one has not covered."""
    backfill(warehouse, box, "grown", MIDNIGHT - timedelta(days=30))
    before = ledger(warehouse, "grown")[2]
    backfill(warehouse, box, "grown", START)
    assert ledger(warehouse, "grown")[0] == 0
    assert 0 < before < ledger(warehouse, "grown")[2] == EVENTS - IN_FUTURE


@pytest.mark.slow
def test_repeated_kills_lose_nothing(warehouse: Warehouse, box: Sandbox, start: str, uninterrupted: Contents) -> None:
    """After kill -9 at random moments the ledger claims no more than is stored, and a rerun completes the backfill."""
    rng = random.Random(4)
    options = {**settings(box, "killed"), "CONCURRENCY": "2"}
    for number in range(KILLS):
        target = int(EVENTS * (number + rng.random()) / (KILLS + 1))
        with warehouse.start(["flows/backfill.py", "--start", start], options) as command:
            wait_until_loaded(target, warehouse, "killed", command)
            time.sleep(rng.uniform(0, 0.1))  # so that a batch is interrupted, and not only the time between two
            assert command.is_running
            command.process.kill()
        assert loaded(warehouse, "killed") <= stored(warehouse, "killed")
    ran = warehouse.run(["flows/backfill.py", "--start", start], options)
    assert ran.code == 0, ran.err[-3000:]
    assert contents(warehouse, "killed") == uninterrupted
    assert ledger(warehouse, "killed")[1:] == (EVENTS - IN_FUTURE, EVENTS - IN_FUTURE)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_the_backfill_after_its_batch(
    warehouse: Warehouse, box: Sandbox, start: str, number: signal.Signals
) -> None:
    """SIGTERM or Ctrl-C: the backfill stores the current batch, says that it can be resumed, and exits with 130."""
    schema = f"stopped_{number.name.lower()}"
    options = {**settings(box, schema), "CONCURRENCY": "1"}
    with warehouse.start(["flows/backfill.py", "--start", start], options) as command:
        wait_until_loaded(0, warehouse, schema, command)
        command.process.send_signal(number)
        ran = command.result()
    assert ran.code == 130, ran.err[-3000:]
    assert "Rerun with the same arguments to resume." in ran.err
    assert "Traceback" not in ran.err
    left, _, recorded = ledger(warehouse, schema)
    assert left > 0
    assert recorded == stored(warehouse, schema)


@pytest.mark.slow
@pytest.mark.usefixtures("uninterrupted")
def test_a_backfill_survives_a_database_restart(warehouse: Warehouse, box: Sandbox, start: str, tmp_path: Path) -> None:
    """If Postgres is stopped and started again during a backfill, the run completes and requests no page twice.

    Both sides count: a connection that the account's server closes while a request is sent costs a retry, but no page.
    The run does not count the request with which its command checks the account before it begins.
    """
    before = box.state()["requests"]
    postgres = StoppablePostgres(tmp_path)
    other = Warehouse(postgres.url, warehouse.environment)
    with other.start(["flows/backfill.py", "--start", start], settings(box, "away")) as command:
        wait_until_loaded(0, other, "away", command)
        postgres.stop()
        time.sleep(OUTAGE)
        was_running = command.is_running
        postgres.start()
        ran = command.result()
    assert was_running
    assert ran.code == 0, ran.err[-3000:]
    assert ledger(other, "away") == (0, EVENTS - IN_FUTURE, EVENTS - IN_FUTURE)
    assert other.rows("SELECT DISTINCT attempts FROM away_internal.backfill_chunks WHERE expected > 0") == [(1,)]
    sent = sum(box.state()["requests"].values()) - sum(before.values()) - REQUESTS_OF_A_CHECK
    [(undisturbed,)] = warehouse.rows("SELECT requests - retries FROM whole.runs ORDER BY started_at LIMIT 1")
    assert other.rows("SELECT requests - retries FROM away.runs") == [(sent,)] == [(undisturbed,)]


@pytest.mark.slow
def test_a_daily_run_during_a_backfill(warehouse: Warehouse, box: Sandbox, start: str) -> None:
    """A daily run and a backfill of one account, in two processes at the same time, succeed and miss no event."""
    options = settings(box, "beside")
    beside = runs.in_process(warehouse, options)
    assert beside.daily("metrics").exit_code == 0
    box.set_server(latency_ms=100)  # so that the backfill, which reads one page at a time, takes longer
    with warehouse.start(["flows/backfill.py", "--start", start], {**options, "CONCURRENCY": "1"}) as command:
        wait_until_loaded(0, warehouse, "beside", command)
        daily = beside.daily()
        was_running = command.is_running
        box.set_server(latency_ms=LATENCY)
        backfill = command.result()
    assert was_running
    assert backfill.code == 0, backfill.err[-3000:]
    assert daily.exit_code == 0, daily.sentences
    counts = {metric: count for metric, count, _ in contents(warehouse, "beside")}
    assert counts == {metric["id"]: metric["count"] for metric in box.state()["metrics"] if metric["count"]}


@pytest.mark.usefixtures("uninterrupted")
def test_status_shows_each_metric(warehouse: Warehouse) -> None:
    """The status command reads the ledger."""
    ran = warehouse.run(["-m", "klaviyo_pg", "status"], {"WAREHOUSE_SCHEMA": "whole"})
    assert ran.code == 0, ran.err
    assert "Received Email" in ran.out
