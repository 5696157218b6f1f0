"""Klaviyo's own client of the time of v1 and v2, retired since, reads the sandbox's legacy dialect.

It is installed beside the environment and not into it, as it brings a package named `tests` along.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.launcher import Sandbox, running

_CLIENT = "klaviyo==2.0.4"
_SCRIPT = """
import json, sys, klaviyo
url, key, calls = json.load(sys.stdin)
client = klaviyo.Klaviyo(private_token=key, api_server=url + "/api")
json.dump([getattr(client, name)(*given) for name, *given in calls], sys.stdout)
"""
Call = Callable[..., Any]


@pytest.fixture(scope="session")
def client_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("old-client")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), _CLIENT]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{_CLIENT} cannot be installed: {error}")
    return target


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=200, events=2000, days=20) as box:
        yield box


@pytest.fixture
def calls(box: Sandbox, client_path: Path) -> Call:
    """Makes calls of the client, each a method's name and arguments, and gives their results."""

    def make(*wanted: list[Any]) -> list[Any]:
        ran = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            input=json.dumps([box.url, box.api_key, wanted]),
            env={**os.environ, "PYTHONPATH": str(client_path)},
            cwd=client_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)  # type: ignore[no-any-return]

    return make


def call(calls: Call, *wanted: Any) -> Any:
    return calls(list(wanted))[0]


def test_metrics(box: Sandbox, calls: Call) -> None:
    """All metrics are found by going from page to page."""
    pages = calls(*(["metrics", page, 10] for page in range(3)))
    assert [page["page"] for page in pages] == [0, 1, 2]
    found = [row["id"] for page in pages for row in page["data"]]
    assert sorted(found) == sorted(metric["id"] for metric in box.state()["metrics"])


def test_timelines(box: Sandbox, calls: Call) -> None:
    """A metric's timeline is read to its end by the tokens of its pages."""
    metric = next(found for found in box.state()["metrics"] if found["name"] == "Clicked Email")
    found, since = [], "1000000000"
    while since:
        page = call(calls, "metric_timeline", metric["id"], since, 40, "asc")
        found += [event["id"] for event in page["data"]]
        since = page["next"]
    assert found == [event["id"] for event in box.events() if event["metric_id"] == metric["id"]]
    assert len(found) == metric["count"] > 40


def test_newest_events(box: Sandbox, calls: Call) -> None:
    """Without arguments the client reads the 100 newest events of all metrics."""
    page = call(calls, "metric_timeline")
    until = page["data"][0]["timestamp"]
    happened = [event["id"] for event in box.events() if event["timestamp"] <= until]
    assert [event["id"] for event in page["data"]] == happened[-1:-101:-1]


def test_export(box: Sandbox, calls: Call) -> None:
    """An export counts the events of a metric."""
    metric = next(found for found in box.state()["metrics"] if found["name"] == "Opened Email")
    answer = call(calls, "metric_export", metric["id"], "2026-11-04", "2026-11-24", "week", "count")
    assert sum(row["values"][0] for row in answer["results"][0]["data"]) == metric["count"]


def test_lists(box: Sandbox, calls: Call) -> None:
    """Lists, one list, its members and its subscribers are read with the key and the addresses in the body."""
    state = box.state()["lists"]
    list_id = max(state, key=lambda found: state[found])
    rows, one, members = calls(["lists"], ["list", list_id], ["all_members", list_id])
    assert {row["list_id"] for row in rows} == set(state)
    assert one["list_name"] == next(row["list_name"] for row in rows if row["list_id"] == list_id)
    assert len(members["records"]) == state[list_id]
    emails = [row["email"] for row in members["records"] if row["email"]][:100]
    found, subscribers = calls(
        ["list_subscription", list_id, emails, "members"], ["list_subscription", list_id, emails, "subscribe"]
    )
    assert {row["email"] for row in found} == set(emails)
    assert {row["email"] for row in subscribers} < set(emails)


def test_list_exclusions(calls: Call) -> None:
    """The client never fills the list's id into this one address, so that no list is found."""
    assert "detail" in call(calls, "list_exclusions", "any")


def test_profiles(box: Sandbox, calls: Call) -> None:
    """A profile and its events, of all metrics and of one, are found by its id."""
    event = next(event for event in box.events() if event["profile_id"])
    profile = event["profile_id"]
    person, everything, some = calls(
        ["get_profile", profile],
        ["get_profile_metrics_timeline", profile],
        ["get_profile_metric_timeline", profile, event["metric_id"]],
    )
    assert (person["object"], person["id"]) == ("person", profile)
    assert event["id"] in {found["id"] for found in everything["data"]}
    assert {found["statistic_id"] for found in some["data"]} == {event["metric_id"]}


def test_refused(box: Sandbox, calls: Call) -> None:
    """A client gets the refusal's body when the service is gone."""
    box.set_legacy("gone")
    try:
        assert set(call(calls, "metrics")) == {"detail", "link"}
    finally:
        box.set_legacy("on")
