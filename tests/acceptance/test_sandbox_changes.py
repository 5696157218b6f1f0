"""Changes to a sandbox account are visible over HTTP: events, profiles, metrics, campaigns, lists and members."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import Reader

MAIL = "equals(messages.channel,'email')"
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A sandbox for one test to change."""
    with running(members=40, events=300, days=10) as box:
        yield box


@pytest.fixture
def reader(box: Sandbox) -> Reader:
    return Reader(box)


def test_added_events_are_returned_at_once(box: Sandbox, reader: Reader) -> None:
    """Events appear in order of their time, even late ones. A new metric name creates a metric."""
    person = box.profiles()[0]["id"]
    before = reader.ids("events")
    added = box.add_events(
        {"metric": "Placed Order", "timestamp": NOON, "profile_id": person, "properties": {"$value": 5}},
        {"metric": "Something New", "datetime": "2026-11-20T12:00:00Z"},
    )
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Something New")
    between = f"greater-or-equal(timestamp,{NOON}),less-or-equal(timestamp,{NOON})"
    assert set(added) <= set(reader.ids("events", filter=between))
    assert sorted(reader.ids("events")) == sorted([*before, *added])
    assert reader.ids("events", filter=f'equals(metric_id,"{metric["id"]}")') == [added[1]]
    assert added[0] in reader.ids("events", filter=f'equals(profile_id,"{person}")')
    assert added[1] not in reader.ids("events", filter="has(profile)")
    event = reader.get(f"events/{added[0]}").json()["data"]
    assert event["attributes"]["event_properties"]["$value"] == 5
    assert event["attributes"]["datetime"] == "2026-11-20T12:00:00+00:00"
    assert metric["id"] in reader.ids("metrics")


def test_added_events_can_be_invalid(box: Sandbox, reader: Reader) -> None:
    """A test can add events without an id, without a timestamp, with a garbage timestamp, or with a duplicate id."""
    box.add_events({"metric": "Odd", "timestamp": NOON, "id": "AAAAAAAAAAA", "omit": ["id"]})
    box.add_events({"metric": "Odd", "timestamp": NOON + 1, "omit": ["timestamp"]})
    box.add_events({"metric": "Odd", "timestamp": NOON + 2, "raw": {"timestamp": "soon"}})
    twice = {"metric": "Odd", "timestamp": NOON + 3, "id": "BBBBBBBBBBB"}
    box.add_events(twice)
    box.add_events({**twice, "duplicate": True})
    with pytest.raises(SandboxError, match="BBBBBBBBBBB"):
        box.add_events(twice)
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Odd")
    odd = reader.rows("events", filter=f'equals(metric_id,"{metric["id"]}")', sort="datetime")
    assert [row.get("id") for row in odd][::3] == [None, "BBBBBBBBBBB"]
    assert "timestamp" not in odd[1]["attributes"]
    assert odd[2]["attributes"]["timestamp"] == "soon"
    assert odd[3]["id"] == odd[4]["id"]


def test_changed_profiles_are_returned_at_once(box: Sandbox, reader: Reader) -> None:
    """New and changed profiles appear on their own, in lists and with their events. Properties are merged."""
    event = reader.rows("events", filter="has(profile)")[0]
    person = event["relationships"]["profile"]["data"]["id"]
    old = reader.get(f"profiles/{person}").json()["data"]["attributes"]
    box.change(
        "profiles",
        person,
        email="new@example.com",
        properties={"Colour": "red"},
        updated="2026-11-23T10:00:00Z",
        suppressions=[{"reason": "SPAM_COMPLAINT", "timestamp": "2026-11-23T10:00:00Z"}],
    )
    assert reader.ids("profiles", filter='equals(email,"new@example.com")') == [person]
    new = reader.get(f"profiles/{person}", **{"additional-fields__profile": "subscriptions"}).json()["data"][
        "attributes"
    ]
    assert new["properties"] == {**old["properties"], "Colour": "red"}
    assert new["updated"] == "2026-11-23T10:00:00+00:00"
    assert [row["reason"] for row in new["subscriptions"]["email"]["marketing"]["suppression"]] == ["SPAM_COMPLAINT"]
    included = reader.get("events", include="profile", page__size=1000).json()["included"]
    assert [row["attributes"]["email"] for row in included if row["id"] == person] == ["new@example.com"]
    added = box.add_profile(email="added@example.com", first_name="Ada")
    assert added in reader.ids("profiles")
    box.add_events({"metric": "Placed Order", "timestamp": NOON, "profile_id": added})
    assert (
        reader.get(f"profiles/{added}").json()["data"]["attributes"]["last_event_date"] == "2026-11-20T12:00:00+00:00"
    )


