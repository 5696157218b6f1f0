"""One account read in both dialects: the tables differ only where docs/dialects.md says so."""

import json
import logging
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from klaviyo_pg.catalogue import DATA, SPECIFIED, VIEWS, Table
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.catalogue.marts import MEMBER_ENGAGEMENT
from klaviyo_pg.errors import ClocksDiffer, KlaviyoPgError
from klaviyo_pg.klaviyo.current.campaigns import CHANNELS
from klaviyo_pg.postgres import schema
from sandbox.account import Account, Options, generate
from sandbox.account.timeline import NOBODY
from sandbox.launcher import Sandbox, running
from tests import marts
from tests.driver import ROOT
from tests.reader import Reader
from tests.runs import ALL_EVENTS, Warehouse
from website.reference import joins

DAYS = 40
ZONE = ZoneInfo("America/New_York")  # the account's
MIDNIGHT = datetime.now(ZONE).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
KEY, WRONG_KEY = "pk_secret_of_this_test", "pk_another_secret_of_it"
LOAD_TIME = {"__synced_at"}
REPORTED: dict[str, Any] = {"report_days": DAYS + 2, "report_requests": DAYS + 2}  # everything
SENT = """
    SELECT campaign_key, automation_key, (event_at AT TIME ZONE 'America/New_York')::date AS day, {0} AS name
    FROM current.{1}
"""
COUNTED = " UNION ALL ".join(
    SENT.format(*each) for each in (("'delivered'", "sends"), ("'opens'", "opens"), ("'clicks'", "clicks"))
)
OF_CAMPAIGNS = f"""
SELECT campaign.id, count(*) FILTER (WHERE event.name = 'delivered'), count(*) FILTER (WHERE event.name = 'opens'),
    count(*) FILTER (WHERE event.name = 'clicks')
FROM ({COUNTED}) AS event JOIN current.messages AS message ON message.message_key = event.campaign_key
JOIN current.campaigns AS campaign ON campaign.campaign_key = message.campaign_key
WHERE campaign.campaign_type = 'email' AND (campaign.sent_at AT TIME ZONE 'America/New_York')::date < %s GROUP BY 1
"""
OF_FLOWS = f"""
SELECT message_id, day, count(*) FILTER (WHERE event.name = 'delivered'),
    count(*) FILTER (WHERE event.name = 'opens'), count(*) FILTER (WHERE event.name = 'clicks')
FROM ({COUNTED}) AS event JOIN current.messages AS message ON message.message_key = event.campaign_key
JOIN current.automations ON automations.automation_key = event.automation_key AND NOT automations.is_placeholder
WHERE day < %s GROUP BY 1, 2
"""
ORDERS = """
SELECT {}, sum(conversions)::bigint, round(coalesce(sum(revenue), 0), 2) FROM current.attributed_revenue
JOIN current.metrics ON metrics.key = metric_key JOIN current.mapped_metrics AS mapped ON mapped.metric_id = metrics.id
WHERE mapped.id = 'revenue' GROUP BY 1
"""
PARTS = tuple(product(CHANNELS, ("false", "true")))  # in which campaigns are listed


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose history ends with a day of its time zone."""
    with running(members=700, events=9_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


@pytest.fixture(scope="module")
def dialects(warehouse: Warehouse, box: Sandbox) -> dict[str, Warehouse]:
    """The warehouse in each dialect, with the schema of that name. The first run reads all history."""
    state = box.state()
    common = {
        "first_sync_days": DAYS + 2,
        "klaviyo_account_id": state["account"],
        "segments": tuple(state["segments"]),
    }
    return {
        each: warehouse.variant(klaviyo_dialect=each, warehouse_schema=each, **common) for each in ("current", "legacy")
    }


@pytest.fixture(scope="module")
def both(dialects: dict[str, Warehouse]) -> dict[str, Warehouse]:
    """The warehouse after one run in each dialect, into two schemas with the same integration id."""
    first = dialects["current"].daily("all", **REPORTED)
    assert first.exit_code == 0, first.sentences
    with psycopg.connect(dialects["legacy"].url) as connection:
        schema.upgrade(connection, "legacy")
        connection.execute("INSERT INTO legacy.integrations SELECT * FROM current.integrations")
    second = dialects["legacy"].daily()
    assert second.exit_code == 0, second.sentences
    return dialects


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("dialect", ["current", "legacy"])
def test_a_clock_that_differs_from_the_api_s_is_noticed(dialects: dict[str, Warehouse], dialect: str) -> None:
    """The first response has the API's time, in both dialects."""
    slow = replace(dialects[dialect], now=lambda: datetime.now(UTC) - timedelta(days=2))
    with pytest.raises(ClocksDiffer, match=r"clock is 2 days slow compared with the database's and the API's\."):
        slow.daily("metrics", warehouse_schema="never_created")


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


