"""`python -m benchmarks.side_by_side`: a backfill, compared with the floors under it, all with the same fake server.

The rows are: the backfill's whole process, its run alone (from the ledger), the same for the event tables only,
downloading, decoding and COPY of the same pages without anything else, and, with `--ingestr PATH`, ingestr. That one
speaks to a.klaviyo.com only, so it gets a proxy on 127.0.0.1 with a certificate that the benchmark makes. Nothing but
127.0.0.1 is contacted.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import psycopg
import requests
from psycopg.sql import SQL, Identifier

from benchmarks.fake_api import Options, Served, arguments, options_of, serving
from benchmarks.workbench import processor_seconds, workspace
from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.klaviyo.current.resources import EventDocument
from klaviyo_pg.postgres.server import embedded

_FLOOR = "floor"


class Took(NamedTuple):
    """A measured duration: seconds by the clock, and of processors, without the server and Postgres."""

    name: str
    seconds: float
    processor: float | None
    events: int


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    parser.set_defaults(events=1_000_000, people=50_000)
    parser.add_argument("--processes", type=int, default=None, help="PROCESSES of the backfill")
    parser.add_argument("--ingestr", type=Path, help="path of the ingestr binary; without it, its row is left out")
    parsed = parser.parse_args()
    options = options_of(parsed)
    with workspace() as (folder, prefect), serving(options) as served:
        url = embedded.url(folder)
        settings = {
            **prefect,
            "KLAVIYO_API_KEY": "pk_benchmark",
            "KLAVIYO_BASE_URL": served.url,
            "DATABASE_URL": url,
            "DATA_DIR": str(folder),
            "PROCESSES": str(parsed.processes or ""),
        }
        event_tables = {"TABLES": ",".join(table.name for table in tables.EVENT_TABLES)}
        rows = [
            *_backfill("backfill", served, {**settings, "WAREHOUSE_SCHEMA": "everything"}),
            *_backfill("backfill of events", served, {**settings, **event_tables, "WAREHOUSE_SCHEMA": "only_events"}),
            _floor(served, url, options),
        ]
        if parsed.ingestr:
            rows.append(_ingestr(parsed.ingestr, served, url, folder))
    print(_table(rows))


def _backfill(name: str, served: Served, settings: dict[str, str]) -> list[Took]:
    """Run a backfill into a schema. Settings are environment variables."""
    schema = settings["WAREHOUSE_SCHEMA"]
    command = [sys.executable, "-m", "klaviyo_pg", "backfill", "--start", f"{served.start:%Y-%m-%d}"]
    used, began = processor_seconds(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(command, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
    seconds, processor = perf_counter() - began, processor_seconds(resource.RUSAGE_CHILDREN) - used
    with psycopg.connect(settings["DATABASE_URL"]) as connection:
        query = SQL("SELECT extract(epoch FROM finished_at - started_at) FROM {} ORDER BY started_at DESC LIMIT 1")
        run = connection.execute(query.format(Identifier(schema, "runs"))).fetchone()
        assert run is not None
        counts = [
            connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(schema, table.name))).fetchone()
            for table in tables.EVENT_TABLES
        ]
    events = sum(count[0] for count in counts if count)
    return [
        Took(f"{name}, the whole process", seconds, processor, events),
        Took(f"{name}, its run", float(run[0]), None, events),
    ]


def _floor(served: Served, url: str, options: Options) -> Took:
    """Download, decode, and copy into tables without an index, one after the other."""
    decode, api, count = msgspec.json.Decoder(EventDocument).decode, requests.Session(), 0
    used, began = processor_seconds(), perf_counter()
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(_FLOOR)))
        cursor.execute(
            SQL("CREATE TABLE {} (id text, at bigint, properties jsonb)").format(Identifier(_FLOOR, "events"))
        )
        link: str | None = f"{served.url}/api/events"
        while link:
            page = decode(api.get(link).content)
            link = page.links.next if page.links else None
            with cursor.copy(SQL("COPY {} FROM STDIN").format(Identifier(_FLOOR, "events"))) as copy:
                lines = [
                    b"%b\t%d\t%b\n"
                    % (
                        each.id.encode(),
                        each.attributes.timestamp,
                        bytes(each.attributes.event_properties).replace(b"\\", b"\\\\"),
                    )
                    for each in page.data
                ]
                copy.write(b"".join(lines))
            count += len(page.data)
    return Took("download, decode and COPY alone", perf_counter() - began, processor_seconds() - used, count)


def _ingestr(binary: Path, served: Served, url: str, folder: Path) -> Took:
    """Load the same events with ingestr, through a proxy that leads a.klaviyo.com to the fake server."""
    from benchmarks.tls_proxy import proxying

    with proxying(served.url, folder) as proxy:
        command = [
            *(str(binary), "ingest", "--yes", "--source-uri", "klaviyo://?api_key=pk_benchmark"),
            *("--source-table", "events", "--dest-uri", url, "--dest-table", "ingestr.events"),
            *("--interval-start", f"{served.start:%Y-%m-%d}"),
        ]
        used, began = processor_seconds(resource.RUSAGE_CHILDREN), perf_counter()
        subprocess.run(command, env={**os.environ, **proxy}, check=True, cwd=folder)
        seconds, processor = perf_counter() - began, processor_seconds(resource.RUSAGE_CHILDREN) - used
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM ingestr.events").fetchone()
        assert row is not None
    return Took("ingestr", seconds, processor, row[0])


def _table(rows: list[Took]) -> str:
    lines = ["| what | events | seconds | events/s | processor time, µs per event |", "|---|---:|---:|---:|---:|"]
    for name, seconds, processor, events in rows:
        micros = "" if processor is None else f"{processor / max(1, events) * 1e6:.1f}"
        lines.append(f"| {name} | {events:,} | {seconds:.1f} | {events / seconds:,.0f} | {micros} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
