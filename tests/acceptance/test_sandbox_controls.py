"""The control API can remove and restore rows, falsify counts, and add events that no real account contains."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import Reader

DAY, NEXT_DAY = "2026-11-20", "2026-11-21"
NOON = 1795176000  # of that day
SECONDS = count(1790000000)  # seconds without other events


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=60, events=3000, days=10) as box:
        yield box


@pytest.fixture(scope="module")
def reader(box: Sandbox) -> Reader:
    return Reader(box)


def test_a_removed_event_is_in_no_answer_and_no_count(box: Sandbox, reader: Reader) -> None:
    """This holds for generated and added events, in both dialects."""
    metric = max(box.state()["metrics"], key=lambda row: row["count"])
    of_metric = f'equals(metric_id,"{metric["id"]}")'
    box.add_events({"metric": metric["id"], "timestamp": NOON, "id": "REMOVEADDED"})
    before = box.state()
    generated = [event for event in box.events() if event["metric_id"] == metric["id"]]
    on_the_day = [event["id"] for event in generated if NOON - 43_200 <= event["timestamp"] < NOON + 43_200]
    removed = {"REMOVEADDED", on_the_day[0], on_the_day[-2], generated[0]["id"]}
    for event_id in removed:
        box.remove_event(event_id)

    remaining = sorted(event["id"] for event in generated if event["id"] not in removed)
    assert sorted(row["id"] for row in reader.rows("events", filter=of_metric)) == remaining
    assert (
        sorted(row["id"] for row in reader.rows("events", filter=of_metric, sort="datetime", page__size=7)) == remaining
    )
    assert sorted(row["id"] for row in reader.timeline(f"v1/metric/{metric['id']}/timeline")) == remaining
    assert not removed & {event["id"] for event in box.events()}
    assert reader.current(f"events/{on_the_day[0]}").status_code == 404
    state = box.state()
    assert state["events"] == before["events"] - len(removed)
    assert next(row["count"] for row in state["metrics"] if row["id"] == metric["id"]) == len(remaining)
    count_of_day = len(set(on_the_day) - removed)
    assert (
        reader.counts(metric["id"], DAY, NEXT_DAY)
        == reader.legacy_counts(metric["id"], DAY, NEXT_DAY)
        == [count_of_day]
    )
    with pytest.raises(SandboxError, match="REMOVEADDED"):
        box.remove_event("REMOVEADDED")


def test_a_falsified_count_affects_one_day(box: Sandbox, reader: Reader) -> None:
    """The count of that day is wrong by the sum of all lies until a lie of 0 restores the true count."""
    metric = max(box.state()["metrics"], key=lambda row: row["count"])
    span = metric["id"], "2026-11-19", "2026-11-22"
    true_counts = reader.counts(*span)
    box.lie(metric["name"], DAY, 3)
    box.lie(metric["id"], DAY, 2)
    assert reader.counts(*span) == reader.legacy_counts(*span) == [true_counts[0], true_counts[1] + 5, true_counts[2]]
    hours = reader.counts(metric["id"], DAY, NEXT_DAY, "hour")
    box.lie(metric["id"], DAY, 0)
    true_hours = reader.counts(metric["id"], DAY, NEXT_DAY, "hour")
    assert hours == [true_hours[0] + 5, *true_hours[1:]]
    box.lie(metric["id"], DAY, -10_000)
    assert reader.counts(*span)[1] == reader.legacy_counts(*span)[1] == 0
    box.lie(metric["id"], DAY, 0)
    assert reader.counts(*span) == reader.legacy_counts(*span) == true_counts
    with pytest.raises(SandboxError, match="No such"):
        box.lie("No such metric", DAY, 1)


@pytest.mark.parametrize("kind", ["metrics", "campaigns", "flows", "lists", "segments"])
def test_a_restored_row_is_unchanged(box: Sandbox, reader: Reader, kind: str) -> None:
    """A deleted row returns to its old position with all its attributes and members."""
    mail = {"filter": "equals(messages.channel,'email')"} if kind == "campaigns" else {}
    legacy = "lists" if kind == "segments" else kind
    before = reader.rows(kind, **mail), reader.first_page(f"v1/{legacy}"), box.state()[kind]
    row_id = before[0][0]["id"]
    box.delete(kind, row_id)
    assert reader.current(f"{kind}/{row_id}").status_code == 404
    box.restore(kind, row_id)
    assert (reader.rows(kind, **mail), reader.first_page(f"v1/{legacy}"), box.state()[kind]) == before
    with pytest.raises(SandboxError):
        box.restore(kind, row_id)


def test_a_lifted_suppression_is_in_neither_dialect(box: Sandbox, reader: Reader) -> None:
    reason = "subscriptions.email.marketing.suppression.reason"
    suppressed = reader.rows("profiles", filter=f'equals({reason},"UNSUBSCRIBE")')
    person = next(row for row in suppressed if row["attributes"]["email"])
    email = person["attributes"]["email"]
    assert email in {row["email"] for row in reader.first_page("v1/people/exclusions")}
    box.change("profiles", person["id"], suppressions=[])
    assert person["id"] not in {row["id"] for row in reader.rows("profiles", filter=f'equals({reason},"UNSUBSCRIBE")')}
    parameters = {"additional-fields[profile]": "subscriptions"}
    shown = reader.current(f"profiles/{person['id']}", parameters).json()["data"]["attributes"]
    assert shown["subscriptions"]["email"]["marketing"]["suppression"] == []
    assert email not in {row["email"] for row in reader.first_page("v1/people/exclusions")}


def test_an_erased_profile_cannot_be_found(box: Sandbox, reader: Reader) -> None:
    """No endpoint returns the profile or its membership. Its events keep the profile id."""
    groups = {group_id for kind in ("lists", "segments") for group_id in box.state()[kind]}
    list_id = next(row["id"] for row in reader.rows("lists") if reader.rows(f"lists/{row['id']}/profiles"))
    person = reader.rows(f"lists/{list_id}/profiles", filter="greater-than(joined_group_at,2000-01-01)")[0]
    person_id, email, before = person["id"], person["attributes"]["email"], box.state()
    box.add_events({"metric": "Placed Order", "timestamp": NOON, "profile_id": person_id, "id": "OFTHEERASED"})
    box.erase_profile(person_id)

    assert reader.current(f"profiles/{person_id}").status_code == 404
    assert reader.legacy(f"v1/person/{person_id}").status_code == 404
    assert reader.rows("profiles", filter=f'equals(id,"{person_id}")') == []
    assert reader.legacy("v2/people/search", {"email": email}).status_code == 404
    assert person_id not in {row["id"] for row in reader.rows("profiles", page__size=100)}
    assert person_id not in {row["id"] for row in reader.rows(f"lists/{list_id}/profiles")}
    for group_id in groups:
        members = reader.legacy(f"v2/group/{group_id}/members/all").json()["records"]
        assert person_id not in {row["id"] for row in members}
    state = box.state()
    assert (state["members"], state["lists"][list_id]) == (before["members"] - 1, before["lists"][list_id] - 1)

    page = reader.current("events/OFTHEERASED", {"include": "profile"}).json()
    assert page["data"]["relationships"]["profile"]["data"]["id"] == person_id
    assert page["included"] == []
    assert reader.current("events/OFTHEERASED/profile").status_code == 404
    (event,) = [event for event in reader.timeline() if event["id"] == "OFTHEERASED"]
    assert event["person"] == {"object": "person", "id": person_id}
    with pytest.raises(SandboxError, match="no profile"):
        box.erase_profile(person_id)


ODD = [
    pytest.param({"omit": ["id"]}, '"type":"event","attributes"', '"object":"event","uuid"', id="no id"),
    pytest.param({"raw": {"id": {"a": 1}}}, '"id":{"a":1},', '"id":{"a":1},', id="an object as id"),
    pytest.param({"omit": ["datetime"]}, '"timestamp":SECOND,"event_', '"timestamp":SECOND,"stat', id="no datetime"),
    pytest.param(
        {"raw": {"timestamp": -62135596800, "datetime": "0001-01-01T00:00:00+00:00"}},
        '"timestamp":-62135596800,"datetime":"0001-01-01T00:00:00+00:00"',
        '"timestamp":-62135596800,"datetime":"0001-01-01T00:00:00+00:00"',
        id="year 1",
    ),
    pytest.param({"metric": None}, '"metric":{"data":null,', '"statistic_id":null', id="metric null"),
    pytest.param({"raw": {"metric": None}}, '"metric":null', '"statistic_id":null', id="relation to metric null"),
    pytest.param({"raw": {"profile": None}}, '"profile":null', '"person":null', id="relation to profile null"),
    pytest.param({"omit": ["profile"]}, '"relationships":{"metric"', '"}}],"next"', id="no relation to profile"),
    pytest.param({"raw": {"event_properties": [1]}}, '"event_properties":[1]', '"event_properties":[1]', id="list"),
    pytest.param({"json": "null"}, '"event_properties":null', '"event_properties":null', id="null"),
    pytest.param({"properties": {"big": "x" * 5_000_000}}, "x" * 5_000_000, "x" * 5_000_000, id="5 MB"),
    pytest.param({"json": "[" * 10_000 + "]" * 10_000}, "[" * 10_000, "[" * 10_000, id="deep"),
    pytest.param({"json": '{"a":"\\ud800"}'}, '{"a":"\\ud800"}', '{"a":"\\ud800"}', id="half surrogate"),
    pytest.param({"json": '{"a":1,"a":2}'}, '{"a":1,"a":2}', '{"a":1,"a":2}', id="duplicate key"),
    pytest.param({"json": b'{"a":"\xff\xfe"}'}, '{"a":"\xff\xfe"}', '{"a":"\xff\xfe"}', id="not UTF-8"),
]


@pytest.mark.parametrize(("event", "shown", "shown_in_legacy"), ODD)
def test_odd_events_are_returned_byte_by_byte(
    event: dict[str, Any], shown: str, shown_in_legacy: str, box: Sandbox, reader: Reader
) -> None:
    """Both dialects return the members of an event exactly as a test set them."""
    second = next(SECONDS)
    box.add_events({"metric": "Odd", "timestamp": second, **event})
    between = f"greater-or-equal(timestamp,{second}),less-or-equal(timestamp,{second})"
    answers = (
        reader.current("events", {"filter": between}),
        reader.legacy("v1/metrics/timeline", {"since": str(second - 1), "sort": "asc", "count": "1"}),
    )
    for answer, expected in zip(answers, (shown, shown_in_legacy), strict=True):
        assert expected.replace("SECOND", str(second)).encode("latin-1") in answer.content


def test_events_of_the_years_1_and_9999_are_returned(box: Sandbox, reader: Reader) -> None:
    """They are the first and the last event of a metric's timeline."""
    moments = ["0001-01-01T00:00:00", DAY, "9999-12-31T23:59:59"]
    person = box.profiles()[0]["id"]
    added = box.add_events(*({"metric": "Ends", "datetime": at, "profile_id": person} for at in moments))
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Ends")
    assert metric["count"] == 3
    rows = reader.rows("events", filter=f'equals(metric_id,"{metric["id"]}")', sort="datetime", page__size=1)
    assert [row["id"] for row in rows] == added
    assert all(row["attributes"]["datetime"].startswith(at) for row, at in zip(rows, moments, strict=True))
    parameters = {"since": "9999999999", "sort": "desc", "count": "1"}
    path = f"v1/metric/{metric['id']}/timeline"
    pages = [reader.legacy(path, parameters).json()]
    pages.append(reader.legacy(path, {**parameters, "since": pages[0]["next"]}).json())
    assert [event["id"] for page in pages for event in page["data"]] == added[1::-1]