def test_both_dialects_fill_every_table(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    for dialect in both:
        for table in SPECIFIED:
            assert warehouse.one(f"SELECT count(*) FROM {dialect}.{table.name}") > 0, (dialect, table.name)


def test_dialects_differ_only_where_documented(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """Compared row by row and column by column, the dialects differ exactly where the documentation says so."""
    actual = {(table.name, column) for table in DATA for column in differences(warehouse, table)}
    documented = documented_differences()
    assert sorted(actual - documented) == []
    assert sorted(documented - actual) == []


def revenue_of(account: Account) -> dict[tuple[str | None, ...], tuple[int, Decimal]]:
    """Add up the orders within five days after the last message that the same person opened or clicked.

    By campaign, message of the campaign, flow, message of the flow, metric and currency.
    """
    names = {metric.number: metric.name for metric in account.metrics.values()}
    owners = {row.id: each.id for each in account.campaigns.values() for row in each.messages}
    only = {each.id: each.messages[0].id for each in account.campaigns.values() if len(each.messages) == 1}
    touched: dict[int, tuple[int, dict[str, Any]]] = {}
    found: dict[tuple[str | None, ...], list[Decimal | None]] = defaultdict(list)
    for ref in account.timeline.every():
        at, metric, person, text = account.timeline.row(ref)
        properties = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        if names[metric] in ("Opened Email", "Clicked Email", "Clicked Text Message"):
            touched[person] = at, properties
        elif names[metric] in ("Placed Order", "Ordered Product") and person in touched and person != NOBODY:
            since, touch = touched[person]
            message, flow = touch.get("$message"), touch.get("$flow")
            if message and at - since <= 5 * 86_400:
                sent = message if message in owners else only.get(message)
                campaign = (None, None) if flow else (owners.get(message, message), sent)
                row = (*campaign, flow, message if flow else None, names[metric], properties.get("$value_currency"))
                found[row].append(properties.get("$value"))
    return {row: (len(values), sum(filter(None, values), Decimal())) for row, values in found.items()}


def test_attributed_revenue_equals_that_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox
) -> None:
    """By campaign and by flow, computed from all that the account holds. Of deleted campaigns it knows no messages."""
    account = generate(Options(box.state()["account"], members=700, events=9_000, days=DAYS, until=MIDNIGHT))
    expected = revenue_of(account)
    stored = {
        row[:6]: row[6:]
        for row in warehouse.rows(
            "SELECT campaign_id, campaign_message_id, flow_id, flow_message_id, metric_name, value_currency,"
            " conversions, coalesce(revenue, 0) FROM current.attributed_revenue"
        )
    }
    assert len(expected) > 100
    known = {None, *account.campaigns}
    assert {row: total for row, total in stored.items() if row[0] in known} == {
        row: total for row, total in expected.items() if row[0] in known
    }
    assert sum(total[1] for total in stored.values()) == sum(total[1] for total in expected.values())
    named = "SELECT count(*) FROM current.attributed_revenue WHERE campaign_name IS NULL AND flow_name IS NULL"
    gone = {row[0] for row in stored if row[0] not in known}
    gone |= {row[2] for row in stored if row[2] and row[2] not in account.flows}
    assert warehouse.one(f"{named} AND coalesce(campaign_id, flow_id) <> ALL(%s)", sorted(gone)) == 0


@pytest.fixture(scope="module")
def account(box: Sandbox) -> Account:
    """The account that the sandbox serves, without what tests add to it."""
    return generate(Options(box.state()["account"], members=700, events=9_000, days=DAYS, until=MIDNIGHT))


def test_performance_equals_that_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, account: Account
) -> None:
    """Each number of each message of a flow, and of each campaign, including those that the warehouse does not have."""
    names = (*marts.COUNTED, *marts.UNIQUE)
    expected, numbers = marts.performance(account), ", ".join(names)
    rows = warehouse.rows(f"SELECT automation_key, message_key, {numbers} FROM current.flow_performance")
    stored: dict[tuple[str, ...], dict[str, int]]
    stored = {(flow, message): dict(zip(names, row, strict=True)) for flow, message, *row in rows}
    rows = warehouse.rows(f"SELECT campaign_key, {numbers} FROM current.campaign_performance")
    stored |= {(campaign,): dict(zip(names, row, strict=True)) for campaign, *row in rows}
    keys = {owner: tuple(md5(each.encode()).hexdigest() for each in owner) for owner in expected}
    assert {owner: row for owner, row in stored.items() if any(row.values())} == {
        keys[owner]: row for owner, row in expected.items()
    }
    assert len([owner for owner in expected if len(owner) == 1]) > 100
    unknown = warehouse.one(
        "SELECT count(*) FROM current.campaign_performance JOIN current.campaigns ON campaigns.id = campaign_id"
        " WHERE is_placeholder"
    )
    assert 0 < unknown < 10
    legacy = "SELECT sum(delivered), sum(unique_clicks) FROM {}.flow_performance"
    assert warehouse.rows(legacy.format("legacy")) == warehouse.rows(legacy.format("current"))


