"""Records that are unusable, repeated or early: what is rejected, what is kept, and where events end up."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from klaviyo_pg.catalogue import events
from klaviyo_pg.cli.summary import Invocation, Times, show
from pipeline.outcome import RunReport
from sandbox.launcher import Sandbox, running
from tests.runs import Result, Warehouse

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
EVENTS = " UNION ALL ".join(f"SELECT id, properties FROM {table.name}" for table in events.EVENT_TABLES)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account."""
    with running(members=60, events=500, days=10) as box:
        yield box


def of(ran: Result) -> str:
    """Return the condition that selects the rows of a run's account."""
    return f"esp_integration_id = '{ran.run.integration_id}'"


def summary(warehouse: Warehouse, ran: Result, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command would print after a run."""
    settings = warehouse.configured()
    report = RunReport(ran.run.id, settings.klaviyo_integration, ran.state, tuple(ran.sentences), ran.exit_code)
    assert show(settings, report, Times(0, 0), Invocation("", "daily", is_demo=False, prefix="")) == ran.exit_code
    return capsys.readouterr().out


def test_unusable_records_are_rejected(warehouse: Warehouse, box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """A record without an id or with an unreadable time is counted and kept as a reject with its reason.

    One with a value that Postgres cannot hold is stored with the value replaced, and its original is kept, too.
    """
    bad = warehouse.variant(klaviyo_integration="bad")
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
    ran = bad.daily(since=LONG_AGO)
    assert ran.exit_code == 0, ran.sentences
    rejects = bad.rows(f"SELECT reason, raw, stream FROM rejects WHERE table_name = 'events' AND {of(ran)}")
    assert len(rejects) == 6
    assert all(reason and stream == "events" for reason, _, stream in rejects)
    named = ("unread1", "unread2", "unread3", "surrogate")
    assert all(any(name in raw for _, raw, _ in rejects) for name in named)
    assert ran.counts["events"]["rejected"] == 5
    assert sum(counts["replaced_values"] for counts in ran.counts.values()) == 1
    assert (
        bad.one(f"SELECT properties ->> 'half' FROM ({EVENTS}) every WHERE id = 'surrogate'")
        == "\N{REPLACEMENT CHARACTER}"
    )
    printed = summary(bad, ran, capsys)
    assert re.search(
        r"^\d+ NUL characters removed, which Postgres cannot hold, from .*\bevents\b", printed, re.MULTILINE
    )
    rejected = sum(counts["rejected"] for counts in ran.counts.values())
    new = bad.one(f"SELECT count(*) FROM rejects WHERE {of(ran)}")
    assert f"\n{rejected} rejected, 1 values replaced that Postgres cannot hold; {new} new records in" in printed
    assert bad.one(f"SELECT properties ->> 'text' FROM ({EVENTS}) every WHERE id = %s", good) == "nul  inside"
    assert "events" not in bad.daily(since=LONG_AGO).changed()


def test_the_last_of_two_events_with_one_id_is_kept(warehouse: Warehouse, box: Sandbox) -> None:
    """If two events have the same id, the one that is read last is kept."""
    order = next(metric["id"] for metric in box.state()["metrics"] if metric["name"] == "Placed Order")
    when = 1_790_100_000
    for number in (1, 2):
        box.add_events(
            {"metric": order, "timestamp": when + number, "id": "twice", "duplicate": True, "properties": {"n": number}}
        )
    ran = warehouse.daily(since=LONG_AGO, klaviyo_integration="twice")
    assert ran.exit_code == 0
    assert warehouse.one(f"SELECT properties ->> 'n' FROM events WHERE id = 'twice' AND {of(ran)}") == "2"


def test_a_rejected_row_does_not_count_as_deleted(warehouse: Warehouse, box: Sandbox) -> None:
    """If a list's row becomes unreadable, it is rejected, and no list is marked as deleted at the source."""
    hidden = warehouse.variant(klaviyo_integration="hidden")
    first = hidden.daily("lists")
    assert first.exit_code == 0
    [(list_id, name)] = hidden.rows(f"SELECT id, name FROM lists WHERE name = 'VIP' AND {of(first)}")
    box.change("lists", list_id, name=17)
    try:
        ran = hidden.daily("lists")
    finally:
        box.change("lists", list_id, name=name)
    assert ran.exit_code == 0, ran.sentences
    assert ran.counts["lists"]["rejected"] == 1
    assert hidden.one(f"SELECT count(*) FROM lists WHERE deleted_at IS NOT NULL AND {of(ran)}") == 0


def test_events_move_to_the_table_of_their_metric(warehouse: Warehouse) -> None:
    """Events that are stored before their metric is listed move to the metric's table once it is."""
    late = warehouse.variant(klaviyo_integration="late", first_sync_days=3000)
    ran = late.daily()
    assert ran.exit_code == 0
    spams = late.one(f"SELECT count(*) FROM spams WHERE {of(ran)}")
    spam = "'Marked Email as Spam'"  # as after a run before this metric was listed:
    late.execute(f"INSERT INTO events SELECT * FROM spams WHERE {of(ran)}")
    late.execute(f"DELETE FROM spams WHERE {of(ran)}")
    late.execute(f"DELETE FROM metrics WHERE name = {spam} AND {of(ran)}")
    assert late.daily(since=LONG_AGO).exit_code == 0
    assert spams > 0
    assert late.one(f"SELECT count(*) FROM spams WHERE {of(ran)}") == spams
    assert late.one(f"SELECT count(*) FROM events WHERE event_name = {spam} AND {of(ran)}") == 0
