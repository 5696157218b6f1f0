"""`python -m benchmarks.exposure`: look for secrets in everything that fourteen commands write or show.

Commands that succeed, fail and are killed run with logs at DEBUG level. The API key, the password of the database and
the salt are then searched for as they are, percent-encoded, in base64, and in pieces of six characters. Exits with 1 if
one of them is found outside the environment of a command itself.
"""

import base64
import os
import secrets
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, urlsplit

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from klaviyo_pg.postgres.server import embedded
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT, postgres_server, prefect_server

_ALPHABET = string.ascii_letters + string.digits
_PIECE = 6  # characters
_POLL_SECONDS = 0.05  # between two looks at the processes
_AGE_OF_KILL = 6.0  # seconds
_DAYS = 20


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class Secret:
    """A secret: its name, the text itself, and the random part of which no piece may be found."""

    name: str
    text: str
    random: str

    def forms(self) -> dict[str, list[bytes]]:
        """Return what is searched for, by the form."""
        pieces = [self.random[at : at + _PIECE] for at in range(len(self.random) - _PIECE + 1)]
        encoded = [base64.b64encode(b" " * shift + self.text.encode())[4:-4] for shift in range(3)]
        return {
            "itself": [self.text.encode()],
            "percent-encoded": [quote(self.text, safe="").encode()],
            "base64": encoded,
            "a piece": [piece.encode() for piece in pieces],
        }


