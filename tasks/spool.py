"""Extractions kept on disk until they are loaded: a folder for each, a file for each batch. Knows no Prefect.

A file is a zip archive of Arrow frames and what belongs to them. It appears whole, under its last name, or not at all;
only its owner can read it. Names tell no more than numbers and times.
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
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.klaviyo.rows import Reject
from klaviyo_pg.settings import Settings
from tasks.store import Batch, Protected
from transforms.combine import combined

FORMAT = 1
"""Of a file; files of another one are not read."""
_END = "end"
_ONLY_OWNER = 0o700


class Parcel(NamedTuple):
    """A batch of an extraction, and what its loading has to note.

    Everything from `start` to `reached` is in it; None: it is the last. `events` were read for it, in so many `seconds`
    and with this `traffic`.
    """

    batch: Protected
    start: datetime
    reached: datetime | None
    events: int
    seconds: float
    traffic: Traffic


class _Name(NamedTuple):
    """The name of a parcel's file."""

    number: int
    start: datetime
    reached: datetime | None
    events: int

    def __str__(self) -> str:
        reached = _END if self.reached is None else int(self.reached.timestamp())
        return f"{self.number:06}_{int(self.start.timestamp())}_{reached}_{self.events}.zip"

    @classmethod
    def of(cls, stem: str) -> "_Name":
        number, start, reached, events = stem.split("_")
        return cls(int(number), _time(start), None if reached == _END else _time(reached), int(events))