def test_orders_of_campaigns_and_flows_equal_those_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, account: Account
) -> None:
    """By currency; a single sum only where there is a single currency."""
    expected: dict[tuple[str | None, ...], dict[str, list[Any]]] = defaultdict(dict)
    for (campaign, _, flow, message, metric, currency), (number, value) in revenue_of(account).items():
        if metric == "Placed Order":
            total = expected[campaign, flow, message].setdefault(currency or "unknown", [0, Decimal()])
            expected[campaign, flow, message][currency or "unknown"] = [total[0] + number, total[1] + (value or 0)]
    query = (
        "SELECT {}, orders, revenue, revenue_currency, revenue_by_currency::text FROM current.{}_performance"
        " WHERE orders > 0"
    )
    rows = warehouse.rows(query.format("campaign_id, NULL, NULL", "campaign"))
    rows += warehouse.rows(query.format("NULL, flow_id, message_id", "flow"))
    stored = {row[:3]: row[3:] for row in rows if any(row[:3])}
    listed = {None, *account.campaigns, *warehouse.column("SELECT id FROM current.campaigns WHERE is_placeholder")}
    known = {owner: each for owner, each in expected.items() if owner[0] in listed}
    assert stored.keys() == known.keys() and len(known) > 50
    for owner, (orders, revenue, currency, by_currency) in stored.items():
        every = known[owner]
        assert orders == sum(number for number, _ in every.values())
        assert json.loads(by_currency, parse_float=Decimal, parse_int=Decimal) == {
            name: value for name, (_, value) in every.items()
        }
        only = next(iter(every)) if len(every) == 1 else None
        assert (revenue, currency) == (every[only][1] if only else None, only if only != "unknown" else None)
    assert {len(each) > 1 for each in known.values()} == {True, False}


def test_engagement_equals_that_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, account: Account
) -> None:
    """The first and last time, and the numbers of events, of each person; nothing says that a person may be mailed."""
    columns = ("first_{}_at", "last_{}_at", "{}s", "{}s_30_days", "{}s_90_days")
    kinds = ("send", "open", "click", "order")
    selected = ", ".join(column.format(kind) for kind in kinds for column in columns)
    rows = warehouse.rows(f"SELECT now(), member_id, {selected} FROM current.member_engagement")
    expected = marts.engagement(account, rows[0][0])
    nothing = (None, None, 0, 0, 0)
    assert {member: tuple(values) for _, member, *values in rows} == {
        member: tuple(value for kind in kinds for value in each.get(kind, nothing)) for member, each in expected.items()
    }
    assert len(rows) > 500
    names = {column.name for column in MEMBER_ENGAGEMENT.columns}
    assert not [name for name in names if re.search("email|phone|consent|subscri|receive", name)]


@pytest.mark.parametrize("schema", ["current", "legacy"])
def test_joins_of_events_to_campaigns_and_flows_lose_no_event(
    both: dict[str, Warehouse], warehouse: Warehouse, schema: str
) -> None:
    """Also of campaigns that were deleted before the first run, for which there are placeholders."""
    tables = " UNION ALL ".join(
        f"SELECT campaign_key, automation_key, esp_integration_id FROM {schema}.{table.name}" for table in EVENT_TABLES
    )
    for key, table in (("campaign_key", "campaigns"), ("automation_key", "automations")):
        events = f"SELECT count(*) FROM ({tables}) AS event"
        joined = f"{events} JOIN {schema}.{table} USING ({key}, esp_integration_id)"
        assert warehouse.one(joined) == warehouse.one(f"{events} WHERE {key} IS NOT NULL") > 0
    campaigns = f"SELECT count(*) FROM {schema}.campaigns WHERE is_placeholder AND deleted_at IS NOT NULL"
    assert warehouse.one(campaigns) > 0
    unnamed = f"SELECT bool_and((deleted_at IS NOT NULL) = (name IS NULL)) FROM {schema}.campaigns WHERE is_placeholder"
    assert warehouse.one(unnamed), "those of messages have the name of their campaign"


