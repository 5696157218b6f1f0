"""Shared by the benchmarks of large accounts: daily runs in a process each, and everything that they cost.

Runs do not use Prefect, so that the figures are those of the loader.
"""

import resource
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

import psutil
import psycopg

from benchmarks.workbench import peak_memory_mb, processor_seconds, wal_position
from sandbox.launcher import Sandbox
from tests.driver import account, postgres_server
from tests.runs import Warehouse

_SCANS = """
    SELECT pg_class.relname, reltuples::bigint,
        seq_scan, seq_tup_read, coalesce(idx_scan, 0), n_tup_ins, n_tup_upd, n_tup_del
    FROM pg_stat_user_tables JOIN pg_class ON oid = relid
    WHERE seq_tup_read > 0 OR n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY seq_tup_read DESC
"""


class Stage(NamedTuple):
    """A stage of a run, as the live display shows it."""

    title: str
    seconds: float


@dataclass(frozen=True)
class Loaded:
    """A run as the process that executed it measured it. `rss` is the peak in MB."""

    state: str
    seconds: float
    processor: float
    rss: float
    requests: int
    changed: dict[str, tuple[int, int]]
    stages: list[Stage]


@dataclass(frozen=True)
class Cost:
    """A run and what it cost in other processes: seconds of processor time, and bytes of WAL."""

    loaded: Loaded
    postgres: float
    sandbox: float
    wal: int


class Bench:
    """A large account, a Postgres server, and the daily run from one to the other."""

    def __init__(self, box: Sandbox, folder: Path, **settings: object) -> None:
        self.box, self._folder = box, folder
        self._server_url = postgres_server(folder)
        self._settings = {**{name.lower(): value for name, value in account(box).items()}, **settings}
        self.url = self._server_url

    def new_database(self, name: str) -> None:
        """Use another database, which is empty."""
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        self.url = self._server_url.replace("/postgres?", f"/{name}?")

    def daily(self, since: datetime | None = None, **settings: object) -> Cost:
        """Execute a daily run in a separate process."""
        settings = {**self._settings, **settings, "database_url": self.url, "data_dir": str(self._folder / "data")}
        before = self._used()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            loaded = pool.submit(_load, self.url, settings, since).result()
        after = self._used()
        return Cost(loaded, *(new - old for old, new in zip(before, after, strict=True)))  # type: ignore[arg-type]

    def _used(self) -> tuple[float, float, int]:
        """Return the processor time of Postgres and of the sandbox, and the position of the WAL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            wal = wal_position(connection)
        postmaster = int((self._folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
        return _processor_time(postmaster), _processor_time(self.box.pid), wal

    def reset_statistics(self) -> None:
        """Forget the scans and changes of all tables so far, after bringing the planner's statistics up to date."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("SELECT pg_stat_reset()")

    def scans(self) -> list[tuple[object, ...]]:
        """Return the tables that were scanned or changed since the statistics were reset."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            return connection.execute(_SCANS).fetchall()

    def sizes(self, *tables: str) -> dict[str, int]:
        """Return the number of rows of some tables."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return {
                table: connection.execute(f"SELECT count(*) FROM klaviyo.{table}").fetchall()[0][0] for table in tables
            }


def _processor_time(pid: int) -> float:
    """Return the processor time of a process, of its children, and of those that have ended."""
    process = psutil.Process(pid)
    used = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used += times.user + times.system + times.children_user + times.children_system
    return used


def _load(url: str, settings: Mapping[str, object], since: datetime | None) -> Loaded:
    warehouse = Warehouse(url, settings)
    began, used = perf_counter(), process_time()
    result = warehouse.daily(since=since)
    seconds, processor = perf_counter() - began, process_time() - used
    rss = max(peak_memory_mb(), peak_memory_mb(resource.RUSAGE_CHILDREN))
    assert warehouse.session is not None
    stages = [
        Stage(each.title, (each.ended or each.began) - each.began) for each in warehouse.session.progress.snapshot()
    ]
    if result.sentences:
        print("\n".join(result.sentences), flush=True)
    return Loaded(
        str(result.state),
        seconds,
        processor + processor_seconds(resource.RUSAGE_CHILDREN),
        rss,
        result.traffic.requests,
        result.changed(),
        stages,
    )


def a_day_ago() -> datetime:
    """Return a full minute about a day ago: the end of a history to which a day can be added that ends now."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)


def history_days(since: datetime) -> int:
    """Return FIRST_SYNC_DAYS for a history that starts then."""
    return (datetime.now(UTC) - since).days + 1


def per_event(seconds: float, events: int) -> str:
    """Return microseconds for each event, as text."""
    return f"{seconds / max(1, events) * 1e6:,.0f}"
