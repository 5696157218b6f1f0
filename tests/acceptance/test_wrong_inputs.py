"""A user's mistakes: one plain sentence that says what to do, and an exit code; never a traceback."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import prefect
import psycopg
import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import ROOT, Ran, Warehouse, account


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=500, days=10) as box:
        yield box


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def told(ran: Ran) -> str:
    """The one sentence that the user is left with."""
    assert "Traceback" not in ran.out + ran.err
    return ran.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "arguments", "says"),
    [
        pytest.param({"KLAVIYO_API_KEY": ""}, [], "set KLAVIYO_API_KEY", id="no key"),
        pytest.param({"KLAVIYO_API_KEY": "pk_wrong"}, [], "does not accept the API key", id="wrong key"),
        pytest.param({"KLAVIYO_DIALECT": "graphql"}, [], "KLAVIYO_DIALECT", id="unknown dialect"),
        pytest.param({"KLAVIYO_BASE_URL": "http://example.com"}, [], "https://", id="plain http to elsewhere"),
        pytest.param({"DATABASE_URL": "mysql://localhost/x"}, [], "postgresql://", id="not a Postgres"),
        pytest.param({"LOOKBACK_DAYS": "a week"}, [], "LOOKBACK_DAYS", id="not a number"),
        pytest.param({}, ["--metrics", "Recieved Email"], "'Recieved Email'", id="a metric that does not exist"),
        pytest.param({}, ["--tables", "send"], "There is no table send", id="a table that does not exist"),
        pytest.param({}, ["--since", "yesterday"], "--since yesterday", id="not a date"),
        pytest.param({}, ["--frobnicate"], "--help", id="an unknown flag"),
        pytest.param({"DESTINATIONS": '{"Opened Email": "clocks"}'}, [], "no event table", id="an unknown destination"),
    ],
)
def test_settings_and_flags(
    warehouse: Warehouse, box: Sandbox, changes: dict[str, str], arguments: list[str], says: str
) -> None:
    """A wrong setting or flag ends the command with exit code 2 and a sentence that names it."""
    ran = warehouse.sync(*arguments, **{**account(box), "DATABASE_URL": warehouse.url, **changes})
    assert says in told(ran)
    assert ran.code == 2


def test_unreachable_host(warehouse: Warehouse, box: Sandbox, closed_port: int) -> None:
    """A host that does not answer is told within seconds."""
    ran = warehouse.sync(**{**account(box), "KLAVIYO_BASE_URL": f"http://127.0.0.1:{closed_port}"})
    assert "no connection to 127.0.0.1" in told(ran)
    assert ran.code == 1


def test_something_else_answers(warehouse: Warehouse, box: Sandbox) -> None:
    """A host that is no Klaviyo is told apart from one that is broken."""
    ran = warehouse.sync(**{**account(box), "KLAVIYO_BASE_URL": f"{box.url}/sandbox/state"})
    assert "GET /sandbox/state/api/accounts" in told(ran)
    assert ran.code == 1


def test_no_place_for_prefect(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """Without a Prefect server: one is started for the time, and a folder that cannot hold what it keeps is named."""
    (tmp_path / "file").touch()
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "file" / "home"))
    assert "PREFECT_HOME" in told(ran)
    assert ran.code == 2


def test_prefect_does_not_start(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """Where Prefect's temporary server cannot start, the sentence names the file that holds its reasons."""
    (tmp_path / "prefect.db").write_text("no database")
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path))
    assert "Traceback" not in ran.out + ran.err
    log = tmp_path / "temporary-server.log"
    assert f"did not start; {log} says why" in ran.err
    assert "file is not a database" in log.read_text()
    assert ran.code == 2


def test_unreachable_database(warehouse: Warehouse, box: Sandbox, closed_port: int) -> None:
    """A database that does not answer: the sentence names the setting, and not the password."""
    url = f"postgresql://someone:hunter2@127.0.0.1:{closed_port}/shop"
    ran = warehouse.sync(**account(box), DATABASE_URL=url)
    assert "check DATABASE_URL" in told(ran)
    assert "hunter2" not in ran.out + ran.err
    assert ran.code == 2


