"""The faults of the sandbox over real HTTP: their effect on a client, and their repeatability."""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest
import requests

from sandbox.faults.chaos import Chaos
from sandbox.faults.kinds import HARSH, KINDS, MILD
from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import LONG_AGO, Reader, until_refused

EVENTS, TIMELINE = "GET /api/events", "GET /api/v1/metrics/timeline"
Fetch = Callable[[], requests.Response]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=60, events=500, days=10) as box:
        yield box


@pytest.fixture(autouse=True)
def no_faults_left(box: Sandbox) -> Iterator[None]:
    """End all faults after each test."""
    yield
    box.set_faults()
    box.set_chaos()


@pytest.fixture
def reader(box: Sandbox) -> Reader:
    return Reader(box)


@pytest.fixture(params=[EVENTS, TIMELINE])
def endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fetch(reader: Reader, endpoint: str) -> Fetch:
    """A function that fetches a page of events in either dialect."""
    if endpoint == EVENTS:
        return lambda: reader.current("events", {"page[size]": 5})
    return lambda: reader.legacy("v1/metrics/timeline", {"count": 5, "since": LONG_AGO, "sort": "asc"})


def fetch_with_fault(box: Sandbox, endpoint: str, fetch: Fetch, kind: str, **fault: Any) -> requests.Response:
    """Return the response to a request with a fault. Check that a retry is normal and that one fault was counted."""
    normal, before = fetch().content, box.state()["chaos"].get(kind, 0)
    box.set_faults({"endpoint": endpoint, "kind": kind, **fault})
    try:
        return fetch()
    finally:
        retry = fetch()
        assert (retry.status_code, retry.content) == (200, normal)
        assert box.state()["chaos"][kind] == before + 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param("reset", "Connection reset by peer", id="reset"),
        pytest.param("truncated", "IncompleteRead", id="truncated"),
        pytest.param("undecodable", "failed to decode it", id="undecodable"),
    ],
)
def test_a_broken_connection_raises_an_error(box: Sandbox, endpoint: str, fetch: Fetch, kind: str, error: str) -> None:
    with pytest.raises(requests.exceptions.RequestException, match=error):
        fetch_with_fault(box, endpoint, fetch, kind)


@pytest.mark.parametrize(
    ("kind", "status", "wait"),
    [("429", 429, "1"), ("429_bare", 429, None), *((str(code), code, None) for code in (500, 502, 503, 504, 524))],
)
def test_errors_come_from_the_api_or_from_a_gateway(
    box: Sandbox, endpoint: str, fetch: Fetch, kind: str, status: int, wait: str | None
) -> None:
    """A 429 has the format of the dialect. All other errors are HTML pages of a gateway."""
    answer = fetch_with_fault(box, endpoint, fetch, kind)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, wait)
    assert answer.headers["content-type"].startswith("text/html") == (status != 429)
    assert ("json" in answer.headers["content-type"]) == (status == 429)


def test_a_200_can_have_a_wrong_body(box: Sandbox, endpoint: str, fetch: Fetch) -> None:
    assert "<html>" in fetch_with_fault(box, endpoint, fetch, "html_200").text
    assert fetch_with_fault(box, endpoint, fetch, "empty_body").content == b""
    assert "data" not in fetch_with_fault(box, endpoint, fetch, "not_jsonapi").json()
    cut = fetch_with_fault(box, endpoint, fetch, "not_json")
    assert int(cut.headers["content-length"]) == len(cut.content)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.content)


@pytest.mark.parametrize("kind", ["timeout", "slow"])
def test_a_late_response_is_complete(box: Sandbox, endpoint: str, fetch: Fetch, kind: str) -> None:
    normal, started = fetch().content, perf_counter()
    assert fetch_with_fault(box, endpoint, fetch, kind, seconds=0.3).content == normal
    assert perf_counter() - started >= 0.3


def test_a_client_can_time_out_and_retry(box: Sandbox, endpoint: str, fetch: Fetch) -> None:
    box.set_faults({"endpoint": endpoint, "kind": "timeout", "seconds": 3})
    impatient = Reader(box, timeout=0.2)
    with pytest.raises(requests.exceptions.ReadTimeout):
        impatient.current("events") if endpoint == EVENTS else impatient.legacy("v1/metrics/timeline")
    assert fetch().status_code == 200


