"""The frames of events for the seven event tables, and the changes that events imply."""

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
from klaviyo_pg.postgres.lines import frame_of
from klaviyo_pg.rows import EventPage, Events, Lines
from transforms.event_lines import EventLines, event_lines
from transforms.events import Metrics, event_frames

ACCOUNT = "account-1"
READ_AT = 1_760_000_000_000_000
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
    "on email": "Subscribed to Email Marketing",
    "order": "Placed Order",
    "nameless": None,
}
METRICS = Metrics(NAMES, {each: tables.destination(name) for each, name in NAMES.items()})
EVENT: dict[str, Any] = {**dict.fromkeys(Events._fields), "id": "e1", "at": 1_750_000_000, "properties": "{}"}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def events(*changes: dict[str, Any]) -> Events:
    """Return events that have only these fields."""
    rows = [EVENT | change for change in changes]
    rows = [{**row, "properties": row["properties"].encode()} for row in rows]
    return Events(*([row[name] for row in rows] for name in Events._fields))


def frames(*changes: dict[str, Any], metrics: Metrics = METRICS) -> Any:
    """Return the frames of events. If the events are usual, their lines have the same rows."""
    made = event_frames(events(*changes), [READ_AT] * len(changes), metrics, ACCOUNT)
    if usual := lines(*changes, metrics=metrics):
        assert {name: rows_of(name, each) for name, each in usual.tables.items()} == {
            name: in_order(frame) for name, frame in made.tables.items()
        }
        assert in_order(usual.flow_campaigns) == in_order(made.flow_campaigns)
        assert in_order(usual.subscription_changes) == in_order(made.subscription_changes)
        for usual_placeholders, placeholders in zip(usual.placeholders, made.placeholders, strict=True):
            assert in_order(usual_placeholders) == in_order(placeholders)
    return made


def lines(*changes: dict[str, Any], metrics: Metrics = METRICS) -> EventLines | None:
    read_at = datetime.fromtimestamp(READ_AT / 1_000_000, UTC)
    return event_lines([EventPage(events(*changes), (), (), read_at)], metrics, ACCOUNT)


def rows_of(table: str, made: Lines) -> Any:
    return in_order(frame_of(loads.EVENTS[table], made))


def in_order(frame: Any) -> tuple[dict[str, Any], list[Any]]:
    return dict(frame.schema), frame.sort(frame.columns[0]).rows()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"metric_id": "order", "value": "12.50", "value_currency": "NOK"},
        {"email": "a@b.c", "profile_id": "P1", "message": "M", "flow": "F", "subject": "Größe\u2028"},
        {"metric_id": "off list", "profile_id": "P1", "list_name": "a\tb"},
        {"at": -62_135_596_800},
        {"value": "no number", "event_name": ""},
    ],
    ids=["plain", "a value", "a flow", "a list", "the year 1", "no value"],
)
def test_usual_events_are_lines(change: dict[str, Any]) -> None:
    """They have the same rows as the frames."""
    event = {"metric_id": "opened", **change}
    assert lines(event) is not None
    frames(event)
    frames(event, {"id": "e2", "metric_id": "sent", "at": 5}, {"id": "e0", "metric_id": "sent", "at": 5})


@pytest.mark.parametrize(
    "change",
    [
        {"metric_id": None},
        {"metric_id": ""},
        {"id": ""},
        {"id": "a\tb"},
        {"email": "a\nb"},
        {"email": "a\rb"},
        {"email": "a\0b"},
        {"email": "\x01"},
        {"email": "\ud800"},
        {"profile_id": "\ud800"},
        {"value": " 5"},
        {"variation": "a\tb"},
        {"email_domain": "a\nb"},
        {"value": "5\0"},
        {"properties": '{"a":"\\u0000"}'},
        {"properties": '{"a":\t1}'},
        {"properties": '{"a":\n1}'},
        {"at": 10**15},
    ],
    ids=str,
)
def test_unusual_events_are_frames(change: dict[str, Any]) -> None:
    """A value that has to be changed or quoted makes no lines."""
    assert lines({"metric_id": "opened", **change}) is None


def test_events_with_the_same_id_are_frames() -> None:
    """The frames know which of them stays."""
    assert lines({"metric_id": "opened"}, {"metric_id": "opened", "at": 5}) is None


def only(result: Any) -> dict[str, Any]:
    """Return the only event, whichever table it is in."""
    (frame,) = result.tables.values()
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
        pytest.param("unseen", "events", id="an unknown metric"),
        pytest.param(None, "events", id="no metric"),
    ],
)
def test_an_event_goes_to_the_table_of_its_metric(metric_id: str | None, table: str) -> None:
    """Current and former names of a metric count. Events of unknown metrics go to the table `events`."""
    result = frames({"metric_id": metric_id})
    assert list(result.tables) == [table]
    assert only(result)["event_name"] == NAMES.get(metric_id or "")


def test_without_metrics_all_events_go_to_events() -> None:
    """This is the case until the metrics have been read."""
    assert list(frames({"metric_id": "opened"}, {"id": "e2"}, metrics=Metrics({}, {})).tables) == ["events"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([*NAMES, "unseen", None]))))
