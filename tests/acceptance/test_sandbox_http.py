"""The sandbox over HTTP: who is let in, what is refused and in which words, and what changes when the account does."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sandbox.launcher import Sandbox, SandboxError, running

REVISION = "2026-07-15"
MAIL = "equals(messages.channel,'email')"
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A sandbox whose account no test changes."""
    with running(members=120, events=1500, days=20) as box:
        yield box


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A sandbox of its own for one test."""
    with running(members=40, events=300, days=10) as box:
        yield box


def ask(box: Sandbox, path: str, key: str | None = None, **parameters: Any) -> requests.Response:
    """A GET below /api/, or of a link; brackets in names are written as __: page__size=5."""
    url = path if path.startswith("http") else f"{box.url}/api/{path}"
    named = {
        re.sub(r"__(\w+)", r"[\1]", name).replace("additional_", "additional-"): parameters[name] for name in parameters
    }
    headers = {"Authorization": f"Klaviyo-API-Key {key or box.api_key}", "revision": REVISION}
    return requests.get(url, named, headers=headers, timeout=30)


def rows(box: Sandbox, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of all pages."""
    answer = ask(box, path, **parameters)
    found: list[dict[str, Any]] = []
    while True:
        assert answer.status_code == 200, answer.text
        found += answer.json()["data"]
        following = answer.json()["links"]["next"]
        if following is None:
            return found
        answer = ask(box, following)


def ids(box: Sandbox, path: str, **parameters: Any) -> list[str]:
    return [row["id"] for row in rows(box, path, **parameters)]


def error(answer: requests.Response) -> dict[str, Any]:
    """The one error of a refusal, which bears the status of the answer."""
    assert answer.headers["content-type"] == "application/vnd.api+json"
    (found,) = answer.json()["errors"]
    assert found["status"] == answer.status_code
    return dict(found)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({}, "not_authenticated", id="no key"),
        pytest.param({"Authorization": "Klaviyo-API-Key pk_wrong"}, "authentication_failed", id="wrong key"),
        pytest.param({"Authorization": "pk_sandbox"}, "authentication_failed", id="no scheme"),
        pytest.param({"Authorization": "Basic pk_sandbox"}, "authentication_failed", id="another scheme"),
    ],
)
def test_keys(shared: Sandbox, headers: dict[str, str], code: str) -> None:
    """Without a valid key nobody is let in."""
    answer = requests.get(f"{shared.url}/api/metrics", headers={**headers, "revision": REVISION}, timeout=30)
    assert answer.status_code == 401
    assert (error(answer)["code"], error(answer)["source"]) == (code, {"pointer": "/data/"})


def test_scopes(box: Sandbox) -> None:
    """A key reads what its scopes allow, and is told what it lacks."""
    box.add_key("pk_lists", "lists:read", "metrics:read")
    assert ask(box, "metrics", "pk_lists").status_code == 200
    list_id = ids(box, "lists")[0]
    answer = ask(box, f"lists/{list_id}/profiles", "pk_lists")
    assert answer.status_code == 403
    assert error(answer)["code"] == "permission_denied"
    assert error(answer)["title"] == "You do not have permission to perform this action."
    assert "profiles:read" in error(answer)["detail"]


