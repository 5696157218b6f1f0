"""`python -m benchmarks.backfill_soak`: backfills of large, uneven accounts, uninterrupted and with kills.

Runs against the sandbox and an embedded Postgres. It measures time and peak memory for a small and a large account, the
gain from concurrent reads when answers are slow, the accuracy of the forecast, and how many extra requests kill -9 at
random moments costs. It compares the contents with the account each time.
"""

import argparse
import random
import re
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.workbench import workspace
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.postgres.server import embedded
from sandbox.launcher import Sandbox, running

_ROOT = Path(__file__).resolve().parent.parent
_DAYS = 1825
_START = "2021-01-01"
_FORECAST = re.compile(r"([\d,]+) of ([\d,]+) events, .+, about (?:(\d+) days?, )?(\d+):(\d+):(\d+) left")


class Bench:
    """An account, a database, and the backfill from one to the other."""

    def __init__(self, box: Sandbox, url: str, prefect: dict[str, str], start: str = _START) -> None:
        self.box, self.url, self._start = box, url, start
        self._log = Path(prefect["PREFECT_HOME"]) / "backfill.log"
        self._environment = {
            **prefect,
            "KLAVIYO_BASE_URL": box.url,
            "KLAVIYO_API_KEY": box.api_key,
            "DATABASE_URL": url,
        }

    def start(self, schema: str, **settings: str) -> "subprocess.Popen[str]":
        """Start the backfill."""
        environment = {**self._environment, "WAREHOUSE_SCHEMA": schema, **settings}
        command = [sys.executable, "flows/backfill.py", "--start", self._start]
        with self._log.open("w") as log:
            return subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=log, stderr=log, text=True)

    def run(self, schema: str, **settings: str) -> tuple[float, str]:
        """Run the backfill; return its seconds, as recorded in the ledger, and its log."""
        return self.wait(self.start(schema, **settings), schema)

    def wait(self, child: "subprocess.Popen[str]", schema: str) -> tuple[float, str]:
        """Wait for a backfill that was started; return its seconds and its log."""
        log = self._log.read_text() if child.wait() is not None else ""
        assert child.returncode == 0, log[-2000:]
        [row] = self.rows(f"SELECT extract(epoch FROM finished_at - started_at) FROM {schema}.runs")
        return float(row[0]), log

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def contents(self, schema: str) -> dict[str, tuple[int, str]]:
        """Return the number of stored events and a digest of their sorted ids, by metric id."""
        union = " UNION ALL ".join(f"SELECT id, metric_key FROM {schema}.{table.name}" for table in tables.EVENT_TABLES)
        query = (
            f"SELECT m.id, count(*), md5(string_agg(e.id, ',' ORDER BY e.id COLLATE \"C\")) FROM ({union}) e"
            f" JOIN {schema}.metrics m ON m.key = e.metric_key GROUP BY 1"
        )
        return {str(metric): (int(count), str(digest)) for metric, count, digest in self.rows(query)}

    def truth(self) -> dict[str, tuple[int, str]]:
        """Return the same for the events that the account has before the most recent midnight."""
        ids: dict[str, list[str]] = {}
        until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        for event in self.box.events():
            if event["timestamp"] < until:
                ids.setdefault(event["metric_id"], []).append(event["id"])
        return {metric: (len(mine), md5(",".join(sorted(mine)).encode()).hexdigest()) for metric, mine in ids.items()}

    def requests(self) -> int:
        """Return the number of requests for events so far."""
        return int(self.box.state()["requests"].get("GET /api/events", 0))


