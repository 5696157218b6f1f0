"""Daily runs with one fault each. Their outcome is compared with the account and with an undisturbed run."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from benchmarks.comparison import Difference, difference, events_difference, prepare
from sandbox.launcher import Sandbox
from tests.driver import ROOT, StoppablePostgres, account

EVENTS = "GET /api/events"
_UNDISTURBED = 3  # runs, whose median time counts
_LONGEST_RUN = 300.0  # seconds


def _last_sentence(output: str) -> str:
    """Return the last line of output, without the commands that are suggested after it."""
    lines = output.strip().splitlines()
    return next((line for line in reversed(lines) if line.endswith(".") and line == line.lstrip()), lines[-1])


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run; `message` is what the ledger says of it, or else its last sentence of output."""

    code: int
    message: str
    seconds: float
    requests: int
    retries: int


@dataclass(frozen=True)
class Row:
    """A row of the result: one fault and its outcome."""

    fault: str
    injected: int | str
    outcome: str
    difference: Difference | None
    more_seconds: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        difference = self.difference
        missing, surplus = ("", "") if difference is None else (difference.missing, difference.surplus)
        more = "" if self.more_seconds is None else f"{self.more_seconds:+.1f}"
        return self.fault, str(self.injected), self.outcome, str(missing), str(surplus), more


class Bench:
    """An account, a Postgres server that can be stopped, and the daily run from one to the other."""

    def __init__(self, box: Sandbox, postgres: StoppablePostgres, folder: Path, prefect: Mapping[str, str]) -> None:
        self.box, self.postgres, self._folder = box, postgres, folder
        self._environment = {**prefect, **account(box), "DATA_DIR": str(folder), "FIRST_SYNC_DAYS": "70"}
        self.requests = 0
        self.seconds = 0.0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """Yield a connection of the database's owner."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            yield connection

    def prepare(self, schema: str) -> None:
        """Create an empty schema."""
        with self.connection() as connection:
            prepare(connection, schema)

    def run(
        self,
        schema: str,
        *arguments: str,
        during: Callable[[], None] | None = None,
        user: str = "",
        settings: Mapping[str, str] | None = None,
        options: str = "",
    ) -> Outcome:
        """Run the daily sync, with options for its sessions of Postgres. `during` is called once it reads events."""
        parts = conninfo_to_dict(self.postgres.url)
        url = f"postgresql://{user or parts['user']}@/{parts['dbname']}?host={parts['host']}&options={quote(options)}"
        environment = {**self._environment, "DATABASE_URL": url, "WAREHOUSE_SCHEMA": schema, **(settings or {})}
        before, began = self._requests(), time.monotonic()
        with (self._folder / "run.log").open("w+") as log:
            child = subprocess.Popen(
                [sys.executable, "flows/daily.py", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
            while during is not None and child.poll() is None:
                if self._requests() - before >= 3:
                    during()
                    break
                time.sleep(0.02)
            code = child.wait(_LONGEST_RUN)
            seconds = time.monotonic() - began
            log.seek(0)
            output = log.read()
        message = self._message(schema) or _last_sentence(output)
        return Outcome(code, message, seconds, *self._traffic(schema))

    def _requests(self) -> int:
        return int(self.box.state()["requests"].get(EVENTS, 0))

    def _message(self, schema: str) -> str | None:
        """Return what the last run says in the ledger; None if it says nothing, or could not write there."""
        with self.connection() as connection:
            query = SQL("SELECT message FROM {} ORDER BY started_at DESC LIMIT 1").format(Identifier(schema, "runs"))
            row = connection.execute(query).fetchone()
        return row[0] if row else None

    def _traffic(self, schema: str) -> tuple[int, int]:
        with self.connection() as connection:
            query = SQL("SELECT coalesce(sum(requests), 0)::int, coalesce(sum(retries), 0)::int FROM {}")
            [[requests, retries]] = connection.execute(query.format(Identifier(schema, "runs"))).fetchall()
        return requests, retries

    def undisturbed(self) -> None:
        """Run without a fault a few times. Later runs are compared with the first of these."""
        times = []
        for number in range(_UNDISTURBED):
            self.prepare(f"right{number}")
            ran = self.run(f"right{number}")
            assert ran.code == 0, ran.message
            assert not self.difference(f"right{number}")
            times.append(ran.seconds)
            self.requests = ran.requests
        self.seconds = sorted(times)[len(times) // 2]

    def difference(self, schema: str) -> Difference:
        """Compare a schema with the account's events, and with all tables of the first undisturbed run."""
        with self.connection() as connection:
            events = events_difference(connection, self.box, schema)
            rows = difference(connection, "right0", schema)
        return Difference(max(events.missing, rows.missing), max(events.surplus, rows.surplus))

    def logged(self, pattern: str) -> int:
        """Return how often a pattern occurs in the log of Postgres."""
        log = (self._folder / "postgres" / "log").read_text(errors="replace")
        return len(re.findall(pattern, log))

    def describe(self, ran: Outcome) -> str:
        """Describe a complete run in a few words."""
        words = ["complete"]
        if ran.retries:
            words.append(f"{ran.retries} retries")
        if (more := ran.requests - ran.retries - self.requests) > 0:
            words.append(f"{more} more requests")
        return ", ".join(words)

    def row(self, fault: str, injected: int | str, schema: str, ran: Outcome, user: str = "") -> Row:
        """Return the row of a fault. A run that failed is first repeated without the fault."""
        if ran.code == 0:
            return Row(fault, injected, self.describe(ran), self.difference(schema), ran.seconds - self.seconds)
        rerun = self.run(schema, user=user)
        outcome = f"exit code {ran.code}: “{ran.message}” Rerun without the fault: exit code {rerun.code}"
        more = ran.seconds + rerun.seconds - self.seconds
        return Row(fault, injected, outcome, self.difference(schema), more)
