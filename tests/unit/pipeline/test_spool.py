"""The spool: whole files in order, readable only by their owner, and deleted in time."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import BadSettings, Unavailable
from klaviyo_pg.rows import Reject
from klaviyo_pg.traffic import Traffic
from pipeline import spool as module
from pipeline.batch import Batch, Protected, ReadBatch
from pipeline.spool import FORMAT, Spool, grouped, joined
from transforms.clean import conformed
from transforms.combine import combined

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def hours(number: int) -> datetime:
    """Return the time so many hours after T0."""
    return T0 + timedelta(hours=number)


def frame(load: Load, *rows: Mapping[str, object]) -> pl.DataFrame:
    """Return rows as a frame for a load. Columns that they do not name are null."""
    return conformed(pl.DataFrame([dict(row) for row in rows]), load)


def batch(start: int, reached: int | None, *ids: str, rejects: Sequence[Reject] = ()) -> ReadBatch:
    """Return a batch with events of these ids, and nothing else; without `reached` it is the last one."""
    events = frame(loads.EVENTS["opens"], *({"key": each, "id": each} for each in ids))
    content = Protected(Batch([(loads.EVENTS["opens"], events)], {"events": list(rejects)}, {"events": 1}))
    checkpoint = None if reached is None else hours(reached)
    return ReadBatch(content, hours(start), checkpoint, reached is None, len(ids), 0.5, Traffic(2, 1, 0.25))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return a spool with room for a few batches."""
    return Spool(tmp_path / "spool", 10_000, timedelta(hours=1))


def test_batches_come_back_as_they_were(spool: Spool) -> None:
    """Frames, rejects, counts and times are the same, in the order in which the batches were put."""
    chunk = spool.chunk("account", "metric")
    chunk.put(batch(0, 1, "a", "b", rejects=[Reject("{}", "no id", hides=False)]))
    assert not chunk.is_complete
    assert chunk.reached == hours(1)
    chunk.put(batch(1, None, "c"))
    assert chunk.is_complete
    assert chunk.events == 3
    [first, last] = [each for _, each in chunk.batches(T0)]
    assert first.batch.frames[0][0] is loads.EVENTS["opens"]
    assert first.batch.frames[0][1].get_column("id").to_list() == ["a", "b"]
    assert first.batch.rejects == {"events": [Reject("{}", "no id", hides=False)]}
    assert (first.start, first.reached, first.is_last, first.traffic) == (
        hours(0),
        hours(1),
        False,
        Traffic(2, 1, 0.25),
    )
    assert (last.reached, last.is_last, last.events) == (None, True, 1)


@pytest.mark.parametrize("has_attributions", [True, False])
def test_batches_keep_whether_events_have_their_attributions(spool: Spool, has_attributions: bool) -> None:
    """Frames do not show it: those without rows are not written."""
    chunk = spool.chunk("account", "metric")
    for each in (batch(0, 1, "a"), batch(1, None, "b")):
        chunk.put(each._replace(batch=Protected(replace(each.batch, has_attributions=has_attributions))))
    read = [each for _, each in chunk.batches(T0)]
    assert [each.batch.has_attributions for each in (*read, joined(read))] == [has_attributions] * 3


def test_batches_that_are_stored_are_left_out(spool: Spool) -> None:
    """After a kill between the commit of a batch and its deletion, it is not loaded again."""
    chunk = spool.chunk("m")
    for each in (batch(0, 1, "a"), batch(1, 2, "b"), batch(2, None, "c")):
        chunk.put(each)
    assert [each.start for _, each in chunk.batches(hours(1))] == [hours(1), hours(2)]
    assert chunk.continues_from(hours(0))
    assert not chunk.continues_from(hours(-1))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_chunk_that_lacks_a_file_before_its_last_one_is_deleted(spool: Spool, missing: int) -> None:
    """As after a kill while its folder was being deleted. Everything that is not stored yet is read again."""
    chunk = spool.chunk("m")
    for each in (batch(0, 1, "a"), batch(1, 2, "b"), batch(2, 3, "c"), batch(3, None, "d")):
        chunk.put(each)
    sorted(chunk.folder.iterdir())[missing].unlink()
    assert not chunk.continues_from(T0)
    assert chunk.continues_from(hours(missing + 1))
    with pytest.raises(Unavailable, match=r"are missing\. The next run reads its chunk again\.$"):
        list(chunk.batches(T0))
    assert not chunk.folder.exists()


