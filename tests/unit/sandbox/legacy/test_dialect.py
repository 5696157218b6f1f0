"""Keys, error responses, throttling, faults and modes of v1 and v2."""

from typing import Any

import pytest

from sandbox.api.keys import API_KEY
from sandbox.faults.kinds import Fault
from sandbox.legacy.dialect import LEGACY_MODES

V1, V2 = "/api/v1/metrics", "/api/v2/lists"
NO_KEY = {"status": 403, "message": "You must specify an API key to make requests."}
WRONG_KEY = {"status": 403, "message": "The API key specified is invalid."}


@pytest.mark.parametrize(
    ("path", "options", "refusal"),
    [
        pytest.param(V1, {"params": {"api_key": API_KEY}}, None, id="v1 query"),
        pytest.param(V1, {}, NO_KEY, id="v1 none"),
        pytest.param(V1, {"params": {"api_key": "pk_other"}}, WRONG_KEY, id="v1 wrong"),
        pytest.param(V1, {"headers": {"api-key": API_KEY}}, NO_KEY, id="v1 header"),
        pytest.param(V1, {"headers": {"authorization": f"Klaviyo-API-Key {API_KEY}"}}, NO_KEY, id="v1 current header"),
        pytest.param(V2, {"params": {"api_key": API_KEY}}, None, id="v2 query"),
        pytest.param(V2, {"headers": {"api-key": API_KEY}}, None, id="v2 header"),
        pytest.param(V2, {"json": {"api_key": API_KEY}}, None, id="v2 body"),
        pytest.param(V2, {}, NO_KEY, id="v2 none"),
        pytest.param(V2, {"headers": {"api-key": "pk_other"}}, WRONG_KEY, id="v2 wrong header"),
        pytest.param(V2, {"json": {"api_key": "pk_other"}}, WRONG_KEY, id="v2 wrong body"),
        pytest.param(V2, {"json": {"api_key": None}}, NO_KEY, id="v2 null"),
    ],
)
def test_a_key_is_required(shared: Any, path: str, options: dict[str, Any], refusal: dict[str, Any] | None) -> None:
    """v1 takes the key from the query. v2 takes it from the query, a header or the body."""
    answer = shared.send("GET", path, None, **options)
    assert answer.status_code == (403 if refusal else 200)
    if refusal:
        assert answer.json() == refusal


def test_an_added_key_is_accepted_whatever_its_scopes(own: Any) -> None:
    own.send("POST", "/sandbox/keys", json={"key": "pk_new", "scopes": ["lists:read"]})
    assert own.send("GET", V1, "pk_new").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(
            "/api/v1/nothing", {"status": 404, "message": "No endpoint answers GET /api/v1/nothing."}, id="v1"
        ),
        pytest.param("/api/v2/nothing", {"detail": "No endpoint answers GET /api/v2/nothing."}, id="v2"),
    ],
)
def test_an_unknown_path_is_not_found(shared: Any, path: str, body: dict[str, Any]) -> None:
    """The error has the format of the version in the path."""
    answer = shared.send("GET", path)
    assert (answer.status_code, answer.json()) == (404, body)


def test_an_endpoint_is_throttled_after_75_requests_in_a_second(limited: Any) -> None:
    """The 429 contains the number of seconds to wait, and other endpoints are not affected."""
    for _ in range(75):
        good = limited.send("GET", V2)
        assert good.status_code == 200
    assert not any(name.startswith("ratelimit") for name in good.headers)
    answer = limited.send("GET", V2)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json() == {"detail": "Request was throttled. Expected available in 1.0 seconds."}
    assert limited.send("GET", V1).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(V1, {"status": 429, "message": "Request was throttled. Expected available in 26.0 seconds.",
                          "detail": "Request was throttled. Expected available in 26.0 seconds."}, id="v1"),
        pytest.param(V2, {"detail": "Request was throttled. Expected available in 26.0 seconds."}, id="v2"),
    ],
)  # fmt: skip
def test_requested_faults_are_met_once(own: Any, path: str, body: dict[str, Any]) -> None:
    """Each fault affects one request, and its error has the format of the version in the path."""
    own.state.faults = [Fault(f"GET {path}", 429, retry_after=26), Fault(f"GET {path}", 503)]
    answers = [own.send("GET", path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 503, 200]
    assert answers[0].json() == body and answers[0].headers["retry-after"] == "26"
    assert "retry-after" not in answers[1].headers
    assert own.state.requests[f"GET {path}"] == 3
    assert own.state.answers[f"GET {path} 503"] == 1


ANYTHING = [
    pytest.param(method, path, id=f"{method} {path}")
    for method, path in [("GET", V1), ("GET", V2), ("GET", "/api/v1/nothing"), ("POST", "/api/v2/list/A/members")]
]


@pytest.mark.parametrize("key", [API_KEY, None], ids=["with key", "without key"])
@pytest.mark.parametrize(("method", "path"), ANYTHING)
def test_everything_is_410_in_mode_gone(own: Any, method: str, path: str, key: str | None) -> None:
    """v1 and v2 answer 410 with a link, with or without a key. The current dialect is not affected."""
    own.send("POST", "/sandbox/legacy", json={"mode": "gone"})
    answer = own.send(method, path, key)
    assert answer.status_code == 410
    assert answer.json()["detail"] and answer.json()["link"].startswith("https://developers.klaviyo.com/")
    assert own.current("lists")["data"]


@pytest.mark.parametrize(("method", "path"), ANYTHING)
def test_everything_is_404_in_mode_off(own: Any, method: str, path: str) -> None:
    """v1 and v2 answer like any unknown path of the current dialect."""
    own.send("POST", "/sandbox/legacy", json={"mode": "off"})
    answer = own.send(method, path)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "not_found")


def test_the_mode_can_be_changed(own: Any) -> None:
    """The mode can be read and set to each valid mode. An invalid mode is refused."""
    assert own.send("GET", "/sandbox/state").json()["legacy"] == "on"
    for mode in (*LEGACY_MODES, "on"):
        assert own.send("POST", "/sandbox/legacy", json={"mode": mode}).json() == {"mode": mode}
        assert own.send("GET", "/sandbox/state").json()["legacy"] == mode
    assert own.send("POST", "/sandbox/legacy", json={"mode": "late"}).status_code == 400
    assert own.status("v2/lists") == 200


def test_a_trailing_slash_makes_no_difference(shared: Any) -> None:
    assert shared.get("v2/lists/") == shared.get("v2/lists")
    assert shared.get("v1/metrics/") == shared.get("v1/metrics")