def test_joins_that_comments_name_lose_no_row(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """Each value is in a column that the comment names, but for messages of campaigns that Klaviyo does not list."""
    unlisted = """SELECT campaign_message_key FROM current.event_attributions
        JOIN current.campaigns USING (campaign_key, esp_integration_id) WHERE is_placeholder"""
    columns: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in joins((*DATA, *VIEWS)):
        columns[each.table, each.column].append(f"SELECT {each.other_column} FROM current.{each.other_table}")
    without_rows = set()
    for (table, column), targets in columns.items():
        names = [each.name for each in EVENT_TABLES] if table == "events" else [table]
        values = " UNION ALL ".join(f"SELECT {column} AS value FROM current.{name}" for name in names)
        matched = f"count(*) FILTER (WHERE value IN ({' UNION ALL '.join([*targets, unlisted])}))"
        [(rows, found)] = warehouse.rows(f"SELECT count(value), {matched} FROM ({values}) AS referring")
        assert found == rows, (table, column)
        without_rows |= {table} if rows == 0 else set()
    assert without_rows == {"profile_merges", "usable_push_tokens"}, "the account has none"


@pytest.mark.parametrize("schema", ["current", "legacy"])
def test_events_of_listed_campaigns_lead_to_the_time_of_sending(
    both: dict[str, Warehouse], warehouse: Warehouse, schema: str
) -> None:
    """Also those that have the ID of a message of the campaign, for which `campaigns` has a placeholder."""
    sends = f"""FROM {schema}.sends JOIN {schema}.messages ON messages.message_key = sends.campaign_key
        JOIN {schema}.campaigns ON campaigns.campaign_key = messages.campaign_key"""
    of_listed = f"SELECT count(*), count(campaigns.sent_at) {sends} WHERE messages.name IS NOT NULL"
    [(rows, with_time)] = warehouse.rows(of_listed)
    assert rows == with_time > 0


@pytest.mark.parametrize("schema", ["current", "legacy"])
def test_columns_of_events_say_what_their_properties_say(
    both: dict[str, Warehouse], warehouse: Warehouse, schema: str
) -> None:
    """In either dialect: machines, bots, variations, and the domain of the address or, without one, of the property."""
    address = "nullif(lower(split_part(email, '@', 2)), '')"
    expected = {
        "opens": ("is_machine_open", "(properties ->> 'machine_open')::boolean"),
        "clicks": ("is_bot_click", "(properties ->> 'Bot Click')::boolean"),
        "sends": ("variation", "properties ->> '$variation'"),
        "bounces": ("email_domain", f"coalesce({address}, lower(properties ->> 'Email Domain'))"),
    }
    for table, (column, value) in expected.items():
        query = f"SELECT count(*) FILTER (WHERE {column} IS DISTINCT FROM {value}), count({column}) FROM {{}}.{table}"
        [(different, present)] = warehouse.rows(query.format(schema))
        assert different == 0, column
        assert present > 0 or column == "variation"
    channels = f"SELECT DISTINCT event_name, channel FROM {schema}.clicks"
    assert set(warehouse.rows(channels)) == {("Clicked Email", "email"), ("Clicked Text Message", "sms")}
    assert warehouse.column(f"SELECT DISTINCT channel FROM {schema}.sends") == ["email"]


def test_deliverability_equals_that_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, account: Account
) -> None:
    """Each number for each domain and day, as a whole and for one of the days."""
    names = ("sends", "bounces", "hard_bounces", "soft_bounces", "opens", "machine_opens", "complaints")
    query = f"SELECT day, domain, {', '.join(names)} FROM current.deliverability WHERE day >= %s"
    expected = {key: tuple(each[name] for name in names) for key, each in marts.deliverability(account, ZONE).items()}
    assert {row[:2]: row[2:] for row in warehouse.rows(query, "-infinity")} == expected
    assert all(sum(column) > 0 for column in zip(*expected.values(), strict=True))
    last = max(day for day, _ in expected)
    assert {row[:2]: row[2:] for row in warehouse.rows(query, last)} == {
        key: row for key, row in expected.items() if key[0] == last
    }


