"""Events on their way into seven tables, and what else is learned from them."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.catalogue import events as tables
from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.rows import Events
from transforms.events import Metrics, event_frames

ACCOUNT = "account-1"
NAMES = {
    "sent": "Received Email",
    "bounced": "Bounced Email",
    "opened": "Opened Email",
    "clicked": "Clicked Email",
    "sms": "Clicked SMS",
    "text": "Clicked Text Message",
    "spam": "Marked Email as Spam",
    "off": "Unsubscribed",
    "off email": "Unsubscribed from Email Marketing",
    "off list": "Unsubscribed from List",
    "on list": "Subscribed to List",
    "order": "Placed Order",
    "nameless": None,
}
METRICS = Metrics(NAMES, {each: tables.destination(name) for each, name in NAMES.items()})
EVENT: dict[str, Any] = {**dict.fromkeys(Events._fields), "id": "e1", "at": 1_750_000_000, "properties": "{}"}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def events(*changes: dict[str, Any]) -> Events:
    """Events that differ from a bare one by these fields."""
    rows = [EVENT | change for change in changes]
    return Events(*([row[name] for row in rows] for name in Events._fields))


def frames(*changes: dict[str, Any], metrics: Metrics = METRICS) -> Any:
    return event_frames(events(*changes), metrics, ACCOUNT)


def only(made: Any) -> dict[str, Any]:
    """The one event, whichever table it is in."""
    (frame,) = made.tables.values()
    row: dict[str, Any] = frame.row(0, named=True)
    return row


@pytest.mark.parametrize(
    ("metric_id", "table"),
    [
        pytest.param("sent", "sends", id="Received Email"),
        pytest.param("bounced", "bounces", id="Bounced Email"),
        pytest.param("opened", "opens", id="Opened Email"),
        pytest.param("clicked", "clicks", id="Clicked Email"),
        pytest.param("sms", "clicks", id="Clicked SMS"),
        pytest.param("text", "clicks", id="Clicked Text Message"),
        pytest.param("spam", "spams", id="Marked Email as Spam"),
        pytest.param("off", "unsubscribes", id="Unsubscribed"),
        pytest.param("off email", "unsubscribes", id="Unsubscribed from Email Marketing"),
        pytest.param("off list", "unsubscribes", id="Unsubscribed from List"),
        pytest.param("on list", "events", id="a metric without a table"),
        pytest.param("nameless", "events", id="a metric without a name"),
        pytest.param("unheard of", "events", id="an unknown metric"),
        pytest.param(None, "events", id="no metric"),
    ],
)
def test_an_event_goes_to_the_table_of_its_metric(metric_id: str | None, table: str) -> None:
    """The metric's name decides, by today's name or by an older one; what nobody knows is an event still."""
    made = frames({"metric_id": metric_id})
    assert list(made.tables) == [table]
    assert only(made)["event_name"] == NAMES.get(metric_id or "")


def test_nothing_is_known_of_any_metric() -> None:
    """Before the metrics could be read all events go to events."""
    assert list(frames({"metric_id": "opened"}, {"id": "e2"}, metrics=Metrics({}, {})).tables) == ["events"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([*NAMES, "unheard of", None]))))
def test_an_event_is_in_exactly_one_table(found: list[tuple[str, str | None]]) -> None:
    """However often it was read, and in whatever metric: once in all tables together."""
    made = frames(*({"id": each, "metric_id": metric_id} for each, metric_id in found))
    stored = Counter(each for frame in made.tables.values() for each in frame["id"])
    assert stored == Counter({each for each, _ in found})
    assert all(dict(frame.schema) == loads.EVENTS[name].schema for name, frame in made.tables.items())


def test_every_column_of_an_event() -> None:
    """All that the table promises, from an event that has everything."""
    row = only(
        frames(
            {
                "id": "é1",
                "metric_id": "order",
                "profile_id": "p1",
                "email": "a@example.com",
                "message": "m1",
                "flow": "f1",
                "value": "12.50",
                "value_currency": "EUR",
                "properties": '{"Items":[1]}',
            }
        )
    )
    assert row == {
        "key": md5(f"Klaviyo:{ACCOUNT}:é1"),
        "id": "é1",
        "campaign_key": md5("m1"),
        "automation_key": md5("f1"),
        "member_key": md5("p1"),
        "list_key": None,
        "email": "a@example.com",
        "event_at": datetime.fromtimestamp(1_750_000_000, UTC),
        "metric_key": md5(f"Klaviyo:{ACCOUNT}:order"),
        "event_name": "Placed Order",
        "value": "12.50",
        "value_currency": "EUR",
        "properties": '{"Items":[1]}',
    }


def test_what_an_event_does_not_say_is_null() -> None:
    """Keys of nothing are null, and so are keys of an empty string."""
    row = only(frames({"message": "", "email": ""}))
    assert {name for name, value in row.items() if value is not None} == {"key", "id", "event_at", "properties"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("12.50", "12.50", id="every digit stays"),
        pytest.param(" 5 ", "5", id="spaces"),
        pytest.param("1e3", "1e3", id="exponent"),
        pytest.param("-.5", "-.5", id="no digit before the point"),
        pytest.param(str(2**60 + 1), "1152921504606846977", id="more than a float holds"),
        pytest.param("1e300", "1e300", id="large"),
        pytest.param("0", "0", id="zero"),
        pytest.param("not a number", None, id="words"),
        pytest.param("12 EUR", None, id="words after a number"),
        pytest.param("1e99999", None, id="more than numeric holds"),
        pytest.param("NaN", None, id="not a number, by name"),
        pytest.param("true", None, id="boolean"),
        pytest.param('{"amount":1}', None, id="object"),
        pytest.param("[1]", None, id="list"),
        pytest.param("١٢", None, id="digits that numeric does not know"),
        pytest.param("", None, id="blank"),
        pytest.param(None, None, id="null"),
    ],
)
def test_a_value_is_a_number_or_null(text: str | None, value: str | None) -> None:
    """A value keeps its digits; what is no number is null, and stays in the properties."""
    assert only(frames({"value": text}))["value"] == value


@pytest.mark.parametrize(
    ("seconds", "moment"),
    [
        pytest.param(-62_135_596_800, datetime(1, 1, 1, tzinfo=UTC), id="year 1"),
        pytest.param(-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), id="before 1970"),
        pytest.param(253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), id="year 9999"),
    ],
)
def test_times_of_any_year(seconds: int, moment: datetime) -> None:
    """Unix seconds become a time in UTC, from the year 1 to 9999."""
    assert only(frames({"at": seconds}))["event_at"] == moment


def test_of_an_event_that_was_read_twice_the_last_reading_stays() -> None:
    """Pages overlap while events come in; ids that are one without NUL are one, too."""
    made = frames({"value": "1"}, {"value": "2"}, {"id": "e\x001", "value": "3"})
    assert made.tables["events"].select("id", "value").rows() == [("e1", "3")]
    assert made.nul_characters == 1


def test_a_flow_campaign_spans_its_events_and_is_named_as_in_the_latest() -> None:
    """Earliest and latest event time, and the latest name that is one, in whatever order they were read."""
    sent = {"metric_id": "sent", "message": "m1", "flow": "f1"}
    made = frames(
        sent | {"id": "e2", "at": 200, "campaign_name": "New", "subject": "Hello"},
        sent | {"id": "e3", "at": 300, "metric_id": "opened"},
        sent | {"id": "e1", "at": 100, "campaign_name": "Old", "subject": "Old"},
        {"id": "e4", "at": 400, "message": "bulk", "campaign_name": "No flow"},
        {"id": "e5", "at": 500, "flow": "f1"},
    )
    (row,) = made.flow_campaigns.rows(named=True)
    assert dict(made.flow_campaigns.schema) == loads.FLOW_CAMPAIGNS.schema
    assert {name: value for name, value in row.items() if value is not None} == {
        "key": md5(f"Klaviyo:{ACCOUNT}:m1"),
        "id": "m1",
        "name": "New",
        "automation_key": md5("f1"),
        "subject": "Hello",
        "type": "Campaign",
        "created_at": datetime.fromtimestamp(100, UTC),
        "updated_at": datetime.fromtimestamp(300, UTC),
        "campaign_key": md5("m1"),
    }


@given(st.permutations(range(6)))
def test_flow_campaigns_do_not_depend_on_the_order_of_reading(order: list[int]) -> None:
    """Windows are read side by side, so their pages come in any order."""
    found = [
        {"id": f"e{each}", "at": each, "message": f"m{each % 2}", "flow": "f", "campaign_name": f"n{each}"}
        for each in range(6)
    ]
    straight, shuffled = frames(*found), frames(*(found[each] for each in order))
    assert straight.flow_campaigns.sort("id").equals(shuffled.flow_campaigns.sort("id"))


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        pytest.param({"metric_id": "on list", "list_name": "News"}, [("subscribed", "News")], id="joined"),
        pytest.param({"metric_id": "off list", "list_name": "News"}, [("unsubscribed", "News")], id="left one list"),
        pytest.param({"metric_id": "off"}, [("unsubscribed", None)], id="left all lists"),
        pytest.param({"metric_id": "off email"}, [("unsubscribed", None)], id="left all lists, by the newer name"),
        pytest.param({"metric_id": "opened", "list_name": "News"}, [], id="another metric"),
        pytest.param({"metric_id": "off", "profile_id": None}, [], id="nobody left"),
    ],
)
def test_joining_and_leaving_lists(event: dict[str, Any], changes: list[tuple[str, str | None]]) -> None:
    """Events that tell of lists are noted by person, with the list's name where it has one."""
    made = frames({"profile_id": "p1"} | event).subscription_changes
    assert dict(made.schema) == loads.SUBSCRIPTION_CHANGES.schema
    assert made.select("change", "list_name").rows() == changes
    assert made.select("id", "member_id", "changed_at").rows() == [
        ("e1", "p1", datetime.fromtimestamp(1_750_000_000, UTC)) for _ in changes
    ]