def test_a_decompression_bomb_expands_without_end(box: Sandbox) -> None:
    """Less than 200 kB decompress to more than 40 MB."""
    box.set_faults({"endpoint": EVENTS, "kind": "bomb"})
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    unpack, size, read = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, 0
    with requests.get(f"{box.url}/api/events", headers=headers, stream=True, timeout=120) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        while size < 40_000_000:
            piece = answer.raw.read(16_384, decode_content=False)
            read, size = read + len(piece), size + len(unpack.decompress(piece))
    assert read < 200_000
    assert Reader(box).current("events").status_code == 200


def test_following_empty_pages_returns_every_row_once(box: Sandbox, reader: Reader) -> None:
    """This also holds if every page is preceded by an empty one."""
    expected = sorted(event["id"] for event in box.events())
    list_id = max(box.state()["lists"].items(), key=lambda row: row[1])[0]
    members = reader.legacy(f"v2/group/{list_id}/members/all").json()["records"]
    box.set_chaos(rate=1, kinds=["empty_page"])
    assert reader.current("events").json()["data"] == []
    assert sorted(row["id"] for row in reader.rows("events", page__size=200)) == expected
    assert sorted(row["id"] for row in reader.timeline()) == expected
    first = reader.legacy(f"v2/group/{list_id}/members/all").json()
    second = reader.legacy(f"v2/group/{list_id}/members/all", {"marker": first["marker"]}).json()
    assert (first["records"], second["records"]) == ([], members)
    assert reader.first_page("v1/metrics")  # has numbered pages, where an empty one would be the last
    assert reader.current("accounts").json()["links"]["next"]
    assert len(reader.rows("accounts")) == 1


def test_misleading_links(box: Sandbox, reader: Reader) -> None:
    """A page can link to itself or to another host, and a request can be redirected to another host."""
    second = reader.current("events", {"page[size]": 5}).json()["links"]["next"]
    box.set_chaos(rate=1, kinds=["repeated_cursor"])
    assert reader.current(second).json()["links"]["next"] == second
    page = reader.legacy("v1/metrics/timeline", {"since": LONG_AGO, "sort": "asc"}).json()
    assert page["data"] and page["next"] == LONG_AGO
    box.set_chaos(rate=1, kinds=["foreign_link"])
    assert reader.current(second).json()["links"]["next"].startswith("http://127.0.0.1:1/api/events?")
    box.set_chaos(rate=1, kinds=["redirect"])
    for answer in (reader.current("events"), reader.legacy("v1/metrics")):
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("http://127.0.0.1:1/api/")


def test_a_page_can_contain_another_metric(box: Sandbox, reader: Reader) -> None:
    """Events of another metric are returned under the requested URL."""
    requested = min(box.state()["metrics"], key=lambda row: row["count"])["id"]
    box.set_chaos(rate=1, kinds=["other_metric"])
    page = reader.current("events", {"filter": f'equals(metric_id,"{requested}")', "page[size]": 3}).json()
    returned = {row["relationships"]["metric"]["data"]["id"] for row in page["data"]}
    assert len(returned) == 1 and requested not in returned
    assert requested in page["links"]["next"] and not any(metric in page["links"]["next"] for metric in returned)
    timeline = reader.legacy(f"v1/metric/{requested}/timeline", {"since": LONG_AGO, "sort": "asc"}).json()
    assert {event["statistic_id"] for event in timeline["data"]} == returned


def test_chaos_is_repeatable(box: Sandbox, reader: Reader) -> None:
    """A seed determines which requests meet which faults. About as many requests meet one as the rate says."""

    def statuses(seed: int) -> list[int]:
        box.set_chaos(rate=0.3, seed=seed, kinds=["429", "502", "504"], paths="GET /api/(flows|v1/flows)$")
        assert {reader.current("metrics").status_code for _ in range(5)} == {200}
        return [get("flows" if get == reader.current else "v1/flows").status_code for get in gets]

    gets = [reader.current, reader.legacy] * 40
    first, repeated, other = statuses(7), statuses(7), statuses(8)
    assert first == repeated != other
    assert set(first) == {200, 429, 502, 504}
    assert 10 <= len(first) - first.count(200) <= 40


