"""The command `status`: what it shows of each account, as JSON too, and when it calls an account stale."""

import json
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import bookkeeping, loads
from klaviyo_pg.cli.metrics import metrics
from klaviyo_pg.cli.status import status
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres import accounts
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import run_ledger, watermarks
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


def run(
    account: Account,
    age: timedelta,
    flow: str = "daily",
    state: RunState = RunState.COMPLETE,
    is_limited: bool = False,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Record a run of an hour that ended so long ago, with these counts of opens."""
    ended = datetime.now(UTC) - age
    opened = run_ledger.open_run(account, flow, str(age), ended - HOUR, is_limited)
    run_ledger.add_counts(account, opened.run_id, {"opens": counts})
    run_ledger.close_run(account, opened.run_id, state, None)
    query = "UPDATE {} SET finished_at = %(at)s WHERE run_id = %(run_id)s"
    account.execute(query, bookkeeping.RUNS, at=ended, run_id=opened.run_id)
    account.connection.commit()


def read_events(account: Account, age: timedelta) -> None:
    """Record that the events of the metric were read up to so long ago."""
    watermarks.advance(account, "events/m1", None, datetime.now(UTC) - age, "opens", "m1")
    account.connection.commit()


def arguments(**changes: Any) -> Namespace:
    return Namespace(**{"coverage": None, "integration": None, "json": False, "max_age": None, "rows": False} | changes)


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


def test_a_limited_run_does_not_make_an_account_fresh(shop: Account) -> None:
    """The sentence says that there was one, unless a complete run came later."""
    run(shop, HOUR, is_limited=True)
    limited = r"The daily run that finished 1\.0 hours ago does not count, because it was limited \(--tables, "
    with pytest.raises(KlaviyoPgError, match=rf"no daily run has been complete yet\. {limited}"):
        status(arguments(max_age=26 * HOUR))
    run(shop, 100 * HOUR)
    with pytest.raises(KlaviyoPgError, match=rf"finished 4 days ago\. {limited}"):
        status(arguments(max_age=26 * HOUR))
    run(shop, timedelta(minutes=30))
    with pytest.raises(KlaviyoPgError, match=r"finished 0\.5 hours ago\.$"):
        status(arguments(max_age=timedelta(minutes=15)))


def test_several_accounts_have_a_line_each(shop: Account, capsys: pytest.CaptureFixture[str]) -> None:
    """Details follow for those with something unfinished or wrong."""
    failing = accounts.register(shop.connection, "klaviyo", "failing", None)
    accounts.register(shop.connection, "klaviyo", "new", None)
    run(shop, 3 * HOUR, counts={"rows_read": 77_535, "inserted": 68_585, "updated": 2_328, "rejected": 29})
    read_events(shop, 3 * HOUR)
    run(failing, 30 * HOUR, state=RunState.PARTIAL)
    assert status(arguments()) == 0
    headline, names, *rows = capsys.readouterr().out.splitlines()
    assert headline == "3 accounts, 2 stale (older than 26 hours). Times are in UTC."
    assert names.split()[:3] == ["account", "complete", "last"]
    first, second, third = (row.split() for row in rows[:3])
    assert (first[:3], first[-1]) == (["failing", "never", "daily"], "partial")
    assert (second[:2], second[-3:]) == (["new", "never"], ["no", "run", "yet"])
    assert third[:4] == ["shop", "3.0", "h", "daily"]
    assert third[-7:] == ["1:00:00", "77,535", "68,585", "2,328", "29", "-", "complete"]
    assert [line.partition(":")[0] for line in rows[3:]] == ["failing", "failing is stale", "new is stale"]


def test_rows_are_counted_by_table(shop: Account, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each account its own, without tables that have none."""
    accounts.register(shop.connection, "klaviyo", "empty", None)
    shop.connection.commit()
    assert status(arguments(rows=True)) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["account", "table", "rows"],
        ["shop", "metrics", "1"],
    ]
    assert status(arguments(rows=True, json=True)) == 0
    empty, shown = json.loads(capsys.readouterr().out)
    assert (empty["rows"], shown["rows"]) == ({}, {"metrics": {"rows": 1, "is_estimated": False}})


def test_programs_get_json(shop: Account, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if an account is stale: the sentence is in the document as well."""
    run(shop, 30 * HOUR)
    with pytest.raises(KlaviyoPgError) as raised:
        status(arguments(json=True, max_age=26 * HOUR))
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["last_run"]["rows_read"], shown["rows"]) == (0, None)
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
