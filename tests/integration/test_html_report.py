"""The command `report` on a real warehouse."""

import os
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.cli.report import report as report_command
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import accounts, html_report
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.html_report import Answer, Consent, within
from klaviyo_pg.postgres.ledgers import reconciliation, run_ledger
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison
from klaviyo_pg.states import CountState, RunState
from klaviyo_pg.traffic import Traffic
from pipeline.commands.html_report import charts
from tests.integration.conftest import Merge
from tests.runs import url_of

ADDRESS = "ann@example.com"
Command = Callable[..., int]


@pytest.fixture
def command(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `klaviyo-pg report` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(database))
    monkeypatch.setattr(charts, "is_available", lambda: False)  # tests of the page draw them

    def command(out: str = "report.html", integration: str | None = None) -> int:
        return report_command(Namespace(out=Path(out), integration=integration))

    return command


@pytest.fixture
def shop(connection: psycopg.Connection, merged: Merge) -> Account:
    """An account with a run, a difference, an attributed order, and a reject that quotes a person."""
    account = accounts.register(connection, "klaviyo", "shop", None)
    one = account.integration_id
    now = datetime.now(UTC)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    merged(loads.METRICS, {"key": "k", "id": "m1", "name": "Placed Order", "destination": "events"}, integration_id=one)
    order = {"key": "e", "id": "e", "event_at": day, "metric_key": "k", "value": "12.5", "value_currency": "EUR"}
    merged(loads.EVENTS["events"], order, integration_id=one)
    sale = {"key": "c", "id": "c1", "name": "Sale for +49 (30) 1234-567", "campaign_key": "ck"}
    merged(loads.CAMPAIGNS, sale, integration_id=one)
    cause = {"key": "a", "id": "a", "event_key": "e", "event_at": day, "campaign_id": "c1", "campaign_key": "ck"}
    again = {**cause, "key": "b", "id": "b", "campaign_message_id": "M2", "campaign_message_key": "mk"}  # counts once
    merged(loads.EVENT_ATTRIBUTIONS, cause, again, integration_id=one)
    run = run_ledger.open_run(account, "daily", "all", now, is_limited=False)
    run_ledger.add_counts(account, run.run_id, {"events": {"rows_read": 4_321, "inserted": 1, "rejected": 2}})
    run_ledger.close_run(account, run.run_id, RunState.PARTIAL, "A scope is missing.")
    differing = Comparison("m1", day, day + timedelta(days=1), 1_008, 8, CountState.DIFFERS)
    reconciliation.write(account, [differing], {}, now)
    connection.execute(
        "INSERT INTO rejects (key, esp_integration_id, run_id, table_name, stream, reason, raw, rejected_at)"
        " SELECT n::text, %s, 'r', 'events', 'events/m1', 'Bad time: ' || n || ' of ' || %s, %s, now()"
        " FROM generate_series(1234567, 1234568) AS n",
        [one, ADDRESS, f'{{"email": "{ADDRESS}"}}'],
    )
    return account


