"""Driving the project as its users do: its commands as processes, its results by SQL."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self
from urllib.request import urlopen

import psutil
import psycopg
from fasteners import InterProcessLock, InterProcessReaderWriterLock

from klaviyo_pg.postgres import embedded
from sandbox.launcher import Sandbox
from tasks.terminal import TASK_RUNS_TOGETHER

SERVER_START = 120  # seconds
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
"""The last one, at which sandbox accounts end that have to be of the present."""
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, tuple[int, ...]]:
        """The summary that it printed: table -> read, inserted, updated, unchanged, rejected."""
        rows = [line.strip("│ ").split("│") for line in self.out.splitlines() if line.startswith("│")]
        return {name.strip(): tuple(int(text.replace(",", "")) for text in rest) for name, *rest in rows}


@dataclass(frozen=True)
class Warehouse:
    """A database, and the command that fills it."""

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def sync(self, *arguments: str, **settings: str) -> Ran:
        """`python flows/daily.py` with these arguments and settings."""
        return self.run(["flows/daily.py", *arguments], settings)

    def run(self, command: Sequence[str], settings: Mapping[str, str]) -> Ran:
        """Any Python command of the project, in its environment."""
        environment = {**self.environment, "DATABASE_URL": self.url, **settings}
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def one(self, query: str, *values: Any) -> Any:
        """The only value that a query answers."""
        [[value]] = self.rows(query, *values)
        return value


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server with its data in `home`; gives an environment that leads to it, and to no account."""
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
        **TASK_RUNS_TOGETHER,
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_for(environment["PREFECT_API_URL"], server)
            yield environment
        finally:
            server.terminate()


@contextmanager
def shared_prefect_server(folder: Path) -> Iterator[dict[str, str]]:
    """The same for all processes that name one folder: the first begins a server, and ends it when none needs it."""
    there, begin = folder / "prefect.json", InterProcessLock(folder / "prefect.begin")
    use = InterProcessReaderWriterLock(folder / "prefect.use")
    with ExitStack() as stack:
        with begin:
            is_first = not there.exists()
            if is_first:
                environment = stack.enter_context(prefect_server(Path(mkdtemp(prefix="prefect", dir=folder))))
                there.write_text(json.dumps(environment))
            else:
                environment = json.loads(there.read_text())
                stack.enter_context(use.read_lock())
        yield environment
        if is_first:
            with begin:
                there.unlink()  # who comes now begins another one
            with use.write_lock():
                pass


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + SERVER_START
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("Prefect's server did not start")


def postgres_server(folder: Path) -> str:
    """Start a Postgres with its data in a folder; gives its URL. What it holds need not outlive a loss of power."""
    url = embedded.url(folder)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    return url


def account(box: Sandbox, name: str = "default") -> dict[str, str]:
    """Settings that lead to a sandbox account."""
    return {"KLAVIYO_BASE_URL": box.url, "KLAVIYO_API_KEY": box.api_key, "KLAVIYO_INTEGRATION": name}


class StoppablePostgres:
    """A Postgres of one's own that can be taken away for a while."""

    def __init__(self, folder: Path) -> None:
        self.url = embedded.url(folder)
        self._server: Any = embedded._server(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):  # it is away
            self.stop()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT is a fast shutdown, SIGQUIT an immediate one, as after a loss of power."""
        pid = self._server.get_pid()
        os.kill(pid, number)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(60)

    def start(self) -> None:
        """Start it again, with what it held."""
        self._server.ensure_postgres_running()
