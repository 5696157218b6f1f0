"""Runs in this process: a session over a fresh warehouse and an account in memory, without Prefect."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.klaviyo.client import Traffic
from klaviyo_pg.postgres import runs as ledger
from klaviyo_pg.settings import Settings, load_settings
from klaviyo_pg.states import RunState
from pipeline import run as runs
from pipeline.backfill.runbook import backfill
from pipeline.daily import sync
from pipeline.job import Job
from pipeline.outcome import Counts, Tally
from pipeline.reconcile.runbook import reconcile
from pipeline.run import Run
from pipeline.session import Session
from pipeline.streams import streams_of
from pipeline.workers import ThreadWorkers
from tests.fakes import FakeAccount

MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LOG = logging.getLogger("tests.pipeline")


def days_ago(number: float) -> datetime:
    """Return the time so many days before the last midnight."""
    return MIDNIGHT - number * DAY


@dataclass
class Published:
    """Keeps what a run publishes, by key."""

    tables: dict[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def table(self, key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
        self.tables[key] = rows

    def markdown(self, key: str, text: str, description: str) -> None:
        self.texts[key] = text

    def progress(self, share: float) -> None:
        assert 0 <= share <= 1


@dataclass(frozen=True)
class Result:
    """A run that has ended: its state, its sentences, its exit code, what it counted and what it published."""

    run: Run
    state: RunState
    sentences: list[str]
    exit_code: int
    counts: Counts
    traffic: Traffic
    published: Published

    def changed(self) -> dict[str, tuple[int, int]]:
        """Return the rows inserted and updated, by table, of tables in which anything changed."""
        changes = {table: (numbers["inserted"], numbers["updated"]) for table, numbers in self.counts.items()}
        return {table: numbers for table, numbers in changes.items() if any(numbers)}


@dataclass
class Warehouse:
    """A warehouse that is filled from an account in memory by runs in this process.

    `session` is the session of the run in progress, or of the last one.
    """

    url: str
    account: FakeAccount
    settings: Mapping[str, object]
    session: Session | None = None

    def configured(self, **changes: object) -> Settings:
        """Return the settings of a run."""
        return load_settings(**{**self.settings, **changes})

    def open(self, **changes: object) -> Session:
        """Open a session; the caller closes it."""
        return Session(self.configured(**changes), self.account.open)

    def daily(self, *tables: str, since: datetime | None = None, **settings: object) -> Result:
        """Run the daily sync."""
        runbook = partial(sync, streams=streams_of(tables), since=since)
        return self.follow("daily", runbook, {"tables": tables, "since": since}, settings)

    def backfill(
        self, start: datetime, end: datetime | None = None, restart: bool = False, **settings: object
    ) -> Result:
        """Run a backfill."""
        runbook = partial(backfill, start=start, end=end, restart=restart)
        return self.follow("backfill", runbook, {"start": start, "end": end}, settings, tolerates_failures=True)

    def reconcile(self, **settings: object) -> Result:
        """Run a reconciliation of counts."""
        return self.follow("reconcile", reconcile, {}, settings)

    def follow(
        self,
        flow: str,
        runbook: Callable[[Job], None],
        selection: Mapping[str, object],
        settings: Mapping[str, object],
        tolerates_failures: bool = False,
    ) -> Result:
        """Begin a run, follow its runbook, and close it, as tasks.flow_run does."""
        published = Published()
        with self.open(**settings) as session:
            self.session = session
            run = runs.begin(session, flow, selection, LOG)
            job = Job(session, run, ThreadWorkers(session), Tally(tolerates_failures), LOG, published)
            try:
                runbook(job)
            except KlaviyoPgError as error:
                job.tally.end(error)
            tally = job.tally
            runs.finish(session, run, tally.state, tally.sentences)
            counts = runs.transact(session, run, lambda account: ledger.run_counts(account, run.id))
            return Result(run, tally.state, tally.sentences, tally.exit_code, counts, session.traffic, published)

    def stop(self) -> None:
        """Ask the run in progress to stop, as a signal does."""
        assert self.session is not None
        self.session.stop.request(Stopped())

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.url, options="-c search_path=klaviyo") as connection:
            return connection.execute(query, values).fetchall()

    def column(self, query: str, *values: object) -> list[Any]:
        """Return the values of a query's only column."""
        return [value for (value,) in self.rows(query, *values)]

    def execute(self, statement: str, *values: object) -> None:
        """Run a statement."""
        with psycopg.connect(self.url, autocommit=True, options="-c search_path=klaviyo") as connection:
            connection.execute(statement, values)

    def watermarks(self) -> dict[str, datetime]:
        """Return the watermark of each stream."""
        return dict(self.rows("SELECT stream, watermark FROM watermarks"))

    def history(self) -> list[tuple[Any, ...]]:
        """Return metric, state, expected and loaded events of each chunk of history, in order of time."""
        return self.rows(
            "SELECT metric_id, state, expected, loaded FROM backfill_chunks ORDER BY metric_id, window_start"
        )


def url_of(conninfo: str) -> str:
    """Return a postgresql:// URL for a conninfo."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    user, password, database = (parts.pop(name, None) for name in ("user", "password", "dbname"))
    url = sqlalchemy.URL.create("postgresql", user, password, database=database, query=parts)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def shop() -> FakeAccount:
    """Return an account with a few rows of every kind: two metrics, two lists, four people, ten events."""
    shop = FakeAccount()
    shop.add_metric("OPEN", "Opened Email")
    shop.add_metric("ORDER", "Placed Order")
    for number in range(4):
        shop.add_person(f"P{number}", days_ago(20 - number), properties=(("size", str(number)),))
    for list_id in ("L1", "L2"):
        shop.add_list(list_id, f"List {list_id}")
    shop.add_member("L1", "P0", days_ago(9))
    shop.add_member("L1", "P1", days_ago(8))
    shop.add_member("L2", "P1", days_ago(7))
    shop.add_events("OPEN", *(days_ago(6 - number) + HOUR for number in range(6)), person="P0")
    shop.add_events("ORDER", *(days_ago(5 - number) for number in range(4)), person="P2")
    return shop


@pytest.fixture
def warehouse(database: str, shop: FakeAccount, tmp_path: Path) -> Warehouse:
    """Return a warehouse without rows, for the account `shop`."""
    settings = {
        "database_url": url_of(database),
        "klaviyo_api_key": "pk_none",
        "klaviyo_integration": "shop",
        "data_dir": tmp_path,
        "concurrency": 2,
        "first_sync_days": 7,
    }
    return Warehouse(database, shop, settings)
