"""Measures what loading an event costs while the event table grows: time, processor time and WAL, by rows that it has.

Each size is a separate schema, filled by SQL in order of time. They are loaded in turns through the project's
merge, with frames of 10,000 events, each time after a checkpoint, so that the WAL contains the full pages that follow
one. What a turn has loaded is deleted after it.

- append: all events are new and later than those that the table has.
- merge: half of the events are stored already, and a tenth of these have changed.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple

import polars as pl
import psycopg
from psycopg.sql import SQL

from benchmarks.workbench import readable_folder, wal_position
from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres import schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import merge
from klaviyo_pg.rows import Events
from tests.driver import postgres_server
from transforms.events import Metrics, event_frames

_LOAD = loads.EVENTS["sends"]
_BATCH = 10_000
_METRICS = 5
_START = datetime(2021, 1, 1, tzinfo=UTC)
_YEARS = timedelta(days=5 * 365)
_FILLED_AT_ONCE = 1_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
_PROPERTIES = (
    '{{"Subject":"Offers of week {week}","Campaign Name":"Newsletter {week}","$message":"M{week}",'
    '"Email Domain":"example.com","Client OS":"iOS 19","Client Name":"Mail","Client Type":"app","$event_id":"{number}",'
    '"URL":"https://example.com/p/{number}?utm_source=newsletter&utm_medium=email"}}'
)
_FILL = """
INSERT INTO {} (key, id, campaign_key, member_key, email, event_at, esp_source, esp_integration_id, __synced_at,
    metric_key, event_name, properties, extracted_at)
SELECT md5('Klaviyo:one:E' || number), 'E' || number, md5('M' || week), md5('P' || number %% 100000),
    'p' || number %% 100000 || '@example.com', at, 'Klaviyo', 'one', now(),
    md5('Klaviyo:one:' || number %% {metrics}), 'Received Email',
    jsonb_build_object('Subject', 'Offers of week ' || week, 'Campaign Name', 'Newsletter ' || week,
    '$message', 'M' || week, 'Email Domain', 'example.com', 'Client OS', 'iOS 19', 'Client Name', 'Mail',
    'Client Type', 'app', '$event_id', number::text,
    'URL', 'https://example.com/p/' || number || '?utm_source=newsletter&utm_medium=email'), now()
