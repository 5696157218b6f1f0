"""Reports of the sandbox: what it refuses, how it pages, and the quota of a day that a control can lower."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from sandbox.api.keys import API_KEY
from tests.unit.sandbox.conftest import Server

CAMPAIGNS, FLOWS, SERIES = "campaign-values-reports", "flow-values-reports", "flow-series-reports"
HEADERS = {"authorization": f"Klaviyo-API-Key {API_KEY}", "revision": "2026-07-15"}


def ask(server: Server, path: str, **changes: Any) -> httpx.Response:
    metric = next(row.id for row in server.account.metrics.values() if row.name == "Placed Order")
    default = {"statistics": ["opens"], "timeframe": {"key": "last_30_days"}, "conversion_metric_id": metric}
    attributes = {name: value for name, value in (default | changes).items() if value is not None}
    body = {"data": {"type": "report", "attributes": attributes}}
    return server.send("POST", f"/api/{path}", None, json=body, headers=HEADERS)


def days(start: str, end: str) -> Mapping[str, str]:
    return {"start": f"{start}T00:00:00+00:00", "end": f"{end}T23:59:59+00:00"}


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        pytest.param(CAMPAIGNS, {"statistics": ["shares"]}, id="unknown statistic"),
        pytest.param(CAMPAIGNS, {"statistics": []}, id="no statistic"),
        pytest.param(CAMPAIGNS, {"timeframe": None}, id="no time frame"),
        pytest.param(CAMPAIGNS, {"timeframe": {"key": "last_eon"}}, id="unknown time frame"),
        pytest.param(CAMPAIGNS, {"timeframe": days("2026-07-02", "2026-07-01")}, id="ends before it begins"),
        pytest.param(CAMPAIGNS, {"timeframe": days("2024-07-01", "2025-08-01")}, id="more than a year"),
        pytest.param(CAMPAIGNS, {"timeframe": days("2099-07-01", "2099-07-01")}, id="future"),
        pytest.param(CAMPAIGNS, {"conversion_metric_id": "NOPE"}, id="unknown metric"),
        pytest.param(CAMPAIGNS, {"group_by": ["campaign_id"]}, id="no message"),
        pytest.param(FLOWS, {"group_by": ["flow_id", "flow_message_id", "colour"]}, id="unknown group"),
        pytest.param(SERIES, {"interval": None}, id="no interval"),
        pytest.param(SERIES, {"interval": "daily", "timeframe": days("2026-05-01", "2026-07-01")}, id="61 days"),
    ],
)
def test_what_klaviyo_refuses_is_refused(shared: Server, path: str, changes: dict[str, Any]) -> None:
    assert ask(shared, path, **changes).status_code == 400


def test_results_are_paged(shared: Server) -> None:
    page = ask(shared, CAMPAIGNS).json()
    groups = [tuple(row["groupings"].values()) for row in page["data"]["attributes"]["results"]]
    assert len(groups) == 100
    while link := page["links"]["next"]:
        page = ask(shared, link.partition("/api/")[2]).json()
        groups += [tuple(row["groupings"].values()) for row in page["data"]["attributes"]["results"]]
    assert len(set(groups)) == len(groups) > 100


def test_a_control_sets_the_quota_of_a_day(own: Server) -> None:
    """The answer to what exceeds it names the wait until the next day."""
    limits = {"limits": "real", "others": {f"POST /api/{FLOWS}": [9, 9, 2]}}
    assert own.send("POST", "/sandbox/server", None, json=limits).status_code == 200
    own.state.limiter._clock = lambda: 1_764_000_000.0  # type: ignore[union-attr]
    answers = [ask(own, FLOWS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-limit"] == "9, 9;w=1, 9;w=60, 2;w=86400"
    assert int(answers[2].headers["Retry-After"]) > 3_600
