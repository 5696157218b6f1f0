"""A batch: frames and rejects that are stored in one transaction, protected as PERSONAL_DATA requires."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, NewType

import polars as pl

from klaviyo_pg.catalogue import Load
from klaviyo_pg.errors import Incomplete
from klaviyo_pg.rows import Lines, Reject
from klaviyo_pg.settings import Settings
from klaviyo_pg.traffic import Traffic
from transforms.clean import Cleaned
from transforms.personal import Protection, protected, protected_rejects


@dataclass(frozen=True)
class Batch:
    """Frames by load, in the order that all batches keep; rejects and removed NUL characters by table.

    `lines` are rows that need no frame. They are stored first.
    `unchanged` are rows, by table, that the frames leave out because they are stored already.
    `has_attributions` says that events come with all their attributions. Otherwise, stored attributions stay.
    """

    frames: Sequence[tuple[Load, pl.DataFrame]] = ()
    rejects: Mapping[str, Sequence[Reject]] = field(default_factory=dict)
    nul_characters: Mapping[str, int] = field(default_factory=dict)
    unchanged: Mapping[str, int] = field(default_factory=dict)
    lines: Sequence[tuple[Load, Lines]] = ()
    has_attributions: bool = True


CleanedFrames = Sequence[tuple[Load, Cleaned]]
"""The frames of a batch, as transforms return them."""


def batch_of(frames: CleanedFrames, rejects: Mapping[str, Sequence[Reject]] | None = None) -> Batch:
    """Return the batch of these frames, whose NUL characters count for the tables that the frames are loaded into."""
    nul_characters = Counter[str]()
    for load, cleaned in frames:
        nul_characters[load.table.name] += cleaned.nul_characters
    return Batch([(load, cleaned.frame) for load, cleaned in frames], rejects or {}, nul_characters)


Protected = NewType("Protected", Batch)
"""A batch that may leave this process, for a disk or a database. Only `protect` makes one from rows of the API."""


def protection_of(settings: Settings) -> Protection | None:
    """Return how personal data is protected; None if PERSONAL_DATA keeps it."""
    if settings.personal_data == "keep":
        return None
    return Protection(settings.personal_data == "drop", settings.salt, frozenset(settings.readable_properties))


def as_written(settings: Settings, names: Iterable[str]) -> Callable[[str | None], str | None]:
    """Return a function that restores names of metrics and segments that are stored as hashes.

    It restores those among `names`, which settings have in plain text, and returns others unchanged.
    """
    protection = protection_of(settings)
    written = {} if protection is None else {protection.checked(name): name for name in names}
    return lambda stored: written.get(stored or "", stored)


def protect(batch: Batch, settings: Settings) -> Protected:
    """Return the batch with personal data kept, hashed or dropped, as PERSONAL_DATA says."""
    protection = protection_of(settings)
    if protection is None:
        return Protected(batch)
    assert not batch.lines, "lines are made only where nothing is protected"
    frames = [(load, protected(frame, load, protection)) for load, frame in batch.frames]
    rejects = {table: protected_rejects(records, protection) for table, records in batch.rejects.items()}
    return Protected(replace(batch, frames=frames, rejects=rejects))


class ReadBatch(NamedTuple):
    """A batch as it was read, and what storing it has to record.

    It contains everything from `start` to the checkpoint `reached` (None: there is no checkpoint). `events` were read
    for it, in `seconds` and with `traffic`. The last batch completes its chunk, unless it is `incomplete`.
    """

    batch: Protected
    start: datetime | None
    reached: datetime | None
    is_last: bool
    events: int
    seconds: float
    traffic: Traffic
    incomplete: Incomplete | None = None
