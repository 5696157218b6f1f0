"""Extraction of history into the spool, without a database: what is spooled is not read again."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.backfill.reading import extract, spooled
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.spool import Spool, SpooledChunk, open_spool
from tests.fakes import FakeAccount
from transforms.events import Metrics

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVENTS = 5_000
CHUNK = BackfillChunk("OPEN", START, START + EVENTS * HOUR, EVENTS)
METRICS = Metrics({"OPEN": "Opened Email"}, {"OPEN": "opens"})


@pytest.fixture
def shop() -> FakeAccount:
    """Return an account with an event an hour."""
    shop = FakeAccount(events_per_page=1_000)
    shop.add_events("OPEN", *(START + number * HOUR for number in range(EVENTS)))
    return shop


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = Settings(klaviyo_api_key="pk_none", data_dir=tmp_path)
    return Run("run", "account", None, START, settings)


@pytest.fixture
def session(run: Run, shop: FakeAccount) -> Iterator[Session]:
    with Session(run.settings, shop.open) as session:
        yield session


@pytest.fixture
def spool(run: Run) -> Spool:
    spool = open_spool(run.settings, run.integration_id)
    assert spool is not None
    return spool


@pytest.fixture
def place(run: Run, spool: Spool) -> SpooledChunk:
    """Return where the chunk is spooled."""
    return spooled(spool, run, CHUNK, METRICS)


def test_a_chunk_is_extracted_in_batches(session: Session, run: Run, shop: FakeAccount, place: SpooledChunk) -> None:
    """Each batch begins where the one before ended, and the last one completes the chunk."""
    [outcome] = extract(session, run, [CHUNK], METRICS)
    assert outcome.error is None and not outcome.was_done
    batches = [batch for _, batch in place.batches(START)]
    assert len(batches) == 3 and place.is_complete
    assert [batch.start for batch in batches] == [START, *(batch.reached for batch in batches[:-1])]
    assert sum(batch.events for batch in batches) == EVENTS
    assert sum(batch.traffic.requests for batch in batches) == len(shop.requests) == 5


def test_a_complete_extraction_is_not_read_again(session: Session, run: Run, shop: FakeAccount) -> None:
    extract(session, run, [CHUNK], METRICS)
    shop.recover()
    [outcome] = extract(session, run, [CHUNK], METRICS)
    assert outcome.was_done
    assert shop.requests == []


def test_an_incomplete_extraction_is_resumed(
    session: Session, run: Run, shop: FakeAccount, place: SpooledChunk
) -> None:
    """Even if the last file was deleted, as after a power failure."""
    extract(session, run, [CHUNK], METRICS)
    *_, last = sorted(place.folder.iterdir())
    last.unlink()
    checkpoint = place.reached
    assert checkpoint is not None
    shop.recover()
    extract(session, run, [CHUNK], METRICS)
    assert {each.window for each in shop.requests} == {Window(checkpoint, CHUNK.window_end)}
    assert place.is_complete and place.events == EVENTS


@pytest.mark.parametrize("missing", [0, 1])
def test_an_extraction_with_a_gap_is_read_again(
    session: Session, run: Run, shop: FakeAccount, place: SpooledChunk, missing: int
) -> None:
    """Its last file is there, as if it were complete."""
    extract(session, run, [CHUNK], METRICS)
    sorted(place.folder.iterdir())[missing].unlink()
    shop.recover()
    [outcome] = extract(session, run, [CHUNK], METRICS)
    assert not outcome.was_done
    assert {each.window for each in shop.requests} == {CHUNK.window}
    assert place.is_complete and place.events == EVENTS


def test_extraction_begins_where_the_ledger_has_got_to(session: Session, run: Run, shop: FakeAccount) -> None:
    reached = START + 4_000 * HOUR
    extract(session, run, [CHUNK._replace(reached=reached)], METRICS)
    assert {each.window for each in shop.requests} == {Window(reached, CHUNK.window_end)}


def test_events_for_another_table_are_spooled_apart(run: Run, spool: Spool, place: SpooledChunk) -> None:
    """A metric whose table has changed since is read again."""
    other = Metrics(METRICS.names, {"OPEN": "clicks"})
    assert spooled(spool, run, CHUNK, other).folder != place.folder


def test_a_chunk_that_was_planned_again_is_spooled_apart(run: Run, spool: Spool, place: SpooledChunk) -> None:
    assert spooled(spool, run, CHUNK._replace(planned_by="restart"), METRICS).folder != place.folder


@pytest.mark.parametrize("mode", ["hash", "drop"])
def test_what_was_spooled_with_other_readable_properties_is_spooled_apart(run: Run, spool: Spool, mode: str) -> None:
    """Values of a property that is no longer readable are read again. The order of the names does not matter."""

    def folder(*readable: str) -> Path:
        settings = Settings(
            klaviyo_api_key="pk_none",
            data_dir=run.settings.data_dir,
            personal_data=mode,
            personal_data_salt="s" * 16,
            readable_properties=readable,
        )
        return spooled(spool, replace(run, settings=settings), CHUNK, METRICS).folder

    assert folder("Größe", "Farbe") == folder("Farbe", "Größe")
    assert len({folder(), folder("Größe"), folder("Größe", "Farbe")}) == 3
