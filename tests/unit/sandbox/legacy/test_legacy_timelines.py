"""v1 timelines: every event once, in order, from wherever a reader starts."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.ids import event_uuid, index_of_event_uuid
from sandbox.timeline import ADDED, NOBODY, Window

TIMELINE = "v1/metrics/timeline"


def seconds(events: list[dict[str, Any]]) -> list[int]:
    return [event["timestamp"] for event in events]


def ids(events: Any) -> list[str]:
    return [event["id"] for event in events]


def test_ascending_walk(shared: Any) -> None:
    """The walk from long ago gives every event of the account once, oldest first, those of the future too."""
    timeline = shared.box.account.timeline
    events = list(shared.walk(TIMELINE))
    assert Counter(ids(events)) == Counter(timeline.id(ref) for ref in timeline.every())
    assert seconds(events) == sorted(seconds(events))
    assert max(seconds(events)) > shared.box.now()


def test_descending_walk(shared: Any) -> None:
    """Without since the walk goes from now into the past, and leaves out what has not happened yet."""
    events = list(shared.walk(TIMELINE, None, sort="desc"))
    assert seconds(events) == sorted(seconds(events), reverse=True)
    happened = [event for event in shared.walk(TIMELINE) if event["timestamp"] <= shared.box.now()]
    assert ids(events) == ids(happened)[::-1]


def test_always_descending_without_since(shared: Any) -> None:
    """An ascending sort is not heeded when since is left out."""
    assert shared.get(TIMELINE, sort="asc")["data"] == shared.get(TIMELINE, sort="desc")["data"]


def test_each_metric(shared: Any) -> None:
    """The timelines of the metrics are the parts of the timeline of all, and as long as the account says."""
    everything = list(shared.walk(TIMELINE))
    for metric in shared.box.account.metrics.values():
        events = list(shared.walk(f"v1/metric/{metric.id}/timeline"))
        assert events == [event for event in everything if event["statistic_id"] == metric.id]
        assert len(events) == shared.box.account.timeline.count(Window(metric.number))
        assert {event["event_name"] for event in events} <= {metric.name}


def test_each_person(shared: Any) -> None:
    """A person's timelines are the events with that person, of all metrics or of one."""
    account = shared.box.account
    person = Counter(account.timeline.persons).most_common(1)[0][0]
    mine = [event for event in shared.walk(TIMELINE) if (event["person"] or {}).get("id") == account.people.id(person)]
    path, metric = f"v1/person/{account.people.id(person)}", mine[0]["statistic_id"]
    assert list(shared.walk(f"{path}/metrics/timeline")) == mine
    assert list(shared.walk(f"{path}/metric/{metric}/timeline")) == [
        event for event in mine if event["statistic_id"] == metric
    ]


@pytest.mark.parametrize(
    ("sort", "compare"),
    [
        pytest.param("asc", lambda time, since: time > since, id="later ones when ascending"),
        pytest.param("desc", lambda time, since: time < since, id="earlier ones when descending"),
    ],
)
def test_since_is_exclusive(shared: Any, sort: str, compare: Any) -> None:
    """A second given as since is itself left out, in both directions."""
    everything = list(shared.walk(TIMELINE))
    since = everything[len(everything) // 2]["timestamp"]
    found = list(shared.walk(TIMELINE, str(since), sort=sort))
    wanted = [event for event in everything if compare(event["timestamp"], since)]
    assert found == (wanted if sort == "asc" else wanted[::-1])
    assert 0 < len(found) < len(everything)


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("count", [1, 7, 100])
def test_many_in_one_second(own: Any, sort: str, count: int) -> None:
    """250 events of one second are each met once, whatever the size of pages."""
    second = own.box.account.options.start + 1000
    own.add(*({"metric": "Crowded", "timestamp": second, "id": f"crowd{at:06d}"} for at in range(250)))
    path = f"v1/metric/{own.box.account.metric('Crowded').id}/timeline"
    found = ids(own.walk(path, str(second - 1 if sort == "asc" else second + 1), sort=sort, count=count))
    wanted = [f"crowd{at:06d}" for at in range(250)]
    assert found == (wanted if sort == "asc" else wanted[::-1])


def test_token_and_uuid_go_on_behind_an_event(own: Any) -> None:
    """Behind any event, generated or added, the token of its page and its uuid lead to the same rest."""
    own.add(*({"metric": "Crowded", "timestamp": own.box.account.timeline.time(40)} for _ in range(3)))
    everything = list(own.walk(TIMELINE))
    for place in range(38, 46):
        token = own.get(TIMELINE, since="1000000000", sort="asc", count=place + 1)["next"]
        assert token.startswith(f"{everything[place]['timestamp']}-")
        for since in (token, everything[place]["uuid"]):
            assert list(own.walk(TIMELINE, since)) == everything[place + 1 :]
            assert list(own.walk(TIMELINE, since, sort="desc")) == everything[:place][::-1]


@given(st.integers(1_000_000_000, 2_000_000_000), st.integers(0, 10**8) | st.integers(ADDED, ADDED + 10**6))
def test_uuid_can_be_turned_back(second: int, index: int) -> None:
    """The uuid of an event tells which event it is."""
    assert index_of_event_uuid(event_uuid(second, index)) == index


@pytest.mark.parametrize(
    "since",
    [
        pytest.param("0", id="too few digits"),
        pytest.param("1700000000000", id="milliseconds"),
        pytest.param("2026-11-01", id="date"),
        pytest.param("yesterday", id="word"),
        pytest.param("1700000000-00000000001", id="token of another second"),
        pytest.param("1700000000-FFFFFFFFFFF", id="token of no event"),
        pytest.param("e45ab680-5bb1-11e9-8001-a0dcc2d8d5f1", id="uuid of no event"),
        pytest.param("", id="empty"),
    ],
)
def test_wrong_since(shared: Any, since: str) -> None:
    """What is neither a second nor a place in the timeline is refused."""
    answer = shared.send("GET", f"/api/{TIMELINE}", params={"since": since})
    assert answer.status_code == 400
    assert answer.json()["status"] == 400 and "since" in answer.json()["message"]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"count": "101"}, id="count over 100"),
        pytest.param({"count": "0"}, id="count of nothing"),
        pytest.param({"count": "ten"}, id="count in letters"),
        pytest.param({"sort": "up"}, id="unknown sort"),
    ],
)
def test_wrong_parameters(shared: Any, parameters: dict[str, str]) -> None:
    """Parameters beyond their bounds are refused."""
    assert shared.status(TIMELINE, **parameters) == 400


