"""`python -m benchmarks.limits --write docs/reliability.md`: measure how much of the rate limit for events is used.

Runs a backfill of a large account at 200 ms per response. Under the published limit it reads small pages, and then full
pages, for which a small machine may be too slow. Under a tenth of the limit it runs alone, and then together with a
daily run: the two processes share the limit through the warehouse.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.comparison import table
from benchmarks.workbench import parser, report, workspace
from klaviyo_pg.klaviyo.pace import Limit, rate
from klaviyo_pg.postgres.server import embedded
from sandbox.api.limits import XL
from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, account

_EVENTS = "GET /api/events"
_SHARE = 0.9  # RATE_LIMIT_SHARE
_LATENCY_MS = 200
_START = "2024-10-01"
_DAYS = 730
_WARM_UP = 20.0  # seconds of reading before the steady state
_DAILY = ["flows/daily.py", "--since", _START]


@dataclass(frozen=True)
class Measured:
    """The requests of one load in its steady state."""

    load: str
    steady: int
    requests: int
    throttled: int
    seconds: float
    processors: Mapping[str, float]

    @property
    def cells(self) -> tuple[str, ...]:
        per_minute = self.requests / self.seconds * 60
        busy = ", ".join(f"{name} {share:.2f}" for name, share in self.processors.items())
        return (
            self.load,
            f"{self.steady:,}",
            f"{per_minute:,.0f}",
            f"{per_minute / (self.steady * _SHARE):.1%}",
            f"{self.throttled} ({self.throttled / max(1, self.requests):.2%})",
            f"{sum(self.processors.values()):.2f} of {os.cpu_count()}: {busy}",
        )


def _traffic(box: Sandbox, since: float, until: float) -> tuple[int, int]:
    """Return the number of requests for events in this period, and of 429 responses so far."""
    traffic = box.traffic().get(_EVENTS, {"seconds": {}, "throttled": 0})
    requests = sum(count for second, count in traffic["seconds"].items() if since <= int(second) < until)
    return requests, int(traffic["throttled"])


def _processor_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the processor time of each process, including its children."""
    used = {}
    for name, pid in roots.items():
        used[name] = 0.0
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    used[name] += times.user + times.system + times.children_user + times.children_system
    return used


class Bench:
    """An account, a warehouse, and the commands that load one into the other."""

    def __init__(self, box: Sandbox, folder: Path, prefect: Mapping[str, str]) -> None:
        self.box, self._folder = box, folder
        self._url = embedded.url(folder)
        self._postgres = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        self._environment = {
            **prefect,
            **account(box),
            "DATABASE_URL": self._url,
            "DATA_DIR": str(folder),
            "FIRST_SYNC_DAYS": "1",
        }

    def _start(self, command: list[str], schema: str) -> "subprocess.Popen[bytes]":
        environment = {**self._environment, "WAREHOUSE_SCHEMA": schema}
        with (self._folder / f"{Path(command[0]).stem}.log").open("w") as log:
            return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)

    def measure(self, load: str, schema: str, steady: int, minutes: float, page: int, with_daily: bool) -> Measured:
        """Start a load, count its requests in the steady state for some minutes, and stop it."""
        limits = {"limits": "real", "others": {_EVENTS: [steady // 10, steady]}}
        self.box.set_server(**limits, latency_ms=_LATENCY_MS, most_events=page)
        other = None
        if with_daily:
            assert self._start(["flows/daily.py", "--tables", "metrics"], schema).wait(120) == 0
        main = self._start(["flows/backfill.py", "--start", _START], schema)
        try:
            before = self._requests()
            while self._requests() < before + 20 and main.poll() is None:
                time.sleep(0.2)
            if with_daily:
                other = self._start(_DAILY, schema)
            time.sleep(_WARM_UP)
            roots = {"loader": main.pid, "sandbox": self.box.pid, "Postgres": self._postgres}
            if other is not None:
                roots["daily run"] = other.pid
            since, used = time.time(), _processor_seconds(roots)
            throttled = _traffic(self.box, 0, 0)[1]
            until = since + minutes * 60
            while time.time() < until and main.poll() is None and (other is None or other.poll() is None):
                time.sleep(0.5)
            assert main.poll() is None, "the account is too small for this machine"
            assert other is None or other.poll() is None, "the daily run ended too soon"
            until = time.time()
            requests, throttled_now = _traffic(self.box, int(since), int(until))
            now = _processor_seconds(roots)
        finally:
            for child in filter(None, (main, other)):
                child.kill()  # SIGTERM would first finish the current batches, which takes minutes
                child.wait()
        seconds = int(until) - int(since)
        processors = {name: (now[name] - used[name]) / (until - since) for name in roots}
        return Measured(load, steady, requests, throttled_now - throttled, seconds, processors)

    def _requests(self) -> int:
        return int(self.box.state()["requests"].get(_EVENTS, 0))


_TITLE = "The rate limit"
_TEXT = """\
`python -m benchmarks.limits`, {when}: a backfill of an account with {events:,} events, {latency} ms per
response and RATE_LIMIT_SHARE={share:g}. The sandbox counted requests for {minutes:g} minutes, after {warm:.0f}
seconds of reading. With the published limit, the machine may be the bottleneck (load average {load:.1f}); with a
tenth of it, the limit is. *Share used* is the measured rate divided by {share:g} of the limit. The highest pace
that fits into every minute, however minutes are counted, is {allowed:.1%}.

{table}
"""
_HEAD = ("load", "limit per minute", "requests per minute", "share used", "429 responses", "CPUs")


def main() -> None:
    """Measure each load, print the result and write it."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=8_000_000)
    arguments.add_argument("--minutes", type=float, default=3.0)
    options = arguments.parse_args()
    with workspace() as (folder, prefect), running(events=options.events, days=_DAYS, members=20_000) as box:
        bench = Bench(box, folder, prefect)
        tenth = XL.steady // 10
        rows = []
        for load, schema, steady, page, with_daily in (
            ("backfill, at most 100 events per page", "few", XL.steady, 100, False),
            ("backfill and daily run, at most 100 events per page", "few_both", XL.steady, 100, True),
            ("backfill", "whole", XL.steady, 1_000, False),
            ("backfill", "tenth", tenth, 1_000, False),
            ("backfill and daily run", "both", tenth, 1_000, True),
        ):
            measured = bench.measure(load, schema, steady, options.minutes, page, with_daily)
            print(" | ".join(measured.cells), flush=True)
            rows.append(measured.cells)
        paced = rate(Limit(XL.burst, XL.steady), _SHARE)
        text = _TEXT.format(
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            events=options.events,
            latency=_LATENCY_MS,
            minutes=options.minutes,
            warm=_WARM_UP,
            share=_SHARE,
            load=os.getloadavg()[2],
            allowed=paced.limit / (XL.steady * _SHARE),
            table=table(_HEAD, rows),
        )
        report(options.write, _TITLE, text)


if __name__ == "__main__":
    main()
