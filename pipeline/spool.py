"""The spool: batches of history on disk until they are loaded. A folder for each chunk, a file for each batch.

A file has lines that are ready for COPY, Arrow frames of other rows, and metadata. It appears whole, under its final
name, or not at all; only its owner can read it. Names contain nothing but numbers and times.
"""

import hashlib
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any, NamedTuple, TypeVar

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import BadSettings, Unavailable
from klaviyo_pg.postgres.lines import frame_of
from klaviyo_pg.rows import Lines, Reject
from klaviyo_pg.settings import Settings
from klaviyo_pg.traffic import Traffic
from pipeline.batch import Batch, Protected, ReadBatch
from transforms.combine import combined

FORMAT = 5
"""The format of a file; files of another format are not read."""
_PREFIX = f"{FORMAT}-"  # of the name of a chunk's folder
_HEAD = struct.Struct("<IQ")
_END = "end"
_DELETED = ".deleted"  # suffix of a folder that is being deleted
_ONLY_OWNER = 0o700
_MOST_OTHERS = 0.5  # share of the spool that chunks may take up which nothing will load soon
_AHEAD = 3_600.0  # seconds: more than any run accepts


Rows = TypeVar("Rows", pl.DataFrame, Lines)


class DamagedFile(ValueError):
    """A file is not as it was written, as after a power failure."""


class _Name(NamedTuple):
    """The name of a batch's file."""

    number: int
    start: datetime
    reached: datetime | None
    events: int

    def __str__(self) -> str:
        reached = _END if self.reached is None else int(self.reached.timestamp())
        return f"{self.number:06}_{int(self.start.timestamp())}_{reached}_{self.events}.batch"

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
            with incomplete.open("wb") as file:
                for part in content:
                    file.write(part)
            incomplete.rename(self.folder / str(name))
        except OSError as error:
            raise BadSettings(
                f"Cannot write to the spool in DATA_DIR ({error.strerror}): make room, or set SPOOL=false."
            ) from None

    def _names(self) -> list["_Name"]:
        return [_Name.parse(path.stem) for path in sorted(self.folder.glob("*.batch"))]

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

    def _names_after(self, checkpoint: datetime) -> list["_Name"]:
        return [name for name in self._names() if name.reached is None or name.reached > checkpoint]

    def continues_from(self, checkpoint: datetime) -> bool:
        """Return whether the batches leave no gap after a checkpoint."""
        reached: datetime | None = checkpoint
        for name in self._names_after(checkpoint):
            if reached is None or name.start > reached:
                return False
            reached = name.reached
        return True

    def batches(self, checkpoint: datetime) -> Iterator[tuple[Path, ReadBatch]]:
        """Yield the batches that reach beyond a checkpoint, in order.

        Raises Unavailable where one is missing or cannot be read, as after a kill while the folder was deleted, or
        after a power failure; the chunk is deleted from the spool then.
        """
        if not self.continues_from(checkpoint):
            self.clear()
            raise Unavailable(f"Spooled files in {self.folder} are missing. The next run reads its chunk again.")
        for name in self._names_after(checkpoint):
            path = self.folder / str(name)
            try:
                batch = _unpacked(path.read_bytes(), name)
            except (ValueError, KeyError, OSError, pl.exceptions.PolarsError) as error:
                self.clear()
                raise Unavailable(
                    f"Cannot read the spooled file {path} ({type(error).__name__}). The next run reads its chunk again."
                ) from None
            yield path, batch

    def clear(self) -> None:
        """Delete everything."""
        delete(self.folder)


class Spool:
    """The spooled chunks of one account, up to a limit of bytes."""

    def __init__(self, folder: Path, max_bytes: int, keep: timedelta) -> None:
        self.folder, self._max_bytes, self._keep = folder, max_bytes, keep

    def chunk(self, *identity: object) -> SpooledChunk:
        """Return the place of a chunk, which is identified by the values that determine its content."""
        text = json.dumps(identity, default=str)
        return SpooledChunk(self.folder / f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:32]}")

    @property
    def is_full(self) -> bool:
        """True if readers have to pause until something has been loaded."""
        return _bytes_in(self.folder) >= self._max_bytes

    def make_room(self, wanted: Iterable[SpooledChunk]) -> None:
        """Delete other chunks than these if they take up so much that readers would pause most of the time."""
        kept = {chunk.folder for chunk in wanted}
        others = [folder for folder in self.folder.glob("*") if folder not in kept]
        if sum(map(_bytes_in, others)) > _MOST_OTHERS * self._max_bytes:
            for folder in others:
                delete(folder)

    def clear(self) -> None:
        """Delete everything."""
        delete(self.folder)

    def delete_expired(self) -> None:
        """Delete chunks to which nothing has been added for SPOOL_HOURS, and finish deletion that was interrupted.

        Also those of a clock that was ahead, and those of another format.
        """
        shutil.rmtree(_doomed(self.folder), ignore_errors=True)
        for folder in self.folder.glob("*"):
            with suppress(FileNotFoundError):  # another process is deleting it
                if self._is_expired(folder):
                    delete(folder)

    def _is_expired(self, folder: Path) -> bool:
        oldest, latest = time() - self._keep.total_seconds(), time() + _AHEAD
        changed = folder.stat().st_mtime  # of a folder: when a file was last added or removed
        is_current = folder.name.startswith(_PREFIX) and folder.suffix != _DELETED
        return not is_current or not oldest <= changed <= latest