@pytest.mark.parametrize("revision", [None, "", "yesterday"])
def test_revision(shared: Sandbox, revision: str | None) -> None:
    """A request without a revision is refused."""
    headers = {"Authorization": f"Klaviyo-API-Key {shared.api_key}"}
    answer = requests.get(
        f"{shared.url}/api/metrics",
        headers=headers if revision is None else {**headers, "revision": revision},
        timeout=30,
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "parameters", "detail", "source"),
    [
        pytest.param(
            "events",
            {"filter": "equals(datetime,2026-01-01)"},
            "'equals' is not an allowed filter operator for datetime."
            "  Allowed operators are greater-than, greater-or-equal, less-than, less-or-equal",
            {"parameter": "filter"},
            id="operator",
        ),
        pytest.param(
            "events",
            {"filter": "equals(metric_id, 'x')"},
            "Invalid filter provided. Verify your parentheses match.",
            {"parameter": "filter"},
            id="space in a filter",
        ),
        pytest.param(
            "events",
            {"include": "profiless"},
            "'profiless' is not an allowed include parameter for this resource.",
            {"parameter": "include"},
            id="include",
        ),
        pytest.param(
            "events", {"page__cursor": "nonsense"}, "Invalid cursor provided.", {"pointer": "/data/"}, id="cursor"
        ),
        pytest.param(
            "events",
            {"page__size": 1001},
            "Page size must be an integer between 1 and 1000.",
            {"parameter": "page[size]"},
            id="page size",
        ),
        pytest.param("events/NOPE01", {}, "Invalid Event ID: 'NOPE01'", {"pointer": "/data/id"}, id="event id"),
        pytest.param(
            "campaigns", {}, "A channel filter is required to list campaigns.", {"parameter": "filter"}, id="no channel"
        ),
        pytest.param(
            "campaigns",
            {"filter": f"{MAIL},less-than(updated_at,2099-01-01T00:00:00Z)"},
            "End date may not be in the future: 2099-01-01T00:00:00+00:00",
            {"pointer": "updated_at"},
            id="campaigns of the future",
        ),
        pytest.param(
            "events",
            {"filter": "less-than(datetime,2099-01-01T00:00:00Z)"},
            "End date may not be in the future: 2099-01-01T00:00:00+00:00",
            {"pointer": "datetime"},
            id="events of the future",
        ),
    ],
)
def test_400(shared: Sandbox, path: str, parameters: dict[str, Any], detail: str, source: dict[str, str]) -> None:
    """A wrong request is refused in Klaviyo's words."""
    answer = ask(shared, path, **parameters)
    assert answer.status_code == 400
    assert (error(answer)["code"], error(answer)["title"]) == ("invalid", "Invalid input.")
    assert (error(answer)["detail"], error(answer)["source"]) == (detail, source)


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        pytest.param("metrics/NOPE01", "A metric with id NOPE01 does not exist.", id="metric"),
        pytest.param("campaigns/NOPE01", "A campaign with id NOPE01 does not exist.", id="campaign"),
        pytest.param("campaigns/NOPE01/campaign-messages", "A campaign with id NOPE01 does not exist.", id="messages"),
        pytest.param("campaign-messages/NOPE01", "A campaign-message with id NOPE01 does not exist.", id="message"),
        pytest.param("flows/NOPE01", "A flow with id NOPE01 does not exist.", id="flow"),
        pytest.param("lists/NOPE01", "A list with id NOPE01 does not exist.", id="list"),
        pytest.param("lists/NOPE01/profiles", "A list with id NOPE01 does not exist.", id="members of a list"),
        pytest.param("segments/NOPE01/profiles", "A segment with id NOPE01 does not exist.", id="members of a segment"),
        pytest.param("profiles/NOPE01", "A profile with id NOPE01 does not exist.", id="profile"),
        pytest.param("events/0123456789A", "An event with id 0123456789A does not exist.", id="event"),
        pytest.param("nothing", "No endpoint answers GET /api/nothing.", id="endpoint"),
    ],
)
def test_404(shared: Sandbox, path: str, detail: str) -> None:
    """What is not there is named."""
    answer = ask(shared, path)
    assert answer.status_code == 404
    assert (error(answer)["code"], error(answer)["detail"]) == ("not_found", detail)


def test_limits() -> None:
    """With the published limits, headers count down, and then 429 tells the seconds to wait."""
    with running(members=5, events=10, limits="published") as box:
        answers = [ask(box, "accounts") for _ in range(8)]
        passed, refused = ([answer for answer in answers if answer.status_code == status] for status in (200, 429))
        assert passed and refused
        assert passed[0].headers["ratelimit-limit"] == "1, 1;w=1, 15;w=60"
        assert passed[0].headers["ratelimit-remaining"] == "0"
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert not any(name.lower().startswith("ratelimit") for name in refused[0].headers)
        said = error(refused[0])
        assert (said["code"], said["title"]) == ("throttled", "Request was throttled.")
        assert said["detail"].startswith("Request was throttled. Expected available in ")
        assert box.state()["answers"]["GET /api/accounts 429"] == len(refused)