def _time(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


class Shelf:
    """The parcels of one extraction, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, parcel: Parcel) -> None:
        """Add the next parcel. Raises BadSettings where there is no room for it."""
        names = self._names()
        number = names[-1].number + 1 if names else 0
        name = _Name(number, parcel.start, parcel.reached, parcel.events)
        content = _packed(parcel)
        arriving = self.folder / f"{number:06}.part"
        try:
            self.folder.mkdir(mode=_ONLY_OWNER, parents=True, exist_ok=True)
            arriving.write_bytes(content)
            arriving.rename(self.folder / str(name))
        except OSError as error:
            raise BadSettings(
                f"What was read cannot be kept in DATA_DIR ({error.strerror}): make room, or set SPOOL=false."
            ) from None

    def _names(self) -> list["_Name"]:
        return [_Name.of(path.stem) for path in sorted(self.folder.glob("*.zip"))]

    @property
    def events(self) -> int:
        """Events that were read for the parcels."""
        return sum(name.events for name in self._names())

    @property
    def is_complete(self) -> bool:
        """Whether the last parcel is there."""
        names = self._names()
        return bool(names) and names[-1].reached is None

    @property
    def reached(self) -> datetime | None:
        """Up to where the parcels reach; None where there is none, or where the last one is among them."""
        names = self._names()
        return names[-1].reached if names else None

    def leads_on_from(self, moment: datetime) -> bool:
        """Whether the parcels leave no gap behind a time."""
        names = self._names()
        return not names or names[0].start <= moment

    def parcels(self, behind: datetime | None) -> Iterator[tuple[Path, Parcel]]:
        """The parcels that reach further than `behind`, in order.

        Raises Unavailable where one cannot be read, as after a loss of power; nothing is kept of the extraction then.
        """
        for name in self._names():
            if behind is None or name.reached is None or name.reached > behind:
                path = self.folder / str(name)
                try:
                    parcel = _unpacked(path.read_bytes(), name)
                except (BadZipFile, ValueError, OSError, pl.exceptions.PolarsError) as error:
                    self.clear()
                    raise Unavailable(
                        f"What was kept in {path} cannot be read ({type(error).__name__}): the next run reads it anew."
                    ) from None
                yield path, parcel

    def clear(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """All shelves of one account, under a bound."""

    def __init__(self, folder: Path, most_bytes: int, keep: timedelta) -> None:
        self.folder, self._most, self._keep = folder, most_bytes, keep

    def shelf(self, *what: object) -> Shelf:
        """The shelf of an extraction, told from all others by the values that went into it."""
        text = json.dumps([FORMAT, *what], default=str)
        return Shelf(self.folder / hashlib.sha256(text.encode()).hexdigest()[:32])

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read until something has been loaded."""
        found = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        return sum(map(_size, found)) >= self._most

    def clear(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> None:
        """Throw away what has expired."""
        oldest = time() - self._keep.total_seconds()
        for folder in self.folder.glob("*"):
            if folder.stat().st_mtime < oldest:  # of a folder: when a file last came or went
                shutil.rmtree(folder, ignore_errors=True)


def open_spool(settings: Settings, integration_id: str) -> Spool | None:
    """The account's spool in DATA_DIR; None where SPOOL turns it off. Raises BadSettings where it cannot be there."""
    if not settings.spool:
        return None
    root = settings.spool_dir
    try:
        root.mkdir(mode=_ONLY_OWNER, parents=True, exist_ok=True)
        root.chmod(_ONLY_OWNER)
    except OSError as error:
        raise BadSettings(
            f"DATA_DIR: nothing can be kept in {root} ({error.strerror}); name another folder, or set SPOOL=false."
        ) from None
    return Spool(root / integration_id, settings.spool_megabytes << 20, timedelta(hours=settings.spool_hours))


def together(parcels: Iterator[tuple[Path, Parcel]], least: int) -> Iterator[list[tuple[Path, Parcel]]]:
    """Parcels, as many together as hold at least so many events."""
    group: list[tuple[Path, Parcel]] = []
    for path, parcel in parcels:
        group.append((path, parcel))
        if sum(each.events for _, each in group) >= least:
            yield group
            group = []
    if group:
        yield group


def joined(parcels: Sequence[Parcel]) -> Parcel:
    """One parcel of several that follow each other."""
    first, *others = parcels
    if not others:
        return first
    named: dict[str, list[pl.DataFrame]] = {}
    for name in loads.OF_EVENT_PAGES:  # in the order that all batches keep
        frames = [frame for each in parcels for load, frame in each.batch.frames if _name(load) == name]
        if frames:
            named[name] = frames
    batches = [parcel.batch for parcel in parcels]
    batch = Batch(
        [(loads.OF_EVENT_PAGES[name], combined(loads.OF_EVENT_PAGES[name], each)) for name, each in named.items()],
        _added(batch.rejects for batch in batches),
        _added(batch.nul_characters for batch in batches),
    )
    return Parcel(
        Protected(batch),
        first.start,
        parcels[-1].reached,
        sum(parcel.events for parcel in parcels),
        sum(parcel.seconds for parcel in parcels),
        Traffic.total(parcel.traffic for parcel in parcels),
    )


def _added(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """By table, what the parts hold for it: lists as one list, numbers as their sum."""
    total: dict[str, Any] = {}
    for part in parts:
        for table, found in part.items():
            total[table] = total[table] + found if table in total else found
    return total


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # loaded in this moment
        return 0


def _name(load: Load) -> str:
    return next(name for name, known in loads.OF_EVENT_PAGES.items() if known is load)


def _packed(parcel: Parcel) -> bytes:
    content = io.BytesIO()
    batch = parcel.batch
    about = {
        "seconds": parcel.seconds,
        "traffic": parcel.traffic,
        "rejects": {table: list(found) for table, found in batch.rejects.items() if found},
        "nul_characters": dict(batch.nul_characters),
        "frames": [],
    }
    with ZipFile(content, "w") as archive:
        for load, frame in batch.frames:
            if frame.height:
                name = _name(load)
                arrow = io.BytesIO()
                frame.write_ipc(arrow, compression="zstd")
                archive.writestr(name, arrow.getbuffer())
                about["frames"].append(name)  # type: ignore[attr-defined]
        archive.writestr("about.json", json.dumps(about))
    return content.getvalue()


def _unpacked(content: bytes, name: _Name) -> Parcel:
    with ZipFile(io.BytesIO(content)) as archive:
        about = json.loads(archive.read("about.json"))
        frames = [(loads.OF_EVENT_PAGES[name], pl.read_ipc(io.BytesIO(archive.read(name)))) for name in about["frames"]]
    rejects = {table: [Reject(*found) for found in each] for table, each in about["rejects"].items()}
    batch = Protected(Batch(frames, rejects, about["nul_characters"]))
    return Parcel(batch, name.start, name.reached, name.events, about["seconds"], Traffic(*about["traffic"]))
