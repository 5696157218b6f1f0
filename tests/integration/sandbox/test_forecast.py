"""The forecast of a backfill's duration, compared with the backfill, in requests."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import pytest

from klaviyo_pg.cli.preview import show
from klaviyo_pg.windows import Window
from pipeline.commands.duration import expected_duration, total
from pipeline.commands.preview import Stored, facts, preview
from sandbox.launcher import Sandbox, running
from tests.runs import Warehouse

DAYS = 40
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = MIDNIGHT - timedelta(days=DAYS)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account with more than one request's worth of everything."""
    with running(members=900, events=15_000, days=DAYS, until=MIDNIGHT) as box:
        yield box


def test_the_forecast_of_a_backfill_has_the_requests_that_it_sends(warehouse: Warehouse) -> None:
    """It covers the whole run: counting, full reads, events and people. Its durations follow from their numbers."""
    settings: dict[str, Any] = {"concurrency": 2, "processes": 1}
    with warehouse.open(**settings) as session:
        found = preview(session, Window(START, MIDNIGHT), lambda answers, *, total: answers)
        counting = session.traffic.requests
        expected = facts(session, found, Stored(), counting_seconds=1.0)
    ran = warehouse.backfill(START, MIDNIGHT, **settings)
    assert ran.state == "complete"
    _, is_known = total(expected_duration(expected))
    assert is_known and expected.people is not None
    requests = counting + expected.definitions + expected.event_requests + ceil(expected.people / 100)
    assert requests / 1.3 <= ran.traffic.requests <= requests * 1.3


def test_the_plan_of_a_restart_has_what_is_loaded(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    """Because it is read again."""
    warehouse.backfill(START, MIDNIGHT, concurrency=2, processes=1)
    show(warehouse.configured(), Window(START, MIDNIGHT), restart=False)
    rerun = capsys.readouterr().out
    assert "Loaded already: about " in rerun and "all of them are loaded" in rerun
    show(warehouse.configured(), Window(START, MIDNIGHT), restart=True)
    restart = capsys.readouterr().out
    assert "loaded" not in restart.lower()
    assert re.search(r"[0-9,]+ events in [0-9,]+ requests", " ".join(restart.split()))
