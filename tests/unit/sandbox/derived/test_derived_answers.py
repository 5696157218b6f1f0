"""The answers of a derived account in both dialects: every page agrees with every other answer, at any size."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sandbox.account.timeline import Window
from sandbox.api.keys import API_KEY
from sandbox.derived import DerivedOptions, derive
from sandbox.server.application import application
from sandbox.server.state import ServerState
from tests.unit.sandbox.conftest import LONG_AGO, Server

UNTIL = datetime(2026, 11, 20, 12, 34, tzinfo=UTC)
SMALL = DerivedOptions(
    members=900, events=6_000, days=12, metrics=60, lists=12, daily_share=0.1, added_days=2, until=UNTIL
)
HUGE = DerivedOptions(until=UNTIL, added_days=1)
START = UNTIL - timedelta(days=12)
SUBSCRIPTIONS = {"additional-fields[profile]": "subscriptions"}
SUPPRESSION = "subscriptions.email.marketing.suppression"
few = hypothesis_settings(max_examples=15)


def serve(options: DerivedOptions) -> Server:
    state = ServerState(derive(options))
    return Server(state, application(state))


@pytest.fixture(scope="module")
def server() -> Server:
    return serve(SMALL)


@pytest.fixture(scope="module")
def huge() -> Server:
    return serve(HUGE)


def walk(server: Server, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of all pages."""
    url: str | None = path
    while url:
        page = server.current(url, **parameters)
        yield from page["data"]
        url, parameters = (page["links"]["next"] or "").partition("/api/")[2], {}


def ids(server: Server, path: str, **parameters: Any) -> list[str]:
    return [row["id"] for row in walk(server, path, **parameters)]


def between(field: str, since: datetime, until: datetime) -> str:
    return f"greater-or-equal({field},{since:%FT%TZ}),less-than({field},{until:%FT%TZ})"