@pytest.mark.parametrize("delete", [Spool.delete_expired, Spool.clear], ids=["expired", "all"])
def test_a_folder_that_is_partly_deleted_is_taken_for_none(
    spool: Spool, delete: Callable[[Spool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deletion that is interrupted is finished by the next one."""
    chunk = spool.chunk("m")
    chunk.put(batch(0, None, "a"))
    os.utime(chunk.folder, (0, 0))
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        delete(spool)
    assert not chunk.is_complete and chunk.events == 0
    spool.delete_expired()
    assert not [path for path in spool.folder.parent.rglob("*") if path.is_file()]


def test_an_incomplete_file_does_not_count(spool: Spool) -> None:
    """A kill leaves one if a file was being written."""
    chunk = spool.chunk("m")
    chunk.put(batch(0, 1, "a"))
    (chunk.folder / "000001.part").write_bytes(b"x")
    assert chunk.reached == hours(1)
    assert len(list(chunk.batches(T0))) == 1


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 1_000])
def test_a_damaged_file_deletes_its_chunk(spool: Spool, content: bytes) -> None:
    """A power failure can leave a file empty under its final name. Everything of its chunk is read again."""
    chunk = spool.chunk("m")
    chunk.put(batch(0, None, "a"))
    [file] = chunk.folder.iterdir()
    file.write_bytes(content)
    with pytest.raises(Unavailable, match=r"\(DamagedFile\)\. The next run reads its chunk again\.$"):
        list(chunk.batches(T0))
    assert not chunk.is_complete


def test_only_the_owner_can_read_it(spool: Spool) -> None:
    """The folder is closed to others, and names contain nothing but numbers and times."""
    chunk = spool.chunk("m")
    chunk.put(batch(0, None, "someone@example.com"))
    assert chunk.folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in chunk.folder.iterdir()] == ["000000_1767225600_end_1.batch"]


def test_every_value_that_determines_the_content_distinguishes_chunks(spool: Spool) -> None:
    assert spool.chunk("a", "b").folder != spool.chunk("a", "c").folder
    assert spool.chunk("a", "bc").folder != spool.chunk("ab", "c").folder


def test_a_full_spool_and_expired_chunks_are_noticed(spool: Spool) -> None:
    """Chunks to which nothing was added for too long are deleted."""
    old, new = spool.chunk("old"), spool.chunk("new")
    assert not spool.is_full
    old.put(batch(0, None, *map(str, range(2000))))
    new.put(batch(0, None, "b"))
    assert spool.is_full
    os.utime(old.folder, (0, 0))
    spool.delete_expired()
    assert not old.folder.exists()
    assert new.is_complete
    assert not spool.is_full


def test_chunks_of_a_clock_that_was_ahead_are_deleted(spool: Spool) -> None:
    """They would be kept until their time has come, and what they contain would count as newer than anything else."""
    chunk = spool.chunk("future")
    chunk.put(batch(0, None, "a"))
    tomorrow = time.time() + 86_400
    os.utime(chunk.folder, (tomorrow, tomorrow))
    spool.delete_expired()
    assert not chunk.folder.exists()


@pytest.mark.parametrize("name", ["0" * 32, f"{FORMAT - 1}-{'0' * 32}"], ids=["without a number", "an earlier format"])
def test_chunks_of_another_format_are_deleted(spool: Spool, name: str) -> None:
    """Nothing reads them, so they would fill the spool for days after an upgrade."""
    chunk = spool.chunk("m")
    chunk.put(batch(0, None, "a"))
    other = spool.folder / name
    shutil.copytree(chunk.folder, other)
    spool.delete_expired()
    assert not other.exists()
    assert chunk.is_complete


@pytest.mark.parametrize(("limit", "stay"), [(1_000_000, True), (1_000, False)], ids=["little", "most"])
def test_other_chunks_make_room_if_they_take_most_of_the_spool(tmp_path: Path, limit: int, stay: bool) -> None:
    spool = Spool(tmp_path / "spool", limit, timedelta(hours=1))
    wanted, other = spool.chunk("wanted"), spool.chunk("other")
    for chunk in (wanted, other):
        chunk.put(batch(0, None, "a"))
    spool.make_room([wanted])
    assert other.is_complete is stay
    assert wanted.is_complete


def test_chunks_that_another_process_deletes_at_the_same_time_are_left_to_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers on one machine share its spool."""
    for metric in ("m", "n"):
        chunk = spool.chunk(metric)
        chunk.put(batch(0, None, "a"))
        os.utime(chunk.folder, (0, 0))
    monkeypatch.setattr(module, "delete", lambda folder: shutil.rmtree(spool.folder))
    spool.delete_expired()
    assert not spool.folder.exists()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """The message names the setting that helps."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSettings, match="SPOOL=false"):
        Spool(tmp_path / "file", 1, timedelta(hours=1)).chunk("m").put(batch(0, None, "a"))


def test_grouped_batches_are_joined(spool: Spool) -> None:
    """Enough batches for a transaction become one, and nothing of them is lost."""
    chunk = spool.chunk("m")
    for number in range(5):
        chunk.put(batch(number, number + 1, f"{number}", "repeated", rejects=[Reject(str(number), "odd")]))
    groups = [[each for _, each in group] for group in grouped(chunk.batches(T0), 4)]
    assert [len(group) for group in groups] == [2, 2, 1]
    whole = joined([each for group in groups for each in group])
    assert (whole.start, whole.reached, whole.is_last, whole.events) == (hours(0), hours(5), False, 10)
    assert whole.traffic == Traffic(10, 5, 1.25)
    assert whole.seconds == 2.5
    assert len(whole.batch.rejects["events"]) == 5
    assert whole.batch.nul_characters == {"events": 5}
    [(_, events)] = whole.batch.frames
    assert sorted(events.get_column("id")) == ["0", "1", "2", "3", "4", "repeated"]


def test_the_last_attributes_of_a_person_stay() -> None:
    """A person comes with all properties, so one that is missing the second time has been removed."""
    load = loads.MEMBER_ATTRIBUTES
    earlier = frame(load, {"key": "p", "name": "a", "value": "1"}, {"key": "p", "name": "b", "value": "1"})
    later = frame(load, {"key": "p", "name": "a", "value": "2"}, {"key": "q", "name": "b", "value": "3"})
    result = combined(load, [earlier, later]).sort("key", "name")
    assert result.select("key", "name", "value").rows() == [("p", "a", "2"), ("q", "b", "3")]


def test_flow_campaigns_get_their_widest_times_and_latest_names() -> None:
    load = loads.FLOW_CAMPAIGNS
    one = frame(load, {"key": "c", "id": "c", "name": "new", "created_at": hours(5), "updated_at": hours(9)})
    other = frame(load, {"key": "c", "id": "c", "name": "old", "created_at": hours(1), "updated_at": hours(6)})
    [row] = combined(load, [one, other]).to_dicts()
    assert (row["name"], row["created_at"], row["updated_at"]) == ("new", hours(1), hours(9))
