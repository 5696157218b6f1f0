"""The views of docs/marts.md over rows written by hand: several accounts, tables left out, changes after the fact.

tests/integration/sandbox/test_dialects.py compares them with a whole account.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from pathlib import Path

import psycopg
import pytest

from tests.driver import ROOT

BLOCKS = re.findall(
    r"```(?:sql|psql)\n(.*?)```", (Path(__file__).parents[2] / "docs" / "marts.md").read_text("utf-8"), re.DOTALL
)
DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
_EVENT = """
INSERT INTO klaviyo.{} (key, id, esp_source, esp_integration_id, event_at, campaign_key, member_key, email, properties)
VALUES (md5('Klaviyo:' || %(account)s || ':' || %(id)s), %(id)s, 'Klaviyo', %(account)s, %(at)s, md5('C1'),
    md5(%(person)s), %(person)s || '@' || %(account)s || '.example', jsonb_build_object('machine_open', false))
"""


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """Two accounts with the same IDs of campaigns and people."""
    with psycopg.connect(database, autocommit=True) as connection:
        for account in ("one", "two"):
            connection.execute(
                "INSERT INTO klaviyo.integrations (name, esp_integration_id) VALUES (%s || '-shop', %s)",
                [account, account],
            )
            add(connection, "sends", account, "S1", "ann")
            add(connection, "opens", account, "O1", "ann")
        add(connection, "sends", "two", "S2", "bob")
        yield connection


def add(
    connection: psycopg.Connection, table: str, account: str, event_id: str, person: str, at: datetime = DAY
) -> None:
    values = {"account": account, "id": event_id, "person": person, "at": at}
    connection.execute(_EVENT.format(table), values)


def rows(connection: psycopg.Connection, query: str) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


CAMPAIGNS = (
    "SELECT integration, campaign_id, recipients, opens, unique_opens FROM klaviyo.campaign_performance ORDER BY 1"
)
PEOPLE = "SELECT integration, member_id, sends, opens FROM klaviyo.member_engagement ORDER BY 1, sends, opens"
DOMAINS = "SELECT integration, day, domain, sends, opens FROM klaviyo.deliverability ORDER BY 1, 2, 3"


def test_accounts_never_mix(connection: psycopg.Connection) -> None:
    """Although their campaigns and people have the same IDs, and without any row in the tables of dimensions."""
    assert rows(connection, CAMPAIGNS) == [("one-shop", None, 1, 1, 1), ("two-shop", None, 2, 1, 1)]
    assert rows(connection, PEOPLE) == [
        ("one-shop", None, 1, 1),
        ("two-shop", None, 1, 0),
        ("two-shop", None, 1, 1),
    ]
    assert rows(connection, DOMAINS) == [
        ("one-shop", DAY.date(), "one.example", 1, 1),
        ("two-shop", DAY.date(), "two.example", 2, 1),
    ]
    connection.execute(
        "INSERT INTO klaviyo.campaigns (key, id, campaign_key, esp_integration_id) VALUES ('k', 'C1', md5('C1'), 'two')"
    )
    assert rows(connection, CAMPAIGNS) == [("one-shop", None, 1, 1, 1), ("two-shop", "C1", 2, 1, 1)]


def test_changes_count_at_once(connection: psycopg.Connection) -> None:
    """Late events, deleted events, and people who are erased: their events count, and they do not."""
    add(connection, "opens", "one", "O2", "bob", DAY - timedelta(days=400))
    assert rows(connection, CAMPAIGNS)[0] == ("one-shop", None, 1, 2, 2)
    assert rows(connection, DOMAINS)[0] == ("one-shop", (DAY - timedelta(days=400)).date(), "one.example", 0, 1)
    connection.execute("UPDATE klaviyo.opens SET member_key = NULL, email = NULL, properties = NULL WHERE id = 'O1'")
    assert rows(connection, CAMPAIGNS) == [("one-shop", None, 1, 2, 1), ("two-shop", None, 2, 1, 0)]
    assert ("one-shop", DAY.date(), None, 0, 1) in rows(connection, DOMAINS)
    connection.execute("DELETE FROM klaviyo.opens")
    assert rows(connection, CAMPAIGNS) == [("one-shop", None, 1, 0, 0), ("two-shop", None, 2, 0, 0)]


def test_a_message_that_is_sent_many_times_has_each_person_once(connection: psycopg.Connection) -> None:
    """Ann has got it three times, and Bob's bounced: both are recipients. Erased people are left out."""
    add(connection, "sends", "one", "S3", "ann", DAY + timedelta(days=1))
    add(connection, "sends", "one", "S4", "ann", DAY + timedelta(days=2))
    add(connection, "bounces", "one", "B1", "bob")
    add(connection, "sends", "one", "S5", "cem")
    connection.execute("UPDATE klaviyo.sends SET member_key = NULL WHERE id = 'S5'")
    numbers = "SELECT recipients, unique_recipients, unique_opens FROM klaviyo.{} WHERE integration = 'one-shop'"
    assert rows(connection, numbers.format("campaign_performance")) == [(5, 2, 1)]
    for table in ("sends", "opens", "bounces"):
        connection.execute(f"UPDATE klaviyo.{table} SET automation_key = md5('F1')")
    assert rows(connection, numbers.format("flow_performance")) == [(5, 2, 1)]


