"""Persons, members and exclusions in v1 and v2."""

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.legacy_rows import naive
from sandbox.people import Suppression


def fullest(asked: Any) -> Any:
    """The list with most members."""
    return max(asked.box.account.lists.values(), key=lambda group: len(group.joined))


def records(asked: Any, path: str) -> Iterator[dict[str, Any]]:
    """All records behind a marker."""
    marker: dict[str, Any] = {}
    while True:
        page = asked.get(path, **marker)
        assert len(page["records"]) <= 1000
        yield from page["records"]
        if "marker" not in page:
            return
        assert isinstance(page["marker"], int)
        marker = {"marker": page["marker"]}


def emails(asked: Any, indexes: Any) -> list[str]:
    return [email for index in indexes if (email := asked.box.account.people.email(index))]


@pytest.mark.parametrize("kind", ["lists", "segments"])
def test_all_members(shared: Any, kind: str) -> None:
    """The members of every list and segment are those of the account, with their address or telephone number."""
    people = shared.box.account.people
    for group in shared.box.account.collection(kind).values():
        rows = list(records(shared, f"v2/group/{group.id}/members/all"))
        assert {row["id"] for row in rows} == {people.id(index) for index in group.joined}
        assert len(rows) == len(group.joined)
        assert all(row["email"] or row["phone_number"] for row in rows)


def test_members_beyond_one_page(own: Any) -> None:
    """More than a thousand members come on several pages, each of them once."""
    group, people = fullest(own), own.box.account.people
    wanted = {people.add({"email": f"more.{at}@example.com"}, 1_795_000_000) for at in range(2050)}
    group.joined = dict.fromkeys(wanted, 1_795_000_000)
    path = f"v2/group/{group.id}/members/all"
    assert len(own.get(path)["records"]) == 1000
    rows = list(records(own, path))
    assert sorted(row["id"] for row in rows) == sorted(map(people.id, wanted))
    in_body = own.send("GET", f"/api/{path}", json={"marker": own.get(path)["marker"]}).json()
    assert in_body["records"] == rows[1000:2000]


def test_exactly_one_page(own: Any) -> None:
    """A page that holds all members has no marker."""
    group, people = fullest(own), own.box.account.people
    group.joined = {people.add({}, 1_795_000_000): 1_795_000_000 for _ in range(1000)}
    page = own.get(f"v2/group/{group.id}/members/all")
    assert len(page["records"]) == 1000 and "marker" not in page


@pytest.mark.parametrize("path", ["group/{list}/members/all", "list/{list}/exclusions/all"])
def test_wrong_marker(shared: Any, path: str) -> None:
    """A marker that is no number is refused in v2's words."""
    answer = shared.send("GET", f"/api/v2/{path.format(list=fullest(shared).id)}", params={"marker": "abc"})
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])


WAYS = [
    pytest.param("GET", "members", "query", id="GET members, query"),
    pytest.param("GET", "members", "commas", id="GET members, query with commas"),
    pytest.param("GET", "members", "body", id="GET members, body"),
    pytest.param("POST", "get-members", "body", id="POST get-members"),
    pytest.param("GET", "subscribe", "query", id="GET subscribe, query"),
    pytest.param("GET", "subscribe", "body", id="GET subscribe, body"),
    pytest.param("POST", "get-list-subscriptions", "body", id="POST get-list-subscriptions"),
]


def look_up(asked: Any, group: Any, method: str, path: str, way: str, wanted: list[str], name: str = "emails") -> Any:
    given: dict[str, Any] = {
        "query": {"params": {name: wanted}},
        "commas": {"params": {name: ",".join(wanted)}},
        "body": {"json": {name: wanted}},
    }[way]
    return asked.send(method, f"/api/v2/list/{group.id}/{path}", **given)


