"""Runs whose API or database misbehaves: they complete or can be resumed, and they never reveal a secret."""

import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import events
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, Result, StoppablePostgres, Warehouse, account, ask_prefect, wait_until_recorded

DAYS = 30
PASSWORD = "pa55word-of-the-loader"
KEY = "pk_key_that_must_stay_secret"
ROLE = "loader"
OUTAGE = 2  # seconds


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=200, events=6_000, days=DAYS, until=MIDNIGHT, latency_ms=5) as box:
        box.add_key(KEY, "*")
        yield box


@pytest.fixture
def faulty(box: Sandbox) -> Iterator[Sandbox]:
    """The account. Faults that a test sets end with the test."""
    yield box
    box.set_faults()
    box.set_chaos()


def settings(box: Sandbox, schema: str) -> dict[str, str]:
    """Return the settings for a separate schema. The first run reads all of the account's history."""
    return {**account(box), "WAREHOUSE_SCHEMA": schema, "FIRST_SYNC_DAYS": "60", "CHUNK_EVENTS": "1000"}


def stored(warehouse: Warehouse, schema: str) -> Counter[str]:
    """Return how often each event id is stored in the seven event tables."""
    union = " UNION ALL ".join(f"SELECT id FROM {schema}.{table.name}" for table in events.EVENT_TABLES)
    return Counter(row[0] for row in warehouse.rows(union))


def truth(box: Sandbox) -> Counter[str]:
    """Return the ids of the account's events, each once."""
    return Counter(event["id"] for event in box.events())


def states_in_prefect(warehouse: Warehouse, name: str) -> list[str]:
    """Return the names of the states of Prefect's runs whose name contains this text."""
    runs = ask_prefect(warehouse.environment, "/flow_runs/filter", {"flow_runs": {"name": {"like_": name}}})
    return [run["state"]["name"] for run in runs]


def test_a_required_pause_has_its_own_state_in_prefect(warehouse: Warehouse, faulty: Sandbox) -> None:
    """A run that gets 429 until its budget is spent is "To be continued", and its last line says how to resume it."""
    options = {**settings(faulty, "paused"), "KLAVIYO_INTEGRATION": "paused", "CONCURRENCY": "1"}  # or two readers fail
    faulty.set_faults(
        {"endpoint": "GET /api/events", "kind": "429", "retry_after": 2, "times": 10**9},
    )
    ran = warehouse.sync(**options, RETRY_BUDGET_SECONDS="1")
    assert ran.code == 4, ran.err[-3000:]
    message = ran.err.strip().splitlines()[-1]
    assert "its rate limit is used up" in message and "Rerun with the same arguments to resume" in message
    assert "Traceback" not in ran.out + ran.err
    assert warehouse.rows("SELECT state FROM paused.runs") == [("to be continued",)]
    assert states_in_prefect(warehouse, "daily · paused · ") == ["To be continued"]


@dataclass(frozen=True)
class Locked:
    """A Postgres server that asks for a password, the URL that contains it, and the server's log."""

    postgres: StoppablePostgres
    url: str
    log: Path


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """A separate Postgres server that asks for a password and logs all statements."""
    folder = tmp_path_factory.mktemp("locked")
    postgres = StoppablePostgres(folder)
    parts = psycopg.conninfo.conninfo_to_dict(postgres.url)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} SUPERUSER LOGIN")
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("ALTER SYSTEM SET log_connections = 'all'")
        secret = connection.pgconn.encrypt_password(PASSWORD.encode(), ROLE.encode(), b"scram-sha-256").decode()
        connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{secret}'")
        rules = folder / "postgres" / "pg_hba.conf"
        rules.write_text(f"local all {ROLE} scram-sha-256\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    url = f"postgresql://{ROLE}:{PASSWORD}@/{parts['dbname']}?host={parts['host']}"
    yield Locked(postgres, url, folder / "postgres" / "log")
    postgres.stop()


@pytest.mark.slow
def test_a_daily_run_survives_a_power_loss_of_postgres(warehouse: Warehouse, box: Sandbox, locked: Locked) -> None:
    """If Postgres crashes while a daily run stores events and then comes back, the run completes without a gap."""
    other = Warehouse(locked.postgres.url, warehouse.environment)
    with other.start(["flows/daily.py"], {**settings(box, "failed"), "CONCURRENCY": "1"}) as command:
        command.wait_until(lambda: other.has_rows("failed.sends"), "the first sends were stored")
        locked.postgres.stop(signal.SIGQUIT)
        was_running = command.is_running
        time.sleep(OUTAGE)
        locked.postgres.start()
        ran = command.result()
    assert was_running
    assert ran.code == 0, ran.err[-3000:]
    assert stored(other, "failed") == truth(box)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["current", "legacy"])
def test_secrets_stay_secret(
    warehouse: Warehouse, faulty: Sandbox, locked: Locked, tmp_path: Path, dialect: str
) -> None:
    """Even with debug logs, neither failed nor successful runs leave the key or the password in output or files."""
    name = f"secret_{dialect}"
    options = {
        **settings(faulty, name),
        "KLAVIYO_INTEGRATION": name,
        "KLAVIYO_API_KEY": KEY,
        "KLAVIYO_DIALECT": dialect,
        "KLAVIYO_ACCOUNT_ID": "SANDBX",
        "DATABASE_URL": locked.url,
        "DATA_DIR": str(tmp_path),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "results"),
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    }
    backfill = ["flows/backfill.py", "--start", "2026-10-20"]
    timeline = "GET /api/events" if dialect == "current" else "GET /api/v1/metric/{id}/timeline"
    faulty.set_faults(
        {"endpoint": timeline, "kind": "reset", "times": 2, "after": 1},
        {"endpoint": timeline, "kind": "503", "times": 2, "after": 1},
        {"endpoint": timeline, "kind": "redirect", "times": 10**9, "after": 2},
    )
    failing = warehouse.run(backfill, options)
    assert failing.code not in (0, 2), failing.err[-3000:]
    assert "redirect" in failing.err
    assert_no_secrets([failing], warehouse.environment, tmp_path, locked)
    faulty.set_faults()
    succeeding = warehouse.run(backfill, options)
    assert succeeding.code == 0, succeeding.err[-3000:]
    ended = [succeeding]
    if dialect == "current":  # the database refuses a password in both dialects alike
        wrong = warehouse.sync(**{**options, "DATABASE_URL": locked.url.replace(f"{ROLE}:", "unknown:")})
        assert wrong.code == 2
        ended.append(wrong)
    wait_until_recorded(warehouse.environment, {"name": {"like_": f" · {name} · "}})
    assert_no_secrets(ended, warehouse.environment, tmp_path, locked)


def assert_no_secrets(runs: list[Result], environment: Mapping[str, str], data: Path, locked: Locked) -> None:
    """Assert that neither the key nor the password is in anything that these runs and their servers have written."""
    for origin, content in _written_by(runs, environment, data, locked):
        assert KEY.encode() not in content, origin
        assert PASSWORD.encode() not in content, origin


def _written_by(
    runs: list[Result], environment: Mapping[str, str], data: Path, locked: Locked
) -> Iterator[tuple[Any, bytes]]:
    """Yield the output of the runs and all files that they, Prefect's server and Postgres have written."""
    for number, ran in enumerate(runs):
        yield f"output of run {number}", (ran.out + ran.err).encode()
    home = Path(environment["PREFECT_HOME"])
    files = [path for folder in (home, data) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in files)
    assert any("results" in path.parts for path in files)
    for path in filter(Path.exists, (*files, locked.log)):  # Prefect's server still runs and may delete files
        yield path, path.read_bytes()