def test_growth_of_lists_adds_up(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """Added up in Python: after each day, and as many on each list in the end as are on it."""
    changes: dict[str, Counter[tuple[Any, int]]] = defaultdict(Counter)
    query = "SELECT list_id, subscribed, unsubscribed_at FROM current.member_lists"
    for list_id, joined, left in warehouse.rows(query):
        for at, sign in ((joined, 1), (left and max(left, joined or left), -1)):
            if at is not None:
                changes[list_id][at.astimezone(ZONE).date(), sign] += 1
    expected = {}
    for list_id, each in changes.items():
        total = 0
        for day in sorted({day for day, _ in each}):
            total += each[day, 1] - each[day, -1]
            expected[list_id, day] = (each[day, 1], each[day, -1], total)
    columns = "list_id, day, people_joined, people_left, people_on_list"
    assert {row[:2]: row[2:] for row in warehouse.rows(f"SELECT {columns} FROM current.list_growth")} == expected
    on_list = "SELECT list_id, count(*) FROM current.member_lists WHERE unsubscribed_at IS NULL GROUP BY 1"
    latest = "SELECT DISTINCT ON (list_id) list_id, people_on_list FROM current.list_growth ORDER BY 1, day DESC"
    assert dict(warehouse.rows(on_list)).items() <= dict(warehouse.rows(latest)).items()
    subscribed = "SELECT sum(joined_and_subscribed) FROM current.list_growth"
    assert warehouse.one(subscribed) == warehouse.one("SELECT count(*) FROM current.member_lists WHERE is_subscribed")


def test_reports_equal_what_events_add_up_to(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """Campaigns by message, flows by message and day, of days that have ended in the account's time zone."""
    [now] = warehouse.column("SELECT max(as_of) FROM current.runs WHERE flow = 'daily'")
    today = now.astimezone(ZONE).date()
    numbers = "sum(delivered)::bigint, sum(opens)::bigint, sum(clicks)::bigint"
    reported = "{} FROM current.{}_reports WHERE send_channel = 'email' AND delivered + opens + clicks > 0 GROUP BY"
    stored = warehouse.rows(f"SELECT campaign_id, {reported.format(numbers, 'campaign')} 1")
    assert sorted(stored) == sorted(warehouse.rows(OF_CAMPAIGNS, today))
    assert len(stored) > 100
    stored = warehouse.rows(f"SELECT flow_message_id, sent_on, {reported.format(numbers, 'flow')} 1, 2")
    assert sorted(stored) == sorted(warehouse.rows(OF_FLOWS, today))
    assert len({day for _, day, *_ in stored}) > DAYS - 3
    for kind, column in (("campaign", "campaign_id"), ("flow", "flow_id")):
        expected = {row[0]: row[1:] for row in warehouse.rows(ORDERS.format(f"attributed_revenue.{column}"))}
        found = warehouse.rows(
            f"SELECT {column}, sum(conversions)::bigint, sum(conversion_value)::float FROM current.{kind}_reports"
            " GROUP BY 1 HAVING sum(conversions) > 0"
        )
        assert found
        for owner, orders, value in found:  # values are doubles, and the largest is beyond their precision
            assert (orders, value) == (expected[owner][0], pytest.approx(float(expected[owner][1]), rel=1e-12))
    assert warehouse.one("SELECT count(*) FROM legacy.campaign_reports") == 0
    for query in re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "reports.md").read_text(), re.DOTALL):
        assert warehouse.rows(query.replace("klaviyo.", "current.")), query


def test_definitions_are_those_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    account = generate(Options(box.state()["account"], members=1, events=0, days=DAYS, until=MIDNIGHT))
    custom, mapped = account.definitions.custom_metrics, account.definitions.mapped_metrics
    assert warehouse.rows("SELECT id, name, metric_ids, updated_at FROM current.custom_metrics ORDER BY id") == [
        (row.id, row.name, sorted(row.groups), row.updated) for _, row in sorted(custom.items())
    ]
    assert warehouse.rows("SELECT id, metric_id, custom_metric_id FROM current.mapped_metrics ORDER BY id") == [
        (row.id, row.metric, row.custom_metric) for _, row in sorted(mapped.items())
    ]
    sources = warehouse.rows("SELECT id, integration_id, integration_name, source FROM current.metrics")
    found = {row.id: row.integration for row in account.metrics.values()}
    assert sorted(sources) == sorted(
        (row_id, *((each.id, each.name, each.category) if each else (None, None, None)))
        for row_id, each in found.items()
    )
    assert warehouse.rows("SELECT id, name, timezone, currency, is_test FROM current.accounts") == [
        (box.state()["account"], "Example Shop", "America/New_York", "USD", False)
    ]


def campaigns_of(box: Sandbox) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each campaign that the sandbox serves, and the messages on its page by id."""
    reader = Reader(box)
    for channel, archived in PARTS:
        condition = f"equals(messages.channel,'{channel}'),equals(archived,{archived})"
        page = reader.get("campaigns", filter=condition, include="campaign-messages").json()
        while page:
            messages = {message["id"]: message["attributes"] for message in page["included"]}
            yield from ((campaign, messages) for campaign in page["data"])
            following = page["links"]["next"]
            page = reader.current(following).json() if following else None


def served_messages(box: Sandbox) -> Iterator[tuple[str | datetime | None, ...]]:
    """Yield the columns of each message of a campaign."""
    for campaign, messages in campaigns_of(box):
        for each in campaign["relationships"]["campaign-messages"]["data"]:
            message = messages[each["id"]]
            definition, times = message["definition"], message["send_times"]
            content = definition["content"]
            yield (
                *(each["id"], campaign["id"], definition["channel"], definition["label"]),
                content.get("subject") or content.get("title"),
                *(content.get(name) or None for name in ("preview_text", "body", "from_email", "from_label")),
                *(campaign["attributes"]["status"], datetime.fromisoformat(message["updated_at"])),
                datetime.fromisoformat(times[0]["datetime"]) if times else None,
            )


def test_messages_equal_those_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Each message of each campaign is stored as the API returns it, and only those."""
    texts = "id, campaign_id, channel, label, subject, preview_text, body, from_email, from_name, status"
    stored = warehouse.rows(f"SELECT {texts}, updated_at, send_at FROM current.campaign_messages")
    assert sorted(stored) == sorted(served_messages(box))
    assert len(stored) > 150
    scheduled = {campaign["id"]: campaign["attributes"]["scheduled_at"] for campaign, _ in campaigns_of(box)}
    assert dict(warehouse.rows("SELECT id, scheduled_at FROM current.campaigns WHERE archived IS NOT NULL")) == {
        each: at and datetime.fromisoformat(at) for each, at in scheduled.items()
    }


