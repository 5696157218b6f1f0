"""Units that are repeated, as Prefect does with tasks that failed: the ledger knows what is left of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from klaviyo_pg.errors import BadAnswer, Busy, Unavailable
from klaviyo_pg.postgres.ledgers import backfill_ledger, chunk_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import OpenWindow
from pipeline import runs
from pipeline.backfill.reading import extract, load, read_at_once
from pipeline.chunks import Chunk
from pipeline.read import read_chunks
from pipeline.runs import Run
from pipeline.session import Session
from tests.driver import wait_until
from tests.fakes import FakeAccount
from tests.integration.pipeline.conftest import LOG, Warehouse, days_ago
from transforms.events import Metrics

METRICS = Metrics({}, {"OPEN": "opens"})
SECOND = timedelta(seconds=1)
HISTORY = BackfillChunk("OPEN", days_ago(10), days_ago(0), 6)
WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = %s::regclass AND NOT granted)"


@pytest.fixture
def session(warehouse: Warehouse) -> Iterator[Session]:
    with warehouse.open() as session:
        yield session


@pytest.fixture
def run(session: Session, shop: FakeAccount) -> Run:
    """Begin a run whose ledger has a chunk of history."""
    run = runs.begin(session, "daily", {}, LOG)
    runs.transact(session, run, lambda account: backfill_ledger.add(account, [HISTORY]))
    shop.recover()
    return run


def test_a_repeated_unit_reads_only_what_is_left(session: Session, run: Run, shop: FakeAccount) -> None:
    """Chunks that were read before have an outcome, too."""
    chunks = [Chunk("list_members", OpenWindow(days_ago(30)), each) for each in ("L1", "L2")]
    names = [(chunk.key, chunk.part) for chunk in chunks]
    runs.transact(session, run, lambda account: chunk_ledger.plan_chunks(account, run.id, names))
    shop.fail("memberships", Unavailable("Away."), subject="L1")
    first = read_chunks(session, run, chunks)
    assert [(each.chunk.subject, each.was_done, str(each.error)) for each in first] == [
        ("L1", False, "Away."),
        ("L2", False, "None"),
    ]
    shop.recover()
    second = read_chunks(session, run, chunks, attempt=2)
    assert {each.chunk.subject: each.was_done for each in second} == {"L1": False, "L2": True}
    assert [each.subject for each in shop.sent("memberships")] == ["L1"]


@pytest.mark.parametrize(("stream", "table"), [("profiles", "members"), ("metrics", "metrics")])
def test_a_reader_that_waits_for_the_database_does_not_keep_others_from_making_batches(
    warehouse: Warehouse, session: Session, run: Run, stream: str, table: str
) -> None:
    """They look up what a batch depends on before its turn."""
    chunk = Chunk(stream)
    runs.transact(session, run, lambda account: chunk_ledger.plan_chunks(account, run.id, [(chunk.key, chunk.part)]))
    with ThreadPoolExecutor(1) as reader, psycopg.connect(warehouse.url) as other:
        other.execute(f"LOCK TABLE klaviyo.{table}")
        reading = reader.submit(read_chunks, session, run, [chunk])
        wait_until(lambda: warehouse.one(WAITING, table), "the reader waits for the table")
        is_turn_taken = session.batch_turn.locked()
    assert [each.error for each in reading.result()] == [None]
    assert not is_turn_taken


@pytest.mark.parametrize("lists_people", [True, False], ids=["current", "legacy"])
def test_a_repeated_unit_stores_the_people_of_pages_that_were_read_but_not_stored(
    warehouse: Warehouse, session: Session, run: Run, shop: FakeAccount, lists_people: bool
) -> None:
    """The first page is stored once the second one has been read. Then the third one fails."""
    shop.set_traits(lists_people=lists_people)
    shop.events, shop.events_per_page = [], 2
    for number in range(6):
        shop.add_person(f"NEW{number}", days_ago(20))
        shop.add_events("OPEN", days_ago(6 - number), person=f"NEW{number}")
    chunk = Chunk("events", OpenWindow(days_ago(10)), "OPEN")
    runs.transact(session, run, lambda account: chunk_ledger.plan_chunks(account, run.id, [(chunk.key, chunk.part)]))
    shop.fail("events", BadAnswer("Odd."), page=2, times=1)
    [failed] = read_chunks(session, run, [chunk])
    assert str(failed.error) == "Odd." and warehouse.one("SELECT count(*) FROM events") == 1
    [repeated] = read_chunks(session, run, [chunk], attempt=2)
    assert repeated.error is None
    of_events = "SELECT members.id FROM events LEFT JOIN members USING (member_key) ORDER BY 1"
    assert warehouse.column(of_events) == [f"NEW{number}" for number in range(6)]


def test_chunks_that_are_done_are_not_submitted_again(
    warehouse: Warehouse, shop: FakeAccount, caplog: pytest.LogCaptureFixture
) -> None:
    shop.fail("flows", BadAnswer("Odd."), times=1)
    assert warehouse.daily("automations").state == "failed"
    with caplog.at_level("INFO"):
        assert warehouse.daily("automations").state == "complete"
    assert "2 of 3 chunks were already done" in caplog.text
    assert "Loaded metrics" not in caplog.text


def test_a_chunk_of_history_that_is_done_is_not_read_again(
    warehouse: Warehouse, session: Session, run: Run, shop: FakeAccount
) -> None:
    assert [each.was_done for each in read_at_once(session, run, [HISTORY], METRICS)] == [False]
    assert [each.was_done for each in read_at_once(session, run, [HISTORY], METRICS)] == [True]
    assert len(shop.sent("events")) == 1
    assert warehouse.rows("SELECT attempts, loaded FROM backfill_chunks") == [(1, 6)]


def test_a_reader_whose_chunk_another_one_has_read_counts_nothing_twice(
    warehouse: Warehouse, session: Session, run: Run, shop: FakeAccount
) -> None:
    """Its machine was suspended between reading and storing, and the other one has read the chunk to its end."""
    others: list[bool] = []

    def read_by_another() -> None:
        shop.recover()
        with warehouse.open() as other:
            others.extend(each.error is None for each in read_at_once(other, run, [HISTORY], METRICS))

    shop.before("events", read_by_another)
    [outcome] = read_at_once(session, run, [HISTORY], METRICS)
    assert others == [True]
    assert isinstance(outcome.error, Busy)
    assert warehouse.rows("SELECT state, loaded FROM backfill_chunks") == [("done", 6)]


def test_a_spooled_chunk_that_is_done_is_deleted(
    warehouse: Warehouse, session: Session, run: Run, shop: FakeAccount
) -> None:
    """A kill can come between its commit and its deletion."""
    extract(session, run, [HISTORY], METRICS)
    read_at_once(session, run, [HISTORY], METRICS)
    assert [each.was_done for each in load(session, run, [HISTORY], METRICS)] == [True]
    assert not [path for path in warehouse.configured().spool_dir.rglob("*") if path.is_file()]


def test_a_spooled_chunk_that_lacks_a_file_is_not_loaded(
    warehouse: Warehouse, session: Session, run: Run, shop: FakeAccount
) -> None:
    """Its last file does not make it complete. Nothing of it is stored, and the next run reads it again."""
    shop.events_per_page = 1_000
    shop.add_events("OPEN", *(days_ago(9) + number * SECOND for number in range(6_000)))
    extract(session, run, [HISTORY], METRICS)
    _, middle, *_ = sorted(path for path in warehouse.configured().spool_dir.rglob("*") if path.is_file())
    middle.unlink()
    [outcome] = load(session, run, [HISTORY], METRICS)
    assert isinstance(outcome.error, Unavailable)
    assert str(outcome.error).endswith("are missing. The next run reads its chunk again.")
    assert warehouse.rows("SELECT state, loaded FROM backfill_chunks") == [("planned", 0)]
    assert [each.error for each in extract(session, run, [HISTORY], METRICS)] == [None]
    assert [each.error for each in load(session, run, [HISTORY], METRICS)] == [None]
    assert len(warehouse.column("SELECT id FROM opens")) == 6_006


def test_a_chunk_that_is_no_longer_spooled_fails(session: Session, run: Run) -> None:
    """The next run reads it again."""
    [outcome] = load(session, run, [HISTORY], METRICS)
    assert isinstance(outcome.error, Unavailable)
    assert str(outcome.error).endswith("is no longer there. The next run reads it again.")