def aggregates(server: Server, metric: str, since: datetime, until: datetime) -> list[int]:
    attributes = {
        "metric_id": metric,
        "measurements": ["count"],
        "interval": "hour",
        "filter": [between("datetime", since, until)],
    }
    headers = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": "2026-07-15"}
    body = {"data": {"type": "metric-aggregate", "attributes": attributes}}
    answer = server.send("POST", "/api/metric-aggregates", None, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["data"]["attributes"]["data"]
    return list(row["measurements"]["count"])


@few
@given(low=st.integers(0, 12 * 86_400), length=st.integers(60, 2 * 86_400), metric=st.integers(0, SMALL.metrics - 1))
def test_a_window_has_as_many_events_as_the_counts_say(server: Server, low: int, length: int, metric: int) -> None:
    since = START + timedelta(seconds=low)
    until = since + timedelta(seconds=length)
    metric_id = server.account.metric_ids[metric]
    selection = {"filter": f'equals(metric_id,"{metric_id}"),{between("datetime", since, until)}', "sort": "datetime"}
    rows = list(walk(server, "events", **selection, **{"page[size]": 1000}))
    times = [row["attributes"]["timestamp"] for row in rows]
    assert times == sorted(times)
    assert all(since.timestamp() <= time < until.timestamp() for time in times)
    assert [row["id"] for row in rows] == ids(server, "events", **selection, **{"page[size]": 37})
    assert len(rows) == sum(aggregates(server, metric_id, since, until))


def test_windows_partition_the_events(server: Server) -> None:
    """Reading day by day, metric by metric, newest first or in large pages finds the same events."""
    whole = ids(server, "events", sort="datetime", **{"page[size]": 1000})
    days = [START + timedelta(days=day) for day in range(14)]
    by_day = [
        each
        for day in days
        for each in ids(server, "events", filter=between("datetime", day, day + timedelta(days=1)), sort="datetime")
    ]
    by_metric = [
        each
        for metric in server.account.metric_ids
        for each in ids(server, "events", filter=f'equals(metric_id,"{metric}")', **{"page[size]": 1000})
    ]
    assert len(set(whole)) == len(whole) == SMALL.events + 2 * SMALL.daily_events
    assert by_day == whole
    assert sorted(by_metric) == sorted(whole)
    assert ids(server, "events", sort="-datetime", **{"page[size]": 999}) == whole[::-1]


def test_a_person_in_an_event_is_the_same_as_alone(server: Server) -> None:
    """The fast rendering of profiles makes the same JSON as the ordinary one."""
    fields = ("email", "phone_number", "created", "updated", "last_event_date", "location", "properties", "title")
    for names in (None, ",".join(fields), "email"):
        parameters = {} if names is None else {"fields[profile]": names}
        page = server.current("events", include="profile", **{"page[size]": 30, **parameters})
        assert len(page["included"]) > 15
        for shown in page["included"]:
            assert server.current(f"profiles/{shown['id']}", **parameters)["data"] == shown


def test_the_events_of_a_person_are_those_that_name_them(server: Server) -> None:
    events = list(walk(server, "events", sort="datetime", **{"page[size]": 1000}))
    owner = events[50]["relationships"]["profile"]["data"]["id"]
    expected = [row["id"] for row in events if (row["relationships"]["profile"]["data"] or {}).get("id") == owner]
    assert ids(server, "events", filter=f'equals(profile_id,"{owner}")', sort="datetime") == expected
    timeline = server.timeline(f"v1/person/{owner}/metrics/timeline")
    assert [event["id"] for event in timeline] == expected
    assert ids(server, "events", filter='equals(profile_id,"no such id")') == []


@few
@given(low=st.integers(-6 * 86_400, 14 * 86_400), length=st.integers(1, 6 * 86_400), size=st.sampled_from([7, 100]))
@pytest.mark.parametrize("field", ["updated", "created"])
def test_profiles_in_a_window(server: Server, field: str, low: int, length: int, size: int) -> None:
    """They are sorted, and they are those whose time is in the window."""
    since = START + timedelta(seconds=low)
    until = since + timedelta(seconds=length)
    window = f"greater-than({field},{since:%FT%TZ}),less-than({field},{until:%FT%TZ})"
    rows = list(walk(server, "profiles", filter=window, sort=field, **{"page[size]": size}))
    times = [row["attributes"][field] for row in rows]
    people = server.account.people
    seconds = getattr(people, field)
    expected = {people.id(at) for at in people.indexes() if since.timestamp() < seconds[at] < until.timestamp()}
    assert times == sorted(times)
    assert len(rows) == len(expected)
    assert {row["id"] for row in rows} == expected
    assert ids(server, "profiles", filter=window, sort=f"-{field}") == [row["id"] for row in rows][::-1]


def profiles(server: Server) -> dict[str, dict[str, Any]]:
    """Return the attributes of everybody, by id."""
    return {row["id"]: row["attributes"] for row in walk(server, "profiles", **SUBSCRIPTIONS, **{"page[size]": 100})}


def test_suppressions_agree_with_profiles_in_both_dialects(server: Server) -> None:
    people = profiles(server)
    marketing = {each: row["subscriptions"]["email"]["marketing"] for each, row in people.items()}
    found = []
    for reason, name in (("UNSUBSCRIBE", "unsubscribed"), ("HARD_BOUNCE", "bounced")):
        shown = list(walk(server, "profiles", filter=f'equals({SUPPRESSION}.reason,"{reason}")', **SUBSCRIPTIONS))
        expected = {
            each: entry["timestamp"]
            for each, row in marketing.items()
            for entry in row["suppression"]
            if entry["reason"] == reason
        }
        assert [row["id"] for row in shown] == list(dict.fromkeys(row["id"] for row in shown))
        assert {row["id"] for row in shown} == expected.keys()
        exclusions = list(server.pages("v1/people/exclusions", reason=name, count=500))
        assert sorted(row["email"] for row in exclusions) == sorted(people[each]["email"] for each in expected)
        found += exclusions
    whole = list(server.pages("v1/people/exclusions", count=500))
    assert len(whole) == sum(len(row["suppression"]) for row in marketing.values())
    assert [row["timestamp"] for row in whole] == sorted(row["timestamp"] for row in whole)
    assert whole[::-1] == list(server.pages("v1/people/exclusions", count=500, sort="desc"))
    assert all(row in whole for row in found)


def test_suppressions_can_be_read_by_time_and_by_list(server: Server) -> None:
    people = profiles(server)
    since = START + timedelta(days=3)
    recent = ids(server, "profiles", filter=f"greater-than({SUPPRESSION}.timestamp,{since:%FT%TZ})")
    marketing = {each: row["subscriptions"]["email"]["marketing"] for each, row in people.items()}
    assert set(recent) == {
        each
        for each, row in marketing.items()
        if any(datetime.fromisoformat(entry["timestamp"]) > since for entry in row["suppression"])
    }
    some_list = next(iter(server.account.lists))
    of_list = "subscriptions.email.marketing.list_suppressions.list_id"
    excluded = ids(server, "profiles", filter=f'equals({of_list},"{some_list}")')
    assert excluded
    assert set(excluded) == {
        each
        for each, row in marketing.items()
        if any(entry["list_id"] == some_list for entry in row["list_suppressions"])
    }
    records = server.get(f"v2/list/{some_list}/exclusions/all")["records"]
    assert [row["id"] for row in records] == excluded


def test_members_of_lists_agree_in_both_dialects(server: Server) -> None:
    """They are sorted by time of joining, windows partition them, and their number is the list's profile_count."""
    middle = START + timedelta(days=9)
    for path, groups in (("lists", server.account.lists), ("segments", server.account.segments)):
        for group in list(groups.values())[:3]:
            rows = list(walk(server, f"{path}/{group.id}/profiles", sort="joined_group_at", **{"page[size]": 100}))
            times = [row["attributes"]["joined_group_at"] for row in rows]
            joined = [row["id"] for row in rows]
            name = f"additional-fields[{path[:-1]}]"
            shown = server.current(f"{path}/{group.id}", **{name: "profile_count"})["data"]["attributes"]
            parts = [
                ids(
                    server,
                    f"{path}/{group.id}/profiles",
                    filter=f"{operator}(joined_group_at,{middle:%FT%TZ})",
                    **{"page[size]": 100},
                )
                for operator in ("less-than", "greater-or-equal")
            ]
            assert times == sorted(times)
            assert len(set(joined)) == len(joined) == shown["profile_count"] > 0
            assert [set(part) for part in parts] == [set(parts[0]), set(joined) - set(parts[0])]
            assert all(parts)
            records = server.get(f"v2/group/{group.id}/members/all")["records"]
            assert {row["id"] for row in records} == set(joined)


def test_people_are_found_by_id_and_address(server: Server) -> None:
    people = server.account.people
    wanted = [people.id(index) for index in (0, 7, 899, 1_000)]
    quoted = ",".join(f'"{each}"' for each in wanted)
    assert set(ids(server, "profiles", filter=f"any(id,[{quoted}])")) == set(wanted)
    assert ids(server, "profiles", filter=f'equals(email,"{people.email(7)}")') == [people.id(7)]


def test_both_dialects_have_the_same_events_and_metrics(server: Server) -> None:
    metric = server.account.metric_ids[0]
    current = ids(server, "events", filter=f'equals(metric_id,"{metric}")', sort="datetime", **{"page[size]": 1000})
    assert [event["id"] for event in server.timeline(f"v1/metric/{metric}/timeline", LONG_AGO)] == current
    assert {row["id"] for row in server.pages("v1/metrics")} == set(ids(server, "metrics"))
    assert len(ids(server, "lists")) + len(ids(server, "segments")) == SMALL.lists


def test_people_cannot_be_changed_but_events_can_be_added() -> None:
    server = serve(SMALL)
    person = server.account.people.id(3)
    answer = server.send("POST", f"/sandbox/profiles/{person}", None, json={"first_name": "Ada"})
    assert answer.status_code == 400
    assert "cannot be changed" in answer.text
    (added,) = server.add_events({"metric": "Opened Email", "timestamp": f"{START:%FT%TZ}", "profile_id": person})
    assert added in ids(server, "events", filter=f'equals(profile_id,"{person}")')
    removed = next(walk(server, "events"))["id"]
    server.send("DELETE", f"/sandbox/events/{removed}", None)
    assert removed not in ids(server, "events", **{"page[size]": 1000})


@pytest.mark.parametrize("days", [8, 1_000, -1])
def test_days_that_an_account_cannot_have_are_refused(days: int) -> None:
    """It has two added days, and all people would have changed after ten."""
    server = serve(SMALL)
    events, people = len(server.account.timeline), len(server.account.people)
    answer = server.send("POST", "/sandbox/days", None, json={"days": days})
    assert answer.status_code == 400
    assert "can be added" in answer.text
    assert (len(server.account.timeline), len(server.account.people)) == (events, people)
    assert server.account.options == SMALL


def test_people_are_not_merged_by_half() -> None:
    server = serve(SMALL)
    account = server.account
    free = [
        index
        for index in range(len(account.people))
        if not any(index in group.joined for group in (*account.lists.values(), *account.segments.values()))
    ]
    old = next(index for index in free if account.people.last_event[index])
    of_old = {"filter": f'equals(profile_id,"{account.people.id(old)}")'}
    events = ids(server, "events", **of_old)
    path = f"/sandbox/profiles/{account.people.id(old)}/merge"
    answer = server.send("POST", path, None, json={"into": account.people.id(free[-1])})
    assert answer.status_code == 400
    assert "cannot be changed" in answer.text
    assert ids(server, "events", **of_old) == events != []


def test_suppressions_of_a_profile_are_refused() -> None:
    server = serve(SMALL)
    path = f"/sandbox/profiles/{server.account.people.id(3)}"
    answer = server.send("POST", path, None, json={"suppressions": [{"reason": "SPAM", "timestamp": 1}]})
    assert answer.status_code == 400
    assert "cannot be changed" in answer.text


def test_a_day_is_added_while_the_account_is_served() -> None:
    server = serve(SMALL)
    end = UNTIL + timedelta(days=2)
    after = {"filter": f"greater-or-equal(datetime,{end:%FT%TZ})", "page[size]": 1000}
    assert server.current("events", **after)["data"] == []
    assert server.send("POST", "/sandbox/days", None, json={"days": 1}).status_code == 200
    assert len(server.current("events", **after)["data"]) == SMALL.daily_events
    changed = ids(server, "profiles", filter=f"greater-than(updated,{end:%FT%TZ})", sort="updated")
    assert len(changed) >= SMALL.daily_people
    assert set(ids(server, "profiles", filter=f"greater-than(created,{end:%FT%TZ})")) < set(changed)


def test_a_huge_account_answers_anywhere(huge: Server) -> None:
    """The first, a middle and the last page of events, profiles and members cost the same."""
    timeline, metric = huge.account.timeline, huge.account.metric_ids[0]
    assert len(timeline) == 50_050_000
    assert len(huge.account.people) == 3_003_000
    for share in (0, 0.5, 0.999):
        at = datetime.fromtimestamp(HUGE.start, UTC) + timedelta(days=int(HUGE.days * share))
        for condition in ("", f'equals(metric_id,"{metric}"),'):
            window = f"{condition}greater-or-equal(datetime,{at:%FT%TZ})"
            rows = huge.current("events", filter=window, sort="datetime", include="profile", **{"page[size]": 1000})
            assert len(rows["data"]) == 1_000
            assert len(rows["included"]) > 500
        window = f"greater-than(updated,{at:%FT%TZ})"
        assert len(huge.current("profiles", filter=window, sort="updated", **{"page[size]": 100})["data"]) == 100
        group = next(iter(huge.account.lists))
        window = f"greater-than(joined_group_at,{at:%FT%TZ})"
        assert len(huge.current(f"lists/{group}/profiles", filter=window, **{"page[size]": 100})["data"]) == 100
    counted = aggregates(huge, metric, UNTIL - timedelta(days=365), UNTIL)
    year = Window(0, int((UNTIL - timedelta(days=365)).timestamp()), int(UNTIL.timestamp()))
    assert sum(counted) == timeline.count(year) > 5_000_000