FROM (
    SELECT number, number * 7 %% 260 AS week, %(start)s + (number / %(rows)s::float8) * %(years)s::interval AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number
) AS event
"""


class Cost(NamedTuple):
    """The cost of loading an event: microseconds, of the backend's and the loader's processor, and bytes of WAL."""

    elapsed: float
    backend: float
    loader: float
    wal: float


class Warehouse:
    """A schema whose table of sends has so many rows."""

    def __init__(self, connection: psycopg.Connection, rows: int, storage: schema.Storage) -> None:
        self.connection, self.rows, self.name = connection, rows, f"rows_{rows}"
        self.account = Account(connection, self.name, "one")
        self._step = _YEARS / rows
        if schema.exists(connection, self.name):
            self._clear()
        else:
            self._fill(storage)

    def _fill(self, storage: schema.Storage) -> None:
        print(f"Filling {self.rows:,} rows", file=sys.stderr)
        with self.connection.transaction():
            schema.upgrade(self.connection, self.name, storage)
        if storage.by_month:
            self._add_months()
        rows = self.rows
        for first in range(0, rows, _FILLED_AT_ONCE):
            last = min(first + _FILLED_AT_ONCE, rows) - 1
            values = {"first": first, "last": last, "rows": rows, "start": _START, "years": _YEARS}
            query = self.account.compose(_FILL, _LOAD.table, metrics=SQL(str(_METRICS)))
            self.account.execute(query, **values)
        self._vacuum()

    def _add_months(self) -> None:
        from klaviyo_pg.postgres import partitions

        months = pl.datetime_range(_START, _START + 2 * _YEARS, "1mo", time_zone="UTC", eager=True)
        with self.connection.transaction():
            partitions.prepare(
                self.account, _LOAD.table, pl.DataFrame({"event_at": months.cast(pl.Datetime("us", "UTC"))})
            )

    def _vacuum(self) -> None:
        self.connection.execute(SQL("VACUUM ANALYZE {}").format(self.account.table(_LOAD.table)))

    def frame(self, first: int, changed_every: int = 0) -> pl.DataFrame:
        """Return a batch of events, from the one with this number on; some of them with changed properties."""
        numbers = range(first, first + _BATCH)
        nothing: list[Any] = [None] * _BATCH
        columns: dict[str, list[Any]] = {name: nothing for name in Events._fields}
        columns["id"] = [f"E{each}" for each in numbers]
        columns["at"] = [int((_START + self._step * each).timestamp()) for each in numbers]
        columns["metric_id"] = [str(each % _METRICS) for each in numbers]
        columns["profile_id"] = [f"P{each % 100_000}" for each in numbers]
        columns["message"] = [f"M{each * 7 % 260}" for each in numbers]
        columns["properties"] = [
            _PROPERTIES.format(
                week=each * 7 % 260, number=-each if changed_every and each % changed_every == 0 else each
            ).encode()
            for each in numbers
        ]
        metrics = Metrics(
            {str(each): "Received Email" for each in range(_METRICS)}, {str(each): "sends" for each in range(_METRICS)}
        )
        read_at = int(datetime.now(UTC).timestamp() * 1e6)
        return event_frames(Events(**columns), [read_at] * _BATCH, metrics, "one").tables["sends"]

    def append(self, batches: int) -> Cost:
        """Load batches of new events."""
        frames = [self.frame(self.rows + _BATCH * each) for each in range(batches)]
        return self._measured(frames, batches * _BATCH)

    def merge(self, batches: int) -> Cost:
        """Load batches of which the first half of each is stored already; one event of ten has changed."""
        half = _BATCH // 2
        before = self.frame(self.rows)
        self._store([before])
        frames = [self.frame(self.rows + half * (each + 1), changed_every=10) for each in range(batches)]
        return self._measured(frames, half * batches)

    def _measured(self, frames: Sequence[pl.DataFrame], new: int) -> Cost:
        self.connection.execute("CHECKPOINT")
        wal, backend, loader, began = wal_position(self.connection), self._processor(), process_time(), perf_counter()
        inserted = self._store(frames)
        cost = (perf_counter() - began, self._processor() - backend, process_time() - loader)
        written = wal_position(self.connection) - wal
        assert inserted == new, (inserted, new)
        self._clear()
        events = len(frames) * _BATCH
        elapsed, backend, loader = (each / events * 1e6 for each in cost)
        return Cost(elapsed, backend, loader, written / events)

    def _clear(self) -> None:
        """Delete what was loaded after the table was filled."""
        self.account.execute("DELETE FROM {} WHERE event_at >= %(end)s", _LOAD.table, end=_START + _YEARS)
        self._vacuum()

    def _store(self, frames: Sequence[pl.DataFrame]) -> int:
        inserted = 0
        for frame in frames:
            with self.connection.transaction():
                inserted += merge(self.account, _LOAD, frame).inserted
        return inserted

    def _processor(self) -> float:
        """Return the seconds of processor time of the connection's backend."""
        fields = Path(f"/proc/{self.connection.info.backend_pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def measure(warehouses: Sequence[Warehouse], batches: int, rounds: int) -> Iterator[tuple[str, Warehouse, Cost]]:
    """Yield the median cost for each path and size, measured in turns."""
    for path in ("append", "merge"):
        costs: dict[int, list[Cost]] = {each.rows: [] for each in warehouses}
        for number in range(rounds + 1):
            for warehouse in warehouses:
                cost = getattr(warehouse, path)(batches)
                if number:  # the first round warms up
                    costs[warehouse.rows].append(cost)
        for warehouse in warehouses:
            yield path, warehouse, Cost(*map(median, zip(*costs[warehouse.rows], strict=True)))


def table(costs: Sequence[tuple[str, Warehouse, Cost]]) -> str:
    """Return the costs as a table in Markdown, with the ratios to the smallest size."""
    lines = [
        "| path | rows | elapsed µs | backend µs | loader µs | WAL bytes | backend ratio | WAL ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    first: dict[str, Cost] = {}
    for path, warehouse, cost in costs:
        base = first.setdefault(path, cost)
        lines.append(
            f"| {path} | {warehouse.rows:,} | {cost.elapsed:.1f} | {cost.backend:.1f} | {cost.loader:.1f} |"
            f" {cost.wal:,.0f} | {cost.backend / base.backend:.2f} | {cost.wal / base.wal:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Fill, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", default="1e5,1e6", help="sizes, comma-separated (default: 1e5,1e6)")
    parser.add_argument("--partitions", choices=("none", "month"), default="none")
    parser.add_argument("--indexes", default="", help="EVENT_INDEXES, such as campaign,member")
    parser.add_argument("--batches", type=int, default=10, help="batches of 10,000 in one turn (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each size (default: 3)")
    parser.add_argument("--folder", type=Path, help="folder in which the database is kept (default: a temporary one)")
    arguments = parser.parse_args()
    sizes = sorted(int(float(each)) for each in arguments.rows.split(","))
    indexes = tuple(name for name in arguments.indexes.split(",") if name)
    storage = schema.Storage(arguments.partitions == "month", indexes)
    with _folder(arguments.folder) as folder, psycopg.connect(postgres_server(folder), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '2GB'")
        connection.execute("SELECT pg_reload_conf()")
        warehouses = [Warehouse(connection, rows, storage) for rows in sizes]
        print(f"Partitions: {arguments.partitions}; indexes: {arguments.indexes or 'none'}\n")
        print(table(list(measure(warehouses, arguments.batches, arguments.rounds))))


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Yield a folder for the database: the one that is kept, or a temporary one."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with readable_folder() as folder:
        yield folder


if __name__ == "__main__":
    main()
