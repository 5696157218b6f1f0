"""The legacy dialect over real HTTP: every endpoint, and that it tells of the same account as the control API."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.launcher import Sandbox, SandboxError, running

LONG_AGO = "1000000000"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=300, events=4000, days=30) as box:
        yield box


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


class Reader:
    """Reads as the connectors of that time did."""

    def __init__(self, box: Sandbox, http: requests.Session) -> None:
        self._box, self._http = box, http

    def send(self, method: str, path: str, key: str | None = None, **given: Any) -> requests.Response:
        parameters = {"api_key": self._box.api_key if key is None else key, **given.pop("params", {})}
        return self._http.request(method, f"{self._box.url}/api/{path}", params=parameters, timeout=30, **given)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.send("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """All rows, until a page says that it holds the last."""
        page: dict[str, Any] = {"page": -1, "end": -1, "total": 1}
        while page["end"] < page["total"] - 1:
            page = self.get(path, page=page["page"] + 1, count=20)
            yield from page["data"]

    def walk(self, path: str, since: str = LONG_AGO, sort: str = "asc") -> Iterator[dict[str, Any]]:
        """All events behind the one that `since` names."""
        following: str | None = since
        while following:
            page = self.get(path, since=following, sort=sort, count=100)
            yield from page["data"]
            following = page["next"]


@pytest.fixture
def reader(box: Sandbox, http: requests.Session) -> Reader:
    return Reader(box, http)


def test_every_event_once(box: Sandbox, reader: Reader) -> None:
    """The timeline of all metrics is what the account holds: ids, metrics, persons, messages and flows."""
    found = Counter(
        (
            event["id"],
            event["statistic_id"],
            event["person"] and event["person"]["id"],
            event["timestamp"],
            event["event_properties"].get("$message"),
            event["event_properties"].get("$flow"),
        )
        for event in reader.walk("v1/metrics/timeline")
    )
    names = ("id", "metric_id", "profile_id", "timestamp", "message", "flow")
    assert found == Counter(tuple(event[name] for name in names) for event in box.events())


def test_metrics_and_their_timelines(box: Sandbox, reader: Reader) -> None:
    """Every metric is there, and its timeline is as long as the account says, in either direction."""
    wanted = {metric["id"]: (metric["name"], metric["count"]) for metric in box.state()["metrics"]}
    rows = {row["id"]: row["name"] for row in reader.pages("v1/metrics")}
    assert rows == {metric_id: name for metric_id, (name, _) in wanted.items()}
    for metric_id, (_, count) in wanted.items():
        path = f"v1/metric/{metric_id}/timeline"
        upwards = [event["uuid"] for event in reader.walk(path)]
        assert len(upwards) == count
        assert [event["uuid"] for event in reader.walk(path, "1999999999", "desc")] == upwards[::-1]


def test_counts(box: Sandbox, reader: Reader) -> None:
    """Campaigns, flows, lists, segments and their members are as many as the account has."""
    state = box.state()
    assert len({row["id"] for row in reader.pages("v1/campaigns")}) == state["campaigns"]
    assert len({row["id"] for row in reader.pages("v1/flows")}) == state["flows"]
    groups = {row["id"]: (row["list_type"], row["person_count"]) for row in reader.pages("v1/lists")}
    wanted = {"list": state["lists"], "segment": state["segments"]}
    assert groups == {row_id: (kind, count) for kind, rows in wanted.items() for row_id, count in rows.items()}
    assert {row["list_id"] for row in reader.get("v2/lists")} == set(state["lists"])
    for group_id, (_, count) in groups.items():
        assert len(reader.get(f"v2/group/{group_id}/members/all")["records"]) == count


def test_campaigns_as_current(box: Sandbox, reader: Reader, http: requests.Session) -> None:
    """A campaign has the id, name, state, channel and audience that it has in the current dialect."""
    rows = {}
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    for channel in ("email", "sms", "mobile_push"):
        for archived in ("true", "false"):
            asked = f"equals(messages.channel,'{channel}'),equals(archived,{archived})"
            page = http.get(f"{box.url}/api/campaigns", params={"filter": asked}, headers=headers, timeout=30).json()
            while True:
                for row in page["data"]:
                    said = row["attributes"]
                    rows[row["id"]] = (said["name"], said["status"], channel, said["audiences"])
                if page["links"]["next"] is None:
                    break
                page = http.get(page["links"]["next"], headers=headers, timeout=30).json()
    legacy = {
        row["id"]: (
            row["name"],
            row["status_label"],
            row["message_type"],
            {
                "included": [found["id"] for found in row["lists"]],
                "excluded": [found["id"] for found in row["excluded_lists"]],
            },
        )
        for row in reader.pages("v1/campaigns")
    }
    assert legacy == rows != {}


def test_lists(box: Sandbox, reader: Reader) -> None:
    """A list tells its name and times, its members by address, its subscribers and its exclusions."""
    lists = box.state()["lists"]
    list_id = max(lists, key=lambda found: lists[found])
    assert set(reader.get(f"v2/list/{list_id}")) == {"list_name", "folder_name", "created", "updated"}
    members = [row for row in reader.get(f"v2/group/{list_id}/members/all")["records"] if row["email"]][:100]
    body = {"emails": [row["email"] for row in members]}
    ids = {row["id"] for row in members}
    for method, path in (("GET", "members"), ("POST", "get-members")):
        answer = reader.send(method, f"v2/list/{list_id}/{path}", json=body)
        assert {row["id"] for row in answer.json()} == ids
    subscribers = reader.send("GET", f"v2/list/{list_id}/subscribe", json=body).json()
    assert subscribers == reader.send("POST", f"v2/list/{list_id}/get-list-subscriptions", json=body).json()
    assert {row["id"] for row in subscribers} < ids
    excluded = {row["email"] for row in reader.get(f"v2/list/{list_id}/exclusions/all")["records"]}
    assert excluded and excluded.isdisjoint(row["email"] for row in subscribers)


def test_persons(box: Sandbox, reader: Reader) -> None:
    """A person is found by address, and has a timeline of all metrics and of one."""
    event = next(event for event in reader.walk("v1/metrics/timeline") if event["person"] and event["person"]["email"])
    person, metric = event["person"], event["statistic_id"]
    assert reader.get("v2/people/search", email=person["email"]) == {"id": person["id"]}
    assert reader.get(f"v1/person/{person['id']}") == person
    mine = [found["id"] for found in box.events() if found["profile_id"] == person["id"]]
    assert [found["id"] for found in reader.walk(f"v1/person/{person['id']}/metrics/timeline")] == mine
    some = [found["id"] for found in reader.walk(f"v1/person/{person['id']}/metric/{metric}/timeline")]
    assert event["id"] in some and set(some) <= set(mine)


def test_exclusions(reader: Reader) -> None:
    """The exclusions of each reason together are all of them."""
    everything = list(reader.pages("v1/people/exclusions"))
    reasons = ("unsubscribed", "bounced", "invalid_email", "reported_spam", "manually_excluded")
    parts = [reader.get("v1/people/exclusions", reason=reason, count=5000)["data"] for reason in reasons]
    assert sorted(map(str, everything)) == sorted(str(row) for part in parts for row in part)
    assert all(parts)


def test_export(box: Sandbox, reader: Reader) -> None:
    """An export of the account's last 30 days counts the events of the metric."""
    (metric,) = (found for found in box.state()["metrics"] if found["name"] == "Opened Email")
    span = {"start_date": "2026-10-25", "end_date": "2026-11-24"}
    answer = reader.get(f"v1/metric/{metric['id']}/export", **span)
    assert sum(row["values"][0] for row in answer["results"][0]["data"]) == metric["count"]