def test_read_only_database(warehouse: Warehouse, box: Sandbox) -> None:
    """A read-only database, such as a standby."""
    url = f"{warehouse.url}&options=-c%20default_transaction_read_only%3Don"
    ran = warehouse.sync(**account(box, "readonly"), DATABASE_URL=url)
    assert "read-only" in told(ran)
    assert ran.code == 2


def test_missing_privilege(warehouse: Warehouse, box: Sandbox) -> None:
    """A user who may not create the schema."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    url = warehouse.url.replace("postgres@", "guest@")
    ran = warehouse.sync(**account(box), DATABASE_URL=url, WAREHOUSE_SCHEMA="forbidden")
    assert "may not do this" in told(ran)
    assert ran.code == 2


def test_another_account_under_the_same_name(warehouse: Warehouse, box: Sandbox) -> None:
    """The key of another account is refused before it can mix two accounts' rows."""
    assert warehouse.sync("--tables", "lists", **account(box, "shop")).code == 0
    with running(account="OTHER2", members=20, events=50, days=5) as other:
        ran = warehouse.sync(**account(other, "shop"))
    assert "give this account another name" in told(ran)
    assert ran.code == 2


def test_missing_scope(warehouse: Warehouse, box: Sandbox) -> None:
    """A key without a scope: the sentence names it, everything else is synced, and the run ends as partial."""
    box.add_key(
        "pk_part", "accounts:read", "metrics:read", "events:read", "lists:read", "profiles:read", "segments:read"
    )
    settings = {**account(box, "part"), "KLAVIYO_API_KEY": "pk_part", "FIRST_SYNC_DAYS": "3000"}
    ran = warehouse.sync(**settings)
    assert ran.code == 3, ran.err[-3000:]
    assert "lacks the scope campaigns:read" in ran.err
    assert "lacks the scope flows:read" in ran.err
    assert "Traceback" not in ran.out + ran.err
    assert ran.counts["automations"][1] == 0
    assert ran.counts["sends"][1] > 0
    assert ran.counts["member_lists"][1] > 0
    state, message = warehouse.rows(
        "SELECT state, message FROM klaviyo.runs JOIN klaviyo.integrations USING (esp_integration_id)"
        " WHERE name = 'part'"
    )[0]
    assert state == "partial"
    assert "campaigns:read" in message


@pytest.mark.parametrize("command", [["flows/daily.py"], ["-m", "tasks.save_blocks", "--klaviyo", "x"]])
def test_no_prefect_server(warehouse: Warehouse, box: Sandbox, closed_port: int, command: list[str]) -> None:
    """The one that PREFECT_API_URL names is not there."""
    there = {**account(box), "PREFECT_API_URL": f"http://127.0.0.1:{closed_port}/api"}
    ran = warehouse.run(command, there)
    assert "No Prefect server answers at PREFECT_API_URL" in told(ran)
    assert ran.code == 2


