"""Each event is in one table, whatever the source says about its metric, and a newer extraction wins."""

from datetime import UTC, datetime, timedelta
from typing import Any

from klaviyo_pg.catalogue import events, loads
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import EventPage, Events
from klaviyo_pg.traffic import Traffic
from pipeline import store
from pipeline.batch import protect
from pipeline.chunks import Chunk
from pipeline.runs import begin
from pipeline.streams.events import event_batch
from tests.integration.pipeline.conftest import LOG, Warehouse
from transforms.events import Metrics

READ = datetime(2026, 7, 1, tzinfo=UTC)
METRICS = Metrics({"OPEN": "Opened Email"}, {"OPEN": "opens"})


def page(metric_id: str | None, read_at: datetime = READ, **fields: Any) -> EventPage:
    """Return a page with one event of a person."""
    columns = {**dict.fromkeys(Events._fields), "id": "e1", "at": 1_750_000_000, "properties": b"{}", **fields}
    columns |= {"metric_id": metric_id, "profile_id": columns["profile_id"] or "P1"}
    return EventPage(Events(*([columns[name]] for name in Events._fields)), (), (), read_at)


def stored(warehouse: Warehouse, *pages: EventPage) -> list[tuple[Any, ...]]:
    """Store pages one after the other, and return the table and value of each row of the event."""
    with warehouse.open() as session:
        run, guard = begin(session, "daily", {}, LOG), Guard("events", 0.3, READ)
        for each in pages:
            batch = protect(event_batch(METRICS, run.integration_id, loads.MEMBER_STUBS, [each]), run.settings)
            store.store(session, run, Chunk("events"), batch, Traffic(), guard, lambda account: None)
    selects = (f"SELECT '{each.name}', value FROM {each.name}" for each in events.EVENT_TABLES)
    return warehouse.rows(" UNION ALL ".join(selects))


def test_an_event_that_gets_a_metric_moves_to_its_table(warehouse: Warehouse) -> None:
    assert stored(warehouse, page(None), page("OPEN")) == [("opens", None)]


def test_an_event_that_loses_its_metric_stays_in_its_table(warehouse: Warehouse) -> None:
    assert stored(warehouse, page("OPEN"), page(None)) == [("opens", None)]


def test_an_older_extraction_does_not_replace_a_newer_one(warehouse: Warehouse) -> None:
    """Batches on the spool are stored later than they were read."""
    older, newer = page("OPEN", READ, value="1"), page("OPEN", READ + timedelta(hours=1), value="2")
    assert stored(warehouse, newer, older) == [("opens", 2)]


def test_a_newer_extraction_replaces_an_older_one(warehouse: Warehouse) -> None:
    older, newer = page("OPEN", READ, value="1"), page("OPEN", READ + timedelta(hours=1), value="2")
    assert stored(warehouse, older, newer) == [("opens", 2)]


def test_an_older_extraction_shows_no_merge(warehouse: Warehouse) -> None:
    """Only an event that is newer can have moved to another profile."""
    old = page("OPEN", READ, profile_id="P2")
    stored(warehouse, page("OPEN", READ + timedelta(hours=1), profile_id="P1"), old)
    assert warehouse.rows("SELECT * FROM profile_merges") == []
    assert warehouse.one("SELECT member_key = md5('P1') FROM opens") is True
