"""The results of queries of docs/recipes.md over rows written by hand."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import md5
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from benchmarks.recipes import recipes
from klaviyo_pg.catalogue import loads
from tests.integration.conftest import Merge

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def connection(connection: psycopg.Connection) -> psycopg.Connection:
    """Return a connection to a warehouse of the account `one`."""
    connection.execute("INSERT INTO integrations (name, esp_integration_id) VALUES ('one', 'one')")
    return connection


def answer(connection: psycopg.Connection, number: int) -> list[dict[str, object]]:
    """Return the rows of a recipe, by column."""
    [query] = (query for title, query in recipes() if title.startswith(f"{number}. "))
    cursor = connection.execute(query.encode())
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_people_leave_a_list_no_earlier_than_they_join_it(connection: psycopg.Connection, merged: Merge) -> None:
    """A suppression for a list can be older than the last time that the person joined."""
    merged(loads.LISTS, {"key": "k", "id": "L", "name": "News"})
    connection.execute(
        "INSERT INTO member_lists (key, id, list_id, member_id, joined_at, unsubscribed_at, esp_integration_id)"
        " VALUES ('ann', 'ann', 'L', 'ann', %s, %s, 'one')",
        [DAY, DAY - timedelta(days=60)],
    )
    week = datetime(2026, 2, 23, tzinfo=UTC).date()
    [growth] = answer(connection, 9)
    assert growth == {"account": "one", "list": "News", "week": week, "joined": 1, "has_left": 1, "on_list": 0}


def store(
    connection: psycopg.Connection, table: str, person: str, at: datetime, campaign: str = "C", **columns: object
) -> None:
    """Store an event of a person and a campaign in an event table."""
    values = {"event_at": at, "campaign_key": campaign, "member_key": person, "esp_integration_id": "one", **columns}
    id_ = f"{table}:{sorted(values.items())}"
    connection.execute(
        SQL("INSERT INTO {} ({}) VALUES (md5(%s), %s, {})").format(
            Identifier(table),
            SQL(", ").join(map(Identifier, ["key", "id", *values])),
            SQL(", ").join(SQL("%s") for _ in values),
        ),
        [id_, id_, *values.values()],
    )


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param({"is_machine_open": True, "is_bot_click": True}, id="dropped, erased or with another name"),
        pytest.param({"properties": '{"machine_open": true, "Bot Click": true}'}, id="of an earlier version"),
    ],
)
def test_machines_and_bots_are_no_people(connection: psycopg.Connection, merged: Merge, flags: dict[str, Any]) -> None:
    """They neither open nor click: Ann has not looked at any of her messages."""
    merged(loads.CAMPAIGNS, {"key": "k", "id": "C", "campaign_key": "C", "name": "Sale"})
    merged(loads.METRICS, {"key": "m", "id": "m", "name": "Placed Order", "destination": "events"})
    merged(loads.MEMBERS, {"key": "ann", "id": "ann", "member_key": md5(b"ann").hexdigest(), "email": "ann@a.example"})
    connection.execute(
        "INSERT INTO member_lists (key, id, list_id, member_id, is_subscribed, esp_integration_id)"
        " VALUES ('ann', 'L:ann', 'L', 'ann', true, 'one')"
    )
    ann = md5(b"ann").hexdigest()
    for days in range(3, 6):
        at = datetime.now(UTC) - timedelta(days=days)
        store(connection, "sends", ann, at)
        store(connection, "opens", ann, at + timedelta(hours=1), **flags)
        store(connection, "clicks", ann, at + timedelta(hours=1), **flags)
    store(connection, "events", ann, datetime.now(UTC) - timedelta(days=1), metric_key="m")
    [campaign] = answer(connection, 1)
    assert (campaign["recipients"], campaign["open_percent"], campaign["click_percent"]) == (1, 0, 0)
    assert [answer(connection, number) for number in (4, 6)] == [[], []]
    assert answer(connection, 5) == [{"hours_to_open_quartiles": None}]
    assert answer(connection, 12) == [{"last_activity": "5 never", "people": 1}]
    assert [row["received"] for row in answer(connection, 13)] == [3]
    assert not {row["event_name"] for row in answer(connection, 19)} & {"Clicked Email", "Opened Email"}


def test_shares_of_a_campaign_are_of_all_its_recipients(connection: psycopg.Connection, merged: Merge) -> None:
    """One that was sent across the beginning of the 90 days is left out; one that was sent over two hours is whole."""
    merged(loads.CAMPAIGNS, *({"key": each, "id": each, "campaign_key": each, "name": each} for each in ("old", "new")))
    merged(loads.METRICS, {"key": "m", "id": "m", "name": "Placed Order", "destination": "events"})
    for name, began in (("old", timedelta(days=90, hours=1)), ("new", timedelta(days=80))):
        first = datetime.now(UTC) - began
        for number in range(100):
            at = first + timedelta(hours=2 * (number >= 95))
            store(connection, "sends", f"p{number}", at, name)
            if number < 30:
                store(connection, "opens", f"p{number}", at + timedelta(days=1), name, is_machine_open=False)
        order = {"key": f"order {name}", "event_at": first + timedelta(days=2)}
        merged(loads.EVENTS["events"], {**order, "id": name, "metric_key": "m", "value": "50", "value_currency": "EUR"})
        attribution = {"event_key": order["key"], "event_at": order["event_at"], "campaign_key": name}
        merged(loads.EVENT_ATTRIBUTIONS, {"key": name, "id": name, **attribution})
    [campaign] = answer(connection, 1)
    assert (campaign["campaign"], campaign["recipients"], campaign["open_percent"]) == ("new", 100, 30)
    [earned] = answer(connection, 2)
    assert (earned["campaign_name"], earned["recipients"], earned["revenue_per_recipient"]) == ("new", 100, 0.5)


def test_variations_are_those_of_the_events(connection: psycopg.Connection, merged: Merge) -> None:
    """Of one message, of the campaign as a whole, or messages. Another channel of a campaign is no variation."""
    sent: dict[str, list[tuple[str, str | None]]] = {  # the messages and variations of each campaign
        "one message": [("M", "A"), ("M", "B")],
        "campaign": [("campaign", "A"), ("campaign", "B")],
        "messages": [("V1", None), ("V2", None)],
        "two channels": [("EMAIL", None)],
    }
    for name in sent:
        merged(loads.CAMPAIGNS, {"key": name, "id": name, "campaign_key": name, "name": name})
    messages = [("M", "one message"), ("V1", "messages"), ("V2", "messages")]
    messages += [("EMAIL", "two channels"), ("SMS", "two channels")]
    for message, name in messages:
        ids = {"key": message, "id": message, "message_key": message, "campaign_id": name, "campaign_key": name}
        merged(loads.CAMPAIGN_MESSAGES, ids)
    at = datetime.now(UTC) - timedelta(days=1)
    for variations in sent.values():
        for number, (message, variation) in enumerate(variations):
            for person in range(4):
                store(connection, "sends", f"p{number}{person}", at, message, variation=variation)
            store(connection, "opens", f"p{number}0", at, message, variation=variation, is_machine_open=False)
    rows = [
        (row["campaign"], row["variation"], row["recipients"], row["open_percent"]) for row in answer(connection, 3)
    ]
    assert sorted(rows, key=str) == [
        *(("campaign", each, 4, 25) for each in ("A", "B")),
        *(("messages", each, 4, 25) for each in ("V1", "V2")),
        *(("one message", each, 4, 25) for each in ("A", "B")),
    ]


def test_a_consent_that_is_not_known_is_a_status(connection: psycopg.Connection, merged: Merge) -> None:
    merged(loads.LISTS, {"key": "k", "id": "L", "name": "News"})
    for person, status in {
        "ann": (True, None),
        "bob": (False, None),
        "cem": (None, None),
        "dee": (False, "event"),
    }.items():
        connection.execute(
            "INSERT INTO member_lists (key, id, list_id, member_id, is_subscribed, left_reason, esp_integration_id)"
            " VALUES (%s, %s, 'L', %s, %s, %s, 'one')",
            [person, person, person, *status],
        )
    found = {row["status"]: row["people"] for row in answer(connection, 10)}
    assert found == {"subscribed": 1, "not subscribed": 1, "unknown": 1, "event": 1}


def test_clicks_of_a_flow_are_those_of_its_emails_in_the_time(connection: psycopg.Connection, merged: Merge) -> None:
    """Ann received hers before the 90 days."""
    merged(loads.AUTOMATIONS, {"key": "F", "id": "F", "automation_key": "F", "name": "Welcome"})
    now = datetime.now(UTC)
    for person, days in (("ann", 91), ("bob", 10), ("cem", 10)):
        store(connection, "sends", person, now - timedelta(days=days), "M", automation_key="F")
    for person in ("ann", "bob"):
        store(connection, "clicks", person, now - timedelta(days=5), "M", automation_key="F", is_bot_click=False)
    [message] = answer(connection, 7)
    assert (message["sends"], message["clicks"], message["clicks_per_100_sends"]) == (2, 1, 50)


def test_who_joins_again_without_an_event_joins_a_list_in_the_week_of_the_second_time(
    connection: psycopg.Connection, merged: Merge
) -> None:
    merged(loads.LISTS, {"key": "k", "id": "L", "name": "News"})
    connection.execute(
        "INSERT INTO member_lists (key, id, list_id, member_id, subscribed, joined_at, esp_integration_id)"
        " VALUES ('ann', 'L:ann', 'L', 'ann', %s, %s, 'one')",
        [DAY - timedelta(days=700), DAY],
    )
    week = datetime(2026, 2, 23, tzinfo=UTC).date()
    [growth] = answer(connection, 9)
    assert growth == {"account": "one", "list": "News", "week": week, "joined": 1, "has_left": 0, "on_list": 1}


def test_a_list_grows_by_members_whose_last_joining_is_not_derived_yet(
    connection: psycopg.Connection, merged: Merge
) -> None:
    """Rows of an earlier version have no `joined_at` until the next daily run."""
    merged(loads.LISTS, {"key": "k", "id": "L", "name": "News"})
    connection.execute(
        "INSERT INTO member_lists (key, id, list_id, member_id, subscribed, unsubscribed_at, esp_integration_id)"
        " VALUES ('ann', 'L:ann', 'L', 'ann', %s, %s, 'one')",
        [DAY, DAY - timedelta(days=60)],
    )
    week = datetime(2026, 2, 23, tzinfo=UTC).date()
    [growth] = answer(connection, 9)
    assert growth == {"account": "one", "list": "News", "week": week, "joined": 1, "has_left": 1, "on_list": 0}


def test_clicks_of_an_account_have_an_hour_whatever_its_time_zone(
    connection: psycopg.Connection, merged: Merge
) -> None:
    """The database does not have the time zone of the account `one`."""
    zones = {"one": "No/Such_Zone", "two": "US/Eastern", "three": None}
    for name, zone in zones.items():
        named = "INSERT INTO integrations (name, esp_integration_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"
        connection.execute(named, [name, name])
        merged(loads.ACCOUNTS, {"key": name, "id": name, "timezone": zone}, integration_id=name)
        merged(loads.EVENTS["clicks"], {"key": name, "id": name, "event_at": DAY}, integration_id=name)
    hours = {row["account"]: row["hour"] for row in answer(connection, 6)}
    assert hours == {"one": 12, "two": 7, "three": 12}


def test_an_order_counts_once_for_a_tag_of_two_campaigns(connection: psycopg.Connection, merged: Merge) -> None:
    """It counts for each tag, and both campaigns count."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    merged(loads.METRICS, {"key": "m", "id": "m", "name": "Placed Order", "destination": "events"})
    order = {"key": "o", "id": "o", "event_at": yesterday, "metric_key": "m", "value": "100", "value_currency": "EUR"}
    merged(loads.EVENTS["events"], order)
    merged(loads.CAMPAIGNS, *({"key": each, "id": each, "campaign_key": f"{each} key"} for each in ("c1", "c2")))
    merged(loads.TAGS, {"key": "t", "id": "t", "name": "sale"}, {"key": "u", "id": "u", "name": "summer"})
    tagged = [("t", "c1"), ("t", "c2"), ("u", "c2")]
    merged(
        loads.TAGGED_OBJECTS,
        *(
            {"key": tag + at, "id": tag + at, "tag_key": tag, "object_type": "campaign", "object_key": at}
            for tag, at in tagged
        ),
    )
    attributions = [("a", "c1"), ("b", "c2"), ("d", "c2")]
    merged(
        loads.EVENT_ATTRIBUTIONS,
        *(
            {"key": key, "id": key, "event_key": "o", "event_at": yesterday, "campaign_key": f"{at} key"}
            for key, at in attributions
        ),
    )
    earned = sorted(answer(connection, 20), key=lambda row: str(row["tag"]))
    revenue = {"account": "one", "value_currency": "EUR", "revenue": Decimal(100)}
    assert earned == [{"tag": "sale", "campaigns": 2, **revenue}, {"tag": "summer", "campaigns": 1, **revenue}]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 8, 9, 10, 11, 13, 17, 20])
def test_rows_of_one_thing_name_its_account(connection: psycopg.Connection, number: int) -> None:
    [query] = (query for title, query in recipes() if title.startswith(f"{number}. "))
    columns = connection.execute(query.encode()).description
    assert columns
    assert columns[0].name == "account"