class _Busy(BaseHTTPRequestHandler):
    """A Prefect server that is well, and has no time."""

    known: ClassVar = {"/api/health": True, "/api/admin/version": prefect.__version__}

    def do_GET(self) -> None:
        self.send_response(200 if self.path in self.known else 503)
        self.end_headers()
        self.wfile.write(json.dumps(self.known.get(self.path)).encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_busy_prefect_server(warehouse: Warehouse, box: Sandbox) -> None:
    """It answers 503 longer than Prefect's client is patient."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        try:
            ran = warehouse.sync(**account(box), PREFECT_API_URL=url, PREFECT_CLIENT_MAX_RETRIES="1")
        finally:
            server.shutdown()
    assert "Prefect's server failed (PrefectHTTPStatusError: Server error '503 Service Unavailable'" in told(ran)
    assert ran.code == 1


def test_a_data_dir_that_cannot_be(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """A file is in its place: told in one sentence, and the run is closed."""
    (tmp_path / "file").touch()
    given = {**account(box, "nowhere"), "DATA_DIR": str(tmp_path / "file")}
    ran = warehouse.run(["flows/backfill.py", "--start", "2026-01-01"], given)
    assert "DATA_DIR: nothing can be kept in" in told(ran)
    assert ran.code == 2
    assert (
        warehouse.one(
            "SELECT state FROM klaviyo.runs JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'nowhere'"
        )
        == "failed"
    )


def test_missing_scope_of_metrics(warehouse: Warehouse, box: Sandbox) -> None:
    """Without metrics there are no events to plan; people and lists are synced all the same."""
    box.add_key("pk_people", "accounts:read", "events:read", "lists:read", "profiles:read", "segments:read")
    ran = warehouse.sync(**{**account(box, "people"), "KLAVIYO_API_KEY": "pk_people"})
    assert ran.code == 3, ran.err[-3000:]
    assert "lacks the scope metrics:read" in ran.err
    assert ran.counts["members"][1] > 0
    assert ran.counts["member_lists"][1] > 0


def test_records_that_cannot_be_stored(warehouse: Warehouse, box: Sandbox) -> None:
    """A record without an id or with an unreadable time is kept with its reason, counted, and stops nothing."""
    metric = box.state()["metrics"][0]["id"]
    when = 1_790_000_000
    good = box.add_events({"metric": metric, "timestamp": when, "properties": {"text": "nul \u0000 in\u0000side"}})[0]
    box.add_events(
        {"metric": metric, "timestamp": when, "omit": ["id"]},
        {"metric": metric, "timestamp": when, "raw": {"id": 17}, "id": "numeric"},
        {"metric": metric, "timestamp": when, "raw": {"timestamp": "whenever"}, "id": "unread1"},
        {"metric": metric, "timestamp": when, "omit": ["timestamp"], "id": "unread2"},
        {"metric": metric, "timestamp": when, "raw": {"timestamp": 10**15}, "id": "unread3"},
        {"metric": metric, "timestamp": when, "properties": {"half": "\ud800"}, "id": "surrogate"},
    )
    ran = warehouse.sync("--since", "2020-01-01", **account(box, "bad"))
    assert ran.code == 0, ran.err[-3000:]
    rejects = warehouse.rows(
        "SELECT reason, raw, stream FROM klaviyo.rejects JOIN klaviyo.integrations USING (esp_integration_id)"
        " WHERE name = 'bad' AND table_name = 'events'"
    )
    assert len(rejects) == 6
    assert all(reason and stream == "events" for reason, _, stream in rejects)
    assert {
        name for name in ("unread1", "unread2", "unread3", "surrogate") if any(name in row[1] for row in rejects)
    } == {
        "unread1",
        "unread2",
        "unread3",
        "surrogate",
    }
    assert ran.counts["events"][4] == 6
    assert "NUL characters removed" in ran.out
    stored = warehouse.one(
        "SELECT properties ->> 'text' FROM (SELECT * FROM klaviyo.sends UNION ALL SELECT * FROM klaviyo.events"
        " UNION ALL SELECT * FROM klaviyo.opens UNION ALL SELECT * FROM klaviyo.clicks UNION ALL"
        " SELECT * FROM klaviyo.bounces UNION ALL SELECT * FROM klaviyo.spams UNION ALL"
        " SELECT * FROM klaviyo.unsubscribes) every WHERE id = %s",
        good,
    )
    assert stored == "nul  inside"
    again = warehouse.sync("--since", "2020-01-01", **account(box, "bad"))
    assert again.counts["events"][1:3] == (0, 0)


def test_duplicate_ids(warehouse: Warehouse, box: Sandbox) -> None:
    """Of two records with one id the one that is read last stays."""
    order = next(metric["id"] for metric in box.state()["metrics"] if metric["name"] == "Placed Order")
    when = 1_790_100_000
    for number in (1, 2):
        box.add_events(
            {"metric": order, "timestamp": when + number, "id": "twice", "duplicate": True, "properties": {"n": number}}
        )
    ran = warehouse.sync("--since", "2020-01-01", **account(box, "twice"))
    assert ran.code == 0
    assert (
        warehouse.one(
            "SELECT properties ->> 'n' FROM klaviyo.events JOIN klaviyo.integrations USING (esp_integration_id)"
            " WHERE name = 'twice' AND id = 'twice'"
        )
        == "2"
    )


def test_two_runs_at_once(warehouse: Warehouse, box: Sandbox) -> None:
    """While a run of an account is under way another one steps aside, with a message."""
    environment = {**warehouse.environment, "DATABASE_URL": warehouse.url, **account(box, "twins")}
    box.set_faults({"endpoint": "GET /api/metrics", "status": 429, "retry_after": 1, "times": 10**9})
    command = [sys.executable, "flows/daily.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    twins = "SELECT count(*) FROM klaviyo.runs JOIN klaviyo.integrations i USING (esp_integration_id) WHERE i.name = %s"
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as one:  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while one.poll() is None and time.monotonic() < until:
            if warehouse.one("SELECT to_regclass('klaviyo.runs') IS NOT NULL") and warehouse.one(twins, "twins"):
                break
            time.sleep(0.1)
        other = warehouse.sync(**account(box, "twins"))
        box.set_faults()
        _, err = one.communicate(timeout=120)
    assert other.code == 2
    assert told(other) == "A daily run of twins is under way already: wait for it, or end it."
    assert one.returncode == 0, err[-3000:]


def test_stopped_while_it_waits(warehouse: Warehouse, box: Sandbox) -> None:
    """A daily run that waits for the API's limit ends soon after SIGTERM, and says that it can be gone on with."""
    environment = {**warehouse.environment, "DATABASE_URL": warehouse.url, **account(box, "patient")}
    before = box.state()["requests"].get("GET /api/lists", 0)
    box.set_faults({"endpoint": "GET /api/lists", "status": 429, "retry_after": 300, "times": 10**9})
    command = [sys.executable, "flows/daily.py"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as child:  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < until:
            if box.state()["requests"].get("GET /api/lists", 0) > before:
                break
            time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    box.set_faults()
    assert child.returncode == 130, err[-3000:]
    assert err.strip().splitlines()[-1] == "Stopped as asked; the same command goes on where it stopped."
    assert "Traceback" not in err


def test_psql_shows_no_password(warehouse: Warehouse) -> None:
    """A URL that psql cannot take is told without its password."""
    wrong = {"DATABASE_URL": "postgresql://someone:hunter2@[broken/shop"}
    ran = warehouse.run(["-m", "klaviyo_pg", "psql"], {**wrong})
    assert ran.code == 2
    assert "DATABASE_URL" in told(ran)
    assert "hunter2" not in ran.out + ran.err


def test_a_row_that_cannot_be_read_is_not_deleted(warehouse: Warehouse, box: Sandbox) -> None:
    """A list whose row turns unreadable is rejected, and neither it nor any other counts as deleted at the source."""
    assert warehouse.sync("--tables", "lists", **account(box, "hidden")).code == 0
    [(list_id, name)] = warehouse.rows("SELECT id, name FROM klaviyo.lists WHERE name = 'VIP' LIMIT 1")
    box.change("lists", list_id, name=17)
    try:
        ran = warehouse.sync("--tables", "lists", **account(box, "hidden"))
    finally:
        box.change("lists", list_id, name=name)
    assert ran.code == 0, ran.err[-3000:]
    assert ran.counts["lists"][4] == 1
    of = "FROM klaviyo.lists JOIN klaviyo.integrations i USING (esp_integration_id) WHERE i.name = 'hidden'"
    assert warehouse.one(f"SELECT count(*) {of} AND deleted_at IS NOT NULL") == 0


def test_a_metric_that_appeared_during_a_run(warehouse: Warehouse, box: Sandbox) -> None:
    """Events that were stored before their metric was known move to its table when it is, and stand there once."""
    given = {**account(box, "late"), "FIRST_SYNC_DAYS": "3000"}
    assert warehouse.sync(**given).code == 0
    one = "(SELECT esp_integration_id FROM klaviyo.integrations WHERE name = 'late')"
    spams = warehouse.one(f"SELECT count(*) FROM klaviyo.spams WHERE esp_integration_id = {one}")
    with psycopg.connect(warehouse.url) as connection:  # as a run leaves them that did not know the metric
        connection.execute(f"INSERT INTO klaviyo.events SELECT * FROM klaviyo.spams WHERE esp_integration_id = {one}")
        connection.execute(f"DELETE FROM klaviyo.spams WHERE esp_integration_id = {one}")
        connection.execute(
            f"DELETE FROM klaviyo.metrics WHERE name = 'Marked Email as Spam' AND esp_integration_id = {one}"
        )
    assert warehouse.sync("--since", "2020-01-01", **given).code == 0
    assert spams > 0
    assert warehouse.one(f"SELECT count(*) FROM klaviyo.spams WHERE esp_integration_id = {one}") == spams
    there = "event_name = 'Marked Email as Spam'"
    assert warehouse.one(f"SELECT count(*) FROM klaviyo.events WHERE {there} AND esp_integration_id = {one}") == 0