def test_an_event_is_in_exactly_one_table(read: list[tuple[str, str | None]]) -> None:
    """This holds however often an event was read, even with different metrics."""
    result = frames(*({"id": each, "metric_id": metric_id} for each, metric_id in read))
    stored = Counter(each for frame in result.tables.values() for each in frame["id"])
    assert stored == Counter({each for each, _ in read})
    assert all(dict(frame.schema) == loads.EVENTS[name].schema for name, frame in result.tables.items())


def test_all_columns_of_an_event_are_filled() -> None:
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
                "is_machine_open": False,
                "is_bot_click": True,
                "variation": "v1",
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
        "extracted_at": datetime.fromtimestamp(READ_AT / 1_000_000, UTC),
        "is_machine_open": False,
        "is_bot_click": True,
        "variation": "v1",
        "email_domain": "example.com",
        "channel": None,
    }


def test_missing_values_of_an_event_are_null() -> None:
    """The keys of missing values and of empty strings are null, too."""
    row = only(frames({"message": "", "email": ""}))
    present = {name for name, value in row.items() if value is not None}
    assert present == {"key", "id", "event_at", "properties", "extracted_at"}


def test_campaigns_and_flows_that_events_mention_have_placeholders() -> None:
    """A message of a flow has none, because it becomes a flow campaign; nor has what could be an address."""
    sent = [("M1", None), ("M1", None), ("M2", "F1"), ("a@b.example", None), (None, "Ann Smith"), (None, None)]
    made = frames(
        *(
            {"id": f"e{at}", "metric_id": "sent", "message": message, "flow": flow}
            for at, (message, flow) in enumerate(sent)
        )
    ).placeholders
    read_at = datetime.fromtimestamp(READ_AT / 1_000_000, UTC)
    assert made.campaigns.rows(named=True) == [
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:M1"),
            "id": "M1",
            "type": "Campaign",
            "campaign_key": md5("M1"),
            "deleted_at": read_at,
            "is_placeholder": True,
        }
    ]
    assert made.flows.select("id", "automation_key", "deleted_at").rows() == [("F1", md5("F1"), read_at)]


@pytest.mark.parametrize(
    ("email", "said", "domain"),
    [
        pytest.param("a@Example.COM", "other.example", "example.com", id="an address"),
        pytest.param('"a@b"@c.example', None, "c.example", id="two at signs"),
        pytest.param(None, "Gmail.com", "gmail.com", id="no address"),
        pytest.param("ann", "gmail.com", "gmail.com", id="no domain in the address"),
        pytest.param("ann@", "", None, id="an empty domain"),
        pytest.param(None, None, None, id="neither"),
    ],
)
def test_the_domain_is_that_of_the_address(email: str | None, said: str | None, domain: str | None) -> None:
    event = {"metric_id": "opened", "email": email, "email_domain": said}
    assert lines(event) is not None
    assert only(frames(event))["email_domain"] == domain


@pytest.mark.parametrize(
    ("metric_id", "channel"), [("sent", "email"), ("sms", "sms"), ("text", "sms"), ("off list", None), ("order", None)]
)
def test_the_channel_is_that_of_the_metric(metric_id: str, channel: str | None) -> None:
    assert only(frames({"metric_id": metric_id}))["channel"] == channel


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
        pytest.param("١٢", None, id="digits that numeric does not accept"),
        pytest.param("", None, id="blank"),
        pytest.param(None, None, id="null"),
    ],
)
def test_a_value_is_a_number_or_null(text: str | None, value: str | None) -> None:
    """A number keeps its digits. Other values are null, and stay in the properties."""
    assert only(frames({"value": text}))["value"] == value


@pytest.mark.parametrize(
    ("seconds", "moment"),
    [
        pytest.param(-62_135_596_800, datetime(1, 1, 1, tzinfo=UTC), id="year 1"),
        pytest.param(-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), id="before 1970"),
        pytest.param(253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), id="year 9999"),
    ],
)
def test_times_of_all_years_are_stored(seconds: int, moment: datetime) -> None:
    """Unix seconds of the years 1 to 9999 become a time in UTC."""
    assert only(frames({"at": seconds}))["event_at"] == moment


def test_of_an_event_that_was_read_twice_the_last_row_stays() -> None:
    """Pages overlap while new events arrive. Ids that differ only by a NUL are equal."""
    result = frames({"value": "1"}, {"value": "2"}, {"id": "e\x001", "value": "3"})
    assert result.tables["events"].select("id", "value").rows() == [("e1", "3")]
    assert result.nul_characters == 1


