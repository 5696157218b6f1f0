"""`python -m benchmarks.chaos_soak --events 1000000`: a large load under faults, row by row the same as one without.

A backfill and a daily run, twice: undisturbed, and with a tenth of all answers faulty in every way that asking again
mends, while Postgres is restarted three times.
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

from benchmarks.comparing import Difference, difference, events_difference, prepare, table
from benchmarks.workbench import parser, workplace, written
from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, StoppablePostgres, account

_EVENTS = "GET /api/events"
_DAYS = 730
_START = "2024-10-01"
_RIGHT, _DISTURBED = "undisturbed", "disturbed"
_AWAY = 3.0  # seconds
_RESTARTS = ((0.2, signal.SIGINT), (0.5, signal.SIGQUIT), (0.8, signal.SIGINT))  # share of the requests for events, how


class Place:
    """An account, a Postgres, and the commands between them."""

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

    def asked(self) -> int:
        """Requests for events so far."""
        return int(self.box.state()["requests"].get(_EVENTS, 0))

    def load(self, schema: str, expected_requests: int = 0) -> float:
        """A backfill, then a daily run; its seconds. Postgres is restarted on the way where requests are expected."""
        before, began = self.asked(), time.monotonic()
        waiting = [(before + share * expected_requests, how) for share, how in _RESTARTS if expected_requests]
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
                    if waiting and self.asked() >= waiting[0][0]:
                        self._restart(waiting.pop(0)[1])
                    time.sleep(0.2)
                log.seek(0)
                assert child.returncode == 0, log.read()[-3000:]
        return time.monotonic() - began

    def _restart(self, how: signal.Signals) -> None:
        self.postgres.stop(how)
        time.sleep(_AWAY)
        self.postgres.start()
        self.restarts += 1

    def counted(self, schema: str) -> tuple[int, int]:
        """Requests of all runs, and how many of them were sent again."""
        with psycopg.connect(self.postgres.url) as connection:
            [[requests, retries]] = connection.execute(
                f"SELECT sum(requests)::int, sum(retries)::int FROM {schema}.runs"  # type: ignore[arg-type]
            ).fetchall()
        return requests, retries


_TITLE = "A large load under faults"
_TEXT = """\
`python -m benchmarks.chaos_soak --events {events}`, {when}: a backfill of two years and a daily run, undisturbed and
then with {rate:.0%} of all answers faulty, drawn with seed {seed} from every kind that asking again mends, no answer
waited for longer than a second, and Postgres restarted {restarts} times (fast, immediate, fast; away for {away:g} s).

{loads}

Rows of the 18 tables that only the undisturbed load has: {lost}; that only the disturbed one has: {other}. Events of
the account that are not stored: {events_lost}; stored twice, or not the account's: {events_other}.

Faults met:

{faults}
"""


def main() -> None:
    """Load twice, compare, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--rate", type=float, default=0.1)
    arguments.add_argument("--seed", type=int, default=11)
    given = arguments.parse_args()
    with (
        workplace() as (folder, prefect),
        StoppablePostgres(folder) as postgres,
        running(events=given.events, days=_DAYS, members=max(100, given.events // 50)) as box,
    ):
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            prepare(connection, _RIGHT, _DISTURBED)
        place = Place(box, postgres, folder, prefect)
        undisturbed = place.load(_RIGHT)
        print(f"undisturbed: {undisturbed:.0f} s, {place.counted(_RIGHT)[0]:,} requests", flush=True)
        requests = place.asked()
        box.set_chaos(rate=given.rate, seed=given.seed, seconds=2.0, retry_after=1)
        disturbed = place.load(_DISTURBED, requests)
        box.set_chaos()
        met = box.state()["chaos"]
        print(f"disturbed: {disturbed:.0f} s, {sum(met.values())} faults, {place.restarts} restarts", flush=True)
        with psycopg.connect(postgres.url) as connection:
            rows = difference(connection, _RIGHT, _DISTURBED)
            events = events_difference(connection, box, _DISTURBED)
        text = _told(given, place, (undisturbed, disturbed), met, rows, events)
        written(given.write, _TITLE, text)
        if rows or events:
            sys.exit("The loads differ.")


def _told(
    given: argparse.Namespace,
    place: Place,
    seconds: tuple[float, float],
    met: Mapping[str, int],
    rows: Difference,
    events: Difference,
) -> str:
    loads = [
        (schema, f"{took:.0f}", *(f"{count:,}" for count in place.counted(schema)))
        for schema, took in zip((_RIGHT, _DISTURBED), seconds, strict=True)
    ]
    return _TEXT.format(
        events=given.events,
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        rate=given.rate,
        seed=given.seed,
        restarts=place.restarts,
        away=_AWAY,
        loads=table(("load", "seconds", "requests", "of them again"), loads),
        lost=rows.lost,
        other=rows.other,
        events_lost=events.lost,
        events_other=events.other,
        faults=table(("kind", "met"), sorted(met.items())),
    )


if __name__ == "__main__":
    main()
