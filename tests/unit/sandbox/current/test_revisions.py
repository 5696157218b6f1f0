"""Revisions of the current dialect: what each serves of campaigns, and how retired ones are answered."""

from typing import Any

import pytest

from sandbox.api.keys import API_KEY

EMAIL = "equals(messages.channel,'email')"


def send(server: Any, path: str, revision: str, parameters: dict[str, str] | None = None, **headers: str) -> Any:
    named = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": revision, **headers}
    return server.send("GET", f"/api/{path}", None, params=parameters or {}, headers=named)


def later(server: Any, path: str, **parameters: str) -> Any:
    answer = send(
        server,
        path,
        "2026-10-15",
        {name.replace("__", "[") + "]" * ("__" in name): parameters[name] for name in parameters},
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("path", "parameters", "earlier", "later"),
    [
        pytest.param("campaigns", {}, 400, 200, id="without a channel"),
        pytest.param("campaigns", {"filter": EMAIL}, 200, 400, id="with a channel"),
        pytest.param("campaigns", {"fields[campaign]": "name"}, 400, 400, id="a field of the earlier one"),
        pytest.param("campaigns", {"include": "campaign-audiences"}, 400, 200, id="audiences"),
        pytest.param("campaign-messages", {}, 404, 200, id="messages"),
    ],
)
def test_each_revision_has_its_own_campaigns(
    shared: Any, path: str, parameters: dict[str, str], earlier: int, later: int
) -> None:
    statuses = [send(shared, path, revision, parameters).status_code for revision in ("2026-07-15", "2026-10-15")]
    assert statuses == [earlier, later]


def test_a_page_includes_what_its_campaigns_refer_to(shared: Any) -> None:
    page = later(shared, "campaigns", include="campaign-audiences,campaign-messages,tags", page__size="50")
    found = {(row["type"], row["id"]) for row in page["included"]}
    referred = {
        (each["type"], each["id"])
        for row in page["data"]
        for related in row["relationships"].values()
        for each in related["data"]
    }
    assert found == referred and len(page["data"]) == 50


def test_variations_are_included_or_read_by_message(shared: Any) -> None:
    """A test has two, which are the messages of the earlier revision."""
    page = later(shared, "campaign-messages", include="campaign-variations", page__size="100")
    messages = {
        row["id"]: [each["id"] for each in row["relationships"]["campaign-variations"]["data"]] for row in page["data"]
    }
    assert [row["id"] for row in page["included"]] == [each for several in messages.values() for each in several]
    test = next(each for each, variations in messages.items() if len(variations) > 1)
    assert [row["id"] for row in later(shared, f"campaign-messages/{test}/campaign-variations")["data"]] == messages[
        test
    ]
    campaign = later(shared, f"campaign-messages/{test}")["data"]["relationships"]["campaign"]["data"]["id"]
    before = send(shared, f"campaigns/{campaign}/campaign-messages", "2026-07-15").json()
    assert [row["id"] for row in before["data"]] == messages[test]
    assert [row["id"] for row in later(shared, f"campaigns/{campaign}/campaign-messages")["data"]] == [test]
    assert later(shared, f"campaigns/{campaign}")["data"]["attributes"]["definition"]["name"]


@pytest.mark.parametrize(("oldest", "form"), [("2025-01-15", "name"), ("2026-10-15", "definition")])
def test_a_retired_revision_falls_forward_unless_the_request_forbids_it(own: Any, oldest: str, form: str) -> None:
    """It is answered in the oldest revision that is not retired."""
    own.state.oldest_revision = oldest
    parameters = {"filter": EMAIL} if form == "name" else {}
    answer = send(own, "campaigns", "2024-10-15", parameters)
    assert form in answer.json()["data"][0]["attributes"]
    refused = send(own, "campaigns", "2024-10-15", parameters, **{"x-klaviyo-revision-fall-forward-opt-out": "1"})
    assert refused.status_code == 410
