"""The faults of the sandbox over real HTTP: what each looks like to a client, and that they can be repeated."""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any

import pytest
import requests

from sandbox.chaos import HARSH, KINDS, MILD, Chaos
from sandbox.launcher import Sandbox, SandboxError, running
from tests.reader import LONG_AGO, Reader

EVENTS, TIMELINE = "GET /api/events", "GET /api/v1/metrics/timeline"
Ask = Callable[[], requests.Response]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=60, events=500, days=10) as box:
        yield box


@pytest.fixture(autouse=True)
def calm(box: Sandbox) -> Iterator[None]:
    """Leaves no faults behind."""
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
def ask(reader: Reader, endpoint: str) -> Ask:
    """One page of events in either dialect."""
    if endpoint == EVENTS:
        return lambda: reader.current("events", {"page[size]": 5})
    return lambda: reader.legacy("v1/metrics/timeline", {"count": 5, "since": LONG_AGO, "sort": "asc"})


def lost(box: Sandbox, endpoint: str, ask: Ask, kind: str, **fault: Any) -> requests.Response:
    """The answer to the one request that meets a fault; the next is good, and the fault was counted once."""
    good, before = ask().content, box.state()["chaos"].get(kind, 0)
    box.set_faults({"endpoint": endpoint, "kind": kind, **fault})
    try:
        return ask()
    finally:
        again = ask()
        assert (again.status_code, again.content) == (200, good)
        assert box.state()["chaos"][kind] == before + 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        pytest.param("reset", "Connection reset by peer", id="reset"),
        pytest.param("truncated", "IncompleteRead", id="truncated"),
        pytest.param("undecodable", "failed to decode it", id="undecodable"),
    ],
)
def test_broken_connections(box: Sandbox, endpoint: str, ask: Ask, kind: str, error: str) -> None:
    """A client notices that there is no answer, or no whole one."""
    with pytest.raises(requests.exceptions.RequestException, match=error):
        lost(box, endpoint, ask, kind)


@pytest.mark.parametrize(
    ("kind", "status", "wait"),
    [("429", 429, "1"), ("429_bare", 429, None), *((str(code), code, None) for code in (500, 502, 503, 504, 524))],
)
def test_statuses(box: Sandbox, endpoint: str, ask: Ask, kind: str, status: int, wait: str | None) -> None:
    """Throttling is told in the words of the API; everything else comes from a gateway, as HTML."""
    answer = lost(box, endpoint, ask, kind)
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, wait)
    assert answer.headers["content-type"].startswith("text/html") == (status != 429)
    assert ("json" in answer.headers["content-type"]) == (status == 429)


def test_wrong_bodies(box: Sandbox, endpoint: str, ask: Ask) -> None:
    """Some answers say 200 and are none."""
    assert "<html>" in lost(box, endpoint, ask, "html_200").text
    assert lost(box, endpoint, ask, "empty_body").content == b""
    assert "data" not in lost(box, endpoint, ask, "not_jsonapi").json()
    cut = lost(box, endpoint, ask, "not_json")
    assert int(cut.headers["content-length"]) == len(cut.content)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.content)


@pytest.mark.parametrize("kind", ["timeout", "slow"])
def test_late_answers(box: Sandbox, endpoint: str, ask: Ask, kind: str) -> None:
    """A late answer is a good one, for those who wait; whoever does not may ask again."""
    good, began = ask().content, perf_counter()
    assert lost(box, endpoint, ask, kind, seconds=0.3).content == good
    assert perf_counter() - began >= 0.3


def test_timeout_of_the_client(box: Sandbox, endpoint: str, ask: Ask) -> None:
    """A client that does not wait long enough gets nothing."""
    box.set_faults({"endpoint": endpoint, "kind": "timeout", "seconds": 3})
    impatient = Reader(box, timeout=0.2)
    with pytest.raises(requests.exceptions.ReadTimeout):
        impatient.current("events") if endpoint == EVENTS else impatient.legacy("v1/metrics/timeline")
    assert ask().status_code == 200