@pytest.mark.parametrize(
    ("metrics", "changes"),
    [
        pytest.param(Metrics({"m": "Unsubscribed"}, {"m": "events"}), ["unsubscribed"], id="stored elsewhere"),
        pytest.param(Metrics({"m": "Bye"}, {"m": "unsubscribes"}), ["unsubscribed"], id="named otherwise"),
        pytest.param(Metrics({"m": "Bye"}, {"m": "events"}), [], id="neither"),
    ],
)
def test_who_has_left_does_not_depend_on_the_users_choice_of_table(metrics: Metrics, changes: list[str]) -> None:
    """Leaving is leaving by the metric's name, or by the table that it was put into."""
    made = frames({"metric_id": "m", "profile_id": "p1"}, metrics=metrics)
    assert made.subscription_changes["change"].to_list() == changes


def test_nul_in_properties_is_taken_out_and_counted() -> None:
    """jsonb refuses an escaped NUL, so it goes and everything else stays."""
    made = frames({"properties": json.dumps({"a\x00": "b\x00\x00", "c": "\\u0000"}), "message": "m\x00"})
    assert json.loads(only(made)["properties"]) == {"a": "b", "c": "\\u0000"}
    assert only(made)["campaign_key"] == md5("m")
    assert made.nul_characters == 4


def test_no_events_are_no_rows() -> None:
    """An empty page has no tables, and empty frames of the right shape beside."""
    made = frames()
    assert made.tables == {}
    assert made.flow_campaigns.is_empty() and made.subscription_changes.is_empty()
    assert dict(made.flow_campaigns.schema) == loads.FLOW_CAMPAIGNS.schema