def test_stricter_limits() -> None:
    """Additional fields that cost the server more have a limit of their own, shared by all endpoints."""
    with running(members=5, events=10, limits="published") as box:
        list_id = ids(box, "lists")[0]
        counts = [ask(box, f"lists/{list_id}", additional_fields__list="profile_count") for _ in range(8)]
        assert 429 in {answer.status_code for answer in counts}
        assert {ask(box, f"lists/{list_id}").status_code for _ in range(8)} == {200}


@pytest.mark.parametrize(
    ("fault", "status", "wait"),
    [
        pytest.param({"status": 503}, 503, None, id="503"),
        pytest.param({"status": 524}, 524, None, id="524"),
        pytest.param({"status": 503, "retry_after": 7}, 503, "7", id="503 with a time to wait"),
        pytest.param({"status": 429, "retry_after": 20_000}, 429, "20000", id="429 of a day"),
    ],
)
def test_faults(shared: Sandbox, fault: dict[str, Any], status: int, wait: str | None) -> None:
    """A fault strikes as often as it was asked for, after as many good answers, and only its endpoint."""
    shared.set_faults({"endpoint": "GET /api/flows", "times": 2, "after": 1, **fault})
    answers = [ask(shared, "flows") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].headers.get("Retry-After") == wait
    shared.set_faults({"endpoint": "GET /api/flows", **fault})
    assert ask(shared, "metrics").status_code == 200
    shared.set_faults()
    assert ask(shared, "flows").status_code == 200


def test_cut_answers(shared: Sandbox) -> None:
    """A cut answer breaks off in the middle, which a client notices; the next one is whole."""
    shared.set_faults({"endpoint": "GET /api/events", "cut": True, "times": 1})
    with pytest.raises(requests.exceptions.RequestException):
        ask(shared, "events")
    assert ask(shared, "events").status_code == 200


def test_very_many_cut_answers(shared: Sandbox) -> None:
    """What the sandbox prints about its cut answers never stops it."""
    shared.set_faults({"endpoint": "GET /api/flows", "cut": True, "times": 1500})
    for _ in range(1500):
        with pytest.raises(requests.exceptions.RequestException):
            ask(shared, "flows", page__size=1)
    assert ask(shared, "flows").status_code == 200


def test_sparse_fieldsets(shared: Sandbox) -> None:
    """Only the fields that were asked for come, of the rows and of what is included."""
    page = ask(
        shared,
        "events",
        page__size=20,
        fields__event="timestamp,uuid",
        fields__profile="email,location.city",
        include="profile,metric",
        fields__metric="name",
    ).json()
    assert {frozenset(row["attributes"]) for row in page["data"]} == {frozenset(("timestamp", "uuid"))}
    kinds = {"profile": {"email", "location"}, "metric": {"name"}}
    assert {row["type"] for row in page["included"]} == set(kinds)
    assert all(set(row["attributes"]) == kinds[row["type"]] for row in page["included"])
    assert all(set(row["attributes"]["location"]) == {"city"} for row in page["included"] if row["type"] == "profile")


def test_included_only_on_request(shared: Sandbox) -> None:
    """An answer has `included` only if something was asked for."""
    assert "included" not in ask(shared, "events").json()
    assert "included" in ask(shared, "events", include="metric").json()


def test_links_repeat_the_query(shared: Sandbox) -> None:
    """The next link carries every parameter and a cursor; self is the request itself."""
    asked = {"filter": "greater-or-equal(datetime,2026-11-01T00:00:00+00:00)", "sort": "-datetime", "page__size": "7"}
    answer = ask(shared, "events", include="profile", fields__event="timestamp", **asked)
    links = answer.json()["links"]
    assert links["self"] == answer.url
    assert links["prev"] is None
    first, following = parse_qs(urlsplit(answer.url).query), parse_qs(urlsplit(links["next"]).query)
    assert following.pop("page[cursor]")
    assert following == first
    assert urlsplit(links["next"]).path == "/api/events"


