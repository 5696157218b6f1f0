"""The spool of a backfill: it outlives a run, pauses readers when it is full, and is never loaded twice."""

from datetime import timedelta
from pathlib import Path

import pytest

from klaviyo_pg.errors import BadSettings
from pipeline.runs import transact
from pipeline.spool import FORMAT
from tests.erasing import erase
from tests.fakes import FakeAccount
from tests.integration.pipeline.backfill.conftest import (
    OPENS,
    ORDERS,
    START,
    STORED,
    Backfill,
    assert_complete,
    spool_files,
)
from tests.integration.pipeline.conftest import HOUR, Warehouse, days_ago

SECOND = timedelta(seconds=1)


def fill(warehouse: Warehouse, integration_id: str) -> Path:
    """Add a megabyte to the spool, as a chunk that no plan has, and return its folder."""
    folder = warehouse.configured().spool_dir / integration_id / f"{FORMAT}-none"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"\0" * (1 << 20))
    return folder


def test_what_is_spooled_is_loaded_by_the_next_run_without_a_request(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """A run that is stopped finishes the batches in hand, and leaves them in the spool."""
    shop.before("events", warehouse.stop, subject="ORDER")
    ran = spooled(metrics=("ORDER",))
    sentence = "Stopped after 0 events. Rerun with the same arguments to resume."
    assert (ran.state, ran.sentences, ran.exit_code) == ("stopped", [sentence], 130)
    assert len(spool_files(warehouse)) == 1
    assert warehouse.column(STORED) == []
    shop.recover()
    assert spooled(metrics=("ORDER",)).state == "complete"
    assert not shop.sent("events") and not shop.sent("beginning")
    assert len(warehouse.column(STORED)) == ORDERS
    assert spool_files(warehouse) == []


def test_a_damaged_spool_file_costs_one_more_run(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """A file that a power failure left empty leaves the run partial; the next one reads the chunk again."""
    shop.before("events", warehouse.stop, subject="ORDER")
    spooled(metrics=("ORDER",))
    [file] = spool_files(warehouse)
    file.write_bytes(b"")
    ran = spooled(metrics=("ORDER",))
    assert (ran.state, ran.exit_code) == ("partial", 3)
    assert "Cannot read the spooled file" in ran.sentences[0]
    assert spooled(metrics=("ORDER",)).state == "complete"
    assert len(warehouse.column(STORED)) == ORDERS


def test_a_spooled_file_is_not_loaded_twice(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """After a kill between the commit and the deletion of a file, the next load changes no row."""
    shop.before("events", warehouse.stop, subject="ORDER")
    spooled(metrics=("ORDER",))
    [file] = spool_files(warehouse)
    content = file.read_bytes()
    spooled(metrics=("ORDER",))
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    warehouse.execute("UPDATE backfill_chunks SET state = 'failed' WHERE metric_id = 'ORDER'")
    ran = spooled(metrics=("ORDER",))
    assert (ran.state, ran.changed()) == ("complete", {})
    assert len(warehouse.column(STORED)) == ORDERS


def test_a_full_spool_pauses_the_readers(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    """Then each chunk is loaded before the next one is read, however many readers there are."""
    shop.events_per_page = 50  # so that each unit reads a single chunk
    integration_id = warehouse.daily("metrics").run.integration_id
    loaded: list[int] = []

    def note() -> None:
        loaded.append(len(warehouse.column(STORED)))

    shop.before("beginning", lambda: fill(warehouse, integration_id))  # by another process, after the run began
    shop.before("events", note, page=0, times=None)
    assert spooled(concurrency=4, spool_megabytes=1).state == "complete"
    assert len(loaded) == len(set(loaded)) >= 4
    assert_complete(warehouse, shop)


def test_what_a_backfill_does_not_read_does_not_pause_its_readers(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """A backfill of a longer time may have left the spool full."""
    folder = fill(warehouse, warehouse.daily("metrics").run.integration_id)
    was_there: list[bool] = []
    shop.before("events", lambda: was_there.append(folder.exists()), page=0)
    assert spooled(spool_megabytes=1).state == "complete"
    assert was_there == [False]


def test_people_who_are_erased_do_not_come_back_from_the_spool(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """A backfill in progress does not hinder erasing, because spooled batches are filtered when they are loaded."""
    shop.before("events", warehouse.stop, subject="ORDER")
    run = spooled(metrics=("ORDER",)).run
    assert len(spool_files(warehouse)) == 1
    with warehouse.open() as session:
        session.claims.take(run.integration_id, "backfill")
        transact(session, run, lambda account: erase(account, None, ["P1"]))
    assert spooled(metrics=("ORDER",)).state == "complete"
    assert len(warehouse.column(STORED)) == ORDERS
    assert warehouse.column("SELECT DISTINCT member_key FROM events") == [None]
    assert warehouse.rows("SELECT campaign_id, attributed_event_key FROM event_attributions") == [("C1", None)]
    assert warehouse.column("SELECT id FROM members WHERE id = 'P1'") == []


def test_expired_chunks_are_deleted_from_the_spool(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    shop.before("events", warehouse.stop, subject="ORDER")
    spooled(metrics=("ORDER",))
    shop.recover()
    assert spooled(metrics=("ORDER",), spool_hours=1e-9).state == "complete"
    assert len(shop.sent("events")) == 1
    assert len(warehouse.column(STORED)) == ORDERS


def test_restart_empties_the_spool(warehouse: Warehouse, shop: FakeAccount, spooled: Backfill) -> None:
    shop.before("events", warehouse.stop, subject="ORDER")
    spooled(metrics=("ORDER",))
    shop.recover()
    assert spooled(metrics=("ORDER",), restart=True).state == "complete"
    assert len(shop.sent("events")) == 1


def test_a_restart_loads_nothing_that_was_spooled_before_it(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, tmp_path: Path
) -> None:
    """A restart that another machine began empties only its spool. This machine resumes it."""
    shop.before("events", warehouse.stop, subject="ORDER")
    spooled(metrics=("ORDER",))
    assert len(spool_files(warehouse)) == 1
    shop.before("events", warehouse.stop, subject="ORDER")
    assert spooled(metrics=("ORDER",), restart=True, data_dir=tmp_path / "other").state == "stopped"
    shop.recover()
    assert spooled(metrics=("ORDER",), restart=True).state == "complete"
    assert len(shop.sent("events")) == 1
    assert len(warehouse.column(STORED)) == ORDERS


def test_a_spool_that_cannot_be_written_fails_the_run(warehouse: Warehouse, tmp_path: Path) -> None:
    """The message names both settings that help."""
    (tmp_path / "file").write_text("")
    ran = warehouse.backfill(START, data_dir=tmp_path / "file")
    assert (ran.state, ran.exit_code) == ("failed", BadSettings.exit_code)
    assert ran.sentences[0].startswith("DATA_DIR: cannot write to ")
    assert ran.sentences[0].endswith("Choose another folder, or set SPOOL=false.")
    assert warehouse.backfill(START, data_dir=tmp_path / "file", spool=False).state == "complete"


@pytest.mark.parametrize("missing", [0, 1], ids=["first", "middle"])
def test_a_spool_with_a_gap_is_read_again(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill, missing: int
) -> None:
    """As after a kill while the spool was being emptied: the last file is there, an earlier one is not."""
    more = shop.add_events("OPEN", *(days_ago(31) + HOUR + number * SECOND for number in range(OPENS)))
    shop.before("events", warehouse.stop, subject="OPEN", page=11)
    spooled(metrics=("OPEN",), chunk_events=10_000)
    files = sorted(spool_files(warehouse))
    assert len(files) == 3
    files[missing].unlink()
    assert spooled(metrics=("OPEN",), chunk_events=10_000).state == "complete"
    assert len(warehouse.column(STORED)) == OPENS + len(more)


def test_batches_that_the_ledger_has_are_not_loaded_again(
    warehouse: Warehouse, shop: FakeAccount, spooled: Backfill
) -> None:
    """As after a kill between the commit of the first batch and the deletion of its file."""
    shop.before("events", warehouse.stop, subject="OPEN", page=5)
    spooled(metrics=("OPEN",), chunk_events=10_000)
    first, *_ = sorted(spool_files(warehouse))
    _, _, reached, events = first.stem.split("_")
    warehouse.execute(
        "UPDATE backfill_chunks SET reached = to_timestamp(%s), loaded = %s WHERE expected > 0", reached, int(events)
    )
    ran = spooled(metrics=("OPEN",), chunk_events=10_000)
    assert ran.state == "complete"
    assert ran.counts["opens"]["rows_read"] == OPENS - int(events)
    assert sum(loaded for _, _, _, loaded in warehouse.history()) == OPENS
