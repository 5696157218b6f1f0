"""The timelines of v1 return every event once and in order, wherever a reader starts."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.account.ids import event_uuid, index_of_event_uuid
from sandbox.account.timeline import ADDED, NOBODY, Window

TIMELINE = "v1/metrics/timeline"


def seconds(events: list[dict[str, Any]]) -> list[int]:
    return [event["timestamp"] for event in events]


def ids(events: Any) -> list[str]:
    return [event["id"] for event in events]


def test_ascending_pages_contain_every_event_once(shared: Any) -> None:
    """The oldest event comes first, and events in the future are included."""
    timeline = shared.account.timeline
    events = list(shared.timeline(TIMELINE))
    assert Counter(ids(events)) == Counter(timeline.id(ref) for ref in timeline.every())
    assert seconds(events) == sorted(seconds(events))
    assert max(seconds(events)) > shared.state.now()


def test_descending_pages_start_now_by_default(shared: Any) -> None:
    """Without `since`, the newest event comes first, and events in the future are left out."""
    events = list(shared.timeline(TIMELINE, None, sort="desc"))
    assert seconds(events) == sorted(seconds(events), reverse=True)
    happened = [event for event in shared.timeline(TIMELINE) if event["timestamp"] <= shared.state.now()]
    assert ids(events) == ids(happened)[::-1]


def test_ascending_order_needs_a_start(shared: Any) -> None:
    """An ascending sort is ignored if there is no `since`."""
    assert shared.get(TIMELINE, sort="asc")["data"] == shared.get(TIMELINE, sort="desc")["data"]


def test_the_timeline_of_a_metric_contains_its_events(shared: Any) -> None:
    """It is a subset of the timeline of all metrics, and as long as the count of the account."""
    everything = list(shared.timeline(TIMELINE))
    for metric in shared.account.metrics.values():
        events = list(shared.timeline(f"v1/metric/{metric.id}/timeline"))
        assert events == [event for event in everything if event["statistic_id"] == metric.id]
        assert len(events) == shared.account.timeline.count(Window(metric.number))
        assert {event["event_name"] for event in events} <= {metric.name}


def test_the_timelines_of_a_person_contain_their_events(shared: Any) -> None:
    """A person has a timeline of all metrics and one for each metric."""
    account = shared.account
    person = Counter(account.timeline.persons).most_common(1)[0][0]
    person_id = account.people.id(person)
    events = [event for event in shared.timeline(TIMELINE) if (event["person"] or {}).get("id") == person_id]
    path, metric = f"v1/person/{person_id}", events[0]["statistic_id"]
    assert list(shared.timeline(f"{path}/metrics/timeline")) == events
    assert list(shared.timeline(f"{path}/metric/{metric}/timeline")) == [
        event for event in events if event["statistic_id"] == metric
    ]


@pytest.mark.parametrize(
    ("sort", "compare"),
    [
        pytest.param("asc", lambda time, since: time > since, id="later events, ascending"),
        pytest.param("desc", lambda time, since: time < since, id="earlier events, descending"),
    ],
)
def test_since_is_exclusive(shared: Any, sort: str, compare: Any) -> None:
    """Events in the second of `since` are left out, in both directions."""
    everything = list(shared.timeline(TIMELINE))
    since = everything[len(everything) // 2]["timestamp"]
    events = list(shared.timeline(TIMELINE, str(since), sort=sort))
    expected = [event for event in everything if compare(event["timestamp"], since)]
    assert events == (expected if sort == "asc" else expected[::-1])
    assert 0 < len(events) < len(everything)


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_many_events_in_one_second_are_read_once(own: Any, sort: str, count: int) -> None:
    """Each of 250 events in one second is returned once, for any page size."""
    second = own.account.options.start + 1000
    own.add_events(*({"metric": "Crowded", "timestamp": second, "id": f"crowd{at:06d}"} for at in range(250)))
    path = f"v1/metric/{own.account.metric('Crowded').id}/timeline"
    read = ids(own.timeline(path, str(second - 1 if sort == "asc" else second + 1), sort=sort, count=count))
    expected = [f"crowd{at:06d}" for at in range(250)]
    assert read == (expected if sort == "asc" else expected[::-1])


def test_a_token_and_a_uuid_resume_after_an_event(own: Any) -> None:
    """The token of the page that ends with an event and the uuid of the event lead to the same next events."""
    own.add_events(*({"metric": "Crowded", "timestamp": own.account.timeline.time(40)} for _ in range(3)))
    everything = list(own.timeline(TIMELINE))
    for index in range(38, 46):
        token = own.get(TIMELINE, since="1000000000", sort="asc", count=index + 1)["next"]
        assert token.startswith(f"{everything[index]['timestamp']}-")
        for since in (token, everything[index]["uuid"]):
            assert list(own.timeline(TIMELINE, since)) == everything[index + 1 :]
            assert list(own.timeline(TIMELINE, since, sort="desc")) == everything[:index][::-1]


@given(st.integers(1_000_000_000, 2_000_000_000), st.integers(0, 10**8) | st.integers(ADDED, ADDED + 10**6))
def test_a_uuid_can_be_converted_back_into_an_index(second: int, index: int) -> None:
    assert index_of_event_uuid(event_uuid(second, index)) == index


@pytest.mark.parametrize(
    "since",
    [
        pytest.param("0", id="too few digits"),
        pytest.param("1700000000000", id="milliseconds"),
        pytest.param("2026-11-01", id="date"),
        pytest.param("yesterday", id="word"),
        pytest.param("1700000000-00000000001", id="token of another second"),
        pytest.param("1700000000-FFFFFFFFFFF", id="token of an unknown event"),
        pytest.param("e45ab680-5bb1-11e9-8001-a0dcc2d8d5f1", id="uuid of an unknown event"),
        pytest.param("", id="empty"),
    ],
)
def test_an_invalid_since_is_refused(shared: Any, since: str) -> None:
    """`since` must be a second or identify an event."""
    answer = shared.send("GET", f"/api/{TIMELINE}", params={"since": since})
    assert answer.status_code == 400
    assert answer.json()["status"] == 400 and "since" in answer.json()["message"]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"count": "101"}, id="count over 100"),
        pytest.param({"count": "0"}, id="count of zero"),
        pytest.param({"count": "ten"}, id="count as a word"),
        pytest.param({"sort": "up"}, id="unknown sort"),
    ],
)
def test_invalid_parameters_are_refused(shared: Any, parameters: dict[str, str]) -> None:
    assert shared.status(TIMELINE, **parameters) == 400


@pytest.mark.parametrize("path", ["v1/metric/NOPE00/timeline", "v1/person/NOPE00/metrics/timeline"])
def test_an_unknown_metric_or_person_is_not_found(shared: Any, path: str) -> None:
    assert shared.status(path) == 404


def test_the_last_page_has_no_next(shared: Any) -> None:
    """This also holds if the last page is full. A page has 50 events by default."""
    assert shared.get(TIMELINE)["count"] == 50
    metric = shared.account.metric("Received Email").id
    first = shared.get(f"v1/metric/{metric}/timeline", sort="asc", since="1000000000", count=2)
    last = shared.get(f"v1/metric/{metric}/timeline", sort="desc", since=first["next"], count=1)
    assert ids(last["data"]) == ids(first["data"][:1])
    assert last["next"] is None


def test_events_equal_those_of_the_account(shared: Any) -> None:
    """A row has the members that were recorded from Klaviyo, in that order."""
    account, timeline = shared.account, shared.account.timeline
    names = {row.id: row.name for row in account.metrics.values()}
    for ref, event in enumerate(shared.timeline(TIMELINE)):
        assert list(event) == [
            "object", "id", "uuid", "event_name", "timestamp", "datetime", "statistic_id", "event_properties", "person",
        ]  # fmt: skip
        assert event["id"] == timeline.id(ref)
        assert event["uuid"] == event_uuid(timeline.time(ref), ref)
        assert event["event_name"] == names[event["statistic_id"]]
        assert event["event_properties"].get("$message") == timeline.message_and_flow(ref)[0]
        person = timeline.person(ref)
        assert event["person"] is None if person == NOBODY else event["person"]["id"] == account.people.id(person)


def test_an_event_has_its_second_as_number_and_text(own: Any) -> None:
    own.add_events({"metric": "Timed", "datetime": "2026-11-20T01:02:03Z"})
    event = own.get(f"v1/metric/{own.account.metric('Timed').id}/timeline")["data"][0]
    assert (event["timestamp"], event["datetime"]) == (1795136523, "2026-11-20 01:02:03+00:00")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        pytest.param({"raw": {"id": None}}, {"id": None}, id="null id"),
        pytest.param({"raw": {"id": 17}}, {"id": 17}, id="number as id"),
        pytest.param({"omit": ["id"]}, {"id": "absent"}, id="no id"),
        pytest.param({"raw": {"timestamp": "soon"}}, {"timestamp": "soon", "datetime": "soon"}, id="garbage timestamp"),
        pytest.param({"omit": ["timestamp"]}, {"timestamp": "absent", "datetime": "absent"}, id="no timestamp"),
        pytest.param({"metric": None}, {"statistic_id": None, "event_name": None}, id="no metric"),
        pytest.param({}, {"person": None}, id="no profile"),
        pytest.param(
            {"properties": {"a\u0000": "100% \u0000"}},
            {"event_properties": {"$event_id": "1795136523", "a\u0000": "100% \u0000"}},
            id="odd properties",
        ),
    ],
)
def test_added_events_keep_wrong_and_missing_members(own: Any, changes: dict[str, Any], shown: dict[str, Any]) -> None:
    """Members that a test made wrong or left out are wrong or missing, as in the current dialect."""
    own.add_events({"metric": "Odd", "timestamp": 1795136523, **changes})
    event = next(
        event for event in own.timeline(TIMELINE, "1795136522") if event["uuid"] == event_uuid(1795136523, ADDED)
    )
    assert {name: event.get(name, "absent") for name in shown} == shown


def test_events_show_changed_names_at_once(own: Any) -> None:
    """Events show a new name of a metric, even with a percent sign, and a changed person."""
    event = own.get(TIMELINE)["data"][0]
    own.send("POST", f"/sandbox/metrics/{event['statistic_id']}", json={"name": "100%d"})
    own.send("POST", f"/sandbox/profiles/{event['person']['id']}", json={"first_name": "Renamed"})
    again = own.get(TIMELINE)["data"][0]
    assert (again["event_name"], again["person"]["first_name"]) == ("100%d", "Renamed")


def test_events_of_a_deleted_metric_stay(own: Any) -> None:
    """They have no metric name."""
    event = own.get(TIMELINE)["data"][0]
    own.send("DELETE", f"/sandbox/metrics/{event['statistic_id']}")
    assert own.get(TIMELINE)["data"][0] == {**event, "event_name": None}


def test_both_dialects_return_the_same_events(shared: Any) -> None:
    """Ids of events, metrics and persons, times and properties are equal."""
    legacy = {
        event["id"]: (event["statistic_id"], event["person"] and event["person"]["id"], event["timestamp"],
                      event["uuid"], event["event_properties"])
        for event in shared.timeline(TIMELINE, sort="desc", since="1999999999")
    }  # fmt: skip
    current, path = {}, "events"
    parameters = {"page[size]": 1000}
    while path:
        page = shared.current(path, **parameters)
        for row in page["data"]:
            relations, attributes = row["relationships"], row["attributes"]
            person = relations["profile"]["data"]
            current[row["id"]] = (
                relations["metric"]["data"]["id"],
                person and person["id"],
                *(attributes[name] for name in ("timestamp", "uuid", "event_properties")),
            )
        following = page["links"]["next"]
        path, parameters = (following.split("/api/")[1], {}) if following else ("", {})
    assert current == legacy