@dataclass
class Search:
    """Looks for secrets, and notes where they are."""

    wanted: list[Secret]
    found: dict[str, set[str]] = field(default_factory=dict)

    def look(self, place: str, content: bytes) -> None:
        """Search in some bytes."""
        for secret in self.wanted:
            for form, texts in secret.forms().items():
                if any(text in content for text in texts):
                    self.found.setdefault(place, set()).add(f"{secret.name}: {form}")

    def look_into(self, place: str, folder: Path) -> int:
        """Search in all files of a folder. Returns their number."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in files:
            try:
                self.look(f"{place}: {path.relative_to(folder)}", path.read_bytes())
            except OSError:
                continue  # a file of a server, which it has just deleted
        return len(files)


@dataclass(frozen=True)
class Case:
    """A command, its changes of the usual settings (an empty one is removed), and the faults that it meets."""

    title: str
    arguments: tuple[str, ...]
    changes: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Mapping[str, object], ...] = ()
    is_killed: bool = False


def _cases(url: str, password: str) -> list[Case]:
    daily, backfill = (
        ("flows/daily.py",),
        ("flows/backfill.py", "--start", f"{MIDNIGHT - timedelta(days=_DAYS):%Y-%m-%d}"),
    )
    program = ("-m", "klaviyo_pg")
    unescaped = url.replace(f":{password}@", f":{password[:9]}@{password[9:]}@")
    fault = {"endpoint": "GET /api/events", "times": 10**6}
    return [
        Case("daily", daily),
        Case("daily, legacy", daily, {"KLAVIYO_DIALECT": "legacy", "WAREHOUSE_SCHEMA": "legacy"}),
        Case("daily, with its own server", daily, {"PREFECT_API_URL": "", "WAREHOUSE_SCHEMA": "own"}),
        Case("backfill", backfill),
        Case("reconcile", ("flows/reconcile.py",)),
        Case("status", (*program, "status")),
        Case("save-blocks", (*program, "save-blocks", "--no-check", "--klaviyo", "x", "--warehouse", "x")),
        Case("erase", (*program, "erase", "--email", "unknown@example.com", "--yes")),
        Case("no such host", daily, {"DATABASE_URL": f"postgresql://loader:{password}@database.invalid/postgres"}),
        Case("an unescaped @", daily, {"DATABASE_URL": unescaped}),
        Case(
            "the API answers 500",
            backfill,
            {"REQUEST_ATTEMPTS": "1", "WAREHOUSE_SCHEMA": "b"},
            ({**fault, "status": 500},),
        ),
        Case(
            "a legacy run meets 429",
            daily,
            {"KLAVIYO_DIALECT": "legacy", "WAREHOUSE_SCHEMA": "c", "RETRY_BUDGET_SECONDS": "1"},
            ({"endpoint": "GET /api/v1/metrics", "times": 10**6, "status": 429, "retry_after": 2},),
        ),
        Case("another account's key", daily, {"KLAVIYO_ACCOUNT_ID": "OTHER9"}),
        Case(
            "killed", backfill, {"WAREHOUSE_SCHEMA": "d"}, ({**fault, "status": 429, "retry_after": 1},), is_killed=True
        ),
    ]


def main() -> None:
    """Run the commands, and search. Exit with 1 if a secret is found."""
    password = _random(24)
    key = Secret("key", f"pk_{_random(34)}", "")
    salt = Secret("salt", _random(30), "")
    wanted = [Secret(each.name, each.text, each.text.removeprefix("pk_")) for each in (key, salt)]
    search = Search([*wanted, Secret("password", password, password)])
    with TemporaryDirectory() as name, running(members=100, events=1_500, days=_DAYS, until=MIDNIGHT) as box:
        folder = Path(name)
        for each in ("home", "data", "output", "server"):
            (folder / each).mkdir()
        box.add_key(key.text, "*")
        url = _database(folder / "server", password)
        with prefect_server(folder / "home") as environment:
            settings = {
                "KLAVIYO_BASE_URL": box.url,
                "KLAVIYO_API_KEY": key.text,
                "KLAVIYO_INTEGRATION": "shop",
                "DATABASE_URL": url,
                "PERSONAL_DATA": "hash",
                "PERSONAL_DATA_SALT": salt.text,
                "DATA_DIR": str(folder / "data"),
                "FIRST_SYNC_DAYS": str(_DAYS + 2),
                "PREFECT_LOGGING_LEVEL": "DEBUG",
                "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
            }
            codes = {
                case.title: _run(case, {**environment, **settings}, folder, box, search)
                for case in _cases(url, password)
            }
            time.sleep(5)  # Prefect's server stores logs and events in the background
            files = {each: search.look_into(each, folder / each) for each in ("home", "data", "output")}
        search.look("log of Postgres", (folder / "server" / "postgres" / "log").read_bytes())
        search.look("dump of the warehouse", _dump(folder / "server", url))
    _show(codes, files, search)
    sys.exit(1 if search.found else 0)


def _database(folder: Path, password: str) -> str:
    """Start a Postgres that logs every statement, and return the URL of a role with a password."""
    server = postgres_server(folder)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE loader SUPERUSER LOGIN PASSWORD '{password}'")
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("ALTER SYSTEM SET log_connections = 'on'")
        connection.execute("SELECT pg_reload_conf()")
    socket = urlsplit(server).query or f"host={psycopg.conninfo.conninfo_to_dict(server)['host']}"
    return f"postgresql://loader:{password}@/postgres?{socket}"


def _dump(folder: Path, url: str) -> bytes:
    program = embedded.psql(folder).with_name("pg_dump")
    return subprocess.run([program, url], capture_output=True, check=True).stdout


def _run(case: Case, environment: dict[str, str], folder: Path, box: Sandbox, search: Search) -> int:
    """Run a command; look into the processes that it starts, and keep what it prints. Returns its exit code."""
    box.set_faults(*map(dict, case.faults))
    environment = {name: value for name, value in {**environment, **case.changes}.items() if value}
    with (folder / "output" / f"{case.title}.txt").open("wb") as output:
        command = [sys.executable, *case.arguments]
        with (
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process,
            _watching(process.pid, case.title, search),
        ):
            if case.is_killed:
                time.sleep(_AGE_OF_KILL)
                process.kill()
            code = process.wait()
    box.set_faults()
    return code


@contextmanager
def _watching(pid: int, title: str, search: Search) -> Iterator[None]:
    """Search the arguments of a process and of its children, and the environment of its children, while it runs."""
    is_over = threading.Event()
    seen: set[tuple[int, tuple[str, ...]]] = set()

    def watch() -> None:
        while not is_over.wait(_POLL_SECONDS):
            _look_at_processes(pid, title, search, seen)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _look_at_processes(pid: int, title: str, search: Search, seen: set[tuple[int, tuple[str, ...]]]) -> None:
    """Look once at the command and at each of its children. A child's environment is that of its start."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for each in family:
        try:
            arguments = tuple(each.cmdline())
            if (each.pid, arguments) in seen:
                continue
            search.look(f"{title}: arguments of {each.name()}", "\0".join(arguments).encode())
            if arguments != tuple(root.cmdline()):  # else it is the command, or a child that has just been forked
                environment = os.fsencode("\0".join(each.environ().values()))
                search.look(f"{title}: environment of {each.name()}", environment)
            seen.add((each.pid, arguments))
        except psutil.Error:
            continue


def _show(codes: Mapping[str, int], files: Mapping[str, int], search: Search) -> None:
    table = Table("command", "exit code")
    for title, code in codes.items():
        table.add_row(title, str(code))
    console = Console()
    console.print(table)
    console.print(f"Files searched: {', '.join(f'{name} {number:,}' for name, number in files.items())}")
    for place, forms in sorted(search.found.items()):
        console.print(f"{place}: {', '.join(sorted(forms))}")
    console.print("No secret was found." if not search.found else "Secrets were found.")


if __name__ == "__main__":
    main()
