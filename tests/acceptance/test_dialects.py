"""One account read in both dialects: the tables differ only where docs/dialects.md says so."""

import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from klaviyo_pg.catalogue import SPECIFIED, Table
from klaviyo_pg.postgres import schema
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT, Result, Warehouse, account

DAYS = 40
KEY = "pk_secret_of_this_test"
LOAD_TIME = {"__synced_at"}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose history ends at midnight."""
    with running(members=700, events=9_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


@pytest.fixture(scope="module")
def settings(box: Sandbox) -> dict[str, str]:
    """The settings for the account. The first run reads all its history."""
    state = box.state()
    return {**account(box), "FIRST_SYNC_DAYS": str(DAYS + 2), "KLAVIYO_ACCOUNT_ID": state["account"]}


@pytest.fixture(scope="module")
def both(warehouse: Warehouse, settings: dict[str, str]) -> dict[str, Result]:
    """The results of one run in each dialect, into two schemas with the same integration id."""
    ran = {"current": warehouse.sync(**settings, WAREHOUSE_SCHEMA="current")}
    with psycopg.connect(warehouse.url) as connection:
        schema.upgrade(connection, "legacy")
        connection.execute("INSERT INTO legacy.integrations SELECT * FROM current.integrations")
    ran["legacy"] = warehouse.sync(**settings, WAREHOUSE_SCHEMA="legacy", KLAVIYO_DIALECT="legacy")
    for dialect in ran.values():
        assert dialect.code == 0, dialect.err[-3000:]
    return ran


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def documented_differences() -> set[tuple[str, str]]:
    """Return the differences that the documentation lists, as (table, column)."""
    text = (ROOT / "docs" / "dialects.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \|", text, re.MULTILINE)
    return {(table, column) for table, column in rows if table != "table"}


def differences(warehouse: Warehouse, table: Table) -> Iterator[str]:
    """Yield the columns in which rows with the same key differ, and "rows" if either dialect lacks rows."""
    same = " AND ".join(f'c."{name}" = l."{name}"' for name in table.primary_key)
    for one, other in (("current", "legacy"), ("legacy", "current")):
        missing = f"FROM {one}.{table.name} c WHERE NOT EXISTS (SELECT FROM {other}.{table.name} l WHERE {same})"
        if warehouse.one(f"SELECT count(*) {missing}"):
            yield "rows"
    for column in table.column_names:
        differs = (
            f'FROM current.{table.name} c JOIN legacy.{table.name} l ON {same} WHERE c."{column}" IS DISTINCT FROM'
        )
        if column not in LOAD_TIME and warehouse.one(f'SELECT count(*) {differs} l."{column}"'):
            yield column


def test_both_dialects_fill_every_table(both: dict[str, Result], warehouse: Warehouse) -> None:
    for dialect in both:
        for table in SPECIFIED:
            assert warehouse.one(f"SELECT count(*) FROM {dialect}.{table.name}") > 0, (dialect, table.name)


def test_dialects_differ_only_where_documented(both: dict[str, Result], warehouse: Warehouse) -> None:
    """Compared row by row and column by column, the dialects differ exactly where the documentation says so."""
    actual = {(table.name, column) for table in SPECIFIED for column in differences(warehouse, table)}
    assert actual == documented_differences()


def test_legacy_rows_are_a_subset(both: dict[str, Result], warehouse: Warehouse) -> None:
    """The legacy dialect may lack rows, but never has a row that the current dialect does not have."""
    for table in SPECIFIED:
        same = " AND ".join(f'c."{name}" = l."{name}"' for name in table.primary_key)
        in_current = f"EXISTS (SELECT FROM current.{table.name} c WHERE {same})"
        assert warehouse.one(f"SELECT count(*) FROM legacy.{table.name} l WHERE NOT {in_current}") == 0, table.name


def test_legacy_stores_each_event_once(both: dict[str, Result], warehouse: Warehouse, box: Sandbox) -> None:
    """Read in the legacy dialect, the seven event tables hold each event of the account exactly once."""
    names = ("sends", "bounces", "opens", "clicks", "spams", "unsubscribes", "events")
    stored = warehouse.rows(" UNION ALL ".join(f"SELECT id FROM legacy.{name}" for name in names))
    assert sorted(row[0] for row in stored) == sorted(event["id"] for event in box.events())


def test_a_legacy_rerun_changes_nothing(
    both: dict[str, Result], warehouse: Warehouse, settings: dict[str, str]
) -> None:
    """If nothing has changed at the source, a legacy run inserts and updates no rows."""
    again = warehouse.sync(**settings, WAREHOUSE_SCHEMA="legacy", KLAVIYO_DIALECT="legacy")
    assert again.code == 0
    assert {name: counts[1:3] for name, counts in again.counts.items()} == dict.fromkeys(again.counts, (0, 0))


def test_events_of_a_crowded_second_are_stored_once(
    both: dict[str, Result], warehouse: Warehouse, settings: dict[str, str], box: Sandbox
) -> None:
    """Of 250 events in the first second of a window, more than fit on a page, each is stored once."""
    metric = next(row["id"] for row in box.state()["metrics"] if row["name"] == "Placed Order")
    when = int(datetime.now(UTC).timestamp()) - 7_200
    ids = box.add_events(*({"metric": metric, "timestamp": when} for _ in range(250)))
    since = datetime.fromtimestamp(when, UTC).isoformat()
    flags = ("--since", since, "--metrics", metric, "--tables", "events")
    ran = warehouse.sync(*flags, **settings, WAREHOUSE_SCHEMA="legacy", KLAVIYO_DIALECT="legacy")
    assert ran.code == 0, ran.err[-3000:]
    stored = warehouse.rows("SELECT id FROM legacy.events WHERE event_at = to_timestamp(%s)", when)
    assert sorted(row[0] for row in stored) == sorted(ids)


@pytest.mark.parametrize(
    ("fault", "environment", "code", "message"),
    [
        pytest.param({}, {"KLAVIYO_API_KEY": KEY}, 2, "does not accept the API key", id="wrong key"),
        pytest.param({"status": 429, "retry_after": 1}, {"RETRY_BUDGET_SECONDS": "3"}, 4, "returned 429", id="429"),
        pytest.param({"status": 500}, {}, 1, "returned 500", id="500"),
        pytest.param({"cut": True}, {}, 1, "the connection was lost", id="cut off"),
        pytest.param({"silent": True}, {"REQUEST_TIMEOUT_SECONDS": "0.2"}, 1, "no response within", id="timeout"),
        pytest.param({"gone": True}, {}, 2, "retired on 2024-06-30. Set KLAVIYO_DIALECT=current", id="410"),
    ],
)
def test_a_failed_legacy_run_never_shows_its_key(
    warehouse: Warehouse,
    settings: dict[str, str],
    box: Sandbox,
    silent: str,
    fault: dict[str, object],
    environment: dict[str, str],
    code: int,
    message: str,
) -> None:
    """A failed legacy run explains why in one sentence and never shows its key, not even in debug logs."""
    if "KLAVIYO_API_KEY" not in environment:
        box.add_key(KEY, "*")
    if fault.get("silent"):
        environment = {**environment, "KLAVIYO_BASE_URL": silent}
    elif fault.get("gone"):
        box.set_legacy("gone")
    elif fault:
        box.set_faults({"endpoint": "GET /api/v1/metrics", "times": 1000, **fault})
    failing = {
        "KLAVIYO_API_KEY": KEY,
        "KLAVIYO_DIALECT": "legacy",
        "WAREHOUSE_SCHEMA": "failing",
        "REQUEST_ATTEMPTS": "2",
    }
    debug = {"PREFECT_LOGGING_ROOT_LEVEL": "DEBUG", "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    try:
        ran = warehouse.sync(**{**settings, **failing, **debug, **environment})
    finally:
        box.set_faults()
        box.set_legacy("on")
    assert ran.code == code, ran.err[-3000:]
    assert message in ran.err
    assert "connectionpool" in ran.out + ran.err
    assert KEY not in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