def test_orders_of_the_future_are_not_recent(connection: psycopg.Connection) -> None:
    """They count, as bookings can, but not within the last 30 or 90 days."""
    connection.execute(
        "INSERT INTO klaviyo.metrics (key, id, name, destination, esp_integration_id)"
        " VALUES ('m', 'm', 'Placed Order', 'events', 'one')"
    )
    now = datetime.now(UTC)
    for days in (-200, -60, -5, 200):
        add(connection, "events", "one", f"O{days}", "zoe", now + timedelta(days=days))
    connection.execute("UPDATE klaviyo.events SET metric_key = 'm'")
    numbers = "SELECT orders, orders_30_days, orders_90_days, last_order_at > now() FROM klaviyo.member_engagement"
    assert rows(connection, f"{numbers} WHERE orders > 0") == [(4, 1, 2, True)]


def test_revenue_of_a_person_is_that_of_all_orders_in_each_currency(connection: psycopg.Connection) -> None:
    """Zoe has paid in two currencies and once in an unknown one; Ann once, without a value."""
    connection.execute(
        "INSERT INTO klaviyo.metrics (key, id, name, destination, esp_integration_id)"
        " VALUES ('m', 'm', 'Placed Order', 'events', 'one')"
    )
    orders = [("bob", 2.5, "EUR"), ("bob", 1, "EUR"), ("zoe", 3, "EUR"), ("zoe", 4, "USD"), ("zoe", 5, None)]
    for at, (person, value, currency) in enumerate([*orders, ("ann", None, "EUR")]):
        add(connection, "events", "one", f"O{at}", person)
        connection.execute(
            "UPDATE klaviyo.events SET metric_key = 'm', value = %s, value_currency = %s WHERE id = %s",
            [value, currency, f"O{at}"],
        )
    revenue = "SELECT orders, revenue, revenue_currency, revenue_by_currency FROM klaviyo.member_engagement"
    assert rows(connection, f"{revenue} WHERE integration = 'one-shop' ORDER BY 1") == [
        (1, None, "EUR", {"EUR": 0}),
        (2, Decimal("3.5"), "EUR", {"EUR": 3.5}),
        (3, None, None, {"EUR": 3, "USD": 4, "unknown": 5}),
    ]
    assert rows(connection, f"{revenue} WHERE integration = 'two-shop' ORDER BY sends") == [(0, None, None, None)] * 2


def shown_by_panel(connection: psycopg.Connection, title: str, now: datetime) -> list[tuple[object, ...]]:
    """Return the rows of a panel of the dashboard for the account `one` and the last 30 days."""
    panels = json.loads((ROOT / "grafana" / "dashboards" / "klaviyo.json").read_text("utf-8"))["panels"]
    [panel] = (each for each in panels if each["title"] == title)
    query = panel["targets"][0]["rawSql"].replace("${account:sqlstring}", "'one'")
    start = now - timedelta(days=30)
    query = query.replace("$__timeFilter(sent_at)", "sent_at BETWEEN $__timeFrom() AND $__timeTo()")
    return rows(
        connection, query.replace("$__timeFrom()", f"'{start:%FT%TZ}'").replace("$__timeTo()", f"'{now:%FT%TZ}'")
    )