@pytest.mark.parametrize("path", ["v1/metric/NOPE00/timeline", "v1/person/NOPE00/metrics/timeline"])
def test_unknown_rows(shared: Any, path: str) -> None:
    """There is no timeline of a metric or person that does not exist."""
    assert shared.status(path) == 404


def test_pages(shared: Any) -> None:
    """A page has 50 events unless said otherwise, and the last page has no next, even if it is full."""
    assert shared.get(TIMELINE)["count"] == 50
    metric = shared.box.account.metric("Received Email").id
    first = shared.get(f"v1/metric/{metric}/timeline", sort="asc", since="1000000000", count=2)
    last = shared.get(f"v1/metric/{metric}/timeline", sort="desc", since=first["next"], count=1)
    assert ids(last["data"]) == ids(first["data"][:1])
    assert last["next"] is None


def test_event_row(shared: Any) -> None:
    """A row says the same as the account, in the shape that was recorded."""
    account, timeline = shared.box.account, shared.box.account.timeline
    names = {row.id: row.name for row in account.metrics.values()}
    for ref, event in enumerate(shared.walk(TIMELINE)):
        assert list(event) == [
            "object", "id", "uuid", "event_name", "timestamp", "datetime", "statistic_id", "event_properties", "person",
        ]  # fmt: skip
        assert event["id"] == timeline.id(ref)
        assert event["uuid"] == event_uuid(timeline.time(ref), ref)
        assert event["event_name"] == names[event["statistic_id"]]
        assert event["event_properties"].get("$message") == timeline.message_and_flow(ref)[0]
        person = timeline.person(ref)
        assert event["person"] is None if person == NOBODY else event["person"]["id"] == account.people.id(person)


def test_times(own: Any) -> None:
    """An event tells its second as a number and as text with an offset."""
    own.add({"metric": "Timed", "datetime": "2026-11-20T01:02:03Z"})
    event = own.get(f"v1/metric/{own.box.account.metric('Timed').id}/timeline")["data"][0]
    assert (event["timestamp"], event["datetime"]) == (1795136523, "2026-11-20 01:02:03+00:00")


@pytest.mark.parametrize(
    ("given_event", "shown"),
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
def test_added_events(own: Any, given_event: dict[str, Any], shown: dict[str, Any]) -> None:
    """What tests add shows up as it is in the current dialect: wrong members stay wrong, and left out ones left out."""
    own.add({"metric": "Odd", "timestamp": 1795136523, **given_event})
    event = next(event for event in own.walk(TIMELINE, "1795136522") if event["uuid"] == event_uuid(1795136523, ADDED))
    assert {name: event.get(name, "absent") for name in shown} == shown


def test_names_follow_the_account(own: Any) -> None:
    """A renamed metric, with a per cent sign, and a changed person show in the events at once."""
    event = own.get(TIMELINE)["data"][0]
    own.send("POST", f"/sandbox/metrics/{event['statistic_id']}", json={"name": "100%d"})
    own.send("POST", f"/sandbox/profiles/{event['person']['id']}", json={"first_name": "Renamed"})
    again = own.get(TIMELINE)["data"][0]
    assert (again["event_name"], again["person"]["first_name"]) == ("100%d", "Renamed")


def test_deleted_metric(own: Any) -> None:
    """The events of a deleted metric stay in the timeline, without the metric's name."""
    event = own.get(TIMELINE)["data"][0]
    own.send("DELETE", f"/sandbox/metrics/{event['statistic_id']}")
    assert own.get(TIMELINE)["data"][0] == {**event, "event_name": None}


def test_same_events_in_both_dialects(shared: Any) -> None:
    """Event, metric and person ids, times and properties are those of the current dialect."""
    legacy = {
        event["id"]: (event["statistic_id"], event["person"] and event["person"]["id"], event["timestamp"],
                      event["uuid"], event["event_properties"])
        for event in shared.walk(TIMELINE, sort="desc", since="1999999999")
    }  # fmt: skip
    found, path = {}, "events"
    parameters = {"page[size]": 1000}
    while path:
        page = shared.current(path, **parameters)
        for row in page["data"]:
            relations, attributes = row["relationships"], row["attributes"]
            person = relations["profile"]["data"]
            found[row["id"]] = (
                relations["metric"]["data"]["id"],
                person and person["id"],
                *(attributes[name] for name in ("timestamp", "uuid", "event_properties")),
            )
        following = page["links"]["next"]
        path, parameters = (following.split("/api/")[1], {}) if following else ("", {})
    assert found == legacy
