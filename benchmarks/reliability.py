"""`python -m benchmarks.reliability --write docs/reliability.md`: each fault in a daily run, and what comes of it.

Each fault gets a schema of its own. What is stored in the end is compared with what the account says it has, and all 18
tables with those of an undisturbed run.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal

from benchmarks.comparing import Difference, difference, events_difference, prepare, table, write_section
from sandbox.chaos import KINDS
from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, StoppablePostgres, account, prefect_server

_EVENTS = "GET /api/events"
_LATENCY_MS = 40  # so that there is a middle of a run
_UNDISTURBED = 3  # runs, of which the median counts
_LONGEST = 300.0  # seconds that a run may take
_ROLE = "loader"
_KINDS = {
    "reset": "connection reset",
    "truncated": "connection broken in the middle of an answer",
    "undecodable": "answer that cannot be decompressed",
    "timeout": "no answer in time",
    "slow": "answer that comes in drops",
    "429": "429 with Retry-After",
    "429_bare": "429 without Retry-After",
    "html_200": "a web page with status 200",
    "not_json": "half an answer, as JSON",
    "not_jsonapi": "JSON that is no page",
    "empty_body": "200 with nothing in it",
    "empty_page": "a page without rows that leads on",
    "repeated_cursor": "a link to a page that has been read",
    "foreign_link": "a link to another host",
    "other_metric": "events of another metric than was asked for",
    "redirect": "a redirect to another host",
    "bomb": "an answer that unpacks to more than fits",
}
_NOT_MENDED = ("repeated_cursor", "foreign_link", "other_metric", "redirect")  # by asking again
_MANY = {"timeout": 20, "bomb": 20}  # of faults that only a smaller page mends, if one page meets two of them
_PATIENCE = {"timeout": {"REQUEST_TIMEOUT_SECONDS": "1"}, "slow": {"REQUEST_TIMEOUT_SECONDS": "1"}}
_ONE_METRIC = {"other_metric": ["--metrics", "Received Email"]}


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    code: int
    said: str
    seconds: float
    requests: int
    retries: int


@dataclass(frozen=True)
class Row:
    """What became of one fault."""

    fault: str
    injected: int | str
    became: str
    difference: Difference | None
    more_seconds: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        lost, other = (self.difference.lost, self.difference.other) if self.difference is not None else ("", "")
        more = "" if self.more_seconds is None else f"{self.more_seconds:+.1f}"
        return self.fault, str(self.injected), self.became, str(lost), str(other), more


class Place:
    """An account, a Postgres that can be taken away, and the daily run between them."""

    def __init__(self, box: Sandbox, postgres: StoppablePostgres, folder: Path, prefect: Mapping[str, str]) -> None:
        self.box, self.postgres, self._folder = box, postgres, folder
        self._environment = {**prefect, **account(box), "DATA_DIR": str(folder), "FIRST_SYNC_DAYS": "70"}
        self.requests = 0
        self.seconds = 0.0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection of the owner of the database."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            yield connection

    def prepare(self, schema: str) -> None:
        with self.connection() as connection:
            prepare(connection, schema)

    def run(
        self, schema: str, *arguments: str, during: Callable[[], None] | None = None, user: str = "", **settings: str
    ) -> Ran:
        """The daily run; `during` is called when it has begun to read events."""
        parts = conninfo_to_dict(self.postgres.url)
        url = f"postgresql://{user or parts['user']}@/{parts['dbname']}?host={parts['host']}"
        environment = {**self._environment, "DATABASE_URL": url, "WAREHOUSE_SCHEMA": schema, **settings}
        before, began = self._asked(), time.monotonic()
        with (self._folder / "run.log").open("w+") as log:
            child = subprocess.Popen(
                [sys.executable, "flows/daily.py", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
            while during is not None and child.poll() is None:
                if self._asked() - before >= 3:
                    during()
                    break
                time.sleep(0.02)
            code = child.wait(_LONGEST)
            seconds = time.monotonic() - began
            log.seek(0)
            said = log.read()
        return Ran(code, said.strip().splitlines()[-1], seconds, *self._counted(schema))

    def _asked(self) -> int:
        return int(self.box.state()["requests"].get(_EVENTS, 0))

    def _counted(self, schema: str) -> tuple[int, int]:
        with self.connection() as connection:
            query = SQL("SELECT coalesce(sum(requests), 0)::int, coalesce(sum(retries), 0)::int FROM {}")
            [[requests, retries]] = connection.execute(query.format(Identifier(schema, "runs"))).fetchall()
        return requests, retries

    def undisturbed(self) -> None:
        """Runs without a fault, the first of which all others are compared with."""
        times = []
        for number in range(_UNDISTURBED):
            self.prepare(f"right{number}")
            ran = self.run(f"right{number}")
            assert ran.code == 0, ran.said
            assert not self.compared(f"right{number}")
            times.append(ran.seconds)
            self.requests = ran.requests
        self.seconds = sorted(times)[len(times) // 2]

    def compared(self, schema: str) -> Difference:
        """With the account's events, and with all tables of the first undisturbed run."""
        with self.connection() as connection:
            events = events_difference(connection, self.box, schema)
            rows = difference(connection, "right0", schema)
        return Difference(max(events.lost, rows.lost), max(events.other, rows.other))

    def logged(self, pattern: str) -> int:
        """Lines of Postgres' log."""
        log = (self._folder / "postgres" / "log").read_text(errors="replace")
        return len(re.findall(pattern, log))

    def completed(self, ran: Ran) -> str:
        """A run that is complete in a few words."""
        words = ["complete"]
        if ran.retries:
            words.append(f"{ran.retries} asked again")
        if (more := ran.requests - ran.retries - self.requests) > 0:
            words.append(f"{more} more requests")
        return ", ".join(words)

    def row(self, fault: str, injected: int | str, schema: str, ran: Ran, user: str = "", **settings: str) -> Row:
        """Where the run was not complete, one without the fault has to be."""
        if ran.code == 0:
            return Row(fault, injected, self.completed(ran), self.compared(schema), ran.seconds - self.seconds)
        again = self.run(schema, user=user, **settings)
        became = f"exit code {ran.code}: “{ran.said}” Without the fault: exit code {again.code}"
        more = ran.seconds + again.seconds - self.seconds
        return Row(fault, injected, became, self.compared(schema), more)


