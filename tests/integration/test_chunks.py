"""Extraction of chunks: what is kept already is not read again, and small ones are read together."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from klaviyo_pg.errors import BadAnswer, DatabaseUnusable, Stopped, Throttled, Unavailable
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.settings import Settings
from tasks.chunks import Portion, Progress, extract_chunks, next_chunks
from tasks.run import Run
from tasks.spool import Parcel, Shelf
from tasks.store import Batch, protect
from transforms.events import Metrics

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_whole_extraction_is_not_read_again(tmp_path: Path) -> None:
    """Whether or not Prefect remembers it: a kill can come just before it does."""
    settings = Settings(klaviyo_base_url="http://127.0.0.1:1", klaviyo_api_key="pk_none")  # type: ignore[arg-type]
    run = Run("run", "account", None, START, settings)
    chunk = HistoryChunk("m", START, START + timedelta(days=1), 7)
    shelf, progress = Shelf(tmp_path / "shelf"), Progress()
    shelf.put(Parcel(protect(Batch(()), settings), START, None, 7, 0.1, Traffic()))
    with disable_run_logger():
        found = extract_chunks.fn(run, Portion([chunk], "Metric", {chunk: shelf}), Metrics({}, {}), progress)
    assert found["events"] == 7
    assert len(list(shelf.parcels(None))) == 1
    assert progress.read == {}


def test_a_damaged_parcel_is_thrown_away(tmp_path: Path) -> None:
    """As a loss of power leaves it: empty, under its last name. What was kept with it is read anew."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.put(Parcel(protect(Batch(()), Settings()), START, None, 7, 0.1, Traffic()))
    [file] = shelf.folder.iterdir()
    file.write_bytes(b"")
    with pytest.raises(Unavailable, match=r"cannot be read \(BadZipFile\): the next run reads it anew"):
        list(shelf.parcels(None))
    assert not shelf.is_complete


def _chunk(metric_id: str, events: int | None, state: str = "planned") -> HistoryChunk:
    return HistoryChunk(metric_id, START, START + timedelta(days=1), events, state=state)


def test_small_chunks_are_read_together() -> None:
    """Those that follow each other, as many as 16 pages hold; what is done costs nothing, what is uncounted is full."""
    planned = [
        _chunk("large", 50_000),
        *(_chunk(f"small {number}", 3_500) for number in range(5)),
        _chunk("done", 50_000, state="done"),
        _chunk("uncounted", None),
    ]
    ends, begun = [], 0
    while begun < len(planned):
        begun += len(next_chunks(planned, begun, 1_000))
        ends.append(begun)
    assert ends == [1, 5, 7, 8]


def test_a_failing_chunk_does_not_stop_the_others() -> None:
    """An error that may pass is told at the end, for another try; what concerns all of them is told at once."""
    chunks = [_chunk(name, 1) for name in "abcd"]
    read: list[str] = []

    def reading(errors: Mapping[str, Exception]) -> Callable[[HistoryChunk], None]:
        def read_one(chunk: HistoryChunk) -> None:
            if chunk.metric_id in errors:
                raise errors[chunk.metric_id]
            read.append(chunk.metric_id)

        return read_one

    together = Portion(chunks, "Metric")
    assert str(together) == "Metric 2026-01-01T00:00..2026-01-02T00:00 and 3 more"
    with pytest.raises(Unavailable, match="c is away"):
        together.each(reading({"b": BadAnswer("b is wrong"), "c": Unavailable("c is away")}))
    assert read == ["a", "d"]
    assert [chunk.metric_id for chunk in together.failed] == ["b", "c"]
    together.each(reading({}))
    assert read == ["a", "d", "b", "c"]
    assert not together.failed
    for error in (DatabaseUnusable("No room."), Throttled("A day."), Stopped()):
        read.clear()
        together = Portion(chunks, "Metric")
        with pytest.raises(type(error)):
            together.each(reading({"b": error}))
        assert read == ["a"]
        assert [*together.failed.values()] == ([] if isinstance(error, Stopped) else [error])
    together, read[:] = Portion(chunks, "Metric"), []
    with pytest.raises(Unavailable, match="b is away"):
        together.each(reading({name: Unavailable(f"{name} is away") for name in "bcd"}))
    assert [chunk.metric_id for chunk in together.failed] == ["b", "c"], "after two in a row the API is away"
    with pytest.raises(Unavailable, match="b is away"):
        together.each(reading({"b": Unavailable("b is away")}))
    assert read == ["a", "d", "c"], "what failed before comes last"
