"""`python benchmarks/throughput.py`: measure how fast events get from the API into Postgres, and what limits that.

Everything is measured on one machine against the sandbox and an embedded Postgres: the daily sync from end to end,
only downloading and decoding the same pages, only copying the same rows into an indexed table, and the peak memory of
the process that runs the flow.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import psycopg
from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.postgres import statements
from klaviyo_pg.postgres.load import as_copy_text
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import FULL_READ
from sandbox.account import Options
from sandbox.launcher import Sandbox, running
from transforms.events import Metrics, event_frames

_ROOT = Path(__file__).resolve().parent.parent
_SCHEMA = "benchmark"


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--members", type=int, default=Options().members)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(events=options.events, members=options.members) as box:
        url = embedded.url(Path(folder))
        figures = {
            "events": options.events,
            "end_to_end": _end_to_end(box, url, Path(folder), options.events),
            "download_and_decode": _download(box),
            "copy_into_indexed_table": _copy(box, url),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        }
        floor = min(figures["download_and_decode"], figures["copy_into_indexed_table"])
        figures["share_of_slower_floor"] = round(figures["end_to_end"] / floor, 2)
    for name, value in figures.items():
        print(f"{name:>26}: {value:,}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _end_to_end(box: Sandbox, url: str, folder: Path, events: int) -> int:
    """Return the events per second of a first daily sync, by the times in the ledger."""
    environment = {
        **os.environ,
        "KLAVIYO_BASE_URL": box.url,
        "KLAVIYO_API_KEY": box.api_key,
        "DATABASE_URL": url,
        "WAREHOUSE_SCHEMA": _SCHEMA,
        "FIRST_SYNC_DAYS": str((datetime.now(UTC) - datetime(2026, 9, 1, tzinfo=UTC)) // timedelta(days=1)),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    subprocess.run([sys.executable, "flows/daily.py"], cwd=_ROOT, env=environment, check=True)
    with psycopg.connect(url) as connection:
        stored = sum(
            connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(_SCHEMA, table.name))).fetchone()[0]  # type: ignore[index]
            for table in tables.EVENT_TABLES
        )
        assert stored == events, f"{stored} of {events} events are stored"
        took = connection.execute(
            SQL("SELECT extract(epoch FROM finished_at - started_at) FROM {}").format(Identifier(_SCHEMA, "runs"))
        ).fetchone()
    assert took is not None
    return round(events / float(took[0]))


def _source(box: Sandbox):  # type: ignore[no-untyped-def]
    return open_source(Settings(klaviyo_base_url=box.url, klaviyo_api_key=box.api_key))


def _download(box: Sandbox) -> int:
    """Return the events per second when pages are only downloaded and decoded."""
    began, count = perf_counter(), 0
    for page in _source(box).events(FULL_READ):
        count += len(page.events.id)
    return round(count / (perf_counter() - began))


def _copy(box: Sandbox, url: str) -> int:
    """Return the rows per second of a COPY of prepared frames into a table like `events`, with its primary key."""
    pages = [page.events for page in _source(box).events(FULL_READ)]
    frames = [event_frames(page, [0] * len(page), Metrics({}, {}), "benchmark").tables["events"] for page in pages]
    load = loads.EVENTS["events"]
    with psycopg.connect(url) as connection:
        connection.execute(SQL("CREATE TABLE copied (LIKE {} INCLUDING ALL)").format(Identifier(_SCHEMA, "events")))
        connection.execute("ALTER TABLE copied ALTER COLUMN esp_integration_id DROP NOT NULL")
        copy_in = SQL("COPY copied ({}) FROM STDIN {}").format(statements.names(load.schema), statements.COPY_FORMAT)
        began = perf_counter()
        with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            for frame in frames:
                copy.write(as_copy_text(frame))
        connection.commit()
        return round(sum(frame.height for frame in frames) / (perf_counter() - began))


if __name__ == "__main__":
    main()