def delete(folder: Path) -> None:
    """Delete a folder of the spool. It has another name until that is done: after a kill, the rest is not used."""
    doomed = _doomed(folder)
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(OSError):
        folder = folder.rename(doomed)
    shutil.rmtree(folder, ignore_errors=True)


def _doomed(folder: Path) -> Path:
    return folder.with_suffix(_DELETED)


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
    contents = [each.batch for each in batches]
    frames = _by_name([pair for each in contents for pair in each.frames])
    lines = _by_name([pair for each in contents for pair in each.lines])
    for name in frames.keys() & lines.keys():  # unusual events are in frames, and the others join them there
        frames[name] = [frame for each in contents for frame in _as_frames(name, each)]
        del lines[name]
    batch = Batch(
        [(loads.OF_EVENT_PAGES[name], combined(loads.OF_EVENT_PAGES[name], each)) for name, each in frames.items()],
        _sum_by_table(content.rejects for content in contents),
        _sum_by_table(content.nul_characters for content in contents),
        lines=[(loads.OF_EVENT_PAGES[name], Lines.joined(each)) for name, each in lines.items()],
        has_attributions=all(content.has_attributions for content in contents),
    )
    return first._replace(
        batch=Protected(batch),
        reached=batches[-1].reached,
        is_last=batches[-1].is_last,
        events=sum(each.events for each in batches),
        seconds=sum(each.seconds for each in batches),
        traffic=Traffic.total(each.traffic for each in batches),
    )


def _by_name(rows: Iterable[tuple[Load, Rows]]) -> dict[str, list[Rows]]:
    """Return frames or lines by the name of their load, in the order that all batches keep."""
    by_name: dict[str, list[Rows]] = {name: [] for name in loads.OF_EVENT_PAGES}
    for load, each in rows:
        by_name[_name(load)].append(each)
    return {name: several for name, several in by_name.items() if several}


def _as_frames(name: str, batch: Batch) -> Iterator[pl.DataFrame]:
    yield from (frame for load, frame in batch.frames if _name(load) == name)
    yield from (frame_of(load, lines) for load, lines in batch.lines if _name(load) == name)


def _sum_by_table(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up, by table, lists or numbers."""
    total: dict[str, Any] = {}
    for part in parts:
        for table, value in part.items():
            total[table] = total[table] + value if table in total else value
    return total


def _bytes_in(folder: Path) -> int:
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(map(_size, files))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # loaded at this moment
        return 0


def _name(load: Load) -> str:
    return next(name for name, each in loads.OF_EVENT_PAGES.items() if each is load)


def _packed(batch: ReadBatch) -> list[bytes]:
    """Return the pieces of a file: a checksum and the length of the metadata, the metadata, frames, lines and keys."""
    content = batch.batch
    frames = [(_name(load), _as_arrow(frame)) for load, frame in content.frames if frame.height]
    lines = [
        (_name(load), [*each.text, each.keys, each.times], each.spans) for load, each in content.lines if len(each)
    ]
    about = {
        "seconds": batch.seconds,
        "traffic": batch.traffic,
        "rejects": {table: list(records) for table, records in content.rejects.items() if records},
        "nul_characters": dict(content.nul_characters),
        "has_attributions": content.has_attributions,
        "frames": [(name, len(arrow)) for name, arrow in frames],
        "lines": [(name, [len(text) for text in texts], spans) for name, texts, spans in lines],
    }
    metadata = json.dumps(about).encode()
    pieces = [metadata, *(arrow for _, arrow in frames), *(text for _, texts, _ in lines for text in texts)]
    return [_HEAD.pack(_checksum(pieces), len(metadata)), *pieces]


def _as_arrow(frame: pl.DataFrame) -> bytes:
    arrow = io.BytesIO()
    frame.write_ipc(arrow, compression="zstd")
    return arrow.getvalue()


def _checksum(pieces: Iterable[bytes | memoryview]) -> int:
    value = 1
    for piece in pieces:
        value = zlib.adler32(piece, value)
    return value


def _unpacked(content: bytes, name: _Name) -> ReadBatch:
    """Return the batch in a file. Raises DamagedFile if its checksum is wrong."""
    try:
        checksum, length = _HEAD.unpack_from(content)
    except struct.error:
        raise DamagedFile from None
    left = memoryview(content)[_HEAD.size :]
    if _checksum([left]) != checksum:
        raise DamagedFile

    def take(size: int) -> bytes:
        nonlocal left
        taken, left = bytes(left[:size]), left[size:]
        return taken

    about = json.loads(take(length))
    frames = [(loads.OF_EVENT_PAGES[frame], pl.read_ipc(io.BytesIO(take(size)))) for frame, size in about["frames"]]
    lines = []
    for load, sizes, spans in about["lines"]:
        *texts, keys, times = map(take, sizes)
        lines.append((loads.OF_EVENT_PAGES[load], Lines(texts, keys, times, spans)))
    rejects = {table: [Reject(*record) for record in records] for table, records in about["rejects"].items()}
    made = Batch(frames, rejects, about["nul_characters"], lines=lines, has_attributions=about["has_attributions"])
    is_last = name.reached is None
    return ReadBatch(
        Protected(made), name.start, name.reached, is_last, name.events, about["seconds"], Traffic(*about["traffic"])
    )
