"""The command `upgrade`: rebuilds what a start of a run would block loading for. Prints its plan and its progress."""

import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic

import psycopg
from psycopg import Connection

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.signals import handle_signals
from klaviyo_pg.cli.warehouse import no_warehouse, warehouse_url
from klaviyo_pg.postgres import rebuild, schema
from klaviyo_pg.postgres.connect import connect, translated
from klaviyo_pg.postgres.rebuild import Step

_SECONDS_BETWEEN_LINES = 5.0  # about progress


def upgrade(arguments: Namespace) -> int:
    """Rebuild outdated primary keys and missing indexes, then bring the warehouse up to the catalogue."""
    settings = check_settings()
    name, url, storage = settings.warehouse_schema, warehouse_url(settings), schema.storage_of(settings)
    with translated(), connect(url, name, autocommit=True) as connection, rebuild.exclusively(connection):
        if not schema.has_table(connection, name, bookkeeping.INTEGRATIONS):
            raise no_warehouse(name)
        schema.check_schemas(connection, name)
        schema.check_storage(connection, name, storage)
        steps, indexes = rebuild.plan(connection, name), rebuild.missing_indexes(connection, name, storage)
        _print_plan(steps, [f"{table.name} ({', '.join(columns)})" for table, columns in indexes])
        if arguments.plan:
            return 0
        handle_signals()  # an index that is being built is canceled
        with connect(url, name, autocommit=True) as other:
            for step in steps:
                _follow(connection, other, step, name)
            for table, columns in indexes:
                with _shown(connection, other, f"{table.name}: index on {', '.join(columns)}"):
                    rebuild.build_index(connection, name, table, columns)
        schema.upgrade_patiently(connection, name, storage, print)
    print("The warehouse is up to date.")
    return 0


def _print_plan(steps: list[Step], indexes: list[str]) -> None:
    for step in steps:
        print(
            f"{step.table.name}: primary key, about {step.rows:,} rows, {_duration(step.seconds)}, "
            f"{step.disk / 1e6:,.0f} MB of disk, half of it until the index is built"
        )
    for each in indexes:
        print(f"Index: {each}")
    if not steps and not indexes:
        print("No table has to be rebuilt.")


def _follow(connection: Connection, other: Connection, step: Step, name: str) -> None:
    with _shown(connection, other, f"{step.table.name}: primary key"):
        rebuild.rebuild_key(connection, name, step.table, print)


@contextmanager
def _shown(connection: Connection, other: Connection, what: str) -> Iterator[None]:
    """Print a line about the progress from time to time, and one at the end."""
    began, pid, done = monotonic(), connection.info.backend_pid, threading.Event()
    follower = threading.Thread(target=_print_progress, args=(other, pid, what, done.wait), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
    print(f"{what}: done in {_duration(monotonic() - began)}")


def _print_progress(connection: Connection, pid: int, what: str, wait: Callable[[float], bool]) -> None:
    """Print how far another session has got, until `wait` returns true, or the database no longer answers."""
    began = monotonic()
    with suppress(psycopg.Error):
        while not wait(_SECONDS_BETWEEN_LINES):
            progress = rebuild.progress(connection, pid)
            if progress and progress.waits_for:
                print(f"{what}: waiting until the session pid {progress.waits_for} ends its transaction", flush=True)
            elif progress and progress.share:
                left = (monotonic() - began) / progress.share * (1 - progress.share)
                print(f"{what}: {progress.share:.0%}, about {_duration(left)} left", flush=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