def test_a_reader_with_retries_reads_everything_once(box: Sandbox, reader: Reader) -> None:
    """A reader that retries after each mild fault reads every event once, in either dialect."""

    def get_with_retries(get: Callable[[str], requests.Response], path: str) -> dict[str, Any]:
        for _ in range(20):
            try:
                answer = get(path)
                if answer.status_code == 200 and "data" in (page := answer.json()):
                    return dict(page)
            except requests.exceptions.RequestException:
                continue
        raise AssertionError(path)

    expected = sorted(event["id"] for event in box.events())
    before = box.state()["chaos"]
    box.set_chaos(rate=0.5, seed=3, seconds=0.01)
    ids, following = list[str](), "events?page[size]=7"
    while following:
        page = get_with_retries(reader.current, following)
        ids += [row["id"] for row in page["data"]]
        following = page["links"]["next"]
    assert sorted(ids) == expected
    ids, since = [], LONG_AGO
    while since:
        page = get_with_retries(reader.legacy, f"v1/metrics/timeline?sort=asc&count=20&since={since}")
        ids += [row["id"] for row in page["data"]]
        since = page["next"]
    assert sorted(ids) == expected
    met = {kind: count - before.get(kind, 0) for kind, count in box.state()["chaos"].items()}
    assert {kind for kind, count in met.items() if count} == set(MILD)


def test_a_sandbox_can_start_with_chaos() -> None:
    """The command accepts a rate and a seed, and refuses an invalid rate."""
    with running(members=5, events=10, chaos_rate=1, chaos_seed=2) as box:
        with suppress(requests.exceptions.RequestException):
            Reader(box).current("flows")
        drawn = Chaos(rate=1, seed=2).draw("GET /api/flows")
        assert drawn and box.state()["chaos"] == {drawn.kind: 1}
    with (
        pytest.raises(SandboxError, match=r"Invalid --chaos-rate: the rate 2\.0 is not between 0 and 1"),
        running(chaos_rate=2),
    ):
        pass


@pytest.mark.parametrize("chaos", [{"rate": 2}, {"kinds": ["nonsense"]}, {"kinds": []}, {"paths": "("}, {"x": 1}])
def test_invalid_chaos_is_refused(box: Sandbox, chaos: dict[str, Any]) -> None:
    """Invalid settings are refused, and so is a fault of an unknown kind."""
    with pytest.raises(SandboxError):
        box.set_chaos(**chaos)
    with pytest.raises(SandboxError, match=r"unknown kinds nonsense\. Use reset, truncated"):
        box.set_faults({"endpoint": EVENTS, "kind": "nonsense"})


def test_every_kind_is_mild_or_harsh() -> None:
    assert sorted([*MILD, *HARSH]) == sorted(KINDS)


def test_a_fault_can_last_for_ever(box: Sandbox, endpoint: str, fetch: Fetch) -> None:
    box.set_faults({"endpoint": endpoint, "status": 429, "retry_after": 2, "times": 10**9})
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in (fetch() for _ in range(5))} == {
        (429, "2")
    }


def test_server_settings_change_at_run_time(reader: Reader) -> None:
    """Latency, page size and limits can be changed, and the sandbox reports the traffic of each second."""
    with running(members=5, events=10) as box:
        reader = Reader(box)
        box.set_server(latency_ms=150)
        started = perf_counter()
        assert reader.current("flows").status_code == 200
        assert perf_counter() - started >= 0.15
        box.set_server(latency_ms=0, limits="real")
        answers = [answer.status_code for answer in until_refused(lambda: reader.current("accounts"))]
        assert answers[-1] == 429
        box.set_server(limits="off", most_events=4)
        assert len(reader.current("events", {"page[size]": 1000}).json()["data"]) == 4
        assert len(reader.rows("events", page__size=1000)) == 10
        assert {reader.current("accounts").status_code for _ in range(8)} == {200}
        accounts = box.traffic()["GET /api/accounts"]
        assert sum(accounts["seconds"].values()) == len(answers) + 8
        assert accounts["throttled"] == answers.count(429)
        assert box.state()["per_second"]["GET /api/accounts"] == max(accounts["seconds"].values())
        with pytest.raises(SandboxError, match="limits must be one of real, published, off"):
            box.set_server(limits="none")
        with pytest.raises(SandboxError, match="unknown settings colour; the settings are largest_page, latency_ms"):
            box.set_server(colour="red")