def test_the_first_campaign_is_shown_and_one_before_the_history_is_not(connection: psycopg.Connection) -> None:
    """The first email of a campaign arrives after the time at which it was sent."""
    now = datetime.now(UTC)
    first = now - timedelta(days=20)
    connection.execute(
        "INSERT INTO klaviyo.metrics (key, id, name, destination, esp_integration_id)"
        " VALUES ('m', 'm', 'Received Email', 'sends', 'one')"
    )
    for campaign, before in (("first", timedelta(seconds=40)), ("earlier", timedelta(minutes=30))):
        connection.execute(
            "INSERT INTO klaviyo.campaigns (key, id, campaign_key, name, sent_at, esp_integration_id)"
            " VALUES (%s, %s, %s, %s, %s, 'one')",
            [campaign, campaign, campaign, campaign, first - before],
        )
        add(connection, "sends", "one", campaign, "ann", first)
        connection.execute("UPDATE klaviyo.sends SET metric_key = 'm', campaign_key = %s WHERE id = %s", [campaign] * 2)
    assert [row[1] for row in shown_by_panel(connection, "Campaigns sent", now)] == ["first"]
    assert [row[0] for row in rows(connection, BLOCKS[0])] == ["first"]


def test_the_share_of_complaints_is_that_of_a_week(connection: psycopg.Connection) -> None:
    """Three people complain two days late, on a day with one send."""
    for number in range(98):
        add(connection, "sends", "one", f"N{number}", "bob", DAY)
    add(connection, "sends", "one", "N99", "bob", DAY + timedelta(days=2))
    for number in range(3):
        add(connection, "spams", "one", f"C{number}", "bob", DAY + timedelta(days=2))
    shown = shown_by_panel(connection, "Emails that bounced or were marked as spam", DAY + timedelta(days=20))
    assert [float(str(spam)) for _, _, spam in shown] == [0, 3]


def test_the_dashboard_shows_the_day_of_an_account_east_of_utc(connection: psycopg.Connection) -> None:
    """At 14:00 UTC, it is tomorrow in Sydney."""
    in_zone(connection, "one", "Australia/Sydney")
    now = datetime(2026, 3, 10, 14, tzinfo=UTC)
    add(connection, "sends", "one", "S3", "ann", now - timedelta(minutes=1))
    shown = shown_by_panel(connection, "Emails that bounced or were marked as spam", now)
    assert [str(day)[:10] for day, *_ in shown] == ["2026-03-01", "2026-03-11"]
    [domain] = shown_by_panel(connection, "Deliverability by mail provider", now)
    assert domain[:2] == ("one.example", 2)


def in_zone(connection: psycopg.Connection, account: str, zone: str | None) -> None:
    connection.execute(
        "INSERT INTO klaviyo.accounts (key, id, timezone, esp_integration_id) VALUES (%s, %s, %s, %s)",
        [account, account, zone, account],
    )


@pytest.mark.parametrize("zone", [None, "UTC", "No/Such_Zone"])
def test_days_are_those_of_utc_whatever_the_session_s_time_zone(
    connection: psycopg.Connection, zone: str | None
) -> None:
    """The account's time zone is not known, or Postgres does not have it."""
    in_zone(connection, "one", zone)
    add(connection, "sends", "one", "S3", "ann", datetime(2026, 3, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    add(connection, "sends", "one", "S4", "ann", datetime(2026, 3, 30, tzinfo=UTC))
    connection.execute("SET TimeZone = 'America/New_York'")
    days = "SELECT day::text, sends FROM klaviyo.deliverability WHERE esp_integration_id = 'one' ORDER BY 1"
    assert rows(connection, days) == [("2026-03-01", 1), ("2026-03-29", 1), ("2026-03-30", 1)]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("US/Eastern", "America/New_York"), ("Asia/Tokyo", "Asia/Tokyo"), ("No/Such_Zone", "UTC"), (None, "UTC")],
)
def test_each_account_has_a_time_zone_that_queries_can_use(
    connection: psycopg.Connection, zone: str | None, expected: str
) -> None:
    """A renamed zone has its current name: not every database has the old one."""
    in_zone(connection, "one", zone)
    zones = "SELECT integration, account_timezone, timezone FROM klaviyo.account_time_zones ORDER BY 1"
    assert rows(connection, zones) == [("one-shop", zone, expected), ("two-shop", None, "UTC")]