def test_flows_equal_those_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Each action of each flow is stored with its definition, and each message of a flow joins to its action."""
    served: dict[str, tuple[str, dict[str, Any]]] = {}
    for archived in ("false", "true"):
        answer = Reader(box).get("flows", filter=f"equals(archived,{archived})", include="flow-actions").json()
        owners = {action["id"]: action["relationships"]["flow"]["data"]["id"] for action in answer["included"]}
        served |= {action["id"]: (owners[action["id"]], action["attributes"]) for action in answer["included"]}
    stored = warehouse.rows("SELECT id, flow_id, definition, action_type FROM current.flow_actions")
    assert {row_id: (flow, definition) for row_id, flow, definition, _ in stored} == {
        row_id: (flow, attributes["definition"]) for row_id, (flow, attributes) in served.items()
    }
    assert {kind for *_, kind in stored} >= {"send-email", "send-sms", "time-delay", "content-experiment"}
    message = "SELECT m.id, m.status, m.is_variation FROM current.flow_messages m JOIN current.flow_actions a"
    joined = warehouse.rows(f"{message} ON a.id = m.flow_action_id AND a.automation_key = m.automation_key")
    assert len(joined) == warehouse.one("SELECT count(*) FROM current.flow_messages") > 100
    assert {is_variation for *_, is_variation in joined} == {True, False}


def test_segments_equal_those_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Each segment is stored with its states, and each of its members with the time of joining."""
    reader = Reader(box)
    states = ("name", "is_active", "is_starred", "is_processing")
    served = {row["id"]: tuple(row["attributes"][each] for each in states) for row in reader.rows("segments")}
    stored = warehouse.rows(f"SELECT id, {', '.join(states)} FROM current.segments")
    assert {row_id: tuple(row) for row_id, *row in stored} == served
    members = {
        (segment_id, row["id"]): datetime.fromisoformat(row["attributes"]["joined_group_at"])
        for segment_id in served
        for row in reader.rows(f"segments/{segment_id}/profiles", **{"fields[profile]": "joined_group_at"})
    }
    stored = warehouse.rows(
        "SELECT segment_id, member_id, joined_at FROM current.segment_members WHERE left_at IS NULL"
    )
    assert {(segment_id, member_id): at for segment_id, member_id, at in stored} == members
    assert len(members) == sum(box.state()["segments"].values()) > 100


