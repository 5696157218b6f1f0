"""The spool: batches of history on disk until they are loaded. A folder for each chunk, a file for each batch.

A file is a zip archive of Arrow frames and their metadata. It appears whole, under its final name, or not at all; only
its owner can read it. Names contain nothing but numbers and times.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import BadSettings, Unavailable
from klaviyo_pg.klaviyo.client import Traffic
from klaviyo_pg.rows import Reject
from klaviyo_pg.settings import Settings
from pipeline.batch import Batch, Protected, ReadBatch
from transforms.combine import combined

FORMAT = 1
"""The format of a file; files of another format are not read."""
_END = "end"
_ONLY_OWNER = 0o700
_AHEAD = 3_600.0  # seconds: more than any run accepts


class _Name(NamedTuple):
    """The name of a batch's file."""

    number: int
    start: datetime
    reached: datetime | None
    events: int

    def __str__(self) -> str:
        reached = _END if self.reached is None else int(self.reached.timestamp())
        return f"{self.number:06}_{int(self.start.timestamp())}_{reached}_{self.events}.zip"

    @classmethod
    def parse(cls, stem: str) -> "_Name":
        number, start, reached, events = stem.split("_")
        return cls(int(number), _time(start), None if reached == _END else _time(reached), int(events))


def _time(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


class SpooledChunk:
    """The batches of one chunk, in order. The last one completes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, batch: ReadBatch) -> None:
        """Add the next batch. Raises BadSettings where there is no room for it."""
        assert batch.start is not None
        names = self._names()
        number = names[-1].number + 1 if names else 0
        name = _Name(number, batch.start, None if batch.is_last else batch.reached, batch.events)
        content = _packed(batch)
        incomplete = self.folder / f"{number:06}.part"
        try:
            self.folder.mkdir(mode=_ONLY_OWNER, parents=True, exist_ok=True)
            incomplete.write_bytes(content)
            incomplete.rename(self.folder / str(name))
        except OSError as error:
            raise BadSettings(
                f"Cannot write to the spool in DATA_DIR ({error.strerror}): make room, or set SPOOL=false."
            ) from None

    def _names(self) -> list["_Name"]:
        return [_Name.parse(path.stem) for path in sorted(self.folder.glob("*.zip"))]

    @property
    def events(self) -> int:
        """The number of events that were read for the batches."""
        return sum(name.events for name in self._names())

    @property
    def is_complete(self) -> bool:
        """True if the last batch is there."""
        names = self._names()
        return bool(names) and names[-1].reached is None

    @property
    def reached(self) -> datetime | None:
        """The checkpoint of the batches; None where there are none, or where the last one is among them."""
        names = self._names()
        return names[-1].reached if names else None

    def continues_from(self, moment: datetime) -> bool:
        """Return whether the batches leave no gap after a time."""
        names = self._names()
        return not names or names[0].start <= moment

    def batches(self, after: datetime | None) -> Iterator[tuple[Path, ReadBatch]]:
        """Yield the batches whose checkpoint is later than `after`, in order.

        Raises Unavailable where one cannot be read, as after a power failure; the chunk is deleted from the spool then.
        """
        for name in self._names():
            if after is None or name.reached is None or name.reached > after:
                path = self.folder / str(name)
                try:
                    batch = _unpacked(path.read_bytes(), name)
                except (BadZipFile, ValueError, OSError, pl.exceptions.PolarsError) as error:
                    self.clear()
                    raise Unavailable(
                        f"Cannot read the spooled file {path} ({type(error).__name__}). The next run reads its chunk "
                        "again."
                    ) from None
                yield path, batch

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """The spooled chunks of one account, up to a limit of bytes."""

    def __init__(self, folder: Path, max_bytes: int, keep: timedelta) -> None:
        self.folder, self._max_bytes, self._keep = folder, max_bytes, keep

    def chunk(self, *identity: object) -> SpooledChunk:
        """Return the place of a chunk, which is identified by the values that determine its content."""
        text = json.dumps([FORMAT, *identity], default=str)
        return SpooledChunk(self.folder / hashlib.sha256(text.encode()).hexdigest()[:32])

    @property
    def is_full(self) -> bool:
        """True if readers have to pause until something has been loaded."""
        files = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        return sum(map(_size, files)) >= self._max_bytes

    def clear(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def delete_expired(self) -> None:
        """Delete chunks to which nothing has been added for SPOOL_HOURS, and those of a clock that was ahead."""
        oldest, latest = time() - self._keep.total_seconds(), time() + _AHEAD
        for folder in self.folder.glob("*"):
            changed = folder.stat().st_mtime  # of a folder: when a file was last added or removed
            if not oldest <= changed <= latest:
                shutil.rmtree(folder, ignore_errors=True)


def open_spool(settings: Settings, integration_id: str) -> Spool | None:
    """Return the account's spool in DATA_DIR; None where SPOOL turns it off.

    Raises BadSettings where DATA_DIR cannot be written to.
    """
    if not settings.spool:
        return None
    root = settings.spool_dir
    try:
        root.mkdir(mode=_ONLY_OWNER, parents=True, exist_ok=True)
        root.chmod(_ONLY_OWNER)
    except OSError as error:
        raise BadSettings(
            f"DATA_DIR: cannot write to {root} ({error.strerror}). Choose another folder, or set SPOOL=false."
        ) from None
    return Spool(root / integration_id, settings.spool_megabytes << 20, timedelta(hours=settings.spool_hours))


def grouped(batches: Iterator[tuple[Path, ReadBatch]], least: int) -> Iterator[list[tuple[Path, ReadBatch]]]:
    """Group batches so that each group has at least so many events."""
    group: list[tuple[Path, ReadBatch]] = []
    for path, batch in batches:
        group.append((path, batch))
        if sum(each.events for _, each in group) >= least:
            yield group
            group = []
    if group:
        yield group


def joined(batches: Sequence[ReadBatch]) -> ReadBatch:
    """Return consecutive batches as one."""
    first, *others = batches
    if not others:
        return first
    frames: dict[str, list[pl.DataFrame]] = {}
    for name in loads.OF_EVENT_PAGES:  # in the order that all batches keep
        same = [frame for each in batches for load, frame in each.batch.frames if _name(load) == name]
        if same:
            frames[name] = same
    contents = [each.batch for each in batches]
    batch = Batch(
        [(loads.OF_EVENT_PAGES[name], combined(loads.OF_EVENT_PAGES[name], each)) for name, each in frames.items()],
        _sum_by_table(content.rejects for content in contents),
        _sum_by_table(content.nul_characters for content in contents),
    )
    return first._replace(
        batch=Protected(batch),
        reached=batches[-1].reached,
        is_last=batches[-1].is_last,
        events=sum(each.events for each in batches),
        seconds=sum(each.seconds for each in batches),
        traffic=Traffic.total(each.traffic for each in batches),
    )


def _sum_by_table(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up, by table, lists or numbers."""
    total: dict[str, Any] = {}
    for part in parts:
        for table, value in part.items():
            total[table] = total[table] + value if table in total else value
    return total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # loaded at this moment
        return 0


def _name(load: Load) -> str:
    return next(name for name, each in loads.OF_EVENT_PAGES.items() if each is load)


def _packed(batch: ReadBatch) -> bytes:
    content, frames = io.BytesIO(), [(_name(load), frame) for load, frame in batch.batch.frames if frame.height]
    metadata = {
        "seconds": batch.seconds,
        "traffic": batch.traffic,
        "rejects": {table: list(records) for table, records in batch.batch.rejects.items() if records},
        "nul_characters": dict(batch.batch.nul_characters),
        "frames": [name for name, _ in frames],
    }
    with ZipFile(content, "w") as archive:
        for name, frame in frames:
            arrow = io.BytesIO()
            frame.write_ipc(arrow, compression="zstd")
            archive.writestr(name, arrow.getbuffer())
        archive.writestr("about.json", json.dumps(metadata))
    return content.getvalue()


def _unpacked(content: bytes, name: _Name) -> ReadBatch:
    with ZipFile(io.BytesIO(content)) as archive:
        metadata = json.loads(archive.read("about.json"))
        frames = [
            (loads.OF_EVENT_PAGES[frame], pl.read_ipc(io.BytesIO(archive.read(frame)))) for frame in metadata["frames"]
        ]
    rejects = {table: [Reject(*record) for record in records] for table, records in metadata["rejects"].items()}
    batch = Protected(Batch(frames, rejects, metadata["nul_characters"]))
    is_last = name.reached is None
    return ReadBatch(
        batch, name.start, name.reached, is_last, name.events, metadata["seconds"], Traffic(*metadata["traffic"])
    )
