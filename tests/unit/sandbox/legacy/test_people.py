"""Persons, members of lists, and exclusions in v1 and v2."""

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.account.people import Suppression
from sandbox.legacy.rows import naive_time


def largest_list(server: Any) -> Any:
    """Return the list with the most members."""
    return max(server.account.lists.values(), key=lambda group: len(group.joined))


def records(server: Any, path: str) -> Iterator[dict[str, Any]]:
    """Yield the records of all pages."""
    marker: dict[str, Any] = {}
    while True:
        page = server.get(path, **marker)
        assert len(page["records"]) <= 1000
        yield from page["records"]
        if "marker" not in page:
            return
        assert isinstance(page["marker"], int)
        marker = {"marker": page["marker"]}


def emails(server: Any, indexes: Any) -> list[str]:
    return [email for index in indexes if (email := server.account.people.email(index))]


@pytest.mark.parametrize("kind", ["lists", "segments"])
def test_members_equal_those_of_the_account(shared: Any, kind: str) -> None:
    """Each list and segment has exactly its members, each with an email address or a phone number."""
    people = shared.account.people
    for group in shared.account.collection(kind).values():
        rows = list(records(shared, f"v2/group/{group.id}/members/all"))
        assert {row["id"] for row in rows} == {people.id(index) for index in group.joined}
        assert len(rows) == len(group.joined)
        assert all(row["email"] or row["phone_number"] for row in rows)


def test_many_members_are_on_several_pages(own: Any) -> None:
    """A page has at most 1000 members, and each member is on one page. The marker can be in the body."""
    group, people = largest_list(own), own.account.people
    members = {people.add({"email": f"more.{at}@example.com"}, 1_795_000_000) for at in range(2050)}
    group.joined = dict.fromkeys(members, 1_795_000_000)
    path = f"v2/group/{group.id}/members/all"
    assert len(own.get(path)["records"]) == 1000
    rows = list(records(own, path))
    assert sorted(row["id"] for row in rows) == sorted(map(people.id, members))
    in_body = own.send("GET", f"/api/{path}", json={"marker": own.get(path)["marker"]}).json()
    assert in_body["records"] == rows[1000:2000]


def test_a_single_page_has_no_marker(own: Any) -> None:
    group, people = largest_list(own), own.account.people
    group.joined = {people.add({}, 1_795_000_000): 1_795_000_000 for _ in range(1000)}
    page = own.get(f"v2/group/{group.id}/members/all")
    assert len(page["records"]) == 1000 and "marker" not in page


@pytest.mark.parametrize("path", ["group/{list}/members/all", "list/{list}/exclusions/all"])
def test_an_invalid_marker_is_refused(shared: Any, path: str) -> None:
    answer = shared.send("GET", f"/api/v2/{path.format(list=largest_list(shared).id)}", params={"marker": "abc"})
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


def look_up(server: Any, group: Any, method: str, path: str, way: str, values: list[str], name: str = "emails") -> Any:
    options: dict[str, dict[str, Any]] = {
        "query": {"params": {name: values}},
        "commas": {"params": {name: ",".join(values)}},
        "body": {"json": {name: values}},
    }
    return server.send(method, f"/api/v2/list/{group.id}/{path}", **options[way])


@pytest.mark.parametrize(("method", "path", "way"), WAYS)
def test_members_are_looked_up_by_email(shared: Any, method: str, path: str, way: str) -> None:
    """The answer contains the members among the requested people. Only unsuppressed members are subscribers."""
    group, people = largest_list(shared), shared.account.people
    requested = [index for index in range(len(people)) if people.email(index)][:100]
    answer = look_up(shared, group, method, path, way, emails(shared, requested))
    assert answer.status_code == 200, answer.text
    rows = {row["id"]: row for row in answer.json()}
    members = [index for index in requested if index in group.joined]
    if path not in ("members", "get-members"):
        members = [
            index
            for index in members
            if not any(entry.list_id in (None, group.id) for entry in people.suppressions.get(index, []))
        ]
    assert set(rows) == {people.id(index) for index in members}
    assert 0 < len(rows) < len(requested)
    for index in members:
        row = rows[people.id(index)]
        assert row["email"] == people.email(index)
        assert row["created"].endswith("Z")
        assert row.get("phone_number") == people.profile(index).phone_number


