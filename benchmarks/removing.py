"""`python -m benchmarks.removing`: how long removing one of two accounts from a warehouse takes.

The warehouse is filled by SQL, with as many events of each account. At the end, all rows of the other one are left.
"""

import logging
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.comparison import table as table_of
from benchmarks.erasing import fill
from benchmarks.workbench import parser, readable_folder, report, wal_position
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.erasing import removal
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import load_settings
from pipeline import runs
from pipeline.commands.removing import remove_account
from pipeline.runs import Run
from pipeline.session import Session
from tests.fakes import FakeAccount

_FILLED = ("sends", "opens", "clicks", "events", "members", "stg_member_lists")
_EVENTS_PER_PERSON = 50


def main() -> None:
    """Measure and print the results."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10**6, help="events of each account")
    options = arguments.parse_args()
    with readable_folder() as folder:
        url = embedded.url(folder)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SET search_path = klaviyo, klaviyo_internal")
            for name in ("stays", "goes"):
                run = _begin(url, folder, name)
                fill(connection, run, options.events, options.events // _EVENTS_PER_PERSON)
            before = [_count(connection, table) for table in _FILLED]
            table = _measure(url, connection, run.integration_id)
            assert [2 * _count(connection, table) for table in _FILLED] == before
    report(options.write, "Removing an account", table)


def _begin(url: str, folder: Path, name: str) -> Run:
    """Register an account, and create the tables with the first one."""
    settings = load_settings(
        database_url=url, klaviyo_api_key="pk_none", data_dir=folder, klaviyo_integration=name, concurrency=1
    )
    with Session(settings, FakeAccount(account_id=name).open) as session:
        return runs.begin(session, "daily", {}, logging.getLogger(__name__))


def _count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def _measure(url: str, connection: psycopg.Connection, integration_id: str) -> str:
    """Remove the account, and return the figures as a table."""
    moments: list[float] = []
    with closing(psycopg.connect(url)) as working, closing(psycopg.connect(url)) as other:
        account, holder = (Account(each, "klaviyo", integration_id) for each in (working, other))
        began = perf_counter()
        with working.transaction():
            removal.estimate(account)
        estimated, server = perf_counter() - began, psutil.Process(working.info.backend_pid)
        wal, used, began = wal_position(connection), _processor_seconds(server), perf_counter()
        rows = remove_account(
            account, holder, "goes", lambda: None, lambda step, done, total: moments.append(perf_counter())
        )
        took, used = perf_counter() - began, _processor_seconds(server) - used
    number, waits = sum(rows.values()), [end - start for start, end in pairwise(moments)]
    figures = {
        "estimating the rows, seconds": f"{estimated:.1f}",
        "rows deleted": f"{number:,}",
        "seconds": f"{took:.1f}",
        "processor seconds of the server's process": f"{used:.1f}",
        "WAL, MB": f"{(wal_position(connection) - wal) / 1e6:,.0f}",
        "transactions": f"{len(moments):,}",
        "the longest one, seconds": f"{max(waits):.2f}",
    }
    return table_of(("what", "figure"), list(figures.items()))


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main()
