"""The output and log of a process contain no personal data and no keys: a protected run, and a failed legacy run.

The tests in tests/integration/sandbox cover the other modes and errors, and the tables.
"""

from collections.abc import Iterator

import pytest

from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.settings import load_settings
from klaviyo_pg.windows import FULL_READ
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, Warehouse, account, ask_prefect, wait_until_recorded
from tests.planted import ADDRESS, PHONE, SALT, STREET, plant

DAYS = 20
KEY = "pk_secret_of_this_test"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account in which one person's address and number are in every field that might contain them."""
    with running(members=200, events=2_000, days=DAYS, until=MIDNIGHT) as box:
        plant(box, int(MIDNIGHT.timestamp()) - 3600)
        yield box


def personal_data(box: Sandbox) -> set[str]:
    """Return the addresses, phone numbers and streets of the account's people."""
    source = open_source(load_settings(klaviyo_base_url=box.url, klaviyo_api_key=box.api_key))
    people = [row for page in source.profiles(FULL_READ) for row in page.rows]
    numbers = {(row.phone_number or "").lstrip("+") for row in people}
    streets = {(row.address1 or "").split(",")[0] for row in people}
    addresses = {row.email or "" for row in people}
    assert {ADDRESS, PHONE[1:], STREET} <= numbers | streets | addresses
    return (numbers | streets | addresses) - {""}


def test_a_protected_run_shows_nothing_personal(warehouse: Warehouse, box: Sandbox) -> None:
    """Neither the output nor the log in Prefect contains an address, a phone number, a street or the salt."""
    protection = {"PERSONAL_DATA": "hash", "PERSONAL_DATA_SALT": SALT}
    ran = warehouse.sync(**account(box, "protected"), **protection, FIRST_SYNC_DAYS=str(DAYS + 2))
    assert ran.code == 0, ran.err[-3000:]
    assert ran.counts["members"][1] > 200
    shown = (ran.out + ran.err + prefect_log(warehouse, "daily · protected · ")).lower()
    secrets = personal_data(box)
    assert len(secrets) > 250
    assert [text for text in (*secrets, SALT) if text.lower() in shown] == []


def prefect_log(warehouse: Warehouse, name: str) -> str:
    """Return the log that Prefect's server has of a flow run."""
    by_name = {"name": {"like_": name}}
    wait_until_recorded(warehouse.environment, by_name)
    [run] = ask_prefect(warehouse.environment, "/flow_runs/filter", {"flow_runs": by_name})
    logs = ask_prefect(warehouse.environment, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert logs
    return "\n".join(log["message"] for log in logs)


def test_a_failed_legacy_run_never_shows_its_key(warehouse: Warehouse, box: Sandbox) -> None:
    """A legacy run whose responses are cut off says so in one sentence and never shows its key, even in debug logs."""
    box.add_key(KEY, "*")
    box.set_faults({"endpoint": "GET /api/v1/metrics", "times": 1000, "cut": True})
    settings = {
        **account(box, "failing"),
        "KLAVIYO_API_KEY": KEY,
        "KLAVIYO_DIALECT": "legacy",
        "KLAVIYO_ACCOUNT_ID": box.state()["account"],
        "WAREHOUSE_SCHEMA": "failing",
        "REQUEST_ATTEMPTS": "2",
        "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    ran = warehouse.sync(**settings)
    box.set_faults()
    assert ran.code == 1, ran.err[-3000:]
    assert "the connection was lost" in ran.err
    assert "connectionpool" in ran.out + ran.err
    assert KEY not in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