def test_the_time_of_joining_equals_that_of_the_current_dialect(shared: Any) -> None:
    group = largest_list(shared)
    rows = shared.current(f"lists/{group.id}/profiles", **{"page[size]": 100})["data"]
    expected = {row["id"]: row["attributes"]["joined_group_at"] for row in rows if row["attributes"]["email"]}
    addresses = [row["attributes"]["email"] or "" for row in rows]
    members = look_up(shared, group, "GET", "members", "body", addresses).json()
    assert {row["id"]: row["created"].replace("Z", "+00:00") for row in members} == expected


def test_suppressed_members_are_not_subscribers(own: Any) -> None:
    """A suppression from this list or from all lists counts. A suppression from another list does not."""
    group, people = largest_list(own), own.account.people
    index = next(index for index in group.joined if people.email(index))
    for list_id, subscribed in ((None, False), (group.id, False), ("another", True)):
        people.suppressions[index] = [Suppression("UNSUBSCRIBE", 1_795_000_000, list_id)]
        assert bool(look_up(own, group, "GET", "subscribe", "query", emails(own, [index])).json()) is subscribed
        assert len(look_up(own, group, "GET", "members", "query", emails(own, [index])).json()) == 1


def test_members_are_looked_up_by_phone_number(own: Any) -> None:
    """Generated numbers and numbers set by a test match. Unknown numbers match no one."""
    group, people = largest_list(own), own.account.people
    index = next(index for index in group.joined if people.profile(index).phone_number)
    added = people.add({"phone_number": "+4512345678"}, 1_795_000_000)
    group.joined[added] = 1_795_000_000
    numbers = [people.profile(index).phone_number, "+4512345678", "+15559999999", "+1"]
    rows = look_up(own, group, "POST", "get-members", "body", numbers, "phone_numbers").json()
    assert [row["id"] for row in rows] == [people.id(index), people.id(added)]


def test_a_repeated_address_is_answered_once(shared: Any) -> None:
    """An unknown address is left out."""
    group = largest_list(shared)
    email = emails(shared, group.joined)[0]
    rows = look_up(shared, group, "GET", "members", "body", [email, "unknown@example.com", email]).json()
    assert [row["email"] for row in rows] == [email]


@pytest.mark.parametrize("way", ["query", "body"])
@pytest.mark.parametrize(("count", "status"), [(0, 400), (100, 200), (101, 400)])
def test_at_most_100_addresses_can_be_looked_up(shared: Any, way: str, count: int, status: int) -> None:
    """A request must contain 1 to 100 addresses."""
    addresses = [f"unknown.{at}@example.org" for at in range(count)]
    answer = look_up(shared, largest_list(shared), "GET", "members", way, addresses)
    assert answer.status_code == status
    assert answer.json() == [] if status == 200 else "100" in answer.json()["detail"]


def test_a_body_that_is_not_a_json_object_is_refused(shared: Any) -> None:
    for content in (b"{", b"[]", b'"a"'):
        answer = shared.send("POST", f"/api/v2/list/{largest_list(shared).id}/get-members", content=content)
        assert answer.status_code == 400, content


@pytest.mark.parametrize(
    "path",
    ["list/NOPE", "list/NOPE/members", "list/NOPE/subscribe", "list/NOPE/exclusions/all", "group/NOPE/members/all"],
)
def test_an_unknown_list_is_not_found(shared: Any, path: str) -> None:
    answer = shared.send("GET", f"/api/v2/{path}", params={"emails": "a@example.com"})
    assert (answer.status_code, list(answer.json())) == (404, ["detail"])