def _api(place: Place, kind: str) -> Row:
    """The fault in the events, thrice, and once at every other endpoint that a run asks."""
    schema = f"api_{kind}"
    place.prepare(schema)
    before = sum(place.box.state()["chaos"].values())
    asked = [_EVENTS] if kind in _NOT_MENDED else [name for name in place.box.state()["requests"] if name[:3] == "GET"]
    faults = [
        {"endpoint": name, "kind": kind, "times": 10**9 if kind in _NOT_MENDED else _MANY.get(kind, 3), "after": 1}
        if name == _EVENTS
        else {"endpoint": name, "kind": kind}
        for name in asked
    ]
    place.box.set_faults(*({**fault, "seconds": 2.0, "retry_after": 1} for fault in faults))
    ran = place.run(schema, *_ONE_METRIC.get(kind, []), **_PATIENCE.get(kind, {}))
    injected = sum(place.box.state()["chaos"].values()) - before
    place.box.set_faults()
    if kind in _ONE_METRIC and ran.code == 0:
        ran = place.run(schema)
    where = "events" if kind in _NOT_MENDED else "all endpoints"
    return place.row(f"{_KINDS.get(kind, f'status {kind}')} ({where})", injected, schema, ran)


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


_TITLE = "Every fault"
_TEXT = """\
`python -m benchmarks.reliability` put each of these into a daily run of an account of {events:,} events, {when}:
those of the API three times into the pages of events (20 times what only smaller pages mend) and once into the first
answer of every other endpoint; those that no retry can mend into all pages of events but the first; those of Postgres
while events were being stored. *Injected* is what the sandbox, or Postgres' log, counted.

*Rows lost* are events that the account has and the warehouse has not, or rows of any of the 18 tables that an
undisturbed run has; *rows twice or other* are all that should not be there. *More requests* are those of smaller pages,
or of pages without rows. Where a run ended, it was run again without the fault, and what is compared is what was there
then. An undisturbed run took {seconds:.1f} s and {requests} requests; *seconds more* holds both runs where there were
two.

{table}
"""
_HEAD = ("fault", "injected", "what became of it", "rows lost", "rows twice or other", "seconds more")


def _all(place: Place, folder: Path, only: str) -> Iterator[Row]:
    for kind in KINDS:
        if re.search(only, kind):
            yield _api(place, kind)
    for disturbance in _OF_POSTGRES:
        if re.search(only, disturbance.name):
            yield _postgres(place, disturbance)
    if re.search(only, "privilege"):
        yield _missing_privilege(place)
    if re.search(only, "disk full"):
        yield _disk_full(place, folder / "small")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--only", default="", help="a regular expression on names of faults")
    parser.add_argument("--write", type=Path, help="the document to write the table into")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres may run as another user
        home = folder / "prefect"
        home.mkdir()
        postgres = StoppablePostgres(folder)
        stack.callback(postgres.stop)
        with (
            prefect_server(home) as prefect,
            running(events=given.events, members=1_000, latency_ms=_LATENCY_MS) as box,
        ):
            place = Place(box, postgres, folder, prefect)
            place.undisturbed()
            print(f"undisturbed: {place.seconds:.1f} s, {place.requests} requests", flush=True)
            rows = []
            for row in _all(place, folder, given.only):
                print(" | ".join(row.cells), flush=True)
                rows.append(row)
        text = _TEXT.format(
            events=given.events,
            when=f"{datetime.now(UTC):%Y-%m-%d}",
            seconds=place.seconds,
            requests=place.requests,
            table=table(_HEAD, [row.cells for row in rows]),
        )
        if given.write:
            write_section(given.write, _TITLE, text)
        if bad := [
            row.fault for row in rows if row.difference or (row.difference is None and row.injected != "not injected")
        ]:
            sys.exit(f"Not as it should be: {', '.join(bad)}.")


if __name__ == "__main__":
    main()