def test_changed_and_deleted_rows(box: Sandbox, reader: Reader) -> None:
    """Changed rows are returned with the change. Deleted rows are not returned, but their events still are."""
    metric = reader.rows("metrics")[0]
    box.change("metrics", metric["id"], name="Renamed")
    assert reader.get(f"metrics/{metric['id']}").json()["data"]["attributes"]["name"] == "Renamed"
    (new,) = box.add_events({"metric": metric["attributes"]["name"], "timestamp": NOON})
    assert reader.get(f"events/{new}/metric").json()["data"]["id"] != metric["id"]

    campaign, *others = reader.ids("campaigns", filter=MAIL)
    box.change("campaigns", campaign, archived=True)
    assert sorted(reader.ids("campaigns", filter=MAIL)) == sorted(others)
    assert campaign in reader.ids("campaigns", filter=f"{MAIL},equals(archived,true)")

    events = reader.ids("events")
    for kind in ("metrics", "flows", "lists", "segments"):
        row_id = reader.ids(kind)[0]
        box.delete(kind, row_id)
        assert row_id not in reader.ids(kind)
        assert reader.get(f"{kind}/{row_id}").status_code == 404
    assert reader.ids("events") == events
    assert len(reader.ids("events", filter="has(metric)")) < len(events)


def test_profiles_join_and_leave_lists(box: Sandbox, reader: Reader) -> None:
    """A member is returned with the time of joining until the member leaves."""
    list_id, person = reader.ids("lists")[0], box.add_profile(email="joiner@example.com")
    before = reader.ids(f"lists/{list_id}/profiles")
    box.join(list_id, person, "2026-11-20T12:00:00Z")
    (row,) = reader.rows(f"lists/{list_id}/profiles", filter='equals(email,"joiner@example.com")')
    assert row["attributes"]["joined_group_at"] == "2026-11-20T12:00:00+00:00"
    assert (
        Reader(box)
        .ids(f"lists/{list_id}/profiles", filter="greater-or-equal(joined_group_at,2026-11-20T12:00:00Z)")
        .count(person)
    )
    assert sorted(reader.ids(f"lists/{list_id}/relationships/profiles")) == sorted([*before, person])
    box.leave(list_id, person)
    assert reader.ids(f"lists/{list_id}/profiles") == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "events", [{"metric": "x", "timestamp": 1, "colour": "red"}], id="unknown member"),
        pytest.param(
            "POST", "events", [{"metric": "x", "timestamp": 1, "profile_id": "unknown"}], id="unknown profile"
        ),
        pytest.param("POST", "profiles", {"colour": "red"}, id="unknown attribute"),
        pytest.param("POST", "flows/NOPE01", {"name": "x"}, id="unknown flow"),
        pytest.param("DELETE", "profiles/x", None, id="unknown profile to erase"),
        pytest.param("POST", "faults", [{"nothing": 1}], id="unknown fault"),
    ],
)
def test_invalid_control_requests_change_nothing(box: Sandbox, method: str, path: str, body: Any) -> None:
    before = box.state()
    with pytest.raises(SandboxError):
        box.control(method, path, body)
    assert {name: box.state()[name] for name in ("events", "members", "flows")} == {
        name: before[name] for name in ("events", "members", "flows")
    }