def test_list_exclusions_equal_the_suppressions_of_the_list(shared: Any) -> None:
    account, count = shared.account, 0
    for group in account.lists.values():
        rows = list(records(shared, f"v2/list/{group.id}/exclusions/all"))
        expected = {
            account.people.id(index)
            for index, suppressions in account.people.suppressions.items()
            for entry in suppressions
            if entry.list_id == group.id
        }
        assert {row["id"] for row in rows} == expected
        assert {row["reason"] for row in rows} <= {"Unsubscribed"}
        assert all(row["created"].endswith("Z") for row in rows)
        count += len(rows)
    assert count > 10


REASONS = {
    "unsubscribed": "UNSUBSCRIBE",
    "bounced": "HARD_BOUNCE",
    "invalid_email": "INVALID_EMAIL",
    "reported_spam": "SPAM_COMPLAINT",
    "manually_excluded": "USER_SUPPRESSED",
}


@pytest.mark.parametrize(("legacy", "current"), REASONS.items(), ids=REASONS)
def test_exclusions_equal_the_suppressions_with_that_reason(shared: Any, legacy: str, current: str) -> None:
    """An exclusion has an address and a time, but no id. People without an address have no exclusions."""
    people = shared.account.people
    expected = {
        people.email(index): naive_time(entry.at)
        for index, suppressions in people.suppressions.items()
        for entry in suppressions
        if entry.list_id is None and entry.reason == current and people.email(index)
    }
    rows = list(shared.pages("v1/people/exclusions", reason=legacy, count=5))
    assert {row["email"]: row["timestamp"] for row in rows} == expected != {}
    assert {tuple(row) for row in rows} == {("object", "email", "reason", "timestamp")}
    assert {(row["object"], row["reason"]) for row in rows} == {("exclusion", legacy)}


def test_exclusions_are_sorted_by_time(shared: Any) -> None:
    """`sort` reverses the order. Without a reason, exclusions of all reasons are returned. Other values are refused."""
    rows = list(shared.pages("v1/people/exclusions"))
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    assert list(shared.pages("v1/people/exclusions", sort="desc")) == rows[::-1]
    assert {row["reason"] for row in rows} == set(REASONS)
    assert shared.status("v1/people/exclusions", reason="unsubscribed,bounced") == 400
    assert shared.status("v1/people/exclusions", sort="email") == 400


def test_a_person_is_the_same_as_within_an_event(shared: Any) -> None:
    event = next(event for event in shared.timeline("v1/metrics/timeline") if event["person"])
    assert shared.get(f"v1/person/{event['person']['id']}") == event["person"]
    assert shared.status("v1/person/NOPE") == 404


@pytest.mark.parametrize("way", ["params", "json"])
@pytest.mark.parametrize("name", ["email", "phone_number", "external_id"])
def test_a_person_can_be_searched_for(shared: Any, name: str, way: str) -> None:
    """A search matches an email address, a phone number or an external id."""
    people = shared.account.people
    index = next(index for index in range(50, 400) if getattr(people.profile(index), name))
    answer = shared.send("GET", "/api/v2/people/search", **{way: {name: getattr(people.profile(index), name)}})
    assert answer.json() == {"id": people.id(index)}


def test_a_search_matches_values_set_by_a_test(own: Any) -> None:
    """A search matches the value set through the control API, and no longer the old one."""
    people = own.account.people
    index = next(index for index in range(60) if people.profile(index).external_id)
    before = people.profile(index).external_id
    own.send("POST", f"/sandbox/profiles/{people.id(index)}", json={"external_id": "mine"})
    assert own.get("v2/people/search", external_id="mine") == {"id": people.id(index)}
    assert own.status("v2/people/search", external_id=before) == 404


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        pytest.param({}, 400, id="no term"),
        pytest.param({"email": "a@example.com", "external_id": "a"}, 400, id="two terms"),
        pytest.param({"email": "unknown@example.com"}, 404, id="unknown"),
    ],
)
def test_a_search_without_a_result(shared: Any, parameters: dict[str, str], status: int) -> None:
    """A search needs exactly one term. An unknown term is a 404."""
    answer = shared.send("GET", "/api/v2/people/search", params=parameters)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])