@pytest.mark.parametrize(("method", "path", "way"), WAYS)
def test_looked_up_members(shared: Any, method: str, path: str, way: str) -> None:
    """Of the addresses asked for, members are given, subscribers only if nothing is held back from them."""
    group, people = fullest(shared), shared.box.account.people
    asked_for = [index for index in range(len(people)) if people.email(index)][:100]
    answer = look_up(shared, group, method, path, way, emails(shared, asked_for))
    assert answer.status_code == 200, answer.text
    rows = {row["id"]: row for row in answer.json()}
    members = [index for index in asked_for if index in group.joined]
    if path not in ("members", "get-members"):
        members = [
            index
            for index in members
            if not any(found.list_id in (None, group.id) for found in people.suppressions.get(index, []))
        ]
    assert set(rows) == {people.id(index) for index in members}
    assert 0 < len(rows) < len(asked_for)
    for index in members:
        row = rows[people.id(index)]
        assert row["email"] == people.email(index)
        assert row["created"].endswith("Z")
        assert row.get("phone_number") == people.profile(index).phone_number


def test_joined_as_current(shared: Any) -> None:
    """The time of joining is the joined_group_at of the current dialect."""
    group = fullest(shared)
    rows = shared.current(f"lists/{group.id}/profiles", **{"page[size]": 100})["data"]
    wanted = {row["id"]: row["attributes"]["joined_group_at"] for row in rows if row["attributes"]["email"]}
    found = look_up(shared, group, "GET", "members", "body", [row["attributes"]["email"] or "" for row in rows]).json()
    assert {row["id"]: row["created"].replace("Z", "+00:00") for row in found} == wanted


def test_suppressed_are_no_subscribers(own: Any) -> None:
    """One suppression, of this list or of everything, takes a member out of the subscribers; of another list not."""
    group, people = fullest(own), own.box.account.people
    index = next(index for index in group.joined if people.email(index))
    for list_id, subscribed in ((None, False), (group.id, False), ("another", True)):
        people.suppressions[index] = [Suppression("UNSUBSCRIBE", 1_795_000_000, list_id)]
        assert bool(look_up(own, group, "GET", "subscribe", "query", emails(own, [index])).json()) is subscribed
        assert len(look_up(own, group, "GET", "members", "query", emails(own, [index])).json()) == 1


def test_by_phone_number(own: Any) -> None:
    """Members can be looked up by telephone number, generated or set by a test; unknown ones are absent."""
    group, people = fullest(own), own.box.account.people
    index = next(index for index in group.joined if people.profile(index).phone_number)
    added = people.add({"phone_number": "+4512345678"}, 1_795_000_000)
    group.joined[added] = 1_795_000_000
    wanted = [people.profile(index).phone_number, "+4512345678", "+15559999999", "+1"]
    found = look_up(own, group, "POST", "get-members", "body", wanted, "phone_numbers").json()
    assert [row["id"] for row in found] == [people.id(index), people.id(added)]


def test_nobody_twice(shared: Any) -> None:
    """An address that is asked for twice is answered once, and an unknown one not at all."""
    group = fullest(shared)
    known = emails(shared, group.joined)[0]
    found = look_up(shared, group, "GET", "members", "body", [known, "nobody@example.com", known]).json()
    assert [row["email"] for row in found] == [known]


@pytest.mark.parametrize("way", ["query", "body"])
@pytest.mark.parametrize(("many", "status"), [(0, 400), (100, 200), (101, 400)])
def test_at_most_a_hundred(shared: Any, way: str, many: int, status: int) -> None:
    """One to a hundred addresses can be looked up at once."""
    wanted = [f"nobody.{at}@example.org" for at in range(many)]
    answer = look_up(shared, fullest(shared), "GET", "members", way, wanted)
    assert answer.status_code == status
    assert answer.json() == [] if status == 200 else "100" in answer.json()["detail"]


def test_broken_body(shared: Any) -> None:
    """A body that is no JSON object is refused."""
    for content in (b"{", b"[]", b'"a"'):
        answer = shared.send("POST", f"/api/v2/list/{fullest(shared).id}/get-members", content=content)
        assert answer.status_code == 400, content


@pytest.mark.parametrize(
    "path",
    ["list/NOPE", "list/NOPE/members", "list/NOPE/subscribe", "list/NOPE/exclusions/all", "group/NOPE/members/all"],
)
def test_unknown_list(shared: Any, path: str) -> None:
    """A list that does not exist is not found."""
    answer = shared.send("GET", f"/api/v2/{path}", params={"emails": "a@example.com"})
    assert (answer.status_code, list(answer.json())) == (404, ["detail"])


