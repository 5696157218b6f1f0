"""The command `status`: what it shows of each account, as JSON too, and when it calls an account stale."""

import json
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import bookkeeping, loads
from klaviyo_pg.cli.metrics import metrics
from klaviyo_pg.cli.status import status
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres import accounts, run_ledger, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.states import RunState
from tests.runs import url_of

HOUR = timedelta(hours=1)


@pytest.fixture
def shop(
    merged: Any, connection: psycopg.Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Account:
    """An account with one metric, in the warehouse that commands of this process use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    account = Account(connection, "klaviyo", accounts.register(connection, "klaviyo", "shop", None).integration_id)
    metric = {"key": "k", "id": "m1", "name": "Opened", "destination": "opens"}
    merged(loads.METRICS, metric, integration_id=account.integration_id)
    return account


def run(account: Account, age: timedelta, flow: str = "daily", state: RunState = RunState.COMPLETE) -> None:
    """Record a run that ended so long ago, with everything read up to then."""
    ended = datetime.now(UTC) - age
    opened = run_ledger.open_run(account, flow, str(age), ended - HOUR, is_limited=False)
    run_ledger.close_run(account, opened.run_id, state, None)
    query = "UPDATE {} SET finished_at = %(at)s WHERE run_id = %(run_id)s"
    account.execute(query, bookkeeping.RUNS, at=ended, run_id=opened.run_id)
    account.connection.commit()


def read_events(account: Account, age: timedelta) -> None:
    """Record that the events of the metric were read up to so long ago."""
    watermarks.advance(account, "events/m1", None, datetime.now(UTC) - age, "opens", "m1")
    account.connection.commit()


def arguments(**changes: Any) -> Namespace:
    return Namespace(**{"coverage": None, "integration": None, "json": False, "max_age": None} | changes)


def test_an_account_is_stale_if_no_recent_run_was_complete(shop: Account) -> None:
    """A partial run does not count, and neither does one of another flow."""
    run(shop, 3 * HOUR, state=RunState.PARTIAL)
    run(shop, 2 * HOUR, flow="reconcile")
    with pytest.raises(KlaviyoPgError, match=r"^shop is stale: no daily run has been complete yet\.$") as raised:
        status(arguments(max_age=26 * HOUR))
    assert raised.value.exit_code == 1
    run(shop, 30 * HOUR)
    with pytest.raises(
        KlaviyoPgError, match=r"^shop is stale: the last complete daily run finished 30\.0 hours ago\.$"
    ):
        status(arguments(max_age=26 * HOUR))
    assert status(arguments(max_age=31 * HOUR)) == 0


def test_an_account_is_stale_if_its_events_were_read_long_ago(shop: Account) -> None:
    """As at the end of a run that took days."""
    run(shop, HOUR)
    read_events(shop, 48 * HOUR)
    with pytest.raises(KlaviyoPgError, match=r"^shop is stale: its events were last read 48\.0 hours ago\.$"):
        status(arguments(max_age=26 * HOUR))
    assert status(arguments()) == 0


def test_programs_get_json(shop: Account, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if an account is stale: the sentence is in the document as well."""
    run(shop, 30 * HOUR)
    with pytest.raises(KlaviyoPgError) as raised:
        status(arguments(json=True, max_age=26 * HOUR))
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["integration"], shown["stale"], shown["history"]) == ("shop", str(raised.value), [])
    assert (shown["last_run"]["flow"], shown["last_run"]["state"]) == ("daily", "complete")
    assert datetime.fromisoformat(shown["last_complete_run"]) < datetime.now(UTC) - 29 * HOUR
    assert shown["events_read_to"] is None


def test_a_backfill_that_ended_before_it_had_planned_anything_is_named(
    shop: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an interrupted --restart, which drops the plan of the runs before."""
    run(shop, HOUR)
    assert status(arguments()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shop: no backfill yet."
    run(shop, 2 * HOUR, flow="backfill", state=RunState.STOPPED)
    assert status(arguments()) == 0
    assert "shop: no history is planned, because the last backfill ended before" in capsys.readouterr().out


def test_metrics_are_listed_with_their_tables(shop: Account, capsys: pytest.CaptureFixture[str]) -> None:
    read_events(shop, timedelta())
    assert metrics(Namespace(integration="shop")) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.split()[:3] == ["Opened", "m1", "opens"] and line.split()[3] == f"{datetime.now(UTC):%Y-%m-%d}"
