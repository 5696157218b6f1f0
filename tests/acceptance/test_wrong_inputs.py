"""Mistakes and mishaps at the terminal: each ends in an exit code and one plain sentence, never in a traceback.

What needs no process is tested in tests/unit/test_wrong_arguments.py and in tests/integration/sandbox.
"""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import prefect
import pytest

from sandbox.launcher import Sandbox, running
from tests import runs
from tests.driver import Result, Warehouse, account, wait_until


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=500, days=10) as box:
        yield box


@pytest.fixture
def closed_port() -> int:
    """A local port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def last_sentence(ran: Result) -> str:
    """Return the last line of the output, which must not contain a traceback."""
    assert "Traceback" not in ran.out + ran.err
    return ran.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        pytest.param({"KLAVIYO_API_KEY": ""}, [], "Set KLAVIYO_API_KEY", id="no key"),
        pytest.param({}, ["--frobnicate"], "--help", id="an unknown flag"),
    ],
)
def test_a_wrong_setting_or_flag_is_named(
    warehouse: Warehouse, box: Sandbox, changes: dict[str, str], arguments: list[str], message: str
) -> None:
    """A wrong setting or flag ends the command with exit code 2 and a message that names it."""
    ran = warehouse.sync(*arguments, **{**account(box), **changes})
    assert message in last_sentence(ran)
    assert ran.code == 2


def test_an_unusable_prefect_home_is_named(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """If the temporary Prefect server cannot write to PREFECT_HOME, the message names the setting."""
    (tmp_path / "file").touch()
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "file" / "home"))
    assert "PREFECT_HOME" in last_sentence(ran)
    assert ran.code == 2


@pytest.mark.slow
def test_a_failed_temporary_server_names_its_log(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """If the temporary Prefect server does not start, the message names its log file."""
    (tmp_path / "prefect.db").write_text("no database")
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path))
    assert "Traceback" not in ran.out + ran.err
    log = tmp_path / "temporary-server.log"
    assert f"did not start. See {log}." in ran.err
    assert "file is not a database" in log.read_text()
    assert ran.code == 2


@pytest.mark.parametrize("command", [["flows/daily.py"], ["-m", "tasks.save_blocks", "--klaviyo", "x"]])
def test_a_missing_prefect_server_is_reported(
    warehouse: Warehouse, box: Sandbox, closed_port: int, command: list[str]
) -> None:
    """If no server answers at PREFECT_API_URL, the message names the setting."""
    url = f"http://127.0.0.1:{closed_port}/api"
    settings = {**account(box), "PREFECT_API_URL": url, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    ran = warehouse.run(command, settings)
    assert "No Prefect server responds at PREFECT_API_URL" in last_sentence(ran)
    assert ran.code == 2


class _Busy(BaseHTTPRequestHandler):
    """A Prefect server that is healthy and answers everything else with 503."""

    answers: ClassVar = {"/api/health": True, "/api/admin/version": prefect.__version__}

    def do_GET(self) -> None:
        self.send_response(200 if self.path in self.answers else 503)
        self.end_headers()
        self.wfile.write(json.dumps(self.answers.get(self.path)).encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_busy_prefect_server_fails_the_run(warehouse: Warehouse, box: Sandbox) -> None:
    """If Prefect's server keeps answering 503, the run fails and says so."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        try:
            ran = warehouse.sync(**account(box), PREFECT_API_URL=url, PREFECT_CLIENT_MAX_RETRIES="1")
        finally:
            server.shutdown()
    assert "Prefect's server failed (PrefectHTTPStatusError: Server error '503 Service Unavailable'" in last_sentence(
        ran
    )
    assert ran.code == 1


@pytest.mark.slow
def test_a_second_daily_run_of_an_account_is_refused(warehouse: Warehouse, box: Sandbox) -> None:
    """While a daily run of an account is in progress in one process, another process exits with a message."""
    box.set_faults({"endpoint": "GET /api/metrics", "status": 429, "retry_after": 1, "times": 10**9})
    twins = "SELECT count(*) FROM klaviyo.runs JOIN klaviyo.integrations i USING (esp_integration_id) WHERE i.name = %s"

    def has_begun() -> bool:
        return warehouse.has_rows("klaviyo.runs") and warehouse.one(twins, "twins") > 0

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(runs.in_process(warehouse, account(box, "twins")).daily)
        try:
            wait_until(lambda: running.done() or has_begun(), "the first run had begun")
            other = warehouse.sync(**account(box, "twins"))
        finally:
            box.set_faults()
        first = running.result()
    assert other.code == 2
    assert (
        last_sentence(other) == "twins: Another daily run of twins is in progress: wait for it to finish, or stop it."
    )
    assert first.exit_code == 0, first.sentences


def test_a_run_that_waits_for_the_api_can_be_stopped(warehouse: Warehouse, box: Sandbox) -> None:
    """A daily run that waits for an hour because of the rate limit stops on SIGTERM and says that it can be resumed."""
    box.set_faults({"endpoint": "GET /api/lists", "status": 429, "retry_after": 3600, "times": 10**9})
    before = box.state()["requests"].get("GET /api/lists", 0)
    with warehouse.start(["flows/daily.py"], {**account(box, "patient"), "RETRY_BUDGET_SECONDS": "7200"}) as command:
        command.wait_until(lambda: box.state()["requests"].get("GET /api/lists", 0) > before, "it asked for lists")
        command.process.send_signal(signal.SIGTERM)
        ran = command.result()
    box.set_faults()
    assert ran.code == 130, ran.err[-3000:]
    assert ran.err.strip().splitlines()[-1] == "patient: Stopped on request. Rerun with the same arguments to resume."
    assert "Traceback" not in ran.err


def test_psql_shows_no_password(warehouse: Warehouse) -> None:
    """If DATABASE_URL is not a URL that psql accepts, the message hides the password."""
    wrong = {"DATABASE_URL": "postgresql://someone:hunter2@[broken/shop"}
    ran = warehouse.run(["-m", "klaviyo_pg", "psql"], {**wrong})
    assert ran.code == 2
    assert "DATABASE_URL" in last_sentence(ran)
    assert "hunter2" not in ran.out + ran.err
