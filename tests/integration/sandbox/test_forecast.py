"""The forecast of a backfill's duration, compared with the backfill, over an API that takes its time to answer."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from klaviyo_pg.cli.preview import show
from klaviyo_pg.windows import Window
from pipeline.backfill.duration import START_SECONDS, forecast, total
from pipeline.backfill.preview import Stored, facts, preview
from sandbox.launcher import Sandbox, running
from tests.runs import Warehouse

DAYS = 40
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = MIDNIGHT - timedelta(days=DAYS)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """An account whose API takes a tenth of a second for each answer."""
    with running(members=900, events=15_000, days=DAYS, until=MIDNIGHT, latency_ms=100) as box:
        yield box


def test_the_forecast_of_a_backfill_is_what_it_takes(warehouse: Warehouse) -> None:
    """It covers the whole run: full reads, counting, events, people and the end."""
    settings, began = {"concurrency": 2, "processes": 1}, monotonic()
    with warehouse.open(**settings) as session:
        found = preview(session, Window(START, MIDNIGHT), lambda answers, *, total: answers)
        steps = forecast(facts(session, found, Stored(), monotonic() - began))
    expected, is_known = total(steps)
    began = monotonic()
    assert warehouse.backfill(START, MIDNIGHT, **settings).state == "complete"
    took = monotonic() - began
    assert is_known
    assert took / 2 <= expected - START_SECONDS <= 2 * took, (took, steps)


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
