"""Mistakes of the user that only the API or the database reveals: each becomes an exit code and one plain sentence."""

import logging
import socket
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from klaviyo_pg.cli import blocks
from klaviyo_pg.errors import BadKey, BadSettings, DatabaseUnusable, KlaviyoPgError, NotFound, Unavailable
from klaviyo_pg.klaviyo.dialects import open_source
from klaviyo_pg.postgres import accounts
from klaviyo_pg.settings import Settings
from sandbox.api.keys import API_KEY, key_of
from sandbox.launcher import Sandbox, running
from tests.runs import Result, Warehouse


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=500, days=10) as box:
        yield box


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert that no log record has a traceback."""
    caplog.set_level(logging.INFO)
    yield
    assert "Traceback" not in caplog.text


@pytest.fixture
def closed_port() -> int:
    """A local port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def guest(warehouse: Warehouse) -> Iterator[str]:
    """The name of a database user without privileges."""
    with psycopg.connect(warehouse.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
        yield "guest"
        connection.execute("DROP ROLE guest")


def url_of(warehouse: Warehouse) -> str:
    """Return the URL of the warehouse's database."""
    return str(warehouse.settings["database_url"])


def refusal(warehouse: Warehouse, *tables: str, **settings: Any) -> KlaviyoPgError:
    """Return the error with which a run is refused before it begins. Its message is one line."""
    with pytest.raises(KlaviyoPgError) as caught:
        warehouse.daily(*tables, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


def sentence(ran: Result) -> str:
    """Return the only sentence of a run."""
    [only] = ran.sentences
    assert "\n" not in only
    return only


def test_a_wrong_key_is_reported(warehouse: Warehouse) -> None:
    error = refusal(warehouse, klaviyo_api_key="pk_wrong")
    assert isinstance(error, BadKey)
    assert "does not accept the API key" in str(error)
    assert "pk_wrong" not in str(error)
    assert error.exit_code == 2


def test_a_wrong_key_in_a_block_is_reported_with_the_block(warehouse: Warehouse) -> None:
    """In both dialects."""
    settings = warehouse.configured(klaviyo_api_key="pk_wrong").with_key_of("shop-uk")
    with pytest.raises(BadKey, match=r"the API key in the block shop-uk\."):
        open_source(settings).account()
    old = settings.model_copy(update={"klaviyo_dialect": "legacy"})
    with pytest.raises(BadKey, match=r"the API key in the block shop-uk\."):
        list(open_source(old).metrics())


def test_a_key_is_tried_before_it_is_saved(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account whose settings have no name gets that of its block."""

    def settings(key: str, no_check: bool = False) -> Settings:
        monkeypatch.setenv("KLAVIYO_API_KEY", key)
        return blocks.checked_settings(Namespace(klaviyo="shop-fr", warehouse=None, no_check=no_check))

    monkeypatch.setenv("KLAVIYO_BASE_URL", box.url)
    with pytest.raises(BadKey):
        settings("pk_wrong")
    assert settings("pk_wrong", no_check=True).klaviyo_integration == "shop-fr"
    assert settings(API_KEY).klaviyo_integration == "shop-fr"
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "boutique")
    assert settings(API_KEY).klaviyo_integration == "boutique"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"metrics": ["Recieved Email"]},
            "'Recieved Email'. Did you mean 'Received Email'?",
            id="a metric that does not exist",
        ),
        pytest.param({"destinations": {"Opened Email": "clocks"}}, "not an event table", id="no such table"),
    ],
)
def test_a_setting_that_does_not_fit_the_account_is_named(
    warehouse: Warehouse, box: Sandbox, changes: dict[str, object], message: str
) -> None:
    """A setting that names a metric or table that does not exist is refused before anything is read."""
    before = box.state()["requests"]
    error = refusal(warehouse, **changes)
    assert message in str(error)
    assert error.exit_code == 2
    requested = {name for name, number in box.state()["requests"].items() if number > before.get(name, 0)}
    assert requested <= {"GET /api/accounts", "GET /api/metrics"}


def test_an_unreachable_host_is_named(warehouse: Warehouse, closed_port: int) -> None:
    """If the API's host refuses connections, the message names the host."""
    error = refusal(warehouse, klaviyo_base_url=f"http://127.0.0.1:{closed_port}", request_attempts=1)
    assert isinstance(error, Unavailable)
    assert "no connection to 127.0.0.1" in str(error)
    assert error.exit_code == 1


def test_another_service_is_reported(warehouse: Warehouse, box: Sandbox) -> None:
    """If another service answers at KLAVIYO_BASE_URL, the message names the path that it did not have."""
    error = refusal(warehouse, klaviyo_base_url=f"{box.url}/sandbox/state")
    assert isinstance(error, NotFound)
    assert "GET /sandbox/state/api/accounts" in str(error)
    assert error.exit_code == 1


def test_an_unreachable_database_is_reported(
    warehouse: Warehouse, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """If the database refuses connections, the message names the setting and hides the password."""
    error = refusal(warehouse, database_url=f"postgresql://someone:hunter2@127.0.0.1:{closed_port}/shop")
    assert isinstance(error, DatabaseUnusable)
    assert "Check DATABASE_URL" in str(error)
    assert "hunter2" not in caplog.text + str(error)
    assert error.exit_code == 2


def test_a_read_only_database_is_reported(warehouse: Warehouse) -> None:
    """A read-only database, such as a standby, is reported as read-only."""
    url = f"{url_of(warehouse)}&options=-c%20default_transaction_read_only%3Don"
    error = refusal(warehouse, database_url=url, klaviyo_integration="readonly")
    assert isinstance(error, DatabaseUnusable)
    assert "read-only" in str(error)
    assert error.exit_code == 2


def test_a_missing_privilege_is_reported(warehouse: Warehouse, guest: str) -> None:
    """A database user who may not create the schema is reported as such."""
    url = url_of(warehouse).replace("postgres@", f"{guest}@")
    error = refusal(warehouse, database_url=url, warehouse_schema="forbidden")
    assert isinstance(error, DatabaseUnusable)
    assert "lacks a privilege" in str(error)
    assert error.exit_code == 2


def test_another_account_of_the_same_name_is_refused(warehouse: Warehouse) -> None:
    """The key of another account is refused before its rows can mix with those of the first."""
    shop = warehouse.variant(klaviyo_integration="shop")
    assert shop.daily("lists").exit_code == 0
    with running(account="OTHER2", members=20, events=50, days=5) as other:
        error = refusal(shop, klaviyo_base_url=other.url, klaviyo_api_key=key_of("OTHER2"))
    assert isinstance(error, BadSettings)
    assert "KLAVIYO_INTEGRATION" in str(error) and "choose another name for this account" in str(error)
    assert error.exit_code == 2


def test_a_second_name_of_an_account_is_refused(warehouse: Warehouse) -> None:
    """A second name would count everything twice, so it is refused until the account has been renamed."""
    first = warehouse.variant(warehouse_schema="renamed")
    assert first.daily("lists").exit_code == 0
    second = first.variant(klaviyo_integration="eu", klaviyo_account_id=None)
    error = refusal(second, klaviyo_api_key=f" {API_KEY}")
    assert isinstance(error, BadSettings)
    assert "already, as default" in str(error) and "klaviyo-pg rename default eu" in str(error)
    with psycopg.connect(warehouse.url) as connection:
        accounts.rename(connection, "renamed", "default", "eu")
    assert second.daily("lists", klaviyo_api_key=f" {API_KEY}").changed() == {}
    assert second.column("SELECT name FROM renamed.integrations") == ["eu"]


def test_a_missing_scope_makes_the_run_partial(warehouse: Warehouse, box: Sandbox) -> None:
    """If the key lacks a scope, the run names it, syncs everything else and ends as partial."""
    box.add_key(
        key_of("part"), "accounts:read", "metrics:read", "events:read", "lists:read", "profiles:read", "segments:read"
    )
    ran = warehouse.daily(klaviyo_integration="part", klaviyo_api_key=key_of("part"), first_sync_days=3000)
    assert (ran.state, ran.exit_code) == ("partial", 3), ran.sentences
    assert "lacks the scope campaigns:read" in " ".join(ran.sentences)
    assert "lacks the scope flows:read" in " ".join(ran.sentences)
    assert warehouse.one("SELECT count(*) FROM automations WHERE NOT is_placeholder") == 0
    assert ran.counts["sends"]["inserted"] > 0
    assert ran.counts["member_lists"]["inserted"] > 0
    [(state, message)] = warehouse.rows("SELECT state, message FROM runs WHERE run_id = %s", ran.run.id)
    assert state == "partial"
    assert "campaigns:read" in message


def test_a_run_without_metrics_syncs_the_rest(warehouse: Warehouse, box: Sandbox) -> None:
    """If the key may not read metrics, the run skips events and syncs people and lists."""
    box.add_key(key_of("people"), "accounts:read", "events:read", "lists:read", "profiles:read", "segments:read")
    ran = warehouse.daily(klaviyo_integration="people", klaviyo_api_key=key_of("people"))
    assert (ran.state, ran.exit_code) == ("partial", 3), ran.sentences
    assert "lacks the scope metrics:read" in " ".join(ran.sentences)
    assert ran.counts["members"]["inserted"] > 0
    assert ran.counts["member_lists"]["inserted"] > 0


def test_an_unusable_data_dir_fails_the_run(warehouse: Warehouse, tmp_path: Path) -> None:
    """If DATA_DIR is a file, the message names the setting and the run is recorded as failed."""
    file = tmp_path / "file"
    file.touch()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ran = warehouse.backfill(start, klaviyo_integration="nowhere", data_dir=file)
    assert "DATA_DIR: cannot write to" in sentence(ran)
    assert ran.exit_code == 2
    assert warehouse.one("SELECT state FROM runs WHERE run_id = %s", ran.run.id) == "failed"