def test_trailing_slash(shared: Sandbox) -> None:
    """The links of resources end in a slash, and lead to them."""
    (row, *_) = rows(shared, "metrics")
    assert row["links"]["self"].endswith("/")
    assert ask(shared, row["links"]["self"]).json()["data"] == row


def test_added_events(box: Sandbox) -> None:
    """Added events are read at once, where their time puts them, late or not; a new name makes a new metric."""
    person = box.profiles()[0]["id"]
    before = ids(box, "events")
    added = box.add_events(
        {"metric": "Placed Order", "timestamp": NOON, "profile_id": person, "properties": {"$value": 5}},
        {"metric": "Something New", "datetime": "2026-11-20T12:00:00Z"},
    )
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Something New")
    between = f"greater-or-equal(timestamp,{NOON}),less-or-equal(timestamp,{NOON})"
    assert set(added) <= set(ids(box, "events", filter=between))
    assert sorted(ids(box, "events")) == sorted([*before, *added])
    assert ids(box, "events", filter=f'equals(metric_id,"{metric["id"]}")') == [added[1]]
    assert added[0] in ids(box, "events", filter=f'equals(profile_id,"{person}")')
    assert added[1] not in ids(box, "events", filter="has(profile)")
    event = ask(box, f"events/{added[0]}").json()["data"]
    assert event["attributes"]["event_properties"]["$value"] == 5
    assert event["attributes"]["datetime"] == "2026-11-20T12:00:00+00:00"
    assert metric["id"] in ids(box, "metrics")


def test_broken_events(box: Sandbox) -> None:
    """Events may have no id, no timestamp or a garbage one, and be there twice, where a test wants it."""
    box.add_events({"metric": "Odd", "timestamp": NOON, "id": "AAAAAAAAAAA", "omit": ["id"]})
    box.add_events({"metric": "Odd", "timestamp": NOON + 1, "omit": ["timestamp"]})
    box.add_events({"metric": "Odd", "timestamp": NOON + 2, "raw": {"timestamp": "soon"}})
    twice = {"metric": "Odd", "timestamp": NOON + 3, "id": "BBBBBBBBBBB"}
    box.add_events(twice)
    box.add_events({**twice, "duplicate": True})
    with pytest.raises(SandboxError, match="BBBBBBBBBBB"):
        box.add_events(twice)
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Odd")
    odd = rows(box, "events", filter=f'equals(metric_id,"{metric["id"]}")', sort="datetime")
    assert [row.get("id") for row in odd][::3] == [None, "BBBBBBBBBBB"]
    assert "timestamp" not in odd[1]["attributes"]
    assert odd[2]["attributes"]["timestamp"] == "soon"
    assert odd[3]["id"] == odd[4]["id"]


def test_profiles_change(box: Sandbox) -> None:
    """New and changed profiles are read at once, alone, in lists and beside their events; properties are merged."""
    event = rows(box, "events", filter="has(profile)")[0]
    person = event["relationships"]["profile"]["data"]["id"]
    old = ask(box, f"profiles/{person}").json()["data"]["attributes"]
    box.change(
        "profiles",
        person,
        email="new@example.com",
        properties={"Colour": "red"},
        updated="2026-11-23T10:00:00Z",
        suppressions=[{"reason": "SPAM_COMPLAINT", "timestamp": "2026-11-23T10:00:00Z"}],
    )
    assert ids(box, "profiles", filter='equals(email,"new@example.com")') == [person]
    new = ask(box, f"profiles/{person}", additional_fields__profile="subscriptions").json()["data"]["attributes"]
    assert new["properties"] == {**old["properties"], "Colour": "red"}
    assert new["updated"] == "2026-11-23T10:00:00+00:00"
    assert [found["reason"] for found in new["subscriptions"]["email"]["marketing"]["suppression"]] == [
        "SPAM_COMPLAINT"
    ]
    included = ask(box, "events", include="profile", page__size=1000).json()["included"]
    assert [row["attributes"]["email"] for row in included if row["id"] == person] == ["new@example.com"]
    added = box.add_profile(email="added@example.com", first_name="Ada")
    assert added in ids(box, "profiles")
    box.add_events({"metric": "Placed Order", "timestamp": NOON, "profile_id": added})
    assert ask(box, f"profiles/{added}").json()["data"]["attributes"]["last_event_date"] == "2026-11-20T12:00:00+00:00"


