"""Drives the project as a user does: its commands as processes, their results by SQL. Knows nothing of single flows."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import IO, Any, Self, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import psycopg
from fasteners import InterProcessLock, InterProcessReaderWriterLock

from klaviyo_pg.postgres.server import embedded
from sandbox.api.keys import key_of
from sandbox.launcher import Sandbox
from tasks.temporary_server import BATCHED_TASK_RUNS

PATIENCE = 600.0
"""Seconds after which a wait counts as failed. It keeps tests from hanging and does not measure anything."""
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
"""The most recent midnight. Sandbox accounts whose history must reach the present end here."""
ROOT = Path(__file__).resolve().parent.parent

T = TypeVar("T")


def wait_until(
    holds: Callable[[], T], condition: str, child: "subprocess.Popen[Any] | None" = None, every: float = 0.02
) -> T:
    """Call `holds` until it returns something true, and return that.

    Raises AssertionError with the `condition` in words after PATIENCE, or if the process `child` exits before that.
    """
    limit = time.monotonic() + PATIENCE
    while not (result := holds()):
        assert child is None or child.poll() is None, f"The process exited (code {child.returncode}) before {condition}"
        assert time.monotonic() < limit, f"Waited {PATIENCE:.0f} s until {condition}"
        time.sleep(every)
    return result


@dataclass(frozen=True)
class Result:
    """The result of a command: exit code and output."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """The printed summary: table -> rows read, inserted, updated, unchanged, rejected. It has no empty tables."""
        rows = [line.strip("│ ").split("│") for line in self.out.splitlines() if line.startswith("│")]
        printed = {name.strip(): tuple(int(text.replace(",", "")) for text in rest) for name, *rest in rows}
        return defaultdict(lambda: (0, 0, 0, 0, 0), printed)


@dataclass(frozen=True)
class Command:
    """A command in progress. Its output goes to files, so that it never waits for a reader."""

    process: "subprocess.Popen[bytes]"
    _out: IO[str]
    _err: IO[str]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, holds: Callable[[], object], condition: str) -> None:
        """Wait until `holds` returns something true. Raises AssertionError if the command exits before that."""
        wait_until(holds, condition, self.process)

    def result(self) -> Result:
        """Wait until the command exits; return its exit code and output."""
        code = self.process.wait(PATIENCE)
        self._out.seek(0)
        self._err.seek(0)
        return Result(code, self._out.read(), self._err.read())


@dataclass(frozen=True)
class Warehouse:
    """A database and the commands that fill it."""

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def sync(self, *arguments: str, **settings: str) -> Result:
        """Run `python flows/daily.py` with these arguments and settings."""
        return self.run(["flows/daily.py", *arguments], settings)

    def run(self, arguments: Sequence[str], settings: Mapping[str, str]) -> Result:
        """Run a Python command of the project until it exits."""
        with self.start(arguments, settings) as command:
            return command.result()

    @contextmanager
    def start(self, arguments: Sequence[str], settings: Mapping[str, str]) -> Iterator[Command]:
        """Start a Python command of the project. It is killed if the block leaves it running."""
        environment = {**self.environment, "DATABASE_URL": self.url, **settings}
        with (
            TemporaryFile("w+") as out,
            TemporaryFile("w+") as err,
            subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=err
            ) as process,
        ):
            try:
                yield Command(process, out, err)
            finally:
                process.kill()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """Return the only value of a query."""
        [[value]] = self.rows(query, *values)
        return value

    def has_rows(self, table: str) -> bool:
        """Return whether a table exists and has rows."""
        exists = self.one("SELECT to_regclass(%s) IS NOT NULL", table)
        return bool(exists and self.one(f"SELECT EXISTS (SELECT FROM {table})"))


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Run a Prefect server with its data in `home`; yield an environment that points to it and names no account."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "KLAVIYO_")) and name not in ("DATABASE_URL", "PYTHONPATH")
    } | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **BATCHED_TASK_RUNS,
        "DO_NOT_TRACK": "1",
    }
    # A run that waits for its deployment's slot must not start before a slow test has seen it wait.
    server_only = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3600"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, env={**environment, **server_only}, stdout=log, stderr=log) as server,
    ):
        try:
            wait_until(lambda: _is_healthy(environment["PREFECT_API_URL"]), "Prefect's server was ready", server)
            yield environment
        finally:
            server.terminate()


def _is_healthy(url: str) -> bool:
    with suppress(OSError), urlopen(f"{url}/health", timeout=10):
        return True
    return False


def copy_prefect_home(environment: Mapping[str, str], home: Path) -> None:
    """Make a PREFECT_HOME whose database is set up, which takes Prefect a long time, as a copy of a server's."""
    home.mkdir()
    origin = Path(environment["PREFECT_HOME"]) / "prefect.db"
    with closing(sqlite3.connect(origin)) as source, closing(sqlite3.connect(home / "prefect.db")) as target:
        source.backup(target)