def test_the_report_of_all_accounts(
    command: Command, shop: Account, connection: psycopg.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the key figures of each account, but nothing of a person; reasons that only quote others are one."""
    accounts.register(connection, "klaviyo", "empty", None)
    (tmp_path / "report.html").write_text("an earlier report")
    assert command() == 0
    text = (tmp_path / "report.html").read_text()
    figures = (
        "4,321",
        "A scope is missing.",
        "1,008",
        "-1,000",
        "Sale for …",
        "12.50 EUR",
        "not read for 48 hours</dt><dd>1<",
    )
    for part in (">empty</h2>", ">shop</h2>", *figures):
        assert part in text
    assert 'Bad time: … of …</td><td class="number">2<' in text
    assert ADDRESS not in text and "1234567" not in text
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert capsys.readouterr().out.startswith("Wrote report.html (")


def test_the_report_of_one_account(
    command: Command, shop: Account, connection: psycopg.Connection, tmp_path: Path
) -> None:
    accounts.register(connection, "klaviyo", "other", None)
    assert command(out="one.html", integration="other") == 0
    text = (tmp_path / "one.html").read_text()
    assert ">other</h2>" in text and "shop" not in text
    assert "There was no run yet." in text and "No metrics are stored yet." in text


@pytest.mark.parametrize(
    ("out", "integration", "sentence"),
    [
        pytest.param("no/report.html", None, "there is no folder no", id="no folder"),
        pytest.param(".", None, "this is a folder", id="a folder"),
        pytest.param("report.html", "x", "There are no accounts in the schema klaviyo yet", id="no account"),
        pytest.param("report.html", None, "There are no accounts", id="no data"),
    ],
)
def test_a_mistake_is_explained(command: Command, out: str, integration: str | None, sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        command(out, integration)


def test_a_report_replaces_files_only(command: Command, shop: Account, tmp_path: Path) -> None:
    """A link stays one, and its file gets the report. A pipe is refused before anything is read."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "kept" / "report.html")
    assert command(out="link.html") == 0
    assert (tmp_path / "link.html").is_symlink()
    assert "shop</h2>" in (tmp_path / "kept" / "report.html").read_text()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadSettings, match="not a regular file"):
        command(out="pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_the_speed_of_a_resumed_run_is_unknown(shop: Account) -> None:
    """It counts the requests of all its parts, but has the time of the last one only."""
    began = datetime.now(UTC)
    run = run_ledger.open_run(shop, "reconcile", "all", began, is_limited=False)
    run_ledger.add_requests(shop, run.run_id, Traffic(requests=6_000))
    run_ledger.close_run(shop, run.run_id, RunState.STOPPED, None)
    again = run_ledger.open_run(shop, "reconcile", "all", began + timedelta(microseconds=1), is_limited=False)
    run_ledger.close_run(shop, again.run_id, RunState.COMPLETE, None)
    [day] = html_report.requests_by_day(shop, began - timedelta(days=1))
    assert (again.is_resumed, day.runs, day.requests) == (True, 2, 6_000)
    assert day.in_a_minute is not None and day.in_a_minute < 6_000


def test_what_takes_too_long_is_left_out(connection: psycopg.Connection) -> None:
    """Other queries follow it, within their own time."""
    nothing: list[int] = []
    slow = within(connection, 0.05, lambda: [connection.execute("SELECT pg_sleep(5)").rowcount], nothing)
    assert slow == Answer([], "Left out, because counting took longer than 0.05 seconds.")
    assert within(connection, 1, lambda: [1], nothing) == Answer([1])


def test_a_table_that_an_earlier_version_lacks_is_left_out(shop: Account, connection: psycopg.Connection) -> None:
    connection.execute("DROP TABLE event_attributions CASCADE")
    nothing: list[html_report.Revenue] = []
    answer = within(connection, 1, lambda: html_report.revenue(shop, "k", datetime.now(UTC)), nothing)
    assert answer.value == [] and "earlier version" in str(answer.left_out)


def test_consents_of_deleted_profiles_do_not_count(account: Account, merged: Merge) -> None:
    """Profiles with the same ID in another account are other people."""
    people = [{"key": each, "id": each, "member_key": each} for each in ("ann", "bob", "cem")]
    merged(loads.MEMBERS, *people)
    merged(loads.MEMBERS, *people, integration_id="other")
    consents = [
        {"member_id": each, "member_key": each, "channel": "email", "consent": "SUBSCRIBED", "can_receive": True}
        for each in ("ann", "bob", "cem", "never read")
    ]
    merged(loads.MEMBER_CONSENTS, *consents)
    account.connection.execute(
        "UPDATE members SET deleted_at = now() WHERE (esp_integration_id, id) IN (('one', 'ann'), ('other', 'bob'))"
    )
    assert html_report.consents(account).rows == [Consent("email", "SUBSCRIBED", True, 3)]


def test_a_large_table_is_sampled(account: Account, merged: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts come with the share of the table that they are estimated from."""
    rows = [{"member_id": f"{n}", "channel": "email", "consent": "SUBSCRIBED"} for n in range(2_000)]
    merged(loads.MEMBER_CONSENTS, *rows)
    assert [each.people for each in html_report.consents(account).rows] == [2_000]
    account.connection.execute("ANALYZE member_consents")
    monkeypatch.setattr(html_report, "_MOST_ROWS", 1_000)
    estimated = html_report.consents(account)
    assert estimated.percent == 50
    assert sum(each.people for each in estimated.rows) == pytest.approx(2_000, rel=0.6)
