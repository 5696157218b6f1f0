"""Extractions on disk: whole files in order, for their owner only, thrown away in time."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.rows import Reject
from tasks.spool import Parcel, Spool, joined, together
from tasks.store import Batch
from transforms.clean import conformed
from transforms.combine import combined

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def hours(number: int) -> datetime:
    """So many hours after T0."""
    return T0 + timedelta(hours=number)


def frame(load: Load, *rows: dict[str, object]) -> pl.DataFrame:
    """Rows as a frame for a load; what they do not name is null."""
    return conformed(pl.DataFrame(list(rows)), load)


def parcel(start: int, reached: int | None, *ids: str, rejects: Sequence[Reject] = ()) -> Parcel:
    """Events with these ids, and nothing else."""
    batch = Batch([(loads.EVENTS["opens"], frame(loads.EVENTS["opens"], *({"key": each, "id": each} for each in ids)))])
    batch = Batch(batch.frames, {"events": list(rejects)}, {"events": 1})
    return Parcel(batch, hours(start), None if reached is None else hours(reached), len(ids), 0.5, Traffic(2, 1, 0.25))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A spool with room for a few parcels."""
    return Spool(tmp_path / "spool", 10_000, timedelta(hours=1))


def test_parcels_come_back_as_they_were(spool: Spool) -> None:
    """Frames, rejects, counts and times, in the order in which they were put."""
    shelf = spool.shelf("account", "metric")
    shelf.put(parcel(0, 1, "a", "b", rejects=[Reject("{}", "no id", hides=False)]))
    assert not shelf.is_complete
    assert shelf.reached == hours(1)
    shelf.put(parcel(1, None, "c"))
    assert shelf.is_complete
    assert shelf.events == 3
    [first, last] = [each for _, each in shelf.parcels(None)]
    assert first.batch.frames[0][0] is loads.EVENTS["opens"]
    assert first.batch.frames[0][1].get_column("id").to_list() == ["a", "b"]
    assert first.batch.rejects == {"events": [Reject("{}", "no id", hides=False)]}
    assert (first.start, first.reached, first.traffic) == (hours(0), hours(1), Traffic(2, 1, 0.25))
    assert (last.reached, last.events) == (None, 1)


def test_what_is_stored_already_is_left_out(spool: Spool) -> None:
    """A kill between the commit of a parcel and its removal does not load it a second time."""
    shelf = spool.shelf("m")
    for each in (parcel(0, 1, "a"), parcel(1, 2, "b"), parcel(2, None, "c")):
        shelf.put(each)
    assert [each.start for _, each in shelf.parcels(hours(1))] == [hours(1), hours(2)]
    assert shelf.leads_on_from(hours(0))
    assert not shelf.leads_on_from(hours(-1))


def test_half_a_file_is_none(spool: Spool) -> None:
    """What a kill leaves of a file that was being written counts for nothing."""
    shelf = spool.shelf("m")
    shelf.put(parcel(0, 1, "a"))
    (shelf.folder / "000001.part").write_bytes(b"PK")
    assert shelf.reached == hours(1)
    assert len(list(shelf.parcels(None))) == 1


def test_only_the_owner_can_read_it(spool: Spool) -> None:
    """The folder is closed to others, and no name in it tells of anybody."""
    shelf = spool.shelf("m")
    shelf.put(parcel(0, None, "someone@example.com"))
    assert shelf.folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in shelf.folder.iterdir()] == ["000000_1767225600_end_1.zip"]


def test_shelves_are_told_apart(spool: Spool) -> None:
    """By every value that decides what an extraction holds."""
    assert spool.shelf("a", "b").folder != spool.shelf("a", "c").folder
    assert spool.shelf("a", "bc").folder != spool.shelf("ab", "c").folder


def test_bound_and_expiry(spool: Spool) -> None:
    """It says when it is full, and throws away what has waited for too long."""
    old, new = spool.shelf("old"), spool.shelf("new")
    assert not spool.is_full
    old.put(parcel(0, None, *map(str, range(2000))))
    new.put(parcel(0, None, "b"))
    assert spool.is_full
    os.utime(old.folder, (0, 0))
    spool.tidy()
    assert not old.folder.exists()
    assert new.is_complete
    assert not spool.is_full


def test_no_room_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Where nothing can be written the user learns what to do."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSettings, match="SPOOL=false"):
        Spool(tmp_path / "file", 1, timedelta(hours=1)).shelf("m").put(parcel(0, None, "a"))


def test_together_and_joined(spool: Spool) -> None:
    """Parcels are loaded as many together as make a batch; nothing of them gets lost in between."""
    shelf = spool.shelf("m")
    for number in range(5):
        shelf.put(parcel(number, number + 1, f"{number}", "again", rejects=[Reject(str(number), "odd")]))
    groups = [[each for _, each in group] for group in together(shelf.parcels(None), 4)]
    assert [len(group) for group in groups] == [2, 2, 1]
    whole = joined([each for group in groups for each in group])
    assert (whole.start, whole.reached, whole.events) == (hours(0), hours(5), 10)
    assert whole.traffic == Traffic(10, 5, 1.25)
    assert len(whole.batch.rejects["events"]) == 5
    assert whole.batch.nul_characters == {"events": 5}
    [(_, events)] = whole.batch.frames
    assert sorted(events.get_column("id")) == ["0", "1", "2", "3", "4", "again"]


def test_attributes_of_a_person_are_those_that_came_last() -> None:
    """A person comes with all properties, so that one which is missing the second time is gone."""
    load = loads.MEMBER_ATTRIBUTES
    earlier = frame(load, {"key": "p", "name": "a", "value": "1"}, {"key": "p", "name": "b", "value": "1"})
    later = frame(load, {"key": "p", "name": "a", "value": "2"}, {"key": "q", "name": "b", "value": "3"})
    found = combined(load, [earlier, later]).sort("key", "name")
    assert found.select("key", "name", "value").rows() == [("p", "a", "2"), ("q", "b", "3")]


def test_flow_campaigns_widen() -> None:
    """The earliest and the latest time, and the latest name that is one."""
    load = loads.FLOW_CAMPAIGNS
    one = frame(load, {"key": "c", "id": "c", "name": "new", "created_at": hours(5), "updated_at": hours(9)})
    other = frame(load, {"key": "c", "id": "c", "name": "old", "created_at": hours(1), "updated_at": hours(6)})
    [row] = combined(load, [one, other]).to_dicts()
    assert (row["name"], row["created_at"], row["updated_at"]) == ("new", hours(1), hours(9))
