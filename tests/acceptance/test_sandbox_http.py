"""The current dialect over HTTP: authentication, error responses, rate limits, faults and the content of pages."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import REVISION, Reader, until_refused

MAIL = "equals(messages.channel,'email')"
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """A sandbox with an account that tests must not change."""
    with running(members=120, events=1500, days=20) as box:
        yield box


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A sandbox for one test to change."""
    with running(members=40, events=300, days=10) as box:
        yield box


def error(answer: requests.Response) -> dict[str, Any]:
    """Return the only error of a response, which contains the status of the response."""
    assert answer.headers["content-type"] == "application/vnd.api+json"
    (row,) = answer.json()["errors"]
    assert row["status"] == answer.status_code
    return dict(row)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        pytest.param({}, "not_authenticated", id="no key"),
        pytest.param({"Authorization": "Klaviyo-API-Key pk_wrong"}, "authentication_failed", id="wrong key"),
        pytest.param({"Authorization": "pk_sandbox"}, "authentication_failed", id="no scheme"),
        pytest.param({"Authorization": "Basic pk_sandbox"}, "authentication_failed", id="another scheme"),
    ],
)
def test_a_valid_key_is_required(shared: Sandbox, headers: dict[str, str], code: str) -> None:
    answer = requests.get(f"{shared.url}/api/metrics", headers={**headers, "revision": REVISION}, timeout=120)
    assert answer.status_code == 401
    assert (error(answer)["code"], error(answer)["source"]) == (code, {"pointer": "/data/"})


def test_a_key_needs_the_scopes_of_the_endpoint(box: Sandbox) -> None:
    """The error names the missing scopes."""
    box.add_key("pk_lists", "lists:read", "metrics:read")
    assert Reader(box, key="pk_lists").get("metrics").status_code == 200
    list_id = Reader(box).ids("lists")[0]
    answer = Reader(box, key="pk_lists").get(f"lists/{list_id}/profiles")
    assert answer.status_code == 403
    assert error(answer)["code"] == "permission_denied"
    assert error(answer)["title"] == "You do not have permission to perform this action."
    assert "profiles:read" in error(answer)["detail"]


@pytest.mark.parametrize("revision", [None, "", "yesterday"])
def test_a_revision_is_required(shared: Sandbox, revision: str | None) -> None:
    headers = {"Authorization": f"Klaviyo-API-Key {shared.api_key}"}
    answer = requests.get(
        f"{shared.url}/api/metrics",
        headers=headers if revision is None else {**headers, "revision": revision},
        timeout=120,
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
            id="campaigns in the future",
        ),
        pytest.param(
            "events",
            {"filter": "less-than(datetime,2099-01-01T00:00:00Z)"},
            "End date may not be in the future: 2099-01-01T00:00:00+00:00",
            {"pointer": "datetime"},
            id="events in the future",
        ),
    ],
)
def test_invalid_requests_are_refused(
    shared: Sandbox, path: str, parameters: dict[str, Any], detail: str, source: dict[str, str]
) -> None:
    """The error has Klaviyo's title, detail and source."""
    answer = Reader(shared).get(path, **parameters)
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
def test_an_unknown_row_is_not_found(shared: Sandbox, path: str, detail: str) -> None:
    """The error names the row that does not exist."""
    answer = Reader(shared).get(path)
    assert answer.status_code == 404
    assert (error(answer)["code"], error(answer)["detail"]) == ("not_found", detail)


def test_published_limits_are_enforced() -> None:
    """The headers show the remaining requests, and a 429 contains the number of seconds to wait."""
    with running(members=5, events=10, limits="published") as box:
        answers = until_refused(lambda: Reader(box).get("accounts"))
        passed, refused = ([answer for answer in answers if answer.status_code == status] for status in (200, 429))
        assert passed and refused
        assert passed[0].headers["ratelimit-limit"] == "1, 1;w=1, 15;w=60"
        assert passed[0].headers["ratelimit-remaining"] == "0"
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert not any(name.lower().startswith("ratelimit") for name in refused[0].headers)
        refusal = error(refused[0])
        assert (refusal["code"], refusal["title"]) == ("throttled", "Request was throttled.")
        assert refusal["detail"].startswith("Request was throttled. Expected available in ")
        assert box.state()["answers"]["GET /api/accounts 429"] == len(refused)


def test_expensive_fields_have_a_stricter_limit() -> None:
    """The limit applies only to requests for such a field."""
    with running(members=5, events=10, limits="published") as box:
        list_id = Reader(box).ids("lists")[0]
        field = {"additional-fields__list": "profile_count"}
        counts = until_refused(lambda: Reader(box).get(f"lists/{list_id}", **field))
        assert counts[-1].status_code == 429
        assert {Reader(box).get(f"lists/{list_id}").status_code for _ in range(8)} == {200}


