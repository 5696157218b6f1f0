"""Faults of Postgres: how to cause each of them during a daily run, undo it, and recognise it in the server's log."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from benchmarks.faulty_runs import Bench, Row
from klaviyo_pg import schemas

_ROLE = "loader"


def rows(bench: Bench, folder: Path, only: str) -> Iterator[Row]:
    """Yield a row for each fault whose name matches `only`; `folder` is the mount point of a small file system."""
    for disturbance in _OF_POSTGRES:
        if re.search(only, disturbance.name):
            yield _postgres(bench, disturbance)
    if re.search(only, "privilege"):
        yield _missing_privilege(bench)
    if re.search(only, "disk full"):
        yield _disk_full(bench, folder)


def _restarted(number: signal.Signals) -> Callable[[Bench, str], Callable[[], None]]:
    def fault(bench: Bench, schema: str) -> Callable[[], None]:
        def during() -> None:
            bench.postgres.stop(number)
            time.sleep(2)
            bench.postgres.start()

        return during

    return fault


def _terminated(bench: Bench, schema: str) -> Callable[[], None]:
    def during() -> None:
        for _ in range(3):
            with bench.connection() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'klaviyo-pg'"
                )
            time.sleep(0.4)

    return during


def _deadlock(bench: Bench, schema: str) -> Callable[[], None]:
    def during() -> None:
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = %s::regclass AND pid <> pg_backend_pid()"
        held = (
            "SELECT relation::regclass::text FROM pg_locks WHERE pid = %s AND granted AND mode = 'RowExclusiveLock'"
            " AND relation = ANY(%s::regclass[])"
        )
        names = [f"{schema}.{name}" for name in ("sends", "opens", "clicks", "events")]
        with bench.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL deadlock_timeout = '60s'")  # so that the run is the one that is cancelled
            connection.execute(SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(Identifier(schema, "members")))
            until = time.monotonic() + 15
            while time.monotonic() < until:
                for (pid,) in connection.execute(waiting, [f"{schema}.members"]).fetchall():
                    if locked := connection.execute(held, [pid, names]).fetchone():
                        name = locked[0].rpartition(".")[2]
                        connection.execute(
                            SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(Identifier(schema, name))
                        )
                        return
                time.sleep(0.01)

    return during


def _lock_timeout(bench: Bench, schema: str) -> Callable[[], None]:
    def during() -> None:
        with bench.connection() as connection, connection.transaction():
            connection.execute(SQL("LOCK TABLE {}").format(Identifier(schema, "members")))
            time.sleep(2)

    return during


def _read_only(bench: Bench, schema: str) -> Callable[[], None]:
    def during() -> None:
        _alter_database(bench, "SET default_transaction_read_only = on")
        _terminated(bench, schema)()

    return during


def _alter_database(bench: Bench, change: str) -> None:
    with bench.connection() as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = Identifier(connection.info.dbname)
        connection.execute(SQL("ALTER DATABASE {} ").format(name) + SQL(change))


def _statements(*queries: str) -> Callable[[Bench, str], None]:
    def fault(bench: Bench, schema: str) -> None:
        with bench.connection() as connection:
            for query in queries:
                connection.execute(SQL(query).format(schema=Identifier(schema)))

    return fault


@dataclass(frozen=True)
class Disturbance:
    """A fault of Postgres: what causes it before or during a run, what undoes it after, and its line in the log.

    `options` are those of the run's sessions. A run overrides what is set for the database or the user.
    """

    name: str
    during: Callable[[Bench, str], Callable[[], None]] | None = None
    before: Callable[[Bench, str], None] | None = None
    after: Callable[[Bench, str], None] | None = None
    log: str = ""
    options: str = ""


def _reset_database(bench: Bench, schema: str) -> None:
    _alter_database(bench, "RESET ALL")


_OF_POSTGRES = (
    Disturbance("Postgres restarted (fast)", _restarted(signal.SIGINT), log="received fast shutdown request"),
    Disturbance(
        "Postgres restarted (immediate)", _restarted(signal.SIGQUIT), log="received immediate shutdown request"
    ),
    Disturbance(
        "connections terminated", _terminated, log="FATAL:  terminating connection due to administrator command"
    ),
    Disturbance("deadlock", _deadlock, log="ERROR:  deadlock detected"),
    Disturbance(
        "lock timeout",
        _lock_timeout,
        log="ERROR:  canceling statement due to lock timeout",
        options="-c lock_timeout=200ms",
    ),
    Disturbance(
        "database turned read-only",
        _read_only,
        after=_reset_database,
        log="ERROR:  cannot execute .* in a read-only transaction",
    ),
    Disturbance(
        "a user's view on a table that lacks a column",
        before=_statements(
            "CREATE VIEW {schema}.theirs AS SELECT id, event_at FROM {schema}.sends",
            "ALTER TABLE {schema}.sends DROP COLUMN list_key",
        ),
    ),
    Disturbance(
        "a column that a user added",
        before=_statements("ALTER TABLE {schema}.sends ADD COLUMN theirs text DEFAULT 'x'"),
    ),
    Disturbance(
        "a NOT NULL column that a user added",
        before=_statements("ALTER TABLE {schema}.sends ADD COLUMN theirs text NOT NULL"),
        after=_statements("ALTER TABLE {schema}.sends ALTER COLUMN theirs DROP NOT NULL"),
        log="ERROR:  null value in column",
    ),
)


def _postgres(bench: Bench, disturbance: Disturbance) -> Row:
    schema = re.sub(r"\W+", "_", f"db {disturbance.name}".lower())
    bench.prepare(schema)
    logged = bench.logged(disturbance.log) if disturbance.log else 0
    if disturbance.before:
        disturbance.before(bench, schema)
    during = disturbance.during(bench, schema) if disturbance.during else None
    ran = bench.run(schema, during=during, options=disturbance.options)
    injected = bench.logged(disturbance.log) - logged if disturbance.log else 1
    if disturbance.after:
        disturbance.after(bench, schema)
    return bench.row(disturbance.name, injected, schema, ran)


def _missing_privilege(bench: Bench) -> Row:
    schema = "db_privilege"
    bench.prepare(schema)
    with bench.connection() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(_ROLE)))
        for query in (
            "GRANT ALL ON SCHEMA {schema}, {internal} TO {role}",
            "GRANT ALL ON ALL TABLES IN SCHEMA {schema}, {internal} TO {role}",
            "REVOKE INSERT ON {schema}.opens FROM {role}",
        ):
            names = {"schema": schema, "internal": schemas.internal(schema), "role": _ROLE}
            connection.execute(SQL(query).format(**{name: Identifier(each) for name, each in names.items()}))
    pattern = "ERROR:  permission denied"
    logged = bench.logged(pattern)
    ran = bench.run(schema, user=_ROLE)
    injected = bench.logged(pattern) - logged
    with bench.connection() as connection:
        connection.execute(SQL("GRANT INSERT ON {} TO {}").format(Identifier(schema, "opens"), Identifier(_ROLE)))
    return bench.row("missing privilege (INSERT on one table)", injected, schema, ran, user=_ROLE)


def _disk_full(bench: Bench, folder: Path) -> Row:
    """Put two tables on a separate file system that is too small, and enlarge it after the run."""
    name, schema, pattern = (
        "disk full",
        "db_disk",
        "ERROR:  could not (extend|write to) file .*: No space left on device",
    )
    folder.mkdir()

    def mounted(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    owner = (folder.parent / "postgres").stat()
    if not mounted("size=3m", f"uid={owner.st_uid}", f"gid={owner.st_gid}"):
        return Row(name, "not injected", "cannot mount a file system", None, None)
    try:
        bench.prepare(schema)
        with bench.connection() as connection:
            connection.execute(SQL("CREATE TABLESPACE small LOCATION {}").format(Literal(str(folder))))
            for each in ("sends", "opens"):
                connection.execute(SQL("ALTER TABLE {} SET TABLESPACE small").format(Identifier(schema, each)))
        logged = bench.logged(pattern)
        ran = bench.run(schema)
        injected = bench.logged(pattern) - logged
        mounted("remount", "size=512m")
        return bench.row(name, injected, schema, ran)
    finally:
        with bench.connection() as connection, suppress(psycopg.Error):
            names = SQL(", ").join(map(Identifier, schemas.both(schema)))
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(names))
            connection.execute("DROP TABLESPACE small")
        subprocess.run(["umount", str(folder)], check=False)
