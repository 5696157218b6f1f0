"""The lines in the log about the progress of a run: totals that are not final, and times that cannot be known."""

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import OpenWindow, Window
from pipeline.backfill import progress_log
from pipeline.backfill.progress_log import ProgressLog
from pipeline.chunk_reading import _Standing, label
from pipeline.chunks import Chunk
from pipeline.outcome import Outcome
from pipeline.progress import Progress

NOW = datetime(2026, 11, 28, tzinfo=UTC)
CHUNKS = [(Chunk("profiles"),), (Chunk("metrics"),), (Chunk("lists"),), (Chunk("campaigns"),)]


def job(worker_count: int = 2) -> Any:
    """Return as much of a job as progress needs."""
    session = SimpleNamespace(
        progress=Progress(), traffic=SimpleNamespace(requests=0, retries=0), requests_per_minute=None
    )
    publisher = SimpleNamespace(progress=lambda share: None)
    log = logging.getLogger("tests.standing")
    return SimpleNamespace(session=session, worker_count=worker_count, log=log, publisher=publisher)


def test_the_last_parts_of_a_step_have_no_time_left(caplog: pytest.LogCaptureFixture) -> None:
    """They have all begun, and may be the longest ones, so that those before them say nothing about them."""
    caplog.set_level(logging.INFO)
    standing = _Standing(job(), CHUNKS, {})
    standing._began -= 60
    for group in CHUNKS:
        standing.done(group, [Outcome(group[0])])
    assert [record.getMessage().split(" rows, ")[1] for record in caplog.records] == [
        "1 of 4 chunks done, about 0:03:00 left for this step",
        "2 of 4 chunks done, the last ones in progress",
        "3 of 4 chunks done, the last ones in progress",
        "4 of 4 chunks done",
    ]


def test_the_first_seconds_of_a_step_say_nothing_about_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """A unit can have read several chunks, and the line has what became of their rows."""
    caplog.set_level(logging.INFO)
    lists = tuple(Chunk("list_members", OpenWindow(NOW), subject=subject) for subject in ("L1", "L2"))
    standing = _Standing(job(), [lists, *CHUNKS], {})
    counts = {"stg_member_lists": {"rows_read": 1_000, "inserted": 900, "unchanged": 100}}
    standing.done(lists, [Outcome(chunk, counts) for chunk in lists])
    assert [record.getMessage() for record in caplog.records] == [
        "Loaded list members of 2 lists: 2,000 rows (1,800 new, 200 unchanged), 2 of 6 chunks done"
    ]


@pytest.mark.parametrize(
    ("chunk", "shown"),
    [
        pytest.param(Chunk("campaigns"), "campaigns", id="all of a stream"),
        pytest.param(Chunk("suspected_profiles"), "missing profiles", id="a stream with another title"),
        pytest.param(Chunk("list_members", subject="L1"), "list members of VIP (L1)", id="a list"),
        pytest.param(Chunk("list_members", subject="L2"), "list members of L2", id="a list that is not stored"),
        pytest.param(
            Chunk("events", Window(NOW - timedelta(days=1), NOW), "M1", reread="day"),
            "events of Opened Email (M1) 2026-11-27T00:00..2026-11-28T00:00 again",
            id="events that are read again",
        ),
    ],
)
def test_a_chunk_is_named_for_people(chunk: Chunk, shown: str) -> None:
    assert label([chunk], {"L1": "VIP", "M1": "Opened Email"}) == shown


def test_a_total_of_a_backfill_grows_until_all_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the total is that so far, and no time is given. Nothing to read is said as such."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress_log, "_LOG_EVERY", 0.0)
    running = job()
    progress = running.session.progress
    with progress.stage("History", "events", is_counting=True):
        line = ProgressLog(running, {"M": "Opened Email"})
        line.log()
        chunk = BackfillChunk("M", NOW - timedelta(days=30), NOW, expected=1_000)
        line.expect([chunk], is_complete=False)
        progress.add("M", read=500, done=500)
        line.log()
        line.expect([], is_complete=True)
        line.log()
        progress.add("M", read=500, done=500)
        line.log()
    empty = job()
    with empty.session.progress.stage("History", "events"):
        nothing = ProgressLog(empty, {})
        nothing.expect([], is_complete=True)
        nothing.log()
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "Nothing to read so far, still counting, so the time left is not known yet"
    assert said[1].startswith("500 of 1,000 events so far, ") and said[1].endswith("the time left is not known yet")
    assert said[2].startswith("500 of 1,000 events, ") and said[2].endswith("about 0:00:01 left for the events")
    assert said[3].endswith("finishing")
    assert said[4] == "Nothing left to read."


def test_events_that_the_source_does_not_count_have_no_total(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So there is no time left either, whether other events are counted or not, until they have been read."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress_log, "_LOG_EVERY", 0.0)
    running = job()
    progress, shares = running.session.progress, list[float]()
    running.publisher.progress = shares.append
    uncounted = BackfillChunk("M", NOW - timedelta(days=60), NOW - timedelta(days=30), expected=None)
    counted = uncounted._replace(window_start=NOW - timedelta(days=30), window_end=NOW, expected=1_000)
    with progress.stage("History", "events"):
        line = ProgressLog(running, {"M": "Opened Email"})
        line.expect([uncounted], is_complete=True)
        line.log()
        line.expect([counted], is_complete=True)
        progress.add("M", read=2_000, done=2_000)
        line.log()
        [item] = progress.items()
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("0 events, ") and said[1].startswith("2,000 events, ")
    assert {each.rpartition(", ")[2] for each in said} == {"time left not known: some events were not counted"}
    assert (item.name, item.total, shares) == ("Opened Email", None, [])
    again = job()
    with again.session.progress.stage("History", "events"):
        done = ProgressLog(again, {})
        done.expect([uncounted._replace(state=ChunkState.DONE)], is_complete=True)
        done.log()
    assert caplog.records[-1].getMessage() == "Nothing left to read."