@pytest.mark.parametrize(
    ("fault", "status", "wait"),
    [
        pytest.param({"status": 503}, 503, None, id="503"),
        pytest.param({"status": 524}, 524, None, id="524"),
        pytest.param({"status": 503, "retry_after": 7}, 503, "7", id="503 with Retry-After"),
        pytest.param({"status": 429, "retry_after": 20_000}, 429, "20000", id="429 with a long Retry-After"),
    ],
)
def test_faults_affect_the_requested_answers(
    shared: Sandbox, fault: dict[str, Any], status: int, wait: str | None
) -> None:
    """A fault affects `times` answers of one endpoint, after `after` normal ones."""
    shared.set_faults({"endpoint": "GET /api/flows", "times": 2, "after": 1, **fault})
    answers = [Reader(shared).get("flows") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, status, status, 200]
    assert answers[1].headers.get("Retry-After") == wait
    shared.set_faults({"endpoint": "GET /api/flows", **fault})
    assert Reader(shared).get("metrics").status_code == 200
    shared.set_faults()
    assert Reader(shared).get("flows").status_code == 200


def test_a_truncated_answer_raises_an_error(shared: Sandbox) -> None:
    """The next answer is complete."""
    shared.set_faults({"endpoint": "GET /api/events", "cut": True, "times": 1})
    with pytest.raises(requests.exceptions.RequestException):
        Reader(shared).get("events")
    assert Reader(shared).get("events").status_code == 200


@pytest.mark.slow
def test_many_truncated_answers_do_not_block_the_sandbox(shared: Sandbox) -> None:
    """The sandbox prints an error for each of them, which must not fill the pipe to the launcher."""
    shared.set_faults({"endpoint": "GET /api/flows", "cut": True, "times": 1500})
    for _ in range(1500):
        with pytest.raises(requests.exceptions.RequestException):
            Reader(shared).get("flows", page__size=1)
    assert Reader(shared).get("flows").status_code == 200


def test_sparse_fieldsets_limit_the_attributes(shared: Sandbox) -> None:
    """Rows and included resources contain only the requested fields."""
    page = (
        Reader(shared)
        .get(
            "events",
            page__size=20,
            fields__event="timestamp,uuid",
            fields__profile="email,location.city",
            include="profile,metric",
            fields__metric="name",
        )
        .json()
    )
    assert {frozenset(row["attributes"]) for row in page["data"]} == {frozenset(("timestamp", "uuid"))}
    kinds = {"profile": {"email", "location"}, "metric": {"name"}}
    assert {row["type"] for row in page["included"]} == set(kinds)
    assert all(set(row["attributes"]) == kinds[row["type"]] for row in page["included"])
    assert all(set(row["attributes"]["location"]) == {"city"} for row in page["included"] if row["type"] == "profile")


def test_an_answer_has_included_resources_only_on_request(shared: Sandbox) -> None:
    assert "included" not in Reader(shared).get("events").json()
    assert "included" in Reader(shared).get("events", include="metric").json()


def test_links_repeat_the_query(shared: Sandbox) -> None:
    """The next link has every parameter and a cursor, and self is the URL of the request."""
    parameters = {
        "filter": "greater-or-equal(datetime,2026-11-01T00:00:00+00:00)",
        "sort": "-datetime",
        "page__size": "7",
    }
    answer = Reader(shared).get("events", include="profile", fields__event="timestamp", **parameters)
    links = answer.json()["links"]
    assert links["self"] == answer.url
    assert links["prev"] is None
    first, following = parse_qs(urlsplit(answer.url).query), parse_qs(urlsplit(links["next"]).query)
    assert following.pop("page[cursor]")
    assert following == first
    assert urlsplit(links["next"]).path == "/api/events"


def test_the_self_link_of_a_resource_leads_to_it(shared: Sandbox) -> None:
    """The link ends with a slash."""
    (row, *_) = Reader(shared).rows("metrics")
    assert row["links"]["self"].endswith("/")
    assert Reader(shared).get(row["links"]["self"]).json()["data"] == row


def test_requests_are_counted(box: Sandbox) -> None:
    """The state contains the number of requests to each endpoint and of each status."""
    Reader(box).get("flows")
    Reader(box).get("flows", sort="nonsense")
    state = box.state()
    assert state["requests"]["GET /api/flows"] == 2
    assert (state["answers"]["GET /api/flows 200"], state["answers"]["GET /api/flows 400"]) == (1, 1)


def test_a_sandbox_with_invalid_options_does_not_start() -> None:
    """The error contains the reason."""
    with pytest.raises(SandboxError, match="is not between"), running(members=0):
        pass