def test_bomb(box: Sandbox) -> None:
    """A few kilobytes become ever more megabytes, for as long as somebody decompresses them."""
    box.set_faults({"endpoint": EVENTS, "kind": "bomb"})
    headers = {"Authorization": f"Klaviyo-API-Key {box.api_key}", "revision": "2026-07-15"}
    unpack, size, read = zlib.decompressobj(16 + zlib.MAX_WBITS), 0, 0
    with requests.get(f"{box.url}/api/events", headers=headers, stream=True, timeout=30) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        while size < 40_000_000:
            part = answer.raw.read(16_384, decode_content=False)
            read, size = read + len(part), size + len(unpack.decompress(part))
    assert read < 200_000
    assert Reader(box).current("events").status_code == 200


def test_empty_pages(box: Sandbox, reader: Reader) -> None:
    """Following the links of pages without rows, nothing is lost and nothing comes twice, even if all pages are so."""
    wanted = sorted(event["id"] for event in box.events())
    list_id = max(box.state()["lists"].items(), key=lambda row: row[1])[0]
    members = reader.legacy(f"v2/group/{list_id}/members/all").json()["records"]
    box.set_chaos(rate=1, kinds=["empty_page"])
    assert reader.current("events").json()["data"] == []
    assert sorted(row["id"] for row in reader.rows("events", page__size=200)) == wanted
    assert sorted(row["id"] for row in reader.timeline()) == wanted
    first = reader.legacy(f"v2/group/{list_id}/members/all").json()
    second = reader.legacy(f"v2/group/{list_id}/members/all", {"marker": first["marker"]}).json()
    assert (first["records"], second["records"]) == ([], members)
    assert reader.numbered("v1/metrics")  # has numbered pages: one without rows would be the last
    assert reader.current("accounts").json()["links"]["next"]
    assert len(reader.rows("accounts")) == 1


def test_misleading_pages(box: Sandbox, reader: Reader) -> None:
    """A page may lead to itself or to another host, or be redirected there."""
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


def test_other_metric(box: Sandbox, reader: Reader) -> None:
    """The events of another metric come in place of those asked for, under the address asked for."""
    asked = min(box.state()["metrics"], key=lambda row: row["count"])["id"]
    box.set_chaos(rate=1, kinds=["other_metric"])
    page = reader.current("events", {"filter": f'equals(metric_id,"{asked}")', "page[size]": 3}).json()
    found = {row["relationships"]["metric"]["data"]["id"] for row in page["data"]}
    assert len(found) == 1 and asked not in found
    assert asked in page["links"]["next"] and not any(metric in page["links"]["next"] for metric in found)
    timeline = reader.legacy(f"v1/metric/{asked}/timeline", {"since": LONG_AGO, "sort": "asc"}).json()
    assert {event["statistic_id"] for event in timeline["data"]} == found


def test_chaos_is_repeatable(box: Sandbox, reader: Reader) -> None:
    """The same seed gives the same faults at the same requests, at about the rate asked for; another gives others."""

    def statuses(seed: int) -> list[int]:
        box.set_chaos(rate=0.3, seed=seed, kinds=["429", "502", "504"], paths="GET /api/(flows|v1/flows)$")
        assert {reader.current("metrics").status_code for _ in range(5)} == {200}
        return [ask("flows" if ask == reader.current else "v1/flows").status_code for ask in asks]

    asks = [reader.current, reader.legacy] * 40
    first, again, other = statuses(7), statuses(7), statuses(8)
    assert first == again != other
    assert set(first) == {200, 429, 502, 504}
    assert 10 <= len(first) - first.count(200) <= 40


