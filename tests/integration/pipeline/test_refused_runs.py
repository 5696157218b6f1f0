"""Runs that fail before they begin: the warehouse shows them, and no other run is affected."""

from argparse import Namespace
from datetime import timedelta
from pathlib import Path

import pytest

from klaviyo_pg.cli.preflight import check_run
from klaviyo_pg.errors import (
    BadKey,
    BadSettings,
    Busy,
    ClocksDiffer,
    DatabaseUnusable,
    KlaviyoPgError,
    Stopped,
    Throttled,
)
from klaviyo_pg.settings import Settings
from pipeline import refused
from tasks.flow_run import follow
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import Warehouse

RECORDED = "SELECT flow, state, message FROM runs ORDER BY started_at, finished_at"
COMPLETE = ("daily", "complete", None)
WRONG_KEY = ("daily", "failed", str(BadKey()))


def refuse(warehouse: Warehouse, shop: FakeAccount, error: KlaviyoPgError) -> None:
    """Begin a daily run that is refused with an error of the first request."""
    shop.fail("account", error)
    with pytest.raises(type(error)):
        warehouse.daily()
    shop.recover()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        pytest.param(BadKey(), "failed", id="a wrong key"),
        pytest.param(ClocksDiffer(), "failed", id="a wrong clock"),
        pytest.param(Throttled(), "to be continued", id="a limit that is used up"),
    ],
)
def test_a_run_that_is_refused_is_recorded(
    warehouse: Warehouse, shop: FakeAccount, error: KlaviyoPgError, state: str
) -> None:
    assert warehouse.daily().state == "complete"
    refuse(warehouse, shop, error)
    assert warehouse.rows(RECORDED) == [COMPLETE, ("daily", state, str(error))]
    assert warehouse.column("SELECT finished_at >= started_at FROM runs") == [True, True]


@pytest.mark.parametrize("error", [Busy(), Stopped(), DatabaseUnusable()], ids=lambda error: type(error).__name__)
def test_what_is_no_failure_of_the_run_is_not_recorded(
    warehouse: Warehouse, shop: FakeAccount, error: KlaviyoPgError
) -> None:
    """Another run in progress, a stop, and a database that cannot be used."""
    assert warehouse.daily().state == "complete"
    refuse(warehouse, shop, error)
    assert warehouse.rows(RECORDED) == [COMPLETE]


def test_an_account_that_the_warehouse_does_not_have_is_not_recorded(warehouse: Warehouse, shop: FakeAccount) -> None:
    refuse(warehouse, shop, BadKey())
    assert warehouse.rows("SELECT name FROM integrations") == warehouse.rows(RECORDED) == []


def test_an_account_that_is_being_removed_gets_no_rows(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The removal could have deleted the others already."""
    assert warehouse.daily().state == "complete"
    warehouse.execute("UPDATE integrations SET removing_since = now()")
    refuse(warehouse, shop, BadKey())
    assert warehouse.rows(RECORDED) == [COMPLETE]


def test_the_error_is_raised_though_the_warehouse_cannot_record_it(warehouse: Warehouse, shop: FakeAccount) -> None:
    """As in a warehouse of another version."""
    assert warehouse.daily().state == "complete"
    warehouse.execute("ALTER TABLE runs RENAME TO elsewhere")
    with pytest.raises(BadKey), refused.recorded(warehouse.configured(), "daily"):
        raise BadKey


def test_an_unfinished_run_is_resumed_after_one_that_was_refused(warehouse: Warehouse, shop: FakeAccount) -> None:
    shop.fail("lists", BadKey())
    failed = warehouse.daily()
    assert failed.state == "failed"
    shop.recover()
    refuse(warehouse, shop, BadKey())
    resumed = warehouse.daily()
    assert (resumed.state, resumed.run.id) == ("complete", failed.run.id)
    assert warehouse.column("SELECT state FROM runs ORDER BY state") == ["complete", "failed"]


def test_a_refused_run_does_not_count_as_fresh(warehouse: Warehouse, shop: FakeAccount) -> None:
    assert warehouse.daily().state == "complete"
    [before] = warehouse.rows("SELECT max(last_complete_run), max(watermark) FROM freshness")
    refuse(warehouse, shop, BadKey())
    assert warehouse.rows("SELECT max(last_complete_run), max(watermark) FROM freshness") == [before]


def test_a_refused_run_of_a_clock_that_was_ahead_is_corrected(warehouse: Warehouse, shop: FakeAccount) -> None:
    assert warehouse.daily().state == "complete"
    refuse(warehouse, shop, BadKey())
    ahead = timedelta(days=3)
    warehouse.execute(
        "UPDATE runs SET as_of = as_of + %s, started_at = started_at + %s, finished_at = finished_at + %s"
        " WHERE state = 'failed'",
        *[ahead] * 3,
    )
    assert warehouse.daily().state == "complete"
    assert warehouse.one("SELECT max(greatest(as_of, started_at, finished_at)) <= now() FROM runs")


def test_a_flow_that_cannot_follow_tables_is_recorded(warehouse: Warehouse) -> None:
    assert warehouse.daily().state == "complete"
    settings = warehouse.configured(tables=("nothing",))
    state = follow("reconcile", lambda: (settings, lambda job: None), {}, is_limited=False)
    assert state.is_failed()
    assert warehouse.rows(RECORDED)[1:] == [("reconcile", "failed", state.message)]


@pytest.fixture
def environment(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """The warehouse of a command of this process, whose settings have no key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", str(warehouse.settings["database_url"]))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return warehouse


def check(flow: str | None, integration: str | None = "shop", tables: list[str] | None = None) -> None:
    """Check what a command needs before it starts."""
    chosen = Namespace(sandbox=None, integration=integration, metrics=None, tables=tables)
    check_run(chosen, lambda arguments: None, flow)


def test_a_command_that_is_refused_before_it_starts_the_flow_is_recorded(environment: Warehouse) -> None:
    """By the name of the account that its arguments have."""
    assert environment.daily().state == "complete"
    with pytest.raises(BadKey) as caught:
        check("backfill")
    assert environment.rows(RECORDED) == [COMPLETE, ("backfill", "failed", str(caught.value))]


def test_a_command_that_runs_no_flow_records_nothing(environment: Warehouse) -> None:
    """As `backfill --plan`."""
    assert environment.daily().state == "complete"
    with pytest.raises(BadKey):
        check(None)
    assert environment.rows(RECORDED) == [COMPLETE]


def test_a_command_with_a_wrong_selection_is_recorded(environment: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.daily().state == "complete"
    monkeypatch.setenv("KLAVIYO_API_KEY", "pk_none")
    with pytest.raises(BadSettings) as caught:
        check("daily", tables=["nothing"])
    assert environment.rows(RECORDED) == [COMPLETE, ("daily", "failed", str(caught.value))]


def test_no_embedded_postgres_is_created_for_a_record(tmp_path: Path) -> None:
    with pytest.raises(BadKey), refused.recorded(Settings(embedded_postgres=True, data_dir=tmp_path), "daily"):
        raise BadKey
    assert list(tmp_path.iterdir()) == []
