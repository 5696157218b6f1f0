"""Mistakes of the user: each ends in an exit code and one plain sentence with the remedy, never in a traceback."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import prefect
import psycopg
import pytest

from sandbox.launcher import Sandbox, running
from tests.driver import Result, Warehouse, account


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
        pytest.param({"DESTINATIONS": '{"Opened Email": "clocks"}'}, [], "not an event table", id="no such table"),
    ],
)
def test_a_wrong_setting_or_flag_is_named(
    warehouse: Warehouse, box: Sandbox, changes: dict[str, str], arguments: list[str], message: str
) -> None:
    """A wrong setting or flag ends the command with exit code 2 and a message that names it."""
    ran = warehouse.sync(*arguments, **{**account(box), "DATABASE_URL": warehouse.url, **changes})
    assert message in last_sentence(ran)
    assert ran.code == 2


def test_an_unreachable_host_is_named(warehouse: Warehouse, box: Sandbox, closed_port: int) -> None:
    """If the API's host refuses connections, the message names the host."""
    ran = warehouse.sync(**{**account(box), "KLAVIYO_BASE_URL": f"http://127.0.0.1:{closed_port}"})
    assert "no connection to 127.0.0.1" in last_sentence(ran)
    assert ran.code == 1


def test_another_service_is_reported(warehouse: Warehouse, box: Sandbox) -> None:
    """If another service answers at KLAVIYO_BASE_URL, the message names the path that it did not have."""
    ran = warehouse.sync(**{**account(box), "KLAVIYO_BASE_URL": f"{box.url}/sandbox/state"})
    assert "GET /sandbox/state/api/accounts" in last_sentence(ran)
    assert ran.code == 1


def test_an_unusable_prefect_home_is_named(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """If the temporary Prefect server cannot write to PREFECT_HOME, the message names the setting."""
    (tmp_path / "file").touch()
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "file" / "home"))
    assert "PREFECT_HOME" in last_sentence(ran)
    assert ran.code == 2


