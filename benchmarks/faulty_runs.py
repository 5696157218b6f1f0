"""Daily runs with one fault each, and what became of them: compared with the account and with an undisturbed run."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from benchmarks.comparing import Difference, difference, events_difference, prepare
from sandbox.launcher import Sandbox
from tests.driver import ROOT, StoppablePostgres, account

EVENTS = "GET /api/events"
_UNDISTURBED = 3  # runs, of which the median counts
_LONGEST = 300.0  # seconds that a run may take


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    code: int
    said: str
    seconds: float
    requests: int
    retries: int


@dataclass(frozen=True)
class Row:
    """What became of one fault."""

    fault: str
    injected: int | str
    became: str
    difference: Difference | None
    more_seconds: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        lost, other = (self.difference.lost, self.difference.other) if self.difference is not None else ("", "")
        more = "" if self.more_seconds is None else f"{self.more_seconds:+.1f}"
        return self.fault, str(self.injected), self.became, str(lost), str(other), more


class Place:
    """An account, a Postgres that can be taken away, and the daily run between them."""

    def __init__(self, box: Sandbox, postgres: StoppablePostgres, folder: Path, prefect: Mapping[str, str]) -> None:
        self.box, self.postgres, self._folder = box, postgres, folder
        self._environment = {**prefect, **account(box), "DATA_DIR": str(folder), "FIRST_SYNC_DAYS": "70"}
        self.requests = 0
        self.seconds = 0.0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection of the owner of the database."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            yield connection

    def prepare(self, schema: str) -> None:
        with self.connection() as connection:
            prepare(connection, schema)

    def run(
        self, schema: str, *arguments: str, during: Callable[[], None] | None = None, user: str = "", **settings: str
    ) -> Ran:
        """The daily run; `during` is called when it has begun to read events."""
        parts = conninfo_to_dict(self.postgres.url)
        url = f"postgresql://{user or parts['user']}@/{parts['dbname']}?host={parts['host']}"
        environment = {**self._environment, "DATABASE_URL": url, "WAREHOUSE_SCHEMA": schema, **settings}
        before, began = self._asked(), time.monotonic()
        with (self._folder / "run.log").open("w+") as log:
            child = subprocess.Popen(
                [sys.executable, "flows/daily.py", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
            while during is not None and child.poll() is None:
                if self._asked() - before >= 3:
                    during()
                    break
                time.sleep(0.02)
            code = child.wait(_LONGEST)
            seconds = time.monotonic() - began
            log.seek(0)
            said = log.read()
        return Ran(code, said.strip().splitlines()[-1], seconds, *self._counted(schema))

    def _asked(self) -> int:
        return int(self.box.state()["requests"].get(EVENTS, 0))

    def _counted(self, schema: str) -> tuple[int, int]:
        with self.connection() as connection:
            query = SQL("SELECT coalesce(sum(requests), 0)::int, coalesce(sum(retries), 0)::int FROM {}")
            [[requests, retries]] = connection.execute(query.format(Identifier(schema, "runs"))).fetchall()
        return requests, retries

    def undisturbed(self) -> None:
        """Runs without a fault, the first of which all others are compared with."""
        times = []
        for number in range(_UNDISTURBED):
            self.prepare(f"right{number}")
            ran = self.run(f"right{number}")
            assert ran.code == 0, ran.said
            assert not self.compared(f"right{number}")
            times.append(ran.seconds)
            self.requests = ran.requests
        self.seconds = sorted(times)[len(times) // 2]

    def compared(self, schema: str) -> Difference:
        """With the account's events, and with all tables of the first undisturbed run."""
        with self.connection() as connection:
            events = events_difference(connection, self.box, schema)
            rows = difference(connection, "right0", schema)
        return Difference(max(events.lost, rows.lost), max(events.other, rows.other))

    def logged(self, pattern: str) -> int:
        """Lines of Postgres' log."""
        log = (self._folder / "postgres" / "log").read_text(errors="replace")
        return len(re.findall(pattern, log))

    def completed(self, ran: Ran) -> str:
        """A run that is complete in a few words."""
        words = ["complete"]
        if ran.retries:
            words.append(f"{ran.retries} asked again")
        if (more := ran.requests - ran.retries - self.requests) > 0:
            words.append(f"{more} more requests")
        return ", ".join(words)

    def row(self, fault: str, injected: int | str, schema: str, ran: Ran, user: str = "", **settings: str) -> Row:
        """Where the run was not complete, one without the fault has to be."""
        if ran.code == 0:
            return Row(fault, injected, self.completed(ran), self.compared(schema), ran.seconds - self.seconds)
        again = self.run(schema, user=user, **settings)
        became = f"exit code {ran.code}: “{ran.said}” Without the fault: exit code {again.code}"
        more = ran.seconds + again.seconds - self.seconds
        return Row(fault, injected, became, self.compared(schema), more)
