"""The backfill: planned, complete, killed and gone on with, beside a daily run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT, StoppablePostgres, Warehouse, account

DAYS = 400
EVENTS = 40_000
EVENT_TABLES = ("sends", "bounces", "opens", "clicks", "spams", "unsubscribes", "events")
CONTENTS = (
    "SELECT m.id, count(*), md5(string_agg(e.id, ',' ORDER BY e.id COLLATE \"C\")) FROM ("
    + " UNION ALL ".join(f"SELECT id, metric_key FROM {{schema}}.{name}" for name in EVENT_TABLES)
    + ") AS e JOIN {schema}.metrics m ON m.key = e.metric_key GROUP BY 1 ORDER BY 1"
)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with more than a year of history, which ends before its future-dated events begin."""
    with running(members=300, events=EVENTS, days=DAYS, until=MIDNIGHT, latency_ms=3) as box:
        yield box


@pytest.fixture(scope="module")
def start() -> str:
    """A day before the history begins."""
    return f"{MIDNIGHT - timedelta(days=DAYS + 5):%Y-%m-%d}"


@pytest.fixture(scope="module")
def whole(warehouse: Warehouse, box: Sandbox, start: str) -> list[tuple[str, int, str]]:
    """The contents of an uninterrupted backfill: (metric id, events, digest of their ids)."""
    ran = warehouse.run(["flows/backfill.py", "--start", start], {**account(box), **settings("whole")})
    assert ran.code == 0, ran.err[-3000:]
    return warehouse.rows(CONTENTS.format(schema="whole"))  # type: ignore[return-value]


def settings(schema: str) -> dict[str, str]:
    """A schema of one's own, and chunks small enough to have many."""
    return {"WAREHOUSE_SCHEMA": schema, "CHUNK_EVENTS": "2000"}


def ledger(warehouse: Warehouse, schema: str) -> tuple[int, int, int]:
    """Chunks that are not done; events that the ledger expects; events that it says are loaded."""
    [row] = warehouse.rows(
        f"SELECT count(*) FILTER (WHERE state <> 'done'), sum(expected), sum(loaded) FROM {schema}.backfill_chunks"
    )
    return row  # type: ignore[return-value]


def test_everything_is_there(warehouse: Warehouse, box: Sandbox, whole: list[tuple[str, int, str]]) -> None:
    """Per metric, the warehouse holds exactly the events that the account has before midnight."""
    expected: dict[str, list[str]] = {}
    for event in box.events():
        if event["timestamp"] < MIDNIGHT.timestamp():
            expected.setdefault(event["metric_id"], []).append(event["id"])
    digest = warehouse.rows("SELECT md5(%s)", ",".join(sorted(expected[whole[0][0]])))
    assert {metric: count for metric, count, _ in whole} == {metric: len(ids) for metric, ids in expected.items()}
    assert whole[0][2] == digest[0][0]
    total = sum(len(ids) for ids in expected.values())
    assert ledger(warehouse, "whole") == (0, total, total)


def test_plan(warehouse: Warehouse, box: Sandbox, start: str, whole: list[tuple[str, int, str]]) -> None:
    """--plan tells as many events as there are, and leaves nothing behind."""
    ran = warehouse.run(["flows/backfill.py", "--start", start, "--plan"], {**account(box), **settings("planned")})
    assert ran.code == 0, ran.err
    [total] = [line for line in ran.out.splitlines() if line.startswith("│ all")]
    assert int(total.split("│")[2].replace(",", "")) == sum(count for _, count, _ in whole)
    assert warehouse.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'planned'") == 0


