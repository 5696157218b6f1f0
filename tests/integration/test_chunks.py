"""Extraction of a chunk: what is kept already is not read again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from klaviyo_pg.errors import Unavailable
from klaviyo_pg.history import HistoryChunk
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.settings import Settings
from tasks.chunks import Progress, extract_chunk
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
        found = extract_chunk.fn(run, chunk, "Metric", Metrics({}, {}), shelf, progress)
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