@contextmanager
def shared_prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """Share one Prefect server among all processes that name the same folder.

    The first process starts it, and stops it when no other process uses it any more.
    """
    record, start = folder / "prefect.json", InterProcessLock(folder / "prefect.start")
    use = InterProcessReaderWriterLock(folder / "prefect.use")
    with ExitStack() as stack:
        with start:
            is_first = not record.exists()
            if is_first:
                environment = stack.enter_context(prefect_server(Path(mkdtemp(prefix="prefect", dir=folder))))
                record.write_text(json.dumps(environment))
            else:
                environment = json.loads(record.read_text())
                stack.enter_context(use.read_lock())
        yield environment
        if is_first:
            with start:
                record.unlink()  # a process that comes later starts its own server
            with use.write_lock():
                pass


def ask_prefect(environment: Mapping[str, str], path: str, body: Any = None) -> Any:
    """Send a request to Prefect's API (a POST if there is a body) and return its answer.

    It is repeated while Prefect's database is busy, as Prefect's own clients do.
    """
    data = None if body is None else json.dumps(body).encode()
    request = Request(environment["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"})
    [answer] = wait_until(lambda: _answer(request), f"Prefect answered {path}", every=1)
    return answer


def _answer(request: Request) -> list[Any]:
    """Return the answer in a list, which is empty while Prefect's database is busy."""
    try:
        with urlopen(request, timeout=PATIENCE) as answer:
            return [json.load(answer)]
    except HTTPError as error:
        with error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
    return []


def wait_until_recorded(environment: Mapping[str, str], flow_runs: Mapping[str, Any]) -> None:
    """Wait until Prefect has stored the last logs and events of these runs (a filter of Prefect's API).

    Prefect receives both in the background and stores them seconds after a run is over.
    """
    runs = ask_prefect(environment, "/flow_runs/filter", {"flow_runs": flow_runs})
    over = [run for run in runs if run["state"]["type"] in ("COMPLETED", "FAILED")]
    assert over
    for run in over:
        wait_until(lambda run=run: _is_recorded(environment, run), f"Prefect had stored {run['name']}", every=0.3)  # type: ignore[misc]


def _is_recorded(environment: Mapping[str, str], run: Mapping[str, Any]) -> bool:
    logs = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_DESC", "limit": 10}
    event = {"name": [f"prefect.flow-run.{run['state']['name']}"]}
    events = {"filter": {"event": event, "resource": {"id": [f"prefect.flow-run.{run['id']}"]}}}
    messages = [log["message"] for log in ask_prefect(environment, "/logs/filter", logs)]
    return any("Finished in state" in message for message in messages) and bool(
        ask_prefect(environment, "/events/filter", events)["events"]
    )


def postgres_server(folder: Path) -> str:
    """Start a Postgres server with its data in a folder and return its URL. The data may not survive a power loss."""
    url = embedded.url(folder)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    return url


def account(box: Sandbox, name: str = "default") -> dict[str, str]:
    """Return the settings for a sandbox account, under this name in the warehouse.

    Each name stands for another account with the same data, because an account can have only one.
    """
    key = box.api_key if name == "default" else key_of(name)
    return {"KLAVIYO_BASE_URL": box.url, "KLAVIYO_API_KEY": key, "KLAVIYO_INTEGRATION": name}


class StoppablePostgres:
    """A separate Postgres server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.url = embedded.url(folder)
        self._server: Any = embedded._server(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):  # it is stopped already
            self.stop()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is a fast shutdown, SIGQUIT an immediate one, which leaves what a power loss leaves."""
        pid = self._server.get_pid()
        os.kill(pid, number)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(PATIENCE)

    def start(self) -> None:
        """Start it again with the same data."""
        self._server.ensure_postgres_running()
