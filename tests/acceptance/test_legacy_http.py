"""The legacy dialect over real HTTP: every endpoint returns the account that the control API describes."""

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
    """A client that reads as the connectors for v1 and v2 did."""

    def __init__(self, box: Sandbox, http: requests.Session) -> None:
        self._box, self._http = box, http

    def send(self, method: str, path: str, key: str | None = None, **options: Any) -> requests.Response:
        parameters = {"api_key": self._box.api_key if key is None else key, **options.pop("params", {})}
        return self._http.request(method, f"{self._box.url}/api/{path}", params=parameters, timeout=120, **options)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.send("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield all rows until a page contains the last one."""
        page: dict[str, Any] = {"page": -1, "end": -1, "total": 1}
        while page["end"] < page["total"] - 1:
            page = self.get(path, page=page["page"] + 1, count=20)
            yield from page["data"]

    def timeline(self, path: str, since: str = LONG_AGO, sort: str = "asc") -> Iterator[dict[str, Any]]:
        """Yield all events after `since`."""
        following: str | None = since
        while following:
            page = self.get(path, since=following, sort=sort, count=100)
            yield from page["data"]
            following = page["next"]


@pytest.fixture
def reader(box: Sandbox, http: requests.Session) -> Reader:
    return Reader(box, http)


def test_the_timeline_of_all_metrics_contains_every_event_once(box: Sandbox, reader: Reader) -> None:
    events = Counter(
        (
            event["id"],
            event["statistic_id"],
            event["person"] and event["person"]["id"],
            event["timestamp"],
            event["event_properties"].get("$message"),
            event["event_properties"].get("$flow"),
        )
        for event in reader.timeline("v1/metrics/timeline")
    )
    names = ("id", "metric_id", "profile_id", "timestamp", "message", "flow")
    assert events == Counter(tuple(event[name] for name in names) for event in box.events())


def test_every_metric_has_a_complete_timeline(box: Sandbox, reader: Reader) -> None:
    """The timeline contains the same events in both directions."""
    expected = {metric["id"]: (metric["name"], metric["count"]) for metric in box.state()["metrics"]}
    rows = {row["id"]: row["name"] for row in reader.pages("v1/metrics")}
    assert rows == {metric_id: name for metric_id, (name, _) in expected.items()}
    for metric_id, (_, count) in expected.items():
        path = f"v1/metric/{metric_id}/timeline"
        ascending = [event["uuid"] for event in reader.timeline(path)]
        assert len(ascending) == count
        assert [event["uuid"] for event in reader.timeline(path, "1999999999", "desc")] == ascending[::-1]


def test_collections_are_complete(box: Sandbox, reader: Reader) -> None:
    """The numbers of campaigns, flows, lists, segments and members equal those of the account."""
    state = box.state()
    assert len({row["id"] for row in reader.pages("v1/campaigns")}) == state["campaigns"]
    assert len({row["id"] for row in reader.pages("v1/flows")}) == state["flows"]
    groups = {row["id"]: (row["list_type"], row["person_count"]) for row in reader.pages("v1/lists")}
    expected = {"list": state["lists"], "segment": state["segments"]}
    assert groups == {row_id: (kind, count) for kind, rows in expected.items() for row_id, count in rows.items()}
    assert {row["list_id"] for row in reader.get("v2/lists")} == set(state["lists"])
    for group_id, (_, count) in groups.items():
        assert len(reader.get(f"v2/group/{group_id}/members/all")["records"]) == count


def test_campaigns_equal_those_of_the_current_dialect(box: Sandbox, reader: Reader, http: requests.Session) -> None:
    """Ids, names, statuses, channels and audiences are the same in both dialects."""
    rows = {}
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    for channel in ("email", "sms", "mobile_push"):
        for archived in ("true", "false"):
            filters = f"equals(messages.channel,'{channel}'),equals(archived,{archived})"
            page = http.get(f"{box.url}/api/campaigns", params={"filter": filters}, headers=headers, timeout=120).json()
            while True:
                for row in page["data"]:
                    attributes = row["attributes"]
                    rows[row["id"]] = (attributes["name"], attributes["status"], channel, attributes["audiences"])
                if page["links"]["next"] is None:
                    break
                page = http.get(page["links"]["next"], headers=headers, timeout=120).json()
    legacy = {
        row["id"]: (
            row["name"],
            row["status_label"],
            row["message_type"],
            {
                "included": [group["id"] for group in row["lists"]],
                "excluded": [group["id"] for group in row["excluded_lists"]],
            },
        )
        for row in reader.pages("v1/campaigns")
    }
    assert legacy == rows != {}


def test_a_list_has_members_subscribers_and_exclusions(box: Sandbox, reader: Reader) -> None:
    """Members can be looked up by address. Subscribers are a subset of the members and disjoint from the exclusions."""
    lists = box.state()["lists"]
    list_id = max(lists, key=lambda list_id: lists[list_id])
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


def test_a_person_can_be_searched_for_and_has_timelines(box: Sandbox, reader: Reader) -> None:
    """A person has a timeline of all metrics and one for each metric."""
    event = next(
        event for event in reader.timeline("v1/metrics/timeline") if event["person"] and event["person"]["email"]
    )
    person, metric = event["person"], event["statistic_id"]
    assert reader.get("v2/people/search", email=person["email"]) == {"id": person["id"]}
    assert reader.get(f"v1/person/{person['id']}") == person
    expected = [row["id"] for row in box.events() if row["profile_id"] == person["id"]]
    assert [row["id"] for row in reader.timeline(f"v1/person/{person['id']}/metrics/timeline")] == expected
    of_metric = [row["id"] for row in reader.timeline(f"v1/person/{person['id']}/metric/{metric}/timeline")]
    assert event["id"] in of_metric and set(of_metric) <= set(expected)


def test_exclusions_are_the_sum_of_all_reasons(reader: Reader) -> None:
    everything = list(reader.pages("v1/people/exclusions"))
    reasons = ("unsubscribed", "bounced", "invalid_email", "reported_spam", "manually_excluded")
    by_reason = [reader.get("v1/people/exclusions", reason=reason, count=5000)["data"] for reason in reasons]
    assert sorted(map(str, everything)) == sorted(str(row) for rows in by_reason for row in rows)
    assert all(by_reason)


def test_an_export_counts_the_events_of_a_metric(box: Sandbox, reader: Reader) -> None:
    (metric,) = (row for row in box.state()["metrics"] if row["name"] == "Opened Email")
    span = {"start_date": "2026-10-25", "end_date": "2026-11-24"}
    answer = reader.get(f"v1/metric/{metric['id']}/export", **span)
    assert sum(row["values"][0] for row in answer["results"][0]["data"]) == metric["count"]


def test_added_events_are_returned_once(box: Sandbox, reader: Reader) -> None:
    """Each of 250 events in one second is returned once, and an invalid event is returned unchanged."""
    second, metric = 1795000000, "Crowded over HTTP"
    added = box.add_events(*({"metric": metric, "timestamp": second} for _ in range(250)))
    box.add_events({"metric": metric, "timestamp": second, "raw": {"timestamp": "never"}, "omit": ["id"]})
    (metric_id,) = (row["id"] for row in box.state()["metrics"] if row["name"] == metric)
    events = list(reader.timeline(f"v1/metric/{metric_id}/timeline", str(second - 1)))
    assert [event.get("id") for event in events] == [*added, None]
    assert events[-1]["timestamp"] == "never" and events[0]["person"] is None
    assert list(reader.timeline(f"v1/metric/{metric_id}/timeline", str(second))) == []


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
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
def test_invalid_requests_are_refused(
    reader: Reader, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    """The body of the error has the format of the version in the path."""
    answer = reader.send(method, path, **options)
    assert answer.status_code == status
    assert set(answer.json()) == ({"status", "message"} if "v1" in path or status == 403 else {"detail"})


def test_faults_affect_legacy_endpoints(box: Sandbox, reader: Reader) -> None:
    endpoint = "GET /api/v1/metrics/timeline"
    box.set_faults({"endpoint": endpoint, "status": 504}, {"endpoint": endpoint, "cut": True})
    assert reader.send("GET", "v1/metrics/timeline").status_code == 504
    with pytest.raises(requests.RequestException):
        reader.send("GET", "v1/metrics/timeline")
    assert reader.get("v1/metrics/timeline")["count"] == 50


def test_the_mode_can_be_set_at_start_and_changed(http: requests.Session) -> None:
    """A sandbox can start with the retired API of today and change to a working one."""
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


def test_published_limits_are_enforced(http: requests.Session) -> None:
    """A 429 contains the number of seconds to wait, and other endpoints are not affected."""
    with running(members=20, events=50, days=5, limits="published") as box:
        reader = Reader(box, http)
        answers = (reader.send("GET", "v2/lists") for _ in range(2 * 750))
        refused = next((answer for answer in answers if answer.status_code != 200), None)
        assert refused is not None and refused.status_code == 429
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= 60
        assert refused.json() == {"detail": f"Request was throttled. Expected available in {wait}.0 seconds."}
        assert reader.send("GET", "v1/metrics").status_code == 200
