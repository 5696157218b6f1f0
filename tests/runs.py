"""Runs in this process, over a warehouse and any source, and their results. Knows no Prefect and no single account."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict

from klaviyo_pg import schemas
from klaviyo_pg.catalogue import DATA
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.postgres.ledgers import run_ledger
from klaviyo_pg.settings import Settings, load_settings
from klaviyo_pg.states import RunState
from klaviyo_pg.traffic import Traffic
from pipeline import runs
from pipeline.backfill.runbook import backfill
from pipeline.daily.runbook import sync
from pipeline.job import Job
from pipeline.outcome import RowCounts, Tally
from pipeline.reconcile.runbook import reconcile
from pipeline.runs import Run
from pipeline.session import Clock, OpenSource, Session, present
from pipeline.workers import ThreadWorkers
from sandbox.api.keys import API_KEY, key_of
from tests import driver

LOG = logging.getLogger("tests.runs")
ALL_EVENTS = tuple(table.name for table in EVENT_TABLES)
"""A selection of tables with which a run reads events and nothing else."""
_SETTINGS: dict[str, Settings] = {}


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
    counts: RowCounts
    traffic: Traffic
    published: Published

    def changed(self) -> dict[str, tuple[int, int]]:
        """Return the rows inserted and updated, by table, of tables in which anything changed."""
        changes = {table: (numbers["inserted"], numbers["updated"]) for table, numbers in self.counts.items()}
        return {table: numbers for table, numbers in changes.items() if any(numbers)}


@dataclass
class Warehouse:
    """A warehouse that is filled by runs in this process.

    `settings` are those of all runs; a run can change some. `open_source` opens the account. `session` is the session
    of the run in progress, or of the last one. `now` is the clock of runs.
    """

    url: str
    settings: Mapping[str, object]
    open_source: OpenSource = open_source
    session: Session | None = None
    now: Clock = present

    def configured(self, **changes: object) -> Settings:
        """Return the settings of a run."""
        settings = {**self.settings, **changes}
        name = str(settings.get("klaviyo_integration"))
        if settings.get("klaviyo_api_key") == API_KEY and name != "default":
            settings["klaviyo_api_key"] = key_of(name)  # an account can have only one name in a warehouse
        return _settings(repr(sorted(settings.items())), settings)

    def variant(self, **changes: object) -> "Warehouse":
        """Return the same database with other settings, such as another schema, dialect or account."""
        return replace(self, settings={**self.settings, **changes}, session=None)

    def open(self, **changes: object) -> Session:
        """Open a session; the caller closes it."""
        return Session(self.configured(**changes), self.open_source, self.now)

    def daily(self, *tables: str, since: datetime | None = None, **settings: object) -> Result:
        """Run the daily sync."""
        selected = {"tables": tables} if tables else {}
        return self.follow("daily", partial(sync, since=since), {"since": since}, {**selected, **settings})

    def backfill(
        self, start: datetime, end: datetime | None = None, restart: bool = False, **settings: object
    ) -> Result:
        """Run a backfill."""
        runbook = partial(backfill, start=start, end=end, restart=restart)
        selection = {"start": start, "end": end, "restart": restart}
        return self.follow("backfill", runbook, selection, settings, tolerates_failures=True)

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
            job = Job(session, run, ThreadWorkers(session), Tally(tolerates_failures, run.notes), LOG, published)
            try:
                runbook(job)
            except KlaviyoPgError as error:
                job.tally.end_with(error)
            tally = job.tally
            runs.finish(session, run, tally.state, tally.sentences)
            counts = session.database.patiently(lambda each: run_ledger.run_counts(run.account(each), run.id))
            return Result(run, tally.state, tally.sentences, tally.exit_code, counts, session.traffic, published)

    def wait_for_the_next_second(self) -> None:
        """Wait until a run that begins is later than all that has happened: its time has no fraction of a second."""
        next_second = self.now().replace(microsecond=0) + timedelta(seconds=1)
        driver.wait_until(lambda: self.now() >= next_second, "the next second began")

    def stop(self) -> None:
        """Ask the run in progress to stop, as a signal does."""
        assert self.session is not None
        self.session.stop.request(Stopped())

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connected() as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """Return the only value of a query."""
        [[value]] = self.rows(query, *values)
        return value

    def column(self, query: str, *values: object) -> list[Any]:
        """Return the values of a query's only column."""
        return [value for (value,) in self.rows(query, *values)]

    def execute(self, statement: str, *values: object) -> None:
        """Run a statement."""
        with self._connected() as connection:
            connection.execute(statement, values)

    def _connected(self) -> psycopg.Connection:
        """Connect to the database; names without a schema are those of the warehouse's schemas."""
        schema = str(self.settings.get("warehouse_schema", "klaviyo"))
        return psycopg.connect(self.url, autocommit=True, options=search_path(schema))

    def event_ids(self) -> list[str]:
        """Return the ids of all stored events, as often as they are stored."""
        return self.column(" UNION ALL ".join(f"SELECT id FROM {table.name}" for table in EVENT_TABLES))

    def watermarks(self) -> dict[str, datetime]:
        """Return the watermark of each stream."""
        return dict(self.rows("SELECT stream, watermark FROM watermarks"))

    def history(self) -> list[tuple[Any, ...]]:
        """Return metric, state, expected and loaded events of each chunk of history, in order of time."""
        return self.rows(
            "SELECT metric_id, state, expected, loaded FROM backfill_chunks ORDER BY metric_id, window_start"
        )


def positions(warehouse: Warehouse) -> dict[str, list[tuple[str, ...]]]:
    """Return the position and the transaction of each row, by table of data. Writing a row changes both."""
    return {
        table.name: warehouse.rows(f"SELECT ctid::text, xmin::text FROM {table.name} ORDER BY ctid") for table in DATA
    }


def search_path(schema: str) -> str:
    """Return the option of a connection in which both schemas of a warehouse are searched."""
    return f"-c search_path={','.join(schemas.both(schema))}"


def _settings(key: str, settings: Mapping[str, object]) -> Settings:
    """Return settings, which are read once for each combination: reading them takes longer than a small batch."""
    if key not in _SETTINGS:
        _SETTINGS[key] = load_settings(**settings)
    return _SETTINGS[key]


def in_process(warehouse: driver.Warehouse, settings: Mapping[str, str]) -> Warehouse:
    """Return the warehouse of a command's test for runs in this process, with the settings that commands get."""
    environment = {**settings, "DATABASE_URL": warehouse.url, "DATA_DIR": warehouse.environment["DATA_DIR"]}
    return Warehouse(warehouse.url, {name.lower(): value for name, value in environment.items()})


def url_of(conninfo: str) -> str:
    """Return a postgresql:// URL for a conninfo."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    user, password, database = (parts.pop(name, None) for name in ("user", "password", "dbname"))
    url = sqlalchemy.URL.create("postgresql", user, password, database=database, query=parts)
    return url.render_as_string(hide_password=False)