def test_only_what_holds_much_is_counted(warehouse: Warehouse, box: Sandbox) -> None:
    """Neither the years before a metric's first event are, nor a metric of which one page holds everything."""
    times: dict[str, list[int]] = {}
    for event in box.events():
        if event["timestamp"] < MIDNIGHT.timestamp():
            times.setdefault(event["metric_id"], []).append(event["timestamp"])
    years = [-(-(MIDNIGHT.timestamp() - min(found) // 3600 * 3600) // 31_536_000) for found in times.values()]
    large = [many for many, found in zip(years, times.values(), strict=True) if len(found) > 1_000]
    assert 0 < len(large) < len(times)
    before = box.state()["requests"].get("POST /api/metric-aggregates", 0)
    ran = warehouse.run(["flows/backfill.py", "--start", "2010-01-01", "--plan"], account(box))
    assert ran.code == 0, ran.err
    assert box.state()["requests"].get("POST /api/metric-aggregates", 0) - before == sum(large)
    [total] = [line for line in ran.out.splitlines() if line.startswith("│ all")]
    assert int(total.split("│")[2].replace(",", "")) == sum(map(len, times.values()))


def test_counts_do_without_events(
    warehouse: Warehouse, box: Sandbox, start: str, whole: list[tuple[str, int, str]]
) -> None:
    """Where no events are to be had, the plan is made of counts alone."""
    box.set_faults({"endpoint": "GET /api/events", "status": 503, "times": 10_000})
    try:
        given = {**account(box), "REQUEST_ATTEMPTS": "1"}
        ran = warehouse.run(["flows/backfill.py", "--start", start, "--plan"], given)
    finally:
        box.set_faults()
    assert ran.code == 0, ran.err
    [total] = [line for line in ran.out.splitlines() if line.startswith("│ all")]
    assert int(total.split("│")[2].replace(",", "")) == sum(count for _, count, _ in whole)


def test_again_reads_nothing(warehouse: Warehouse, box: Sandbox, start: str, whole: list[tuple[str, int, str]]) -> None:
    """The same command again has nothing to do."""
    before = box.state()["requests"]["GET /api/events"]
    ran = warehouse.run(["flows/backfill.py", "--start", start], {**account(box), **settings("whole")})
    assert ran.code == 0
    assert box.state()["requests"]["GET /api/events"] == before


def test_another_range_adds_what_is_missing(warehouse: Warehouse, box: Sandbox, start: str) -> None:
    """A longer range reads only what the shorter one has not covered."""
    given = {**account(box), **settings("grown")}
    later = f"{MIDNIGHT - timedelta(days=30):%Y-%m-%d}"
    assert warehouse.run(["flows/backfill.py", "--start", later], given).code == 0
    loaded = ledger(warehouse, "grown")[2]
    assert warehouse.run(["flows/backfill.py", "--start", start], given).code == 0
    assert ledger(warehouse, "grown")[0] == 0
    assert 0 < loaded < ledger(warehouse, "grown")[2] == EVENTS - 6


def test_killed_again_and_again(
    warehouse: Warehouse, box: Sandbox, start: str, whole: list[tuple[str, int, str]]
) -> None:
    """Killed with -9 at random moments: the ledger never claims what is not there, and the end is the same."""
    rng, environment = random.Random(4), {**warehouse.environment, "DATABASE_URL": warehouse.url}
    given = {**account(box), **settings("killed"), "CONCURRENCY": "2"}
    command = [sys.executable, "flows/backfill.py", "--start", start]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    kills = 0
    for _ in range(5):
        with subprocess.Popen(command, cwd=ROOT, env={**environment, **given}, **silent) as child:  # type: ignore[call-overload]
            time.sleep(rng.uniform(3.0, 5.5))
            kills += child.poll() is None
            child.kill()
        if warehouse.one("SELECT to_regclass('killed.backfill_chunks') IS NOT NULL"):
            stored = warehouse.one(f"SELECT coalesce(sum(count), 0) FROM ({CONTENTS.format(schema='killed')}) AS c")
            assert (ledger(warehouse, "killed")[2] or 0) <= stored
    ran = warehouse.run(["flows/backfill.py", "--start", start], given)
    assert ran.code == 0, ran.err[-3000:]
    assert kills >= 3
    assert warehouse.rows(CONTENTS.format(schema="killed")) == whole
    assert ledger(warehouse, "killed")[1:] == (EVENTS - 6, EVENTS - 6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(warehouse: Warehouse, box: Sandbox, start: str, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C: the batch in hand is finished, the command says where it stopped, and can be gone on with."""
    schema = f"stopped_{number.name.lower()}"
    environment = {**warehouse.environment, "DATABASE_URL": warehouse.url, **account(box), **settings(schema)}
    child = subprocess.Popen(
        [sys.executable, "flows/backfill.py", "--start", start],
        cwd=ROOT,
        env={**environment, "CONCURRENCY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        there = warehouse.one(f"SELECT to_regclass('{schema}.backfill_chunks') IS NOT NULL")
        if there and (ledger(warehouse, schema)[2] or 0) > 0:
            break
        time.sleep(0.05)
    os.kill(child.pid, number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err[-3000:]
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    left, _, loaded = ledger(warehouse, schema)
    assert left > 0
    assert loaded == warehouse.one(f"SELECT sum(count) FROM ({CONTENTS.format(schema=schema)}) AS c")


@pytest.mark.usefixtures("whole")
def test_database_goes_away(warehouse: Warehouse, box: Sandbox, start: str, tmp_path: Path) -> None:
    """Postgres is stopped in the middle and started again: the run goes on, and no page is asked for twice.

    Both sides count: a connection that the account's server closes as it is written to costs the run a retry, no page.
    """
    before = box.state()["requests"]
    postgres = StoppablePostgres(tmp_path)
    given = {**account(box), **settings("away"), "DATABASE_URL": postgres.url}
    command = [sys.executable, "flows/backfill.py", "--start", start]
    away = Warehouse(postgres.url)
    with subprocess.Popen(
        command, cwd=ROOT, env={**warehouse.environment, **given}, stderr=subprocess.PIPE, text=True
    ) as child:
        until = time.monotonic() + 60
        while time.monotonic() < until and child.poll() is None:
            there = away.one("SELECT to_regclass('away.backfill_chunks') IS NOT NULL")
            if there and (ledger(away, "away")[2] or 0) > 0:
                break
            time.sleep(0.02)
        postgres.stop()
        time.sleep(3)
        was_under_way = child.poll() is None
        postgres.start()
        _, err = child.communicate(timeout=120)
    assert was_under_way
    assert child.returncode == 0, err[-3000:]
    assert ledger(away, "away") == (0, EVENTS - 6, EVENTS - 6)
    assert away.rows("SELECT DISTINCT attempts FROM away.backfill_chunks WHERE expected > 0") == [(1,)]
    asked = sum(box.state()["requests"].values()) - sum(before.values())
    [(undisturbed,)] = warehouse.rows("SELECT requests - retries FROM whole.runs ORDER BY started_at LIMIT 1")
    assert away.rows("SELECT requests - retries FROM away.runs") == [(asked,)] == [(undisturbed,)]


def test_daily_in_the_middle(warehouse: Warehouse, box: Sandbox, start: str, whole: list[tuple[str, int, str]]) -> None:
    """A daily run while a backfill is under way: both succeed, and the contents are those of the account."""
    given = {**account(box), **settings("beside")}
    environment = {**warehouse.environment, "DATABASE_URL": warehouse.url, **given}
    assert warehouse.sync("--tables", "metrics", **given).code == 0
    command = [sys.executable, "flows/backfill.py", "--start", start]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as child:  # type: ignore[call-overload]
        ran = warehouse.sync(**given)
        _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err[-3000:]
    assert ran.code == 0, ran.err[-3000:]
    found = {metric: count for metric, count, _ in warehouse.rows(CONTENTS.format(schema="beside"))}
    assert found == {metric["id"]: metric["count"] for metric in box.state()["metrics"] if metric["count"]}


def test_status(warehouse: Warehouse, whole: list[tuple[str, int, str]]) -> None:
    """The status command reads the ledger."""
    ran = warehouse.run(["-m", "klaviyo_pg", "status"], settings("whole"))
    assert ran.code == 0, ran.err
    assert "Received Email" in ran.out
