"""An account with history, and backfills of it in small chunks."""

from datetime import datetime
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import DAY, Result, Warehouse, days_ago

START = days_ago(40)
OPENS, ORDERS = 3_000, 4
STORED = "SELECT id FROM opens UNION ALL SELECT id FROM events ORDER BY id"

ATTRIBUTED = """
SELECT event.id FROM event_attributions JOIN (
    SELECT key, event_at, id FROM opens UNION ALL SELECT key, event_at, id FROM events
) AS event ON event.key = event_key AND event.event_at = event_attributions.event_at
WHERE campaign_id = 'C1' ORDER BY event.id
"""


class Backfill(Protocol):
    """Runs a backfill in chunks of about a thousand events, unless the settings change that."""

    def __call__(self, start: datetime = ..., **settings: object) -> Result: ...


@pytest.fixture(autouse=True)
def history(shop: FakeAccount) -> None:
    """Give the account 3,000 events of one metric, over 30 days, and four of another. Some are attributed."""
    shop.events.clear()
    shop.events_per_page = 500
    shop.add_events("OPEN", *(days_ago(31) + number * 30 * DAY / OPENS for number in range(OPENS)), person="P0")
    shop.add_events("ORDER", *(days_ago(20 - number) for number in range(ORDERS)), person="P1")
    for event in shop.events[::50]:
        shop.attribute(event.id, "E00000", campaign_id="C1")


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["spool", "no spool"])
def backfill(request: pytest.FixtureRequest, warehouse: Warehouse) -> Backfill:
    """Return a function that runs a backfill, with the spool and without it."""
    return _backfill(warehouse, spool=request.param)


@pytest.fixture
def spooled(warehouse: Warehouse) -> Backfill:
    """Return a function that runs a backfill through the spool."""
    return _backfill(warehouse, spool=True)


def _backfill(warehouse: Warehouse, **defaults: object) -> Backfill:
    def backfill(start: datetime = START, **settings: object) -> Result:
        return warehouse.backfill(start, **{"chunk_events": 1_000, **defaults, **settings})  # type: ignore[arg-type]

    return backfill


def assert_complete(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Assert that each event and attribution is stored once, and that the ledger has as many events as were read."""
    assert warehouse.column(STORED) == sorted(event.id for event in shop.events)
    assert warehouse.column(ATTRIBUTED) == sorted(shop.attributions)
    history = warehouse.history()
    assert {state for _, state, _, _ in history} == {"done"}
    assert sum(loaded for _, _, _, loaded in history) == len(shop.events)


def spool_files(warehouse: Warehouse) -> list[Path]:
    """Return the files in the spool."""
    return [path for path in warehouse.configured().spool_dir.rglob("*") if path.is_file()]
