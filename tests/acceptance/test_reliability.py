"""What becomes of runs whose API or database misbehaves; and that secrets stay secret while it does."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import pytest

from klaviyo_pg.catalogue import events
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT, Ran, StoppablePostgres, Warehouse, account

DAYS = 30
PASSWORD = "pa55word-of-the-loader"
KEY = "pk_key_that_nobody_may_see"
ROLE = "loader"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=200, events=6_000, days=DAYS, until=MIDNIGHT, latency_ms=5) as box:
        box.add_key(KEY, "*")
        yield box


@pytest.fixture
def faulty(box: Sandbox) -> Iterator[Sandbox]:
    """The account, well again afterwards."""
    yield box
    box.set_faults()
    box.set_chaos()


def settings(box: Sandbox, schema: str) -> dict[str, str]:
    """A schema of one's own, all history in the first run."""
    return {**account(box), "WAREHOUSE_SCHEMA": schema, "FIRST_SYNC_DAYS": "60", "CHUNK_EVENTS": "1000"}


def stored(warehouse: Warehouse, schema: str) -> Counter[str]:
    """Ids of the events in all seven tables, with how often they stand there."""
    union = " UNION ALL ".join(f"SELECT id FROM {schema}.{table.name}" for table in events.EVENT_TABLES)
    return Counter(row[0] for row in warehouse.rows(union))


def truth(box: Sandbox) -> Counter[str]:
    """What the account says it has, each once."""
    return Counter(event["id"] for event in box.events())


def states_in_prefect(warehouse: Warehouse, name: str) -> list[str]:
    """Names of the states of the runs with this name."""
    body = {"flow_runs": {"name": {"any_": [name]}}}
    url = f"{warehouse.environment['PREFECT_API_URL']}/flow_runs/filter"
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return [run["state"]["name"] for run in json.load(answer)]


def test_a_pause_without_end(warehouse: Warehouse, faulty: Sandbox) -> None:
    """429 with Retry-After again and again: the run waits as told, and stops at its budget to be continued later."""
    given = {**settings(faulty, "paused"), "KLAVIYO_INTEGRATION": "paused"}
    faulty.set_faults(
        {"endpoint": "GET /api/events", "kind": "429", "retry_after": 2, "times": 10**9, "after": 3},
    )
    asked = faulty.state()["requests"].get("GET /api/events", 0)
    ran = warehouse.sync(**given, RETRY_BUDGET_SECONDS="6", CONCURRENCY="1")
    asked = faulty.state()["requests"]["GET /api/events"] - asked
    assert ran.code == 4, ran.err[-3000:]
    told = ran.err.strip().splitlines()[-1]
    assert "its rate limit is used up" in told and "The same command goes on where it stopped" in told
    assert "Traceback" not in ran.out + ran.err
    assert asked <= 3 + 4  # the first, and one each two seconds
    assert warehouse.rows("SELECT state FROM paused.runs") == [("to be continued",)]
    assert states_in_prefect(warehouse, "daily paused") == ["To be continued"]
    faulty.set_faults()
    assert warehouse.sync(**given).code == 0
    assert warehouse.rows("SELECT state FROM paused.runs") == [("complete",)]
    assert stored(warehouse, "paused") == truth(faulty)


def test_one_list_that_fails_holds_up_no_other(warehouse: Warehouse, faulty: Sandbox) -> None:
    """New members of all lists are read by one task; one of them is refused, and read by the next run."""
    given = {**settings(faulty, "lists"), "MEMBERSHIP_SWEEP_DAYS": "0"}
    lists = "SELECT count(*) FROM lists.watermarks WHERE stream LIKE 'list_members/%%'"
    lagging = f"{lists} AND watermark < (SELECT max(as_of) FROM lists.runs)"
    assert warehouse.sync("--tables", "stg_member_lists", **given).code == 0
    faulty.set_faults({"endpoint": "GET /api/lists/{id}/profiles", "times": 1, "status": 400})
    assert warehouse.sync("--tables", "stg_member_lists", **given).code == 1
    assert warehouse.one(lagging) == 1 < warehouse.one(lists)
    assert warehouse.sync("--tables", "stg_member_lists", **given).code == 0
    assert warehouse.one(lagging) == 0


def test_a_tenth_of_all_answers_faulty(warehouse: Warehouse, faulty: Sandbox) -> None:
    """A backfill and a daily run among faults of every kind that asking again mends: all is there, and once."""
    given = {**settings(faulty, "mixed"), "REQUEST_TIMEOUT_SECONDS": "1"}
    before = sum(faulty.state()["chaos"].values())
    faulty.set_chaos(rate=0.1, seed=3, seconds=1.5, retry_after=1)
    backfill = warehouse.run(["flows/backfill.py", "--start", "2026-10-20"], given)
    daily = warehouse.sync(**given)
    assert (backfill.code, daily.code) == (0, 0), (backfill.err + daily.err)[-3000:]
    assert sum(faulty.state()["chaos"].values()) - before >= 10
    assert warehouse.one("SELECT sum(retries) FROM mixed.runs") >= 5  # a slow or an empty page needs none
    assert warehouse.one("SELECT count(*) FROM mixed.backfill_chunks WHERE state <> 'done'") == 0
    assert stored(warehouse, "mixed") == truth(faulty)


