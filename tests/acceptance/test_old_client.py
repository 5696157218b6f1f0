"""Klaviyo's retired client for v1 and v2 reads the sandbox's legacy dialect.

It is installed in a separate directory, because it contains a package named `tests`.
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
json.dump([getattr(client, name)(*arguments) for name, *arguments in calls], sys.stdout)
"""
Call = Callable[..., Any]


@pytest.fixture(scope="session")
def client_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("old-client")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), _CLIENT]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{_CLIENT} cannot be installed: {error}")
    return target


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=200, events=2000, days=20) as box:
        yield box


@pytest.fixture
def calls(box: Sandbox, client_path: Path) -> Call:
    """A function that makes calls to the client, each a list of a method and its arguments, and returns the results."""

    def make(*calls: list[Any]) -> list[Any]:
        ran = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            input=json.dumps([box.url, box.api_key, calls]),
            env={**os.environ, "PYTHONPATH": str(client_path)},
            cwd=client_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)  # type: ignore[no-any-return]

    return make


def call(calls: Call, *method_and_arguments: Any) -> Any:
    return calls(list(method_and_arguments))[0]


def test_numbered_pages_contain_all_metrics(box: Sandbox, calls: Call) -> None:
    pages = calls(*(["metrics", page, 10] for page in range(3)))
    assert [page["page"] for page in pages] == [0, 1, 2]
    ids = [row["id"] for page in pages for row in page["data"]]
    assert sorted(ids) == sorted(metric["id"] for metric in box.state()["metrics"])


def test_a_timeline_is_read_with_the_tokens_of_its_pages(box: Sandbox, calls: Call) -> None:
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Clicked Email")
    ids, since = [], "1000000000"
    while since:
        page = call(calls, "metric_timeline", metric["id"], since, 40, "asc")
        ids += [event["id"] for event in page["data"]]
        since = page["next"]
    assert ids == [event["id"] for event in box.events() if event["metric_id"] == metric["id"]]
    assert len(ids) == metric["count"] > 40


def test_the_default_timeline_has_the_100_newest_events(box: Sandbox, calls: Call) -> None:
    page = call(calls, "metric_timeline")
    until = page["data"][0]["timestamp"]
    past = [event["id"] for event in box.events() if event["timestamp"] <= until]
    assert [event["id"] for event in page["data"]] == past[-1:-101:-1]


def test_an_export_counts_the_events_of_a_metric(box: Sandbox, calls: Call) -> None:
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Opened Email")
    answer = call(calls, "metric_export", metric["id"], "2026-11-04", "2026-11-24", "week", "count")
    assert sum(row["values"][0] for row in answer["results"][0]["data"]) == metric["count"]


def test_lists_members_and_subscribers_are_read(box: Sandbox, calls: Call) -> None:
    """The client sends the key and the addresses in the body."""
    state = box.state()["lists"]
    list_id = max(state, key=lambda list_id: state[list_id])
    rows, one, members = calls(["lists"], ["list", list_id], ["all_members", list_id])
    assert {row["list_id"] for row in rows} == set(state)
    assert one["list_name"] == next(row["list_name"] for row in rows if row["list_id"] == list_id)
    assert len(members["records"]) == state[list_id]
    emails = [row["email"] for row in members["records"] if row["email"]][:100]
    by_email, subscribers = calls(
        ["list_subscription", list_id, emails, "members"], ["list_subscription", list_id, emails, "subscribe"]
    )
    assert {row["email"] for row in by_email} == set(emails)
    assert {row["email"] for row in subscribers} < set(emails)


def test_list_exclusions_are_not_found(calls: Call) -> None:
    """The client never fills in the id of the list in this URL, so that the list is unknown."""
    assert "detail" in call(calls, "list_exclusions", "any")


def test_a_profile_and_its_timelines_are_read(box: Sandbox, calls: Call) -> None:
    """The client reads a timeline of all metrics and one of a single metric."""
    event = next(event for event in box.events() if event["profile_id"])
    profile = event["profile_id"]
    person, of_all, of_metric = calls(
        ["get_profile", profile],
        ["get_profile_metrics_timeline", profile],
        ["get_profile_metric_timeline", profile, event["metric_id"]],
    )
    assert (person["object"], person["id"]) == ("person", profile)
    assert event["id"] in {row["id"] for row in of_all["data"]}
    assert {row["statistic_id"] for row in of_metric["data"]} == {event["metric_id"]}


def test_the_client_returns_the_body_of_a_410(box: Sandbox, calls: Call) -> None:
    box.set_legacy("gone")
    try:
        assert set(call(calls, "metrics")) == {"detail", "link"}
    finally:
        box.set_legacy("on")