def test_everything_is_read_in_spite_of_chaos(box: Sandbox, reader: Reader) -> None:
    """A reader that asks again after each mild fault reads every event once, in either dialect."""

    def patiently(ask: Callable[[str], requests.Response], path: str) -> dict[str, Any]:
        for _ in range(20):
            try:
                answer = ask(path)
                if answer.status_code == 200 and "data" in (page := answer.json()):
                    return dict(page)
            except requests.exceptions.RequestException:
                continue
        raise AssertionError(path)

    wanted = sorted(event["id"] for event in box.events())
    before = box.state()["chaos"]
    box.set_chaos(rate=0.5, seed=3, seconds=0.01)
    found, following = list[str](), "events?page[size]=7"
    while following:
        page = patiently(reader.current, following)
        found += [row["id"] for row in page["data"]]
        following = page["links"]["next"]
    assert sorted(found) == wanted
    found, since = [], LONG_AGO
    while since:
        page = patiently(reader.legacy, f"v1/metrics/timeline?sort=asc&count=20&since={since}")
        found += [row["id"] for row in page["data"]]
        since = page["next"]
    assert sorted(found) == wanted
    met = {kind: count - before.get(kind, 0) for kind, count in box.state()["chaos"].items()}
    assert {kind for kind, count in met.items() if count} == set(MILD)


def test_chaos_from_the_start() -> None:
    """The command takes a rate and a seed, and refuses what is no rate."""
    with running(members=5, events=10, chaos_rate=1, chaos_seed=2) as box:
        with suppress(requests.exceptions.RequestException):
            Reader(box, timeout=1).current("flows")
        drawn = Chaos(rate=1, seed=2).draw("GET /api/flows")
        assert drawn and box.state()["chaos"] == {drawn.kind: 1}
    with pytest.raises(SandboxError, match="No chaos can be made of that"), running(chaos_rate=2):
        pass


@pytest.mark.parametrize("chaos", [{"rate": 2}, {"kinds": ["nonsense"]}, {"kinds": []}, {"paths": "("}, {"x": 1}])
def test_chaos_refused(box: Sandbox, chaos: dict[str, Any]) -> None:
    """What is no chaos is refused, and so is a fault of an unknown kind."""
    with pytest.raises(SandboxError):
        box.set_chaos(**chaos)
    with pytest.raises(SandboxError, match="known are reset, truncated"):
        box.set_faults({"endpoint": EVENTS, "kind": "nonsense"})


def test_kinds() -> None:
    """Every kind is mild or harsh."""
    assert sorted([*MILD, *HARSH]) == sorted(KINDS)


def test_throttled_for_ever(box: Sandbox, endpoint: str, ask: Ask) -> None:
    """A fault may go on and on."""
    box.set_faults({"endpoint": endpoint, "status": 429, "retry_after": 2, "times": 10**9})
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in (ask() for _ in range(5))} == {(429, "2")}


def test_server_settings(reader: Reader) -> None:
    """Latency, page sizes and limits change while the sandbox runs, and the traffic by second is told."""
    with running(members=5, events=10) as box:
        reader = Reader(box)
        box.set_server(latency_ms=150)
        began = perf_counter()
        assert reader.current("flows").status_code == 200
        assert perf_counter() - began >= 0.15
        box.set_server(latency_ms=0, limits="real")
        answers = [reader.current("accounts").status_code for _ in range(8)]
        assert 429 in answers
        box.set_server(limits="off", most_events=4)
        assert len(reader.current("events", {"page[size]": 1000}).json()["data"]) == 4
        assert len(reader.rows("events", page__size=1000)) == 10
        assert {reader.current("accounts").status_code for _ in range(8)} == {200}
        accounts = box.traffic()["GET /api/accounts"]
        assert sum(accounts["seconds"].values()) == 16
        assert accounts["throttled"] == answers.count(429)
        assert box.state()["per_second"]["GET /api/accounts"] == max(accounts["seconds"].values())
        with pytest.raises(SandboxError, match="latency_ms"):
            box.set_server(limits="none")