def test_content_equals_that_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Each template, each form with its versions and each image, hidden or not, is stored as the API returns it."""
    account = generate(Options(box.state()["account"], members=1, events=0, days=DAYS, until=MIDNIGHT))
    designs = account.designs
    stored = warehouse.rows("SELECT id, name, editor_type, html, text, updated_at FROM current.templates")
    assert sorted(stored) == sorted(
        (row.id, row.name, row.editor_type, row.html, row.text, row.updated) for row in designs.templates.values()
    )
    versions = "current.form_versions v JOIN current.forms f ON f.key = v.form_key"
    stored = warehouse.rows(f"SELECT f.id, f.is_ab_test, v.id, form_type, ab_test_variation, v.status FROM {versions}")
    assert sorted(stored) == sorted(
        (form.id, form.ab_test, row.id, row.form_type, row.ab_test, row.status)
        for form in designs.forms.values()
        for row in form.versions
    )
    stored = warehouse.rows("SELECT id, name, image_url, format, size, is_hidden, updated_at FROM current.images")
    assert sorted(stored) == sorted(
        (row.id, row.name, row.image_url, row.format, row.size, row.hidden, row.updated_at)
        for row in designs.images.values()
    )


@pytest.mark.parametrize(
    ("table", "kind", "columns"),
    [
        pytest.param("catalog_items", "catalog-items", {"title": "title", "description": "description"}, id="items"),
        pytest.param("catalog_variants", "catalog-variants", {"sku": "sku", "item_id": "item"}, id="variants"),
        pytest.param("catalog_categories", "catalog-categories", {"name": "name"}, id="categories"),
        pytest.param("coupons", "coupons", {"description": "description"}, id="coupons"),
        pytest.param("coupon_codes", "coupon-codes", {"coupon_id": "coupon", "member_id": "profile"}, id="codes"),
        pytest.param("reviews", "reviews", {"content": "content", "item_id": "item", "email": "email"}, id="reviews"),
        pytest.param("push_tokens", "push-tokens", {"member_id": "profile", "platform": "platform"}, id="push tokens"),
    ],
)
def test_what_is_read_on_request_equals_that_of_the_account(
    both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox, table: str, kind: str, columns: dict[str, str]
) -> None:
    account = generate(Options(box.state()["account"], members=700, events=0, days=DAYS, until=MIDNIGHT))
    stored = warehouse.rows(f"SELECT id, {', '.join(columns)} FROM current.{table} WHERE deleted_at IS NULL")
    related = [(row, [getattr(row, name) for name in columns.values()]) for row in account.collection(kind).values()]
    assert len(stored) > 2
    assert sorted(stored, key=str) == sorted(
        ((row.id, *(getattr(each, "id", each) for each in values)) for row, values in related), key=str
    )


def test_predictions_belong_to_stored_people(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """Everyone has a row. Of some people nothing is predicted."""
    joined = "current.members m LEFT JOIN current.member_predictions p ON p.key = m.key"
    [(people, rows, predicted)] = warehouse.rows(f"SELECT count(*), count(p.key), count(total_clv) FROM {joined}")
    assert people == rows > predicted > 0
    assert warehouse.one("SELECT count(*) FROM current.member_predictions WHERE ranked_channels = 'email, sms'") > 0


def test_tags_equal_those_of_the_account(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Each tag is stored with its group and with everything that it is on."""
    reader = Reader(box)
    page = reader.get("tags", include="tag-group").json()
    served = {tag["id"]: (tag["attributes"]["name"], _related_ids(tag, "tag-group")) for tag in page["data"]}
    groups = "current.tags t JOIN current.tag_groups g ON g.key = tag_group_key"
    stored = warehouse.rows(f"SELECT t.id, t.name, g.id FROM {groups}")
    assert {tag: (name, [group]) for tag, name, group in stored} == served
    assert warehouse.one("SELECT count(*) FROM current.tag_groups") == len(page["included"])
    by_channel = [f"equals(messages.channel,'{channel}'),equals(archived,{archived})" for channel, archived in PARTS]
    archived = ["equals(archived,false)", "equals(archived,true)"]
    collections = [*product(["campaigns"], by_channel), *product(["flows"], archived), ("lists", ""), ("segments", "")]
    tagged = {
        (row["type"], row["id"], tag)
        for kind, condition in collections
        for row in reader.rows(kind, include="tags", filter=condition)
        for tag in _related_ids(row, "tags")
    }
    assert tagged == set(warehouse.rows("SELECT object_type, object_id, tag_id FROM current.tagged_objects"))
    assert {kind for kind, *_ in tagged} == {"campaign", "flow", "list", "segment"}
    deleted = next(tag for kind, _, tag in sorted(tagged) if kind == "list")
    box.delete("tags", deleted)
    left = {tag for row in reader.rows("lists", include="tags") for tag in _related_ids(row, "tags")}
    box.restore("tags", deleted)
    assert deleted not in left
    assert sorted(reader.ids("tags")) == sorted(served)


def _related_ids(row: dict[str, Any], name: str) -> list[str]:
    data = row["relationships"][name]["data"]
    return [each["id"] for each in (data if isinstance(data, list) else [data])]