def test_rows_change(box: Sandbox) -> None:
    """Changed rows are read as changed, and deleted ones are gone while their events stay."""
    metric = rows(box, "metrics")[0]
    box.change("metrics", metric["id"], name="Renamed")
    assert ask(box, f"metrics/{metric['id']}").json()["data"]["attributes"]["name"] == "Renamed"
    (new,) = box.add_events({"metric": metric["attributes"]["name"], "timestamp": NOON})
    assert ask(box, f"events/{new}/metric").json()["data"]["id"] != metric["id"]

    campaign, *others = ids(box, "campaigns", filter=MAIL)
    box.change("campaigns", campaign, archived=True)
    assert sorted(ids(box, "campaigns", filter=MAIL)) == sorted(others)
    assert campaign in ids(box, "campaigns", filter=f"{MAIL},equals(archived,true)")

    events = ids(box, "events")
    for kind in ("metrics", "flows", "lists", "segments"):
        row_id = ids(box, kind)[0]
        box.delete(kind, row_id)
        assert row_id not in ids(box, kind)
        assert ask(box, f"{kind}/{row_id}").status_code == 404
    assert ids(box, "events") == events
    assert len(ids(box, "events", filter="has(metric)")) < len(events)


def test_joining_and_leaving(box: Sandbox) -> None:
    """Members come and go with the time that they joined."""
    list_id, person = ids(box, "lists")[0], box.add_profile(email="joiner@example.com")
    before = ids(box, f"lists/{list_id}/profiles")
    box.join(list_id, person, "2026-11-20T12:00:00Z")
    (row,) = rows(box, f"lists/{list_id}/profiles", filter='equals(email,"joiner@example.com")')
    assert row["attributes"]["joined_group_at"] == "2026-11-20T12:00:00+00:00"
    assert ids(box, f"lists/{list_id}/profiles", filter="greater-or-equal(joined_group_at,2026-11-20T12:00:00Z)").count(
        person
    )
    assert sorted(ids(box, f"lists/{list_id}/relationships/profiles")) == sorted([*before, person])
    box.leave(list_id, person)
    assert ids(box, f"lists/{list_id}/profiles") == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "events", [{"metric": "x", "timestamp": 1, "colour": "red"}], id="unknown member"),
        pytest.param("POST", "events", [{"metric": "x", "timestamp": 1, "profile_id": "nobody"}], id="unknown person"),
        pytest.param("POST", "profiles", {"colour": "red"}, id="unknown attribute of a person"),
        pytest.param("POST", "flows/NOPE01", {"name": "x"}, id="unknown flow"),
        pytest.param("DELETE", "profiles/x", None, id="nobody to erase"),
        pytest.param("POST", "faults", [{"nothing": 1}], id="unknown fault"),
    ],
)
def test_control_refuses(shared: Sandbox, method: str, path: str, body: Any) -> None:
    """A request to the control API that makes no sense is refused, and changes nothing."""
    before = shared.state()
    with pytest.raises(SandboxError):
        shared.control(method, path, body)
    assert {name: shared.state()[name] for name in ("events", "members", "flows")} == {
        name: before[name] for name in ("events", "members", "flows")
    }


def test_requests_are_counted(box: Sandbox) -> None:
    """The state tells how often each endpoint was asked, and how it answered."""
    ask(box, "flows")
    ask(box, "flows", sort="nonsense")
    state = box.state()
    assert state["requests"]["GET /api/flows"] == 2
    assert (state["answers"]["GET /api/flows 200"], state["answers"]["GET /api/flows 400"]) == (1, 1)


def test_wrong_options() -> None:
    """A sandbox that cannot start says why in one sentence."""
    with pytest.raises(SandboxError, match="is not between"), running(members=0):
        pass