@dataclass(frozen=True)
class Locked:
    """A database that asks for a password, the log of its server, and the URL with the password in it."""

    postgres: StoppablePostgres
    url: str
    log: Path


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """A Postgres of one's own, of which everything is logged but what it is sent in COPY."""
    folder = tmp_path_factory.mktemp("locked")
    postgres = StoppablePostgres(folder)
    parts = psycopg.conninfo.conninfo_to_dict(postgres.url)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} SUPERUSER LOGIN")  # type: ignore[arg-type]
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("ALTER SYSTEM SET log_connections = 'all'")
        secret = connection.pgconn.encrypt_password(PASSWORD.encode(), ROLE.encode(), b"scram-sha-256").decode()
        connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{secret}'")  # type: ignore[arg-type]
        rules = folder / "postgres" / "pg_hba.conf"
        rules.write_text(f"local all {ROLE} scram-sha-256\n{rules.read_text()}")
        connection.execute("SELECT pg_reload_conf()")
    url = f"postgresql://{ROLE}:{PASSWORD}@/{parts['dbname']}?host={parts['host']}"
    yield Locked(postgres, url, folder / "postgres" / "log")
    postgres.stop()


def test_power_failure_in_the_middle(warehouse: Warehouse, box: Sandbox, locked: Locked) -> None:
    """Postgres is gone at once while a daily run stores, and comes back: the run completes, and all is there."""
    given = {**settings(box, "failed"), "DATABASE_URL": locked.postgres.url, "CONCURRENCY": "1"}
    place = Warehouse(locked.postgres.url)
    with subprocess.Popen(
        [sys.executable, "flows/daily.py"],
        cwd=ROOT,
        env={**warehouse.environment, **given},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        until = time.monotonic() + 60
        while time.monotonic() < until and child.poll() is None:
            there = place.one("SELECT to_regclass('failed.sends') IS NOT NULL")
            if there and place.one("SELECT count(*) FROM failed.sends"):
                break
            time.sleep(0.02)
        locked.postgres.stop(signal.SIGQUIT)
        was_under_way = child.poll() is None
        time.sleep(2)
        locked.postgres.start()
        _, err = child.communicate(timeout=120)
    assert was_under_way
    assert child.returncode == 0, err[-3000:]
    assert stored(place, "failed") == truth(box)


@pytest.mark.parametrize("dialect", ["current", "legacy"])
def test_secrets_stand_nowhere(
    warehouse: Warehouse, faulty: Sandbox, locked: Locked, tmp_path: Path, dialect: str
) -> None:
    """Neither key nor password, after a run that failed and one that did not, however much is logged."""
    given = {
        **settings(faulty, f"secret_{dialect}"),
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
    failing = warehouse.run(backfill, given)
    assert failing.code not in (0, 2), failing.err[-3000:]
    assert "redirect" in failing.err
    _look_for_secrets([failing], warehouse.environment, tmp_path, locked)
    faulty.set_faults()
    succeeding = warehouse.run(backfill, given)
    assert succeeding.code == 0, succeeding.err[-3000:]
    wrong = warehouse.sync(**{**given, "DATABASE_URL": locked.url.replace(f"{ROLE}:", "nobody:")})
    assert wrong.code == 2
    time.sleep(1)  # until Prefect's server has written what it was last told
    _look_for_secrets([succeeding, wrong], warehouse.environment, tmp_path, locked)


def _look_for_secrets(runs: list[Ran], environment: Mapping[str, str], data: Path, locked: Locked) -> None:
    for place, content in _everything(runs, environment, data, locked):
        assert KEY.encode() not in content, place
        assert PASSWORD.encode() not in content, place


def _everything(
    runs: list[Ran], environment: Mapping[str, str], data: Path, locked: Locked
) -> Iterator[tuple[Any, bytes]]:
    """What the runs have printed, and all files that they and those who served them have written."""
    for number, ran in enumerate(runs):
        yield f"output of run {number}", (ran.out + ran.err).encode()
    home = Path(environment["PREFECT_HOME"])
    found = [path for folder in (home, data) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in found)
    assert any("results" in path.parts for path in found)
    for path in filter(Path.exists, (*found, locked.log)):  # Prefect's server goes on
        yield path, path.read_bytes()