def test_messages_of_events_are_resolved(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Those of campaigns that were deleted before the first run are placeholders."""
    sends = "current.sends s LEFT JOIN current.messages m ON m.message_key = s.campaign_key"
    types = dict(warehouse.rows(f"SELECT m.message_type, count(*) FROM {sends} GROUP BY 1"))
    assert types.keys() == {"campaign", "campaign_message", "flow_message"}
    assert sum(types.values()) == warehouse.one("SELECT count(*) FROM current.sends")
    unresolved = warehouse.column(f"SELECT DISTINCT s.properties->>'$message' FROM {sends} WHERE m.is_placeholder")
    served = {each for campaign, messages in campaigns_of(box) for each in (campaign["id"], *messages)}
    assert unresolved and not served & set(unresolved)


def test_legacy_rows_are_a_subset(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    """The legacy dialect may lack rows, but never has a row that the current dialect does not have."""
    for table in SPECIFIED:
        same = " AND ".join(f'c."{name}" = l."{name}"' for name in table.primary_key)
        in_current = f"EXISTS (SELECT FROM current.{table.name} c WHERE {same})"
        assert warehouse.one(f"SELECT count(*) FROM legacy.{table.name} l WHERE NOT {in_current}") == 0, table.name


def test_legacy_stores_the_consent_of_everyone_with_one(both: dict[str, Warehouse], warehouse: Warehouse) -> None:
    of_members = warehouse.rows("SELECT id, 'email', consent FROM legacy.members WHERE consent IS NOT NULL ORDER BY 1")
    stored = warehouse.rows("SELECT member_id, channel, consent FROM legacy.member_consents ORDER BY 1, 2")
    assert stored == of_members != []


def test_legacy_stores_each_event_once(both: dict[str, Warehouse], warehouse: Warehouse, box: Sandbox) -> None:
    """Read in the legacy dialect, the seven event tables hold each event of the account exactly once."""
    names = ("sends", "bounces", "opens", "clicks", "spams", "unsubscribes", "events")
    stored = warehouse.rows(" UNION ALL ".join(f"SELECT id FROM legacy.{name}" for name in names))
    assert sorted(row[0] for row in stored) == sorted(event["id"] for event in box.events())


def test_a_legacy_rerun_changes_nothing(both: dict[str, Warehouse]) -> None:
    """If nothing has changed at the source, a legacy run inserts and updates no rows."""
    again = both["legacy"].daily()
    assert again.exit_code == 0
    assert again.changed() == {}


def test_events_of_a_crowded_second_are_stored_once(both: dict[str, Warehouse], box: Sandbox) -> None:
    """Of 250 events in the first second of a window, more than fit on a page, each is stored once."""
    metric = next(row["id"] for row in box.state()["metrics"] if row["name"] == "Placed Order")
    when = int(datetime.now(UTC).timestamp()) - 7_200
    ids = box.add_events(*({"metric": metric, "timestamp": when} for _ in range(250)))
    ran = both["legacy"].daily(*ALL_EVENTS, since=datetime.fromtimestamp(when, UTC), metrics=[metric])
    assert ran.exit_code == 0, ran.sentences
    stored = both["legacy"].column("SELECT id FROM events WHERE event_at = to_timestamp(%s)", when)
    assert sorted(stored) == sorted(ids)


def test_legacy_stores_events_whose_metric_is_not_listed(both: dict[str, Warehouse], box: Sandbox) -> None:
    when = int(datetime.now(UTC).timestamp()) - 3_600
    [event_id] = box.add_events({"metric": None, "timestamp": when})
    assert both["legacy"].daily().exit_code == 0
    assert both["legacy"].column("SELECT id FROM events WHERE metric_key IS NULL") == [event_id]


def outcome(warehouse: Warehouse, **settings: Any) -> tuple[int, str]:
    """Run a daily sync, and return its exit code and its message."""
    try:
        ran = warehouse.daily(**settings)
    except KlaviyoPgError as error:
        return error.exit_code, str(error)
    return ran.exit_code, " ".join(ran.sentences)


@pytest.mark.parametrize(
    ("fault", "changes", "code", "message"),
    [
        pytest.param({}, {}, 2, "does not accept the API key", id="wrong key"),
        pytest.param({"status": 429, "retry_after": 1}, {"retry_budget_seconds": 3}, 4, "returned 429", id="429"),
        pytest.param({"status": 500}, {}, 1, "returned 500", id="500"),
        pytest.param(
            {"silent": True}, {"request_timeout_seconds": 0.2}, 1, "no complete response within", id="timeout"
        ),
        pytest.param({"gone": True}, {}, 2, "retired on 2024-06-30. Set KLAVIYO_DIALECT=current", id="410"),
    ],
)
def test_a_failed_legacy_run_never_shows_its_key(
    dialects: dict[str, Warehouse],
    box: Sandbox,
    silent: str,
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, object],
    changes: dict[str, object],
    code: int,
    message: str,
) -> None:
    """A failed legacy run explains why in one sentence and never shows its key, not even in debug logs."""
    changes = {**changes, "klaviyo_api_key": KEY if fault else WRONG_KEY}
    box.add_key(KEY, "*")
    if fault.get("silent"):
        changes["klaviyo_base_url"] = silent
    elif fault.get("gone"):
        box.set_legacy("gone")
    elif fault:
        box.set_faults({"endpoint": "GET /api/v1/metrics", "times": 1000, **fault})
    caplog.set_level(logging.DEBUG, "urllib3")  # by name, since Klaviyo's SDK sets it to WARNING in other tests
    try:
        ended = outcome(dialects["legacy"], warehouse_schema="failing", request_attempts=2, **changes)
    finally:
        box.set_faults()
        box.set_legacy("on")
    assert ended[0] == code, ended
    assert message in ended[1]
    assert "urllib3.connectionpool" in caplog.text
    assert KEY not in caplog.text + ended[1]
    assert WRONG_KEY not in caplog.text + ended[1]
    assert "Traceback" not in caplog.text + ended[1]
