"""`python -m benchmarks.limits --write docs/reliability.md`: how much of the API's rate limit for events is used.

A backfill of a large account at 200 ms an answer, under the published limit: with pages of few events, and with full
ones, which a small machine may not be able to take in as fast. Then under a tenth of the limit, alone and with a daily
run beside it: two processes that share the limit through the warehouse.
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

from benchmarks.comparing import table
from benchmarks.workbench import parser, workplace, written
from klaviyo_pg.klaviyo.limits import Limit, rate
from klaviyo_pg.postgres import embedded
from sandbox.launcher import Sandbox, running
from sandbox.limits import XL
from tests.driver import ROOT, account

_EVENTS = "GET /api/events"
_SHARE = 0.9  # RATE_LIMIT_SHARE
_LATENCY_MS = 200
_START = "2024-10-01"
_DAYS = 730
_WARM_UP = 20.0  # seconds of reading before the steady state
_BESIDE = ["flows/daily.py", "--since", _START]


@dataclass(frozen=True)
class Measured:
    """What was asked in the steady state."""

    what: str
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
            self.what,
            f"{self.steady:,}",
            f"{per_minute:,.0f}",
            f"{per_minute / (self.steady * _SHARE):.1%}",
            f"{self.throttled} ({self.throttled / max(1, self.requests):.2%})",
            f"{sum(self.processors.values()):.2f} of {os.cpu_count()}: {busy}",
        )


def _traffic(box: Sandbox, since: float, until: float) -> tuple[int, int]:
    """Requests for events in these seconds, and the answers 429 so far."""
    told = box.traffic().get(_EVENTS, {"seconds": {}, "throttled": 0})
    counted = sum(count for second, count in told["seconds"].items() if since <= int(second) < until)
    return counted, int(told["throttled"])


def _processor_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """Of each process and all of its children."""
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


class Place:
    """An account, a warehouse, and commands between them."""

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

    def measure(self, what: str, schema: str, steady: int, minutes: float, page: int, beside: bool) -> Measured:
        """Load, wait until it is under way, count for so many minutes, and stop."""
        limits = {"limits": "real", "others": {_EVENTS: [steady // 10, steady]}}
        self.box.set_server(**limits, latency_ms=_LATENCY_MS, most_events=page)
        other = None
        if beside:
            assert self._start(["flows/daily.py", "--tables", "metrics"], schema).wait(120) == 0
        main = self._start(["flows/backfill.py", "--start", _START], schema)
        try:
            before = self._asked()
            while self._asked() < before + 20 and main.poll() is None:
                time.sleep(0.2)
            if beside:
                other = self._start(_BESIDE, schema)
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
            assert other is None or other.poll() is None, "the daily run is over too soon"
            until = time.time()
            requests, throttled_now = _traffic(self.box, int(since), int(until))
            now = _processor_seconds(roots)
        finally:
            for child in filter(None, (main, other)):
                child.kill()  # what it has loaded is of no interest, and finishing the parts in hand takes minutes
                child.wait()
        seconds = int(until) - int(since)
        processors = {name: (now[name] - used[name]) / (until - since) for name in roots}
        return Measured(what, steady, requests, throttled_now - throttled, seconds, processors)

    def _asked(self) -> int:
        return int(self.box.state()["requests"].get(_EVENTS, 0))


_TITLE = "The rate limit"
_TEXT = """\
`python -m benchmarks.limits`, {when}: a backfill of an account of {events:,} events, {latency} ms an answer, counted by
the sandbox for {minutes:g} minutes after {warm:.0f} s of reading; RATE_LIMIT_SHARE is {share:g}. With the published
limit the machine may be the bound (load average {load:.1f}); with a tenth of it, the limit is. *Of the share* is the
measured rate by {share:g} of the limit; a pace that fits into every minute, however it is counted, is {allowed:.1%}.

{table}
"""
_HEAD = ("load", "limit a minute", "requests a minute", "of the share", "answered 429", "processors")


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=8_000_000)
    arguments.add_argument("--minutes", type=float, default=3.0)
    given = arguments.parse_args()
    with workplace() as (folder, prefect), running(events=given.events, days=_DAYS, members=20_000) as box:
        place = Place(box, folder, prefect)
        tenth = XL.steady // 10
        rows = []
        for what, schema, steady, page, beside in (
            ("a backfill, at most 100 events a page", "few", XL.steady, 100, False),
            ("a backfill and a daily run, at most 100 events a page", "few_both", XL.steady, 100, True),
            ("a backfill", "whole", XL.steady, 1_000, False),
            ("a backfill", "tenth", tenth, 1_000, False),
            ("a backfill and a daily run", "both", tenth, 1_000, True),
        ):
            measured = place.measure(what, schema, steady, given.minutes, page, beside)
            print(" | ".join(measured.cells), flush=True)
            rows.append(measured.cells)
        paced = rate(Limit(XL.burst, XL.steady), _SHARE)
        text = _TEXT.format(
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            events=given.events,
            latency=_LATENCY_MS,
            minutes=given.minutes,
            warm=_WARM_UP,
            share=_SHARE,
            load=os.getloadavg()[2],
            allowed=paced.limit / (XL.steady * _SHARE),
            table=table(_HEAD, rows),
        )
        written(given.write, _TITLE, text)


if __name__ == "__main__":
    main()