def test_added_events(box: Sandbox, reader: Reader) -> None:
    """250 events that a test adds in one second are all there, once, and garbage ones as they are."""
    second, metric = 1795000000, "Crowded over HTTP"
    added = box.add_events(*({"metric": metric, "timestamp": second} for _ in range(250)))
    box.add_events({"metric": metric, "timestamp": second, "raw": {"timestamp": "never"}, "omit": ["id"]})
    (metric_id,) = (found["id"] for found in box.state()["metrics"] if found["name"] == metric)
    found = list(reader.walk(f"v1/metric/{metric_id}/timeline", str(second - 1)))
    assert [event.get("id") for event in found] == [*added, None]
    assert found[-1]["timestamp"] == "never" and found[0]["person"] is None
    assert list(reader.walk(f"v1/metric/{metric_id}/timeline", str(second))) == []


@pytest.mark.parametrize(
    ("method", "path", "given", "status"),
    [
        pytest.param("GET", "v1/metrics", {"key": ""}, 403, id="no key"),
        pytest.param("GET", "v2/lists", {"key": "pk_wrong"}, 403, id="wrong key"),
        pytest.param("GET", "v1/metrics", {"params": {"count": 101}}, 400, id="count over 100"),
        pytest.param("GET", "v1/metrics/timeline", {"params": {"since": "soon"}}, 400, id="since"),
        pytest.param("POST", "v2/list/A/get-members", {"data": b"{"}, 400, id="body"),
        pytest.param("GET", "v1/metric/NOPE00/timeline", {}, 404, id="metric"),
        pytest.param("GET", "v2/list/NOPE00", {}, 404, id="list"),
    ],
)
def test_refusals(reader: Reader, method: str, path: str, given: dict[str, Any], status: int) -> None:
    """Refusals have the status and the kind of body that readers of that time expected."""
    answer = reader.send(method, path, **given)
    assert answer.status_code == status
    assert set(answer.json()) == ({"status", "message"} if "v1" in path or status == 403 else {"detail"})


def test_faults(box: Sandbox, reader: Reader) -> None:
    """Faults reach these endpoints too: a status, and an answer that breaks off."""
    endpoint = "GET /api/v1/metrics/timeline"
    box.set_faults({"endpoint": endpoint, "status": 504}, {"endpoint": endpoint, "cut": True})
    assert reader.send("GET", "v1/metrics/timeline").status_code == 504
    with pytest.raises(requests.RequestException):
        reader.send("GET", "v1/metrics/timeline")
    assert reader.get("v1/metrics/timeline")["count"] == 50


def test_gone_from_the_start(http: requests.Session) -> None:
    """A sandbox can be started as the real service is today, and brought back in time."""
    with running(members=20, events=50, days=5, legacy="gone") as box:
        reader = Reader(box, http)
        answer = reader.send("GET", "v1/metrics")
        assert (answer.status_code, set(answer.json())) == (410, {"detail", "link"})
        box.set_legacy("on")
        assert reader.get("v1/metrics")["total"] > 0
        box.set_legacy("off")
        assert reader.send("GET", "v1/metrics").status_code == 404
        with pytest.raises(SandboxError):
            box.set_legacy("never")


def test_throttled(http: requests.Session) -> None:
    """With limits on, who asks too often, in a second or in a minute, is told how long to wait."""
    with running(members=20, events=50, days=5, limits="published") as box:
        reader = Reader(box, http)
        answers = (reader.send("GET", "v2/lists") for _ in range(2 * 750))
        refused = next((answer for answer in answers if answer.status_code != 200), None)
        assert refused is not None and refused.status_code == 429
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= 60
        assert refused.json() == {"detail": f"Request was throttled. Expected available in {wait}.0 seconds."}
        assert reader.send("GET", "v1/metrics").status_code == 200
