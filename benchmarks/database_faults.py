"""The faults of Postgres: how each is brought about in a daily run, taken back, and recognised in the server's log."""

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

from benchmarks.faulty_runs import Place, Row

_ROLE = "loader"


def rows(place: Place, folder: Path, only: str) -> Iterator[Row]:
    """Each fault whose name matches; `folder` is for a file system that is too small."""
    for disturbance in _OF_POSTGRES:
        if re.search(only, disturbance.name):
            yield _postgres(place, disturbance)
    if re.search(only, "privilege"):
        yield _missing_privilege(place)
    if re.search(only, "disk full"):
        yield _disk_full(place, folder)


def _restarted(number: signal.Signals) -> Callable[[Place, str], Callable[[], None]]:
    def fault(place: Place, schema: str) -> Callable[[], None]:
        def during() -> None:
            place.postgres.stop(number)
            time.sleep(2)
            place.postgres.start()

        return during

    return fault


def _terminated(place: Place, schema: str) -> Callable[[], None]:
    def during() -> None:
        for _ in range(3):
            with place.connection() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'klaviyo-pg'"
                )
            time.sleep(0.4)

    return during


def _deadlock(place: Place, schema: str) -> Callable[[], None]:
    def during() -> None:
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = %s::regclass AND pid <> pg_backend_pid()"
        held = (
            "SELECT relation::regclass::text FROM pg_locks WHERE pid = %s AND granted AND mode = 'RowExclusiveLock'"
            " AND relation = ANY(%s::regclass[])"
        )
        names = [f"{schema}.{name}" for name in ("sends", "opens", "clicks", "events")]
        with place.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL deadlock_timeout = '60s'")  # the other one has to give way
            connection.execute(SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(Identifier(schema, "members")))
            until = time.monotonic() + 15
            while time.monotonic() < until:
                for (pid,) in connection.execute(waiting, [f"{schema}.members"]).fetchall():
                    if found := connection.execute(held, [pid, names]).fetchone():
                        name = found[0].rpartition(".")[2]
                        connection.execute(
                            SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(Identifier(schema, name))
                        )
                        return
                time.sleep(0.01)

    return during


def _lock_timeout(place: Place, schema: str) -> Callable[[], None]:
    _database(place, "SET lock_timeout = '200ms'")

    def during() -> None:
        with place.connection() as connection, connection.transaction():
            connection.execute("SET LOCAL lock_timeout = 0")
            connection.execute(SQL("LOCK TABLE {}").format(Identifier(schema, "members")))
            time.sleep(2)

    return during


def _serialization(place: Place, schema: str) -> Callable[[], None]:
    _database(place, "SET default_transaction_isolation = 'serializable'")
    return lambda: None


def _read_only(place: Place, schema: str) -> Callable[[], None]:
    def during() -> None:
        _database(place, "SET default_transaction_read_only = on")
        _terminated(place, schema)()

    return during


def _database(place: Place, what: str) -> None:
    with place.connection() as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = Identifier(connection.info.dbname)
        connection.execute(SQL("ALTER DATABASE {} ").format(name) + SQL(what))  # type: ignore[arg-type]  # of this module


def _statements(*queries: str) -> Callable[[Place, str], None]:
    def fault(place: Place, schema: str) -> None:
        with place.connection() as connection:
            for query in queries:
                connection.execute(SQL(query).format(schema=Identifier(schema)))  # type: ignore[arg-type]  # of this module

    return fault


@dataclass(frozen=True)
class Disturbance:
    """A fault of Postgres: how it is brought about, taken back, and recognised in the server's log."""

    name: str
    during: Callable[[Place, str], Callable[[], None]] | None = None
    before: Callable[[Place, str], None] | None = None
    after: Callable[[Place, str], None] | None = None
    log: str = ""
    arguments: tuple[str, ...] = ()


def _reset_database(place: Place, schema: str) -> None:
    _database(place, "RESET ALL")


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
        "lock timeout", _lock_timeout, after=_reset_database, log="ERROR:  canceling statement due to lock timeout"
    ),
    Disturbance(
        "serialization failure", _serialization, after=_reset_database, log="ERROR:  could not serialize access"
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
            "ALTER TABLE {schema}.sends DROP COLUMN value",
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


def _postgres(place: Place, disturbance: Disturbance) -> Row:
    schema = re.sub(r"\W+", "_", f"db {disturbance.name}".lower())
    place.prepare(schema)
    logged = place.logged(disturbance.log) if disturbance.log else 0
    if disturbance.before:
        disturbance.before(place, schema)
    during = disturbance.during(place, schema) if disturbance.during else None
    ran = place.run(schema, during=during)
    injected = place.logged(disturbance.log) - logged if disturbance.log else 1
    if disturbance.after:
        disturbance.after(place, schema)
    return place.row(disturbance.name, injected, schema, ran)


def _missing_privilege(place: Place) -> Row:
    schema = "db_privilege"
    place.prepare(schema)
    with place.connection() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(_ROLE)))
        for query in (
            "GRANT ALL ON SCHEMA {schema} TO {role}",
            "GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}",
            "REVOKE INSERT ON {schema}.opens FROM {role}",
        ):
            connection.execute(SQL(query).format(schema=Identifier(schema), role=Identifier(_ROLE)))
    pattern = "ERROR:  permission denied"
    logged = place.logged(pattern)
    ran = place.run(schema, user=_ROLE)
    injected = place.logged(pattern) - logged
    with place.connection() as connection:
        connection.execute(SQL("GRANT INSERT ON {} TO {}").format(Identifier(schema, "opens"), Identifier(_ROLE)))
    return place.row("missing privilege (INSERT on one table)", injected, schema, ran, user=_ROLE)


def _disk_full(place: Place, folder: Path) -> Row:
    """Two of the tables on a file system of their own that is too small, and then is not."""
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
        return Row(name, "not injected", "no file system can be mounted here", None, None)
    try:
        place.prepare(schema)
        with place.connection() as connection:
            connection.execute(SQL("CREATE TABLESPACE small LOCATION {}").format(Literal(str(folder))))
            for each in ("sends", "opens"):
                connection.execute(SQL("ALTER TABLE {} SET TABLESPACE small").format(Identifier(schema, each)))
        logged = place.logged(pattern)
        ran = place.run(schema)
        injected = place.logged(pattern) - logged
        mounted("remount", "size=512m")
        return place.row(name, injected, schema, ran)
    finally:
        with place.connection() as connection, suppress(psycopg.Error):
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
            connection.execute("DROP TABLESPACE small")
        subprocess.run(["umount", str(folder)], check=False)