def test_days_are_those_of_the_account_s_time_zone(connection: psycopg.Connection) -> None:
    """Also the 23 hours of the day on which the clocks change, and although another account has other days."""
    in_zone(connection, "one", "Europe/Berlin")
    in_zone(connection, "two", "America/Los_Angeles")
    edges = (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))  # of 29 March in Berlin
    moments = [edge + timedelta(microseconds=each) for edge in edges for each in (-1, 0)]
    for account in ("one", "two"):
        for at, moment in enumerate(moments):
            add(connection, "spams", account, f"C{at}", "ann", moment)
            connection.execute(
                "INSERT INTO klaviyo.member_lists (key, id, list_id, member_id, subscribed, esp_integration_id)"
                " VALUES (%s, %s, 'L', %s, %s, %s)",
                [f"{account}{at}", f"L:P{at}", f"P{at}", moment, account],
            )
    days = {
        "one": [("2026-03-28", 1), ("2026-03-29", 2), ("2026-03-30", 1)],
        "two": [("2026-03-28", 2), ("2026-03-29", 2)],
    }
    for account, expected in days.items():
        for numbers in ("complaints FROM klaviyo.deliverability", "people_joined FROM klaviyo.list_growth"):
            query = (
                f"SELECT day::text, {numbers} WHERE esp_integration_id = '{account}' AND day > '2026-03-02' ORDER BY 1"
            )
            assert rows(connection, query) == expected, (account, numbers)


def test_people_leave_a_list_no_earlier_than_they_join_it(connection: psycopg.Connection) -> None:
    """A suppression for a list can be older than the last time that the person joined."""
    for person, subscribed in (("ann", DAY), ("bob", DAY), ("cem", None)):
        connection.execute(
            "INSERT INTO klaviyo.member_lists"
            " (key, id, list_id, member_id, subscribed, unsubscribed_at, esp_integration_id)"
            " VALUES (%(person)s, %(person)s, 'L', %(person)s, %(subscribed)s, %(left)s, 'one')",
            {"person": person, "subscribed": subscribed, "left": None if person == "bob" else DAY - timedelta(days=60)},
        )
    days = "SELECT day::text, people_joined, people_left, people_on_list FROM klaviyo.list_growth ORDER BY day"
    assert rows(connection, days) == [("2025-12-31", 0, 1, 0), ("2026-03-01", 2, 1, 1)]


def test_who_joins_again_without_an_event_counts_on_the_day_of_the_second_time(connection: psycopg.Connection) -> None:
    """As after an import. `subscribed` is the time of the event of the first time; Bob's is the second one."""
    again = DAY + timedelta(days=30)
    for person, subscribed in (("ann", DAY), ("bob", again)):
        connection.execute(
            "INSERT INTO klaviyo.member_lists (key, id, list_id, member_id, subscribed, joined_at, esp_integration_id)"
            " VALUES (%(person)s, 'L:' || %(person)s, 'L', %(person)s, %(subscribed)s, %(joined)s, 'one')",
            {"person": person, "subscribed": subscribed, "joined": again},
        )
    days = "SELECT day::text, people_joined, people_left, people_on_list FROM klaviyo.list_growth ORDER BY day"
    assert rows(connection, days) == [("2026-03-31", 2, 0, 2)]


def test_text_messages_in_the_tables_of_emails_are_no_emails(connection: psycopg.Connection) -> None:
    """They count for their campaign. Those that could not be delivered are attempts."""
    add(connection, "sends", "one", "T1", "ann")
    connection.execute("UPDATE klaviyo.sends SET channel = 'sms' WHERE id = 'T1'")
    connection.execute("UPDATE klaviyo.sends SET channel = 'email' WHERE id = 'S1'")
    for name in ("Failed to Deliver SMS", "Failed to Deliver Text Message"):
        add(connection, "events", "one", name, "ann")
        connection.execute("UPDATE klaviyo.events SET event_name = id, metric_key = key WHERE id = %s", [name])
        connection.execute(
            "INSERT INTO klaviyo.metrics (key, id, name, esp_integration_id)"
            " SELECT metric_key, id, id, 'one' FROM klaviyo.events WHERE id = %s",
            [name],
        )
    campaign = "SELECT recipients, delivered, bounces FROM klaviyo.campaign_performance WHERE integration = 'one-shop'"
    assert rows(connection, campaign) == [(4, 2, 2)]
    assert rows(connection, PEOPLE)[0] == ("one-shop", None, 1, 1)
    assert rows(connection, DOMAINS)[0] == ("one-shop", DAY.date(), "one.example", 1, 1)