def _peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=2_000_000)
    parser.add_argument("--kills", type=int, default=25)
    options = parser.parse_args()
    with workspace() as (folder, prefect):
        url = embedded.url(folder)
        with running(events=options.small, days=_DAYS, members=20_000) as box:
            bench = Bench(box, url, prefect)
            small, _ = bench.run("small")
            assert bench.contents("small") == bench.truth()
            print(f"{options.small:,} events: {small:.1f} s, peak {_peak_mb()} MB", flush=True)
        with running(events=options.large, days=_DAYS, members=20_000) as box:
            bench = Bench(box, url, prefect)
            large, log = bench.run("large")
            truth = bench.truth()
            assert bench.contents("large") == truth
            uninterrupted = bench.requests()
            print(
                f"{options.large:,} events: {large:.1f} s, peak {_peak_mb()} MB, {uninterrupted:,} requests", flush=True
            )
            print(f"time per event, large to small: {large / options.large / (small / options.small):.2f}", flush=True)
            _forecast(log, large)
            sizes = bench.rows(
                "WITH counted AS (SELECT expected, count(*) OVER (PARTITION BY metric_id, ceil(extract(epoch FROM"
                " (SELECT max(window_end) FROM large_internal.backfill_chunks) - window_end) / (365 * 86400) + 1e-9))"
                " AS chunks FROM large_internal.backfill_chunks WHERE expected > 0)"
                " SELECT max(expected), min(expected) FROM counted WHERE chunks > 1"
            )
            print(f"largest and smallest chunk in years with several chunks: {sizes[0]}", flush=True)
            _kills(bench, options.kills, large, truth, uninterrupted)
        with running(events=160_000, days=_DAYS, members=2_000, latency_ms=150) as box:
            bench = Bench(box, url, prefect)
            for page in (1_000, 200):
                _concurrency(bench, page)


def _concurrency(bench: Bench, page: int) -> None:
    """Measure the gain from eight readers. The processors limit it with full pages, but not with small ones."""
    bench.box.set_server(most_events=page)
    alone, by_eight = (
        bench.run(f"pages{page}_{number}", CONCURRENCY=str(number), CHUNK_EVENTS="8000")[0] for number in (1, 8)
    )
    print(
        f"150 ms per answer of at most {page:,} events: {alone:.1f} s with 1 reader, {by_eight:.1f} s with 8,"
        f" {alone / by_eight:.1f} times as fast",
        flush=True,
    )


def _forecast(log: str, took: float) -> None:
    """Compare the forecast that was logged nearest to a quarter of the events with the time that it then took."""
    forecasts = [match for line in log.splitlines() if (match := _FORECAST.search(line))]
    if not forecasts:
        print("no forecast: the run was too short to log one")
        return

    def share(match: "re.Match[str]") -> float:
        return int(match[1].replace(",", "")) / int(match[2].replace(",", ""))

    quarter = min(forecasts, key=lambda match: abs(share(match) - 0.25))
    left = int(quarter[4]) * 3600 + int(quarter[5]) * 60 + int(quarter[6])
    print(f"forecast at {share(quarter):.0%}: {left} s left; it then took about {took * (1 - share(quarter)):.0f} s")


def _loaded(bench: Bench) -> object:
    """Return the number of events that the ledger records as loaded, or None if there is no ledger yet."""
    if bench.rows("SELECT to_regclass('killed_internal.backfill_chunks')") == [(None,)]:
        return None
    return bench.rows("SELECT sum(loaded) FROM killed_internal.backfill_chunks")


def _kills(bench: Bench, kills: int, took: float, truth: dict[str, tuple[int, str]], uninterrupted: int) -> None:
    """Kill the backfill with -9 at random moments, resume it each time, and compare the final contents."""
    rng, before = random.Random(7), bench.requests()
    killed = 0
    for _ in range(kills):
        stored = _loaded(bench)
        child = bench.start("killed")
        while child.poll() is None and _loaded(bench) == stored:  # kill while it reads, not while it starts
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2 * took / kills))
        killed += child.poll() is None
        child.kill()
        child.wait()
    bench.start("killed").wait()
    assert bench.contents("killed") == truth
    loaded = bench.rows("SELECT sum(loaded) FROM killed_internal.backfill_chunks")
    assert loaded == [(sum(n for n, _ in truth.values()),)]
    requests = bench.requests() - before
    print(f"{killed} kills: same contents, {requests:,} requests, {requests / uninterrupted - 1:+.1%}", flush=True)


if __name__ == "__main__":
    main()