def test_a_failed_temporary_server_names_its_log(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """If the temporary Prefect server does not start, the message names its log file."""
    (tmp_path / "prefect.db").write_text("no database")
    ran = warehouse.sync(**account(box), PREFECT_API_URL="", PREFECT_HOME=str(tmp_path))
    assert "Traceback" not in ran.out + ran.err
    log = tmp_path / "temporary-server.log"
    assert f"did not start. See {log}." in ran.err
    assert "file is not a database" in log.read_text()
    assert ran.code == 2


def test_an_unreachable_database_is_reported(warehouse: Warehouse, box: Sandbox, closed_port: int) -> None:
    """If the database refuses connections, the message names the setting and hides the password."""
    url = f"postgresql://someone:hunter2@127.0.0.1:{closed_port}/shop"
    ran = warehouse.sync(**account(box), DATABASE_URL=url)
    assert "Check DATABASE_URL" in last_sentence(ran)
    assert "hunter2" not in ran.out + ran.err
    assert ran.code == 2


def test_a_read_only_database_is_reported(warehouse: Warehouse, box: Sandbox) -> None:
    """A read-only database, such as a standby, is reported as read-only."""
    url = f"{warehouse.url}&options=-c%20default_transaction_read_only%3Don"
    ran = warehouse.sync(**account(box, "readonly"), DATABASE_URL=url)
    assert "read-only" in last_sentence(ran)
    assert ran.code == 2


def test_a_missing_privilege_is_reported(warehouse: Warehouse, box: Sandbox) -> None:
    """A database user who may not create the schema is reported as such."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    url = warehouse.url.replace("postgres@", "guest@")
    ran = warehouse.sync(**account(box), DATABASE_URL=url, WAREHOUSE_SCHEMA="forbidden")
    assert "lacks a privilege" in last_sentence(ran)
    assert ran.code == 2


def test_another_account_of_the_same_name_is_refused(warehouse: Warehouse, box: Sandbox) -> None:
    """The key of another account is refused before its rows can mix with those of the first."""
    assert warehouse.sync("--tables", "lists", **account(box, "shop")).code == 0
    with running(account="OTHER2", members=20, events=50, days=5) as other:
        ran = warehouse.sync(**account(other, "shop"))
    assert "give this account another name" in last_sentence(ran)
    assert ran.code == 2


def test_a_missing_scope_makes_the_run_partial(warehouse: Warehouse, box: Sandbox) -> None:
    """If the key lacks a scope, the run names it, syncs everything else and ends as partial."""
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
def test_a_missing_prefect_server_is_reported(
    warehouse: Warehouse, box: Sandbox, closed_port: int, command: list[str]
) -> None:
    """If no server answers at PREFECT_API_URL, the message names the setting."""
    settings = {**account(box), "PREFECT_API_URL": f"http://127.0.0.1:{closed_port}/api"}
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


def test_an_unusable_data_dir_fails_the_run(warehouse: Warehouse, box: Sandbox, tmp_path: Path) -> None:
    """If DATA_DIR is a file, the message names the setting and the run is recorded as failed."""
    (tmp_path / "file").touch()
    settings = {**account(box, "nowhere"), "DATA_DIR": str(tmp_path / "file")}
    ran = warehouse.run(["flows/backfill.py", "--start", "2026-01-01"], settings)
    assert "DATA_DIR: nothing can be kept in" in last_sentence(ran)
    assert ran.code == 2
    assert (
        warehouse.one(
            "SELECT state FROM klaviyo.runs JOIN klaviyo.integrations USING (esp_integration_id) WHERE name = 'nowhere'"
        )
        == "failed"
    )


def test_a_run_without_metrics_syncs_the_rest(warehouse: Warehouse, box: Sandbox) -> None:
    """If the key may not read metrics, the run skips events and syncs people and lists."""
    box.add_key("pk_people", "accounts:read", "events:read", "lists:read", "profiles:read", "segments:read")
    ran = warehouse.sync(**{**account(box, "people"), "KLAVIYO_API_KEY": "pk_people"})
    assert ran.code == 3, ran.err[-3000:]
    assert "lacks the scope metrics:read" in ran.err
    assert ran.counts["members"][1] > 0
    assert ran.counts["member_lists"][1] > 0


def test_unusable_records_are_rejected(warehouse: Warehouse, box: Sandbox) -> None:
    """A record without an id or with an unreadable time is counted and kept as a reject with its reason."""
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
    named = ("unread1", "unread2", "unread3", "surrogate")
    assert all(any(name in raw for _, raw, _ in rejects) for name in named)
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


def test_the_last_of_two_events_with_one_id_is_kept(warehouse: Warehouse, box: Sandbox) -> None:
    """If two events have the same id, the one that is read last is kept."""
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


def test_a_second_daily_run_of_an_account_is_refused(warehouse: Warehouse, box: Sandbox) -> None:
    """While a daily run of an account is in progress, another one exits with a message."""
    box.set_faults({"endpoint": "GET /api/metrics", "status": 429, "retry_after": 1, "times": 10**9})
    twins = "SELECT count(*) FROM klaviyo.runs JOIN klaviyo.integrations i USING (esp_integration_id) WHERE i.name = %s"

    def has_begun() -> bool:
        return warehouse.has_rows("klaviyo.runs") and warehouse.one(twins, "twins") > 0

    with warehouse.start(["flows/daily.py"], account(box, "twins")) as command:
        command.wait_until(has_begun, "the first run had begun")
        other = warehouse.sync(**account(box, "twins"))
        box.set_faults()
        first = command.result()
    assert other.code == 2
    assert last_sentence(other) == "A daily run of twins is under way already: wait for it, or end it."
    assert first.code == 0, first.err[-3000:]


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
    assert ran.err.strip().splitlines()[-1] == "Stopped as asked; the same command goes on where it stopped."
    assert "Traceback" not in ran.err


def test_psql_shows_no_password(warehouse: Warehouse) -> None:
    """If DATABASE_URL is not a URL that psql accepts, the message hides the password."""
    wrong = {"DATABASE_URL": "postgresql://someone:hunter2@[broken/shop"}
    ran = warehouse.run(["-m", "klaviyo_pg", "psql"], {**wrong})
    assert ran.code == 2
    assert "DATABASE_URL" in last_sentence(ran)
    assert "hunter2" not in ran.out + ran.err


def test_a_rejected_row_does_not_count_as_deleted(warehouse: Warehouse, box: Sandbox) -> None:
    """If a list's row becomes unreadable, it is rejected, and no list is marked as deleted at the source."""
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


def test_events_move_to_the_table_of_their_metric(warehouse: Warehouse, box: Sandbox) -> None:
    """Events that are stored before their metric is listed move to the metric's table once it is."""
    settings = {**account(box, "late"), "FIRST_SYNC_DAYS": "3000"}
    assert warehouse.sync(**settings).code == 0
    one = "(SELECT esp_integration_id FROM klaviyo.integrations WHERE name = 'late')"
    spams = warehouse.one(f"SELECT count(*) FROM klaviyo.spams WHERE esp_integration_id = {one}")
    with psycopg.connect(warehouse.url) as connection:  # the result of a run before the metric was listed
        connection.execute(f"INSERT INTO klaviyo.events SELECT * FROM klaviyo.spams WHERE esp_integration_id = {one}")
        connection.execute(f"DELETE FROM klaviyo.spams WHERE esp_integration_id = {one}")
        connection.execute(
            f"DELETE FROM klaviyo.metrics WHERE name = 'Marked Email as Spam' AND esp_integration_id = {one}"
        )
    assert warehouse.sync("--since", "2020-01-01", **settings).code == 0
    assert spams > 0
    assert warehouse.one(f"SELECT count(*) FROM klaviyo.spams WHERE esp_integration_id = {one}") == spams
    spam = "event_name = 'Marked Email as Spam'"
    assert warehouse.one(f"SELECT count(*) FROM klaviyo.events WHERE {spam} AND esp_integration_id = {one}") == 0
