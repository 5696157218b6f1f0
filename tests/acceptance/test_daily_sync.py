"""The daily sync: completeness and keys of the first run, reruns without changes, late events, several accounts.

The first run is the command; the others are runs in this process, over the same warehouse.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import DATA, SPECIFIED, events, membership
from sandbox.launcher import Sandbox, running
from tests import runs
from tests.driver import MIDNIGHT, Result, Warehouse, account

DAYS = 45
EVENT_TABLES = tuple(table.name for table in events.EVENT_TABLES)
ALL_EVENTS = " UNION ALL ".join(
    f"SELECT '{name}' AS table_name, id, key, campaign_key, automation_key, member_key, list_key, email, event_at,"
    f" esp_source, esp_integration_id, metric_key, event_name, value, properties FROM klaviyo.{name}"
    for name in EVENT_TABLES
)
ROOT = Path(__file__).parents[2]
QUERIES = [
    pytest.param(query, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, query in enumerate(re.findall(r"```sql\n((?:SELECT|WITH) .*?)```", path.read_text("utf-8"), re.DOTALL))
]
ROW_KEY = "md5(esp_source || ':' || esp_integration_id || ':' || id)"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose history ends at midnight, so that the tests can add to its present."""
    with running(members=900, events=15_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


@pytest.fixture(scope="module")
def settings(box: Sandbox) -> dict[str, str]:
    """The settings for the account. The first run reads all its history."""
    return {**account(box), "FIRST_SYNC_DAYS": str(DAYS + 2)}


@pytest.fixture(scope="module")
def first(warehouse: Warehouse, settings: dict[str, str]) -> Result:
    """The result of the first run."""
    ran = warehouse.sync(**settings)
    assert ran.code == 0, ran.err[-3000:]
    return ran


@pytest.fixture(scope="module")
def filled(first: Result, warehouse: Warehouse, settings: dict[str, str]) -> runs.Warehouse:
    """The warehouse after the first run."""
    return runs.in_process(warehouse, settings)


def assert_same_events(warehouse: Warehouse, box: Sandbox) -> None:
    """Assert that each event of the account is in exactly one table, with the account's own values."""
    truth = box.events()
    ids = warehouse.rows(f"SELECT id FROM ({ALL_EVENTS}) AS every")
    assert Counter(row[0] for row in ids) == Counter(event["id"] for event in truth)
    with psycopg.connect(warehouse.url) as connection:
        connection.execute("CREATE TEMPORARY TABLE truth (event jsonb)")
        with connection.cursor() as cursor, cursor.copy("COPY truth FROM STDIN (FORMAT csv)") as copy:
            for event in truth:
                copy.write('"' + json.dumps(event).replace('"', '""') + '"\n')
        differing = connection.execute(
            f"""
            SELECT every.* FROM truth JOIN ({ALL_EVENTS}) AS every ON every.id = event ->> 'id'
            WHERE (event_at, metric_key, member_key, campaign_key, automation_key) IS DISTINCT FROM (
                to_timestamp((event ->> 'timestamp')::bigint),
                md5(esp_source || ':' || esp_integration_id || ':' || (event ->> 'metric_id')),
                md5(event ->> 'profile_id'), md5(event ->> 'message'), md5(event ->> 'flow')
            )
            """
        ).fetchall()
    assert differing == []


def test_the_first_run_fills_every_table(first: Result, warehouse: Warehouse) -> None:
    """Each of the 18 tables has at least one row. These and the added ones have as many as the summary reports."""
    assert len(SPECIFIED) == 18
    stored = {table.name: warehouse.one(f"SELECT count(*) FROM klaviyo.{table.name}") for table in DATA}
    assert all(stored[table.name] for table in (*SPECIFIED, membership.MEMBER_CONSENTS))
    assert {name: counts[1] for name, counts in first.counts.items()} == {
        name: rows for name, rows in stored.items() if rows
    }


@pytest.mark.parametrize("query", QUERIES)
def test_queries_of_the_documents_run(first: Result, warehouse: Warehouse, query: str) -> None:
    """All have rows, except those of upgrades, of what is wrong, and of reports, which are read on request."""
    counts = query.startswith("SELECT count(*)")
    is_empty = any(name in query for name in ("missing_rows", "_reports", "schema_changes"))
    assert bool(warehouse.rows(query)) != (not counts and is_empty)


def test_each_event_is_stored_once(first: Result, warehouse: Warehouse, box: Sandbox) -> None:
    """Each event of the account is in exactly one of the seven event tables, with the account's own values."""
    assert_same_events(warehouse, box)


def test_counts_match_the_account(first: Result, warehouse: Warehouse, box: Sandbox) -> None:
    """For each metric the seven event tables hold as many events as the account counts."""
    counts = warehouse.rows(
        f"SELECT m.id, count(*) FROM ({ALL_EVENTS}) AS every JOIN klaviyo.metrics m ON m.key = metric_key GROUP BY 1"
    )
    assert dict(counts) == {metric["id"]: metric["count"] for metric in box.state()["metrics"] if metric["count"]}


@pytest.mark.parametrize(
    ("table", "violation"),
    [
        *((name, f"key <> {ROW_KEY}") for name in ("metrics", "campaigns", "automations", "lists", "campaign_lists")),
        *((name, f"key <> {ROW_KEY}") for name in ("members", "member_attributes", "member_lists", *EVENT_TABLES)),
        *((name, "member_key IS DISTINCT FROM md5(id)") for name in ("members", "member_attributes")),
        ("campaigns", "campaign_key IS DISTINCT FROM md5(id)"),
        ("automations", "automation_key IS DISTINCT FROM md5(id)"),
        ("campaign_lists", "id IS DISTINCT FROM list_id || ':' || campaign_id"),
        ("member_lists", "id IS DISTINCT FROM list_id || ':' || member_id"),
        ("stg_member_lists", "_sync_id IS DISTINCT FROM md5(list_id || ':' || member_id)"),
        *((name, "_sync_id IS DISTINCT FROM md5(email)") for name in ("stg_member_exclusions", "member_exclusions")),
        *((name, "campaign_key IS DISTINCT FROM md5(properties ->> '$message')") for name in EVENT_TABLES),
        *((name, "automation_key IS DISTINCT FROM md5(properties ->> '$flow')") for name in EVENT_TABLES),
        *((name, "list_key IS NOT NULL OR esp_source <> 'Klaviyo'") for name in EVENT_TABLES),
        ("members", "consent IS NULL"),
        *((name, "__synced_at IS NULL") for name in (table.name for table in SPECIFIED)),
    ],
)
def test_keys_follow_the_specification(first: Result, warehouse: Warehouse, table: str, violation: str) -> None:
    """No row of any table violates the specification of its keys."""
    assert warehouse.one(f"SELECT count(*) FROM klaviyo.{table} WHERE {violation}") == 0


@pytest.mark.parametrize(
    ("dimension", "key"),
    [("members", "member_key"), ("campaigns", "campaign_key"), ("automations", "automation_key")],
)
def test_events_join_their_dimensions(
    first: Result, warehouse: Warehouse, box: Sandbox, dimension: str, key: str
) -> None:
    """Each event joins its member, campaign and automation, unless the account itself no longer has it."""
    unmatched = warehouse.rows(
        f"SELECT DISTINCT {key} FROM ({ALL_EVENTS}) AS every"
        f" LEFT JOIN klaviyo.{dimension} AS d USING ({key}, esp_integration_id)"
        f" WHERE {key} IS NOT NULL AND d.key IS NULL"
    )
    field = {"members": "profile_id", "campaigns": "message", "automations": "flow"}[dimension]
    named = {event[field]: event for event in box.events() if event[field]}
    stored = {row[0] for row in warehouse.rows(f"SELECT id FROM klaviyo.{dimension}")}
    flow_messages = {event["message"] for event in named.values() if event["flow"]}
    gone = set(named) - stored
    assert {row[0] for row in unmatched} == {warehouse.one("SELECT md5(%s)", each) for each in gone}
    assert dimension == "campaigns" or len(gone) <= 2
    assert not (dimension == "members" and gone) and not (dimension == "campaigns" and gone & flow_messages)


def test_a_rerun_changes_nothing(filled: runs.Warehouse) -> None:
    """If nothing has changed at the source, a run inserts and updates no rows."""
    again = filled.daily()
    assert again.exit_code == 0, again.sentences
    assert again.changed() == {}
    assert again.counts["sends"]["rows_read"] > 0


def test_late_and_future_events_are_stored(filled: runs.Warehouse, warehouse: Warehouse, box: Sandbox) -> None:
    """The next run stores late, future-dated and new events, also of metrics that are renamed or new."""
    state, person = box.state(), box.events()[0]["profile_id"]
    names = {metric["name"]: metric["id"] for metric in state["metrics"]}
    now = datetime.now(UTC)
    for turn in range(2):
        box.change("metrics", names["Opened Email"], name=f"Opened Mail {turn}")
        box.change("metrics", names["Clicked Text Message"], name=f"Tapped {turn}")
        added: list[dict[str, Any]] = [
            {"metric": names[name], "timestamp": int((now + offset).timestamp()), "profile_id": person}
            for name in ("Opened Email", "Clicked Text Message", "Placed Order", "Received Email")
            for offset in (timedelta(hours=-72), timedelta(hours=-1), timedelta(hours=18))
        ]
        added.append({"metric": f"Never seen before {turn}", "timestamp": int(now.timestamp()) - 60})
        ids = box.add_events(*added)
        ran = filled.daily()
        assert ran.exit_code == 0, ran.sentences
        assert_same_events(warehouse, box)
        tables = dict(warehouse.rows(f"SELECT id, table_name FROM ({ALL_EVENTS}) AS every WHERE id = ANY(%s)", ids))
        expected = ["opens"] * 3 + ["clicks"] * 3 + ["events"] * 3 + ["sends"] * 3 + ["events"]
        assert [tables[each] for each in ids] == expected
    assert warehouse.one("SELECT max(watermark) <= now() FROM klaviyo_internal.watermarks")
    assert dict(warehouse.rows("SELECT id, name FROM klaviyo.metrics"))[names["Opened Email"]] == "Opened Mail 1"


def test_a_second_account_leaves_the_first_unchanged(filled: runs.Warehouse, warehouse: Warehouse) -> None:
    """A sync of a second account into the same schema rewrites no row of the first: even transaction ids stay."""
    query = " UNION ALL ".join(
        f"SELECT '{table.name}', count(*), md5(string_agg(t.xmin::text || t::text, '' ORDER BY t::text))"
        f" FROM klaviyo.{table.name} t WHERE esp_integration_id ="
        " (SELECT esp_integration_id FROM klaviyo.integrations WHERE name = 'default')"
        for table in SPECIFIED
    )
    before = sorted(warehouse.rows(query))
    with running(account="OTHER1", seed=8, members=200, events=2_000, days=20, until=MIDNIGHT) as other:
        ran = runs.in_process(warehouse, account(other, "other")).daily()
        assert ran.exit_code == 0, ran.sentences
        assert len(warehouse.rows("SELECT FROM klaviyo.sends WHERE esp_integration_id <> %s", _of(warehouse))) > 0
    assert sorted(warehouse.rows(query)) == before


def _of(warehouse: Warehouse) -> str:
    return str(warehouse.one("SELECT esp_integration_id FROM klaviyo.integrations WHERE name = 'default'"))


def test_tables_limits_what_is_read(filled: runs.Warehouse) -> None:
    """--tables reads only what fills those tables."""
    ran = filled.daily("automations")
    assert ran.exit_code == 0, ran.sentences
    assert read_by(ran) == {"metrics", "lists", "automations"}


def test_metrics_limits_what_is_read(filled: runs.Warehouse, box: Sandbox) -> None:
    """--metrics reads only events of those metrics, given by name or id."""
    order = next(metric["id"] for metric in box.state()["metrics"] if metric["name"] == "Placed Order")
    ran = filled.daily("events", "bounces", metrics=["Bounced Email", order])
    assert ran.exit_code == 0, ran.sentences
    assert read_by(ran) & set(EVENT_TABLES) == {"bounces", "events"}


def read_by(ran: runs.Result) -> set[str]:
    """Return the tables for which a run has read rows, of those in the summary."""
    return {table.name for table in SPECIFIED if ran.counts.get(table.name, {}).get("rows_read")}
