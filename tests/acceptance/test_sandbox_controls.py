"""What tests can do to the sandbox account: take away, put back, lie, and add what no account should hold."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import Reader

DAY, NEXT_DAY = "2026-11-20", "2026-11-21"
NOON = 1795176000  # of that day
SECONDS = count(1790000000)  # in which nothing else happens


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=60, events=3000, days=10) as box:
        yield box


@pytest.fixture(scope="module")
def reader(box: Sandbox) -> Reader:
    return Reader(box)


def test_removed_events(box: Sandbox, reader: Reader) -> None:
    """A removed event, generated or added, is in no answer and no count of either dialect."""
    metric = max(box.state()["metrics"], key=lambda row: row["count"])
    mine = f'equals(metric_id,"{metric["id"]}")'
    box.add_events({"metric": metric["id"], "timestamp": NOON, "id": "REMOVEADDED"})
    before = box.state()
    generated = [event for event in box.events() if event["metric_id"] == metric["id"]]
    on_the_day = [event["id"] for event in generated if NOON - 43_200 <= event["timestamp"] < NOON + 43_200]
    gone = {"REMOVEADDED", on_the_day[0], on_the_day[-2], generated[0]["id"]}
    for event_id in gone:
        box.remove_event(event_id)

    left = sorted(event["id"] for event in generated if event["id"] not in gone)
    assert sorted(row["id"] for row in reader.rows("events", filter=mine)) == left
    assert sorted(row["id"] for row in reader.rows("events", filter=mine, sort="datetime", page__size=7)) == left
    assert sorted(row["id"] for row in reader.timeline(f"v1/metric/{metric['id']}/timeline")) == left
    assert not gone & {event["id"] for event in box.events()}
    assert reader.current(f"events/{on_the_day[0]}").status_code == 404
    state = box.state()
    assert state["events"] == before["events"] - len(gone)
    assert next(row["count"] for row in state["metrics"] if row["id"] == metric["id"]) == len(left)
    counted = len(set(on_the_day) - gone)
    assert reader.counts(metric["id"], DAY, NEXT_DAY) == reader.legacy_counts(metric["id"], DAY, NEXT_DAY) == [counted]
    with pytest.raises(SandboxError, match="REMOVEADDED"):
        box.remove_event("REMOVEADDED")


def test_lies(box: Sandbox, reader: Reader) -> None:
    """Counts are wrong on that day only, by as much as was said, and right again with 0."""
    metric = max(box.state()["metrics"], key=lambda row: row["count"])
    asked = metric["id"], "2026-11-19", "2026-11-22"
    true = reader.counts(*asked)
    box.lie(metric["name"], DAY, 3)
    box.lie(metric["id"], DAY, 2)
    assert reader.counts(*asked) == reader.legacy_counts(*asked) == [true[0], true[1] + 5, true[2]]
    hours = reader.counts(metric["id"], DAY, NEXT_DAY, "hour")
    box.lie(metric["id"], DAY, 0)
    truth = reader.counts(metric["id"], DAY, NEXT_DAY, "hour")
    assert hours == [truth[0] + 5, *truth[1:]]
    box.lie(metric["id"], DAY, -10_000)
    assert reader.counts(*asked)[1] == reader.legacy_counts(*asked)[1] == 0
    box.lie(metric["id"], DAY, 0)
    assert reader.counts(*asked) == reader.legacy_counts(*asked) == true
    with pytest.raises(SandboxError, match="No such"):
        box.lie("No such metric", DAY, 1)


@pytest.mark.parametrize("kind", ["metrics", "campaigns", "flows", "lists", "segments"])
def test_restored_rows(box: Sandbox, reader: Reader, kind: str) -> None:
    """What was deleted comes back where it was, as it was, with its members."""
    mail = {"filter": "equals(messages.channel,'email')"} if kind == "campaigns" else {}
    legacy = "lists" if kind == "segments" else kind
    before = reader.rows(kind, **mail), reader.numbered(f"v1/{legacy}"), box.state()[kind]
    row_id = before[0][0]["id"]
    box.delete(kind, row_id)
    assert reader.current(f"{kind}/{row_id}").status_code == 404
    box.restore(kind, row_id)
    assert (reader.rows(kind, **mail), reader.numbered(f"v1/{legacy}"), box.state()[kind]) == before
    with pytest.raises(SandboxError):
        box.restore(kind, row_id)


def test_lifted_suppressions(box: Sandbox, reader: Reader) -> None:
    """A suppression that was taken off is in neither dialect."""
    reason = "subscriptions.email.marketing.suppression.reason"
    suppressed = reader.rows("profiles", filter=f'equals({reason},"UNSUBSCRIBE")')
    person = next(row for row in suppressed if row["attributes"]["email"])
    email = person["attributes"]["email"]
    assert email in {row["email"] for row in reader.numbered("v1/people/exclusions")}
    box.change("profiles", person["id"], suppressions=[])
    assert person["id"] not in {row["id"] for row in reader.rows("profiles", filter=f'equals({reason},"UNSUBSCRIBE")')}
    asked = {"additional-fields[profile]": "subscriptions"}
    shown = reader.current(f"profiles/{person['id']}", asked).json()["data"]["attributes"]
    assert shown["subscriptions"]["email"]["marketing"]["suppression"] == []
    assert email not in {row["email"] for row in reader.numbered("v1/people/exclusions")}


def test_erased_profiles(box: Sandbox, reader: Reader) -> None:
    """An erased person is found nowhere, while their events go on to bear the id."""
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
        id="says year 1",
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
    pytest.param({"json": '{"a":1,"a":2}'}, '{"a":1,"a":2}', '{"a":1,"a":2}', id="twice the same key"),
    pytest.param({"json": b'{"a":"\xff\xfe"}'}, '{"a":"\xff\xfe"}', '{"a":"\xff\xfe"}', id="not UTF-8"),
]


@pytest.mark.parametrize(("event", "shown", "shown_in_legacy"), ODD)
def test_odd_events(event: dict[str, Any], shown: str, shown_in_legacy: str, box: Sandbox, reader: Reader) -> None:
    """What tests put in place of an event's members comes as it was given, byte by byte, in both dialects."""
    second = next(SECONDS)
    box.add_events({"metric": "Odd", "timestamp": second, **event})
    between = f"greater-or-equal(timestamp,{second}),less-or-equal(timestamp,{second})"
    answers = (
        reader.current("events", {"filter": between}),
        reader.legacy("v1/metrics/timeline", {"since": str(second - 1), "sort": "asc", "count": "1"}),
    )
    for answer, wanted in zip(answers, (shown, shown_in_legacy), strict=True):
        assert wanted.replace("SECOND", str(second)).encode("latin-1") in answer.content


def test_ends_of_time(box: Sandbox, reader: Reader) -> None:
    """Events of the first and the last year stand at the ends of a metric's timeline."""
    moments = ["0001-01-01T00:00:00", DAY, "9999-12-31T23:59:59"]
    person = box.profiles()[0]["id"]
    added = box.add_events(*({"metric": "Ends", "datetime": at, "profile_id": person} for at in moments))
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Ends")
    assert metric["count"] == 3
    found = reader.rows("events", filter=f'equals(metric_id,"{metric["id"]}")', sort="datetime", page__size=1)
    assert [row["id"] for row in found] == added
    assert all(row["attributes"]["datetime"].startswith(at) for row, at in zip(found, moments, strict=True))
    asked = {"since": "9999999999", "sort": "desc", "count": "1"}
    pages = [reader.legacy(f"v1/metric/{metric['id']}/timeline", asked).json()]
    pages.append(reader.legacy(f"v1/metric/{metric['id']}/timeline", {**asked, "since": pages[0]["next"]}).json())
    assert [event["id"] for page in pages for event in page["data"]] == added[1::-1]
