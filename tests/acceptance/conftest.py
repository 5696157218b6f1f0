"""The real command as a process, against a sandbox account, a real Postgres and a real Prefect server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest

from klaviyo_pg.postgres import embedded
from tests.driver import Warehouse

SERVER_START = 120  # seconds


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Postgres server with nothing in it; the URL of its first database."""
    return embedded.url(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server of one's own; the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "KLAVIYO_")) and name not in ("DATABASE_URL", "PYTHONPATH")
    } | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    log = (Path(environment["PREFECT_HOME"]) / "server.log").open("w")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        try:
            _wait_for(environment["PREFECT_API_URL"], server)
            yield environment
        finally:
            server.terminate()


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + SERVER_START
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("Prefect's server did not start")


@pytest.fixture(scope="module")
def warehouse(
    postgres: str, prefect: dict[str, str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Warehouse:
    """An empty database for the tests of one module."""
    name = request.module.__name__.rpartition(".")[2]
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]  # the name of a module
    url = psycopg.conninfo.conninfo_to_dict(postgres)
    data = str(tmp_path_factory.mktemp("data"))
    return Warehouse(f"postgresql://{url['user']}@/{name}?host={url['host']}", {**prefect, "DATA_DIR": data})