def test_list_exclusions(shared: Any) -> None:
    """Who is excluded from a list is who has a suppression of that list."""
    account, some = shared.box.account, 0
    for group in account.lists.values():
        rows = list(records(shared, f"v2/list/{group.id}/exclusions/all"))
        wanted = {
            account.people.id(index)
            for index, known in account.people.suppressions.items()
            for found in known
            if found.list_id == group.id
        }
        assert {row["id"] for row in rows} == wanted
        assert {row["reason"] for row in rows} <= {"Unsubscribed"}
        assert all(row["created"].endswith("Z") for row in rows)
        some += len(rows)
    assert some > 10


REASONS = {
    "unsubscribed": "UNSUBSCRIBE",
    "bounced": "HARD_BOUNCE",
    "invalid_email": "INVALID_EMAIL",
    "reported_spam": "SPAM_COMPLAINT",
    "manually_excluded": "USER_SUPPRESSED",
}


@pytest.mark.parametrize(("legacy", "current"), REASONS.items(), ids=REASONS)
def test_exclusions_of_a_reason(shared: Any, legacy: str, current: str) -> None:
    """The exclusions of a reason are the suppressions of the account for addresses, with times and without ids."""
    people = shared.box.account.people
    wanted = {
        people.email(index): naive(found.at)
        for index, known in people.suppressions.items()
        for found in known
        if found.list_id is None and found.reason == current and people.email(index)
    }
    rows = list(shared.pages("v1/people/exclusions", reason=legacy, count=5))
    assert {row["email"]: row["timestamp"] for row in rows} == wanted != {}
    assert {tuple(row) for row in rows} == {("object", "email", "reason", "timestamp")}
    assert {(row["object"], row["reason"]) for row in rows} == {("exclusion", legacy)}


def test_exclusions_in_order(shared: Any) -> None:
    """Exclusions come by time, in the order asked for; all reasons together are all exclusions."""
    rows = list(shared.pages("v1/people/exclusions"))
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    assert list(shared.pages("v1/people/exclusions", sort="desc")) == rows[::-1]
    assert {row["reason"] for row in rows} == set(REASONS)
    assert shared.status("v1/people/exclusions", reason="unsubscribed,bounced") == 400
    assert shared.status("v1/people/exclusions", sort="email") == 400


def test_person(shared: Any) -> None:
    """A person alone is the person within events."""
    event = next(event for event in shared.walk("v1/metrics/timeline") if event["person"])
    assert shared.get(f"v1/person/{event['person']['id']}") == event["person"]
    assert shared.status("v1/person/NOPE") == 404


@pytest.mark.parametrize("way", ["params", "json"])
@pytest.mark.parametrize("name", ["email", "phone_number", "external_id"])
def test_search(shared: Any, name: str, way: str) -> None:
    """A person is found by address, telephone number or own id."""
    people = shared.box.account.people
    index = next(index for index in range(50, 400) if getattr(people.profile(index), name))
    answer = shared.send("GET", "/api/v2/people/search", **{way: {name: getattr(people.profile(index), name)}})
    assert answer.json() == {"id": people.id(index)}


def test_search_finds_what_tests_set(own: Any) -> None:
    """A person is found by values that were set over the control API, and no longer by the old ones."""
    people = own.box.account.people
    index = next(index for index in range(60) if people.profile(index).external_id)
    before = people.profile(index).external_id
    own.send("POST", f"/sandbox/profiles/{people.id(index)}", json={"external_id": "mine"})
    assert own.get("v2/people/search", external_id="mine") == {"id": people.id(index)}
    assert own.status("v2/people/search", external_id=before) == 404


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        pytest.param({}, 400, id="nothing"),
        pytest.param({"email": "a@example.com", "external_id": "a"}, 400, id="two at once"),
        pytest.param({"email": "nobody@example.com"}, 404, id="unknown"),
    ],
)
def test_search_in_vain(shared: Any, parameters: dict[str, str], status: int) -> None:
    """Exactly one thing can be searched for."""
    answer = shared.send("GET", "/api/v2/people/search", params=parameters)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])