def test_machines_and_bots_are_known_by_column_or_property(connection: psycopg.Connection) -> None:
    """Events that an earlier version loaded have the property only; those that were erased since, the column only."""
    for at, (column, value) in enumerate(((None, "true"), (None, None), (True, None), (False, None), (False, "true"))):
        add(connection, "opens", "one", f"M{at}", "bob")
        connection.execute(
            "UPDATE klaviyo.opens SET is_machine_open = %s,"
            " properties = jsonb_build_object('machine_open', %s::boolean) WHERE id = %s",
            [column, value, f"M{at}"],
        )
    machines = "SELECT opens, machine_opens FROM klaviyo.{} WHERE integration = 'one-shop'"
    for view in ("campaign_performance", "deliverability"):
        assert rows(connection, machines.format(view)) == [(6, 2)], view


def test_properties_of_earlier_versions_are_read_as_by_the_loader(connection: psycopg.Connection) -> None:
    """By each name, and as text: one of these opens is by a person, and one of these clicks."""
    machines = [{"Machine Open": True}, {"machine_open": False, "Apple Privacy Open": True}, {"machine_open": "True"}]
    for table, named in (("opens", machines), ("clicks", [{"Bot Click": "True"}, {"Bot Click": "no"}])):
        for at, properties in enumerate(named):
            add(connection, table, "one", f"{table}{at}", "bob")
            connection.execute(
                f"UPDATE klaviyo.{table} SET properties = %s WHERE id = %s",
                [json.dumps(properties), f"{table}{at}"],
            )
    numbers = "SELECT opens, machine_opens, clicks, bot_clicks FROM klaviyo.campaign_performance ORDER BY integration"
    assert rows(connection, numbers)[0] == (4, 3, 1, 1)
    assert rows(connection, "SELECT machine_opens FROM klaviyo.deliverability WHERE integration = 'one-shop'") == [(3,)]


def test_the_metric_of_revenue_is_the_mapped_one_or_the_only_placed_order(connection: psycopg.Connection) -> None:
    """Orders of both metrics are attributed to the campaign; the mapped one counts, even if it is a custom metric."""
    for metric in ("Placed Order", "Paid"):
        at = DAY + timedelta(hours=len(metric))
        add(connection, "events", "one", metric, "ann", at)
        key = md5(f"Klaviyo:one:{metric}".encode()).hexdigest()
        connection.execute(
            "INSERT INTO klaviyo.metrics (key, id, name, esp_integration_id) VALUES (%s, %s, %s, 'one')",
            [key, metric, metric],
        )
        connection.execute(
            "UPDATE klaviyo.events SET metric_key = %s, value = %s WHERE key = %s", [key, len(metric), key]
        )
        for each in ("a", "b"):  # attributed twice
            connection.execute(
                "INSERT INTO klaviyo.event_attributions"
                " (key, id, event_key, event_at, campaign_id, campaign_key, esp_integration_id)"
                " VALUES (%s, %s, %s, %s, 'C1', md5('C1'), 'one')",
                [each, each, key, at],
            )
    revenue = "SELECT orders, revenue FROM klaviyo.campaign_performance WHERE integration = 'one-shop'"
    orders = "SELECT sum(orders) FROM klaviyo.member_engagement"
    assert rows(connection, revenue) == [(1, len("Placed Order"))]
    connection.execute(
        "INSERT INTO klaviyo.custom_metrics (key, id, metric_ids, esp_integration_id) VALUES ('c', 'c', %s, 'one')",
        ['["Paid", "Placed Order"]'],
    )
    connection.execute(
        "INSERT INTO klaviyo.mapped_metrics (key, id, custom_metric_key, esp_integration_id)"
        " VALUES ('m', 'revenue', 'c', 'one')"
    )
    assert rows(connection, revenue) == [(2, len("Placed Order") + len("Paid"))]
    assert rows(connection, orders) == [(2,)]
    connection.execute("UPDATE klaviyo.mapped_metrics SET metric_key = md5('Klaviyo:one:Paid')")
    assert rows(connection, revenue) == [(1, len("Paid"))]
    moved = "WITH moved AS (DELETE FROM klaviyo.events WHERE id = 'Paid' RETURNING *) INSERT INTO klaviyo.spams"
    connection.execute(f"{moved} SELECT * FROM moved")
    connection.execute("UPDATE klaviyo.metrics SET destination = 'spams' WHERE id = 'Paid'")
    assert rows(connection, revenue) == [(1, len("Paid"))]  # wherever DESTINATIONS brings its events
    assert rows(connection, orders) == [(1,)]


def test_the_statements_of_the_documentation_run(connection: psycopg.Connection) -> None:
    """Even if the database does not have the time zone of an account."""
    in_zone(connection, "one", "No/Such_Zone")
    assert len(BLOCKS) == 9
    for block in BLOCKS:
        connection.execute(block)
