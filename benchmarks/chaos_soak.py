"""`python -m benchmarks.chaos_soak --events 1000000`: compare a large load under faults with an undisturbed one.

Runs a backfill and a daily run twice: undisturbed, and with a tenth of all responses faulty in every way that a retry
can overcome, while Postgres is restarted three times. The tables must be the same row by row.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks.comparison import Difference, difference, events_difference, prepare, table
from benchmarks.workbench import parser, report, workspace
from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, StoppablePostgres, account

_EVENTS = "GET /api/events"
_DAYS = 730
_START = "2024-10-01"
_UNDISTURBED, _DISTURBED = "undisturbed", "disturbed"
_OUTAGE = 3.0  # seconds
_RESTARTS = ((0.2, signal.SIGINT), (0.5, signal.SIGQUIT), (0.8, signal.SIGINT))  # share of requests, signal


class Bench:
    """An account, a Postgres server, and the commands that load one into the other."""

    def __init__(self, box: Sandbox, postgres: StoppablePostgres, folder: Path, prefect: Mapping[str, str]) -> None:
        self.box, self.postgres, self._folder = box, postgres, folder
        self._environment = {
            **prefect,
            **account(box),
            "DATABASE_URL": postgres.url,
            "DATA_DIR": str(folder),
            "REQUEST_TIMEOUT_SECONDS": "1",
        }
        self.restarts = 0

    def requests(self) -> int:
        """Return the number of requests for events so far."""
        return int(self.box.state()["requests"].get(_EVENTS, 0))

    def load(self, schema: str, expected_requests: int = 0) -> float:
        """Run a backfill and then a daily run; return the seconds.

        Postgres is restarted after certain shares of the expected requests. If none are expected, it is left alone.
        """
        before, began = self.requests(), time.monotonic()
        restarts = [(before + share * expected_requests, number) for share, number in _RESTARTS if expected_requests]
        for command in (["flows/backfill.py", "--start", _START], ["flows/daily.py"]):
            with (self._folder / f"{schema}.log").open("w+") as log:
                child = subprocess.Popen(
                    [sys.executable, *command],
                    cwd=ROOT,
                    env={**self._environment, "WAREHOUSE_SCHEMA": schema},
                    stdout=log,
                    stderr=log,
                )
                while child.poll() is None:
                    if restarts and self.requests() >= restarts[0][0]:
                        self._restart(restarts.pop(0)[1])
                    time.sleep(0.2)
                log.seek(0)
                assert child.returncode == 0, log.read()[-3000:]
        return time.monotonic() - began

    def _restart(self, number: signal.Signals) -> None:
        self.postgres.stop(number)
        time.sleep(_OUTAGE)
        self.postgres.start()
        self.restarts += 1

    def traffic(self, schema: str) -> tuple[int, int]:
        """Return the requests of all runs, and how many of them were retries."""
        with psycopg.connect(self.postgres.url) as connection:
            [[requests, retries]] = connection.execute(
                f"SELECT sum(requests)::int, sum(retries)::int FROM {schema}.runs"
            ).fetchall()
        return requests, retries


_TITLE = "A large load under faults"
_TEXT = """\
`python -m benchmarks.chaos_soak --events {events}`, {when}: a backfill of two years and a daily run, first
undisturbed and then with {rate:.0%} of all responses faulty. The faults were drawn with seed {seed} from every
kind that a retry can overcome. Requests timed out after a second, and Postgres was restarted {restarts} times
(fast, immediate, fast; each time down for {away:g} s).

{loads}

Rows of the 18 tables that only the undisturbed load has: {lost}; that only the disturbed one has: {other}.
Events of the account that are not stored: {events_lost}; stored twice, or not in the account: {events_other}.

Faults that occurred:

{faults}
"""


def main() -> None:
    """Load twice, compare the tables, print the result and write it."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--rate", type=float, default=0.1)
    arguments.add_argument("--seed", type=int, default=11)
    options = arguments.parse_args()
    with (
        workspace() as (folder, prefect),
        StoppablePostgres(folder) as postgres,
        running(events=options.events, days=_DAYS, members=max(100, options.events // 50)) as box,
    ):
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            prepare(connection, _UNDISTURBED, _DISTURBED)
        bench = Bench(box, postgres, folder, prefect)
        undisturbed = bench.load(_UNDISTURBED)
        print(f"undisturbed: {undisturbed:.0f} s, {bench.traffic(_UNDISTURBED)[0]:,} requests", flush=True)
        requests = bench.requests()
        box.set_chaos(rate=options.rate, seed=options.seed, seconds=2.0, retry_after=1)
        disturbed = bench.load(_DISTURBED, requests)
        box.set_chaos()
        faults = box.state()["chaos"]
        print(f"disturbed: {disturbed:.0f} s, {sum(faults.values())} faults, {bench.restarts} restarts", flush=True)
        with psycopg.connect(postgres.url) as connection:
            rows = difference(connection, _UNDISTURBED, _DISTURBED)
            events = events_difference(connection, box, _DISTURBED)
        text = _text(options, bench, (undisturbed, disturbed), faults, rows, events)
        report(options.write, _TITLE, text)
        if rows or events:
            sys.exit("The loads differ.")


def _text(
    options: argparse.Namespace,
    bench: Bench,
    seconds: tuple[float, float],
    faults: Mapping[str, int],
    rows: Difference,
    events: Difference,
) -> str:
    loads = [
        (schema, f"{took:.0f}", *(f"{count:,}" for count in bench.traffic(schema)))
        for schema, took in zip((_UNDISTURBED, _DISTURBED), seconds, strict=True)
    ]
    return _TEXT.format(
        events=options.events,
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        rate=options.rate,
        seed=options.seed,
        restarts=bench.restarts,
        away=_OUTAGE,
        loads=table(("load", "seconds", "requests", "retries"), loads),
        lost=rows.missing,
        other=rows.surplus,
        events_lost=events.missing,
        events_other=events.surplus,
        faults=table(("kind", "count"), sorted(faults.items())),
    )


if __name__ == "__main__":
    main()