def test_a_flow_campaign_spans_its_events_and_is_named_as_in_the_latest() -> None:
    """The times are those of the earliest and the latest event, whatever the order of reading."""
    sent = {"metric_id": "sent", "message": "m1", "flow": "f1"}
    result = frames(
        sent | {"id": "e2", "at": 200, "campaign_name": "New", "subject": "Hello"},
        sent | {"id": "e3", "at": 300, "metric_id": "opened"},
        sent | {"id": "e1", "at": 100, "campaign_name": "Old", "subject": "Old"},
        {"id": "e4", "at": 400, "message": "bulk", "campaign_name": "No flow"},
        {"id": "e5", "at": 500, "flow": "f1"},
    )
    (row,) = result.flow_campaigns.rows(named=True)
    assert dict(result.flow_campaigns.schema) == loads.FLOW_CAMPAIGNS.schema
    assert {name: value for name, value in row.items() if value is not None} == {
        "key": md5(f"Klaviyo:{ACCOUNT}:m1"),
        "id": "m1",
        "name": "New",
        "automation_key": md5("f1"),
        "is_placeholder": False,
        "subject": "Hello",
        "type": "Campaign",
        "created_at": datetime.fromtimestamp(100, UTC),
        "updated_at": datetime.fromtimestamp(300, UTC),
        "campaign_key": md5("m1"),
    }


@given(st.permutations(range(6)))
def test_flow_campaigns_do_not_depend_on_the_order_of_reading(order: list[int]) -> None:
    """Windows are read concurrently, so their pages arrive in any order."""
    read = [
        {"id": f"e{each}", "at": each, "message": f"m{each % 2}", "flow": "f", "campaign_name": f"n{each}"}
        for each in range(6)
    ]
    in_order, shuffled = frames(*read), frames(*(read[each] for each in order))
    assert in_order.flow_campaigns.sort("id").equals(shuffled.flow_campaigns.sort("id"))


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        pytest.param({"metric_id": "on list", "list_name": "News"}, [("subscribed", "News", "list")], id="joined"),
        pytest.param({"metric_id": "on list"}, [("subscribed", None, "list")], id="joined a list without a name"),
        pytest.param({"metric_id": "on email"}, [("subscribed", None, "all")], id="subscribed again"),
        pytest.param({"metric_id": "off list", "list_name": "News"}, [("unsubscribed", "News", "list")], id="left"),
        pytest.param({"metric_id": "off list"}, [("unsubscribed", None, "all")], id="left a list without a name"),
        pytest.param({"metric_id": "off"}, [("unsubscribed", None, "all")], id="left all lists"),
        pytest.param({"metric_id": "off email"}, [("unsubscribed", None, "all")], id="left all lists, newer name"),
        pytest.param({"metric_id": "off", "list_name": "News"}, [("unsubscribed", "News", "all")], id="by an email"),
        pytest.param({"metric_id": "opened", "list_name": "News"}, [], id="another metric"),
        pytest.param({"metric_id": "off", "profile_id": None}, [], id="no person"),
    ],
)
def test_joining_and_leaving_lists_are_subscription_changes(
    event: dict[str, Any], changes: list[tuple[str, str | None, str]]
) -> None:
    """A change has the person, and the name of the list if the event has it."""
    result = frames({"profile_id": "p1"} | event).subscription_changes
    assert dict(result.schema) == loads.SUBSCRIPTION_CHANGES.schema
    assert result.select("change", "list_name", "scope").rows() == changes
    assert result.select("id", "member_id", "changed_at").rows() == [
        ("e1", "p1", datetime.fromtimestamp(1_750_000_000, UTC)) for _ in changes
    ]


@pytest.mark.parametrize(
    ("metrics", "changes"),
    [
        pytest.param(Metrics({"m": "Unsubscribed"}, {"m": "events"}), ["unsubscribed"], id="stored elsewhere"),
        pytest.param(Metrics({"m": "Bye"}, {"m": "unsubscribes"}), ["unsubscribed"], id="named otherwise"),
        pytest.param(Metrics({"m": "Bye"}, {"m": "events"}), [], id="neither"),
        pytest.param(Metrics({}, {"m": "unsubscribes"}), ["unsubscribed"], id="without a name"),
        pytest.param(Metrics({"m": "Unsubscribed from SMS Marketing"}, {"m": "unsubscribes"}), [], id="from SMS"),
        pytest.param(Metrics({"m": "Opened Push"}, {"m": "unsubscribes"}), [], id="push"),
    ],
)
def test_unsubscribes_do_not_depend_on_the_table_that_the_user_chose(metrics: Metrics, changes: list[str]) -> None:
    """The name of the metric or its table marks an event as an unsubscribe, but not one from another channel."""
    result = frames({"metric_id": "m", "profile_id": "p1"}, metrics=metrics)
    assert result.subscription_changes["change"].to_list() == changes


def test_nul_in_properties_is_removed_and_counted() -> None:
    """jsonb refuses an escaped NUL. Everything else stays."""
    result = frames({"properties": json.dumps({"a\x00": "b\x00\x00", "c": "\\u0000"}), "message": "m\x00"})
    assert json.loads(only(result)["properties"]) == {"a": "b", "c": "\\u0000"}
    assert only(result)["campaign_key"] == md5("m")
    assert result.nul_characters == 4


def test_no_events_make_empty_frames() -> None:
    """There are no event tables, and the other frames have the schema of their loads."""
    result = frames()
    assert result.tables == {}
    assert result.flow_campaigns.is_empty() and result.subscription_changes.is_empty()
    assert dict(result.flow_campaigns.schema) == loads.FLOW_CAMPAIGNS.schema
