"""The manners of v1 and v2: keys, refusals, throttling, faults, and being gone."""

from typing import Any

import pytest

from sandbox.chaos import Fault
from sandbox.server import API_KEY, LEGACY_MODES

V1, V2 = "/api/v1/metrics", "/api/v2/lists"
NO_KEY = {"status": 403, "message": "You must specify an API key to make requests."}
WRONG_KEY = {"status": 403, "message": "The API key specified is invalid."}


@pytest.mark.parametrize(
    ("path", "given", "refusal"),
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
def test_keys(shared: Any, path: str, given: dict[str, Any], refusal: dict[str, Any] | None) -> None:
    """The key is in the query in v1, in the query, a header or the body in v2; else the answer is 403."""
    answer = shared.send("GET", path, None, **given)
    assert answer.status_code == (403 if refusal else 200)
    if refusal:
        assert answer.json() == refusal


def test_added_key(own: Any) -> None:
    """A key that a test lets in is let in here too, whatever its scopes."""
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
def test_no_endpoint(shared: Any, path: str, body: dict[str, Any]) -> None:
    """What is no endpoint is refused in the words of its version."""
    answer = shared.send("GET", path)
    assert (answer.status_code, answer.json()) == (404, body)


def test_throttled(limited: Any) -> None:
    """After 75 requests in one second the next one of that endpoint has to wait, and is told how long."""
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
def test_faults(own: Any, path: str, body: dict[str, Any]) -> None:
    """Faults that tests ask for come in the words of the version, and are used up."""
    own.box.faults = [Fault(f"GET {path}", 429, retry_after=26), Fault(f"GET {path}", 503)]
    answers = [own.send("GET", path) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 503, 200]
    assert answers[0].json() == body and answers[0].headers["retry-after"] == "26"
    assert "retry-after" not in answers[1].headers
    assert own.box.requests[f"GET {path}"] == 3
    assert own.box.answers[f"GET {path} 503"] == 1


ANYTHING = [
    pytest.param(method, path, id=f"{method} {path}")
    for method, path in [("GET", V1), ("GET", V2), ("GET", "/api/v1/nothing"), ("POST", "/api/v2/list/A/members")]
]


@pytest.mark.parametrize("key", [API_KEY, None], ids=["with key", "without key"])
@pytest.mark.parametrize(("method", "path"), ANYTHING)
def test_gone(own: Any, method: str, path: str, key: str | None) -> None:
    """Once gone, everything in v1 and v2 answers 410 with a link, to anybody."""
    own.send("POST", "/sandbox/legacy", json={"mode": "gone"})
    answer = own.send(method, path, key)
    assert answer.status_code == 410
    assert answer.json()["detail"] and answer.json()["link"].startswith("https://developers.klaviyo.com/")
    assert own.current("lists")["data"]


@pytest.mark.parametrize(("method", "path"), ANYTHING)
def test_off(own: Any, method: str, path: str) -> None:
    """Once off, v1 and v2 are as unknown as any other path."""
    own.send("POST", "/sandbox/legacy", json={"mode": "off"})
    answer = own.send(method, path)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "not_found")


def test_modes(own: Any) -> None:
    """The mode can be read, set to any that there is, and to no other."""
    assert own.send("GET", "/sandbox/state").json()["legacy"] == "on"
    for mode in (*LEGACY_MODES, "on"):
        assert own.send("POST", "/sandbox/legacy", json={"mode": mode}).json() == {"mode": mode}
        assert own.send("GET", "/sandbox/state").json()["legacy"] == mode
    assert own.send("POST", "/sandbox/legacy", json={"mode": "late"}).status_code == 400
    assert own.status("v2/lists") == 200


def test_trailing_slash(shared: Any) -> None:
    """A slash at the end makes no difference."""
    assert shared.get("v2/lists/") == shared.get("v2/lists")
    assert shared.get("v1/metrics/") == shared.get("v1/metrics")
