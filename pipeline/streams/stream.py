"""The vocabulary of stream declarations: what is declared of each stream, and what reading a chunk of it needs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import polars as pl

from klaviyo_pg.catalogue import Load, Table, loads, membership
from klaviyo_pg.errors import Incomplete
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Reject
from klaviyo_pg.windows import FULL_READ, AnyWindow
from pipeline.batch import Batch, CleanedFrames
from pipeline.chunks import Chunk
from pipeline.runs import Result, Run, transact
from pipeline.session import Session
from transforms.clean import Cleaned
from transforms.events import Metrics

Row = TypeVar("Row")
_MEMBER_LIST_TABLES = (
    membership.STG_MEMBER_LISTS,
    membership.SUBSCRIPTION_CHANGES,
    membership.LIST_SUPPRESSIONS,
    membership.MEMBER_EXCLUSIONS,
)
BATCH_SECONDS = 2.0
"""After so long a batch ends with the page at hand: what a kill costs a reader, however slow the API is."""


@dataclass(frozen=True)
class Reading:
    """One chunk being read: by which session, in which run, with which API client, and what is left of its window.

    `metrics` are those that the warehouse has; None: they have to be looked up.
    """

    session: Session
    run: Run
    source: Source
    chunk: Chunk
    window: AnyWindow
    metrics: Metrics | None = None

    @property
    def subject(self) -> str | None:
        """The ID that the chunk is limited to, such as that of a list."""
        return self.chunk.subject

    @property
    def part(self) -> str:
        """The name of the chunk's window in the ledger."""
        return self.chunk.part

    @property
    def is_full_read(self) -> bool:
        """True if the chunk began without a start, even if it resumes at a checkpoint."""
        return self.chunk.window == FULL_READ

    @property
    def is_resumed(self) -> bool:
        """True if only the rest of the chunk is read."""
        return self.window != self.chunk.window

    @property
    def integration_id(self) -> str:
        """The id of the account in the warehouse."""
        return self.run.integration_id

    def transact(self, work: Callable[[Account], Result]) -> Result:
        """Do some work in one transaction of the run, as `runs.transact` does."""
        return transact(self.session, self.run, work)


class Group(NamedTuple):
    """Pages that make a batch, how many rows they have, and the checkpoint after them."""

    pages: Sequence[Any]
    rows: int
    reached: datetime | None
    is_last: bool

    @property
    def incomplete(self) -> Incomplete | None:
        """The error of a part of the collection that the API refused."""
        return next((page.incomplete for page in self.pages if page.incomplete), None)


Finish = Callable[[Account, Guard], None]
"""Records what the end of a chunk has to record, in the transaction of its last batch."""


def nothing(*_: object) -> None:
    """Record nothing."""


def as_read(pages: Sequence[Any]) -> Sequence[Any]:
    """Return pages as they were read, for a batch that depends on nothing in the warehouse."""
    return pages


class OpenedChunk(NamedTuple):
    """A chunk of a stream, opened: its pages, how pages become a batch, and what its end has to record.

    `prepare` returns what `batch` takes: the pages, with what the warehouse has to be asked about them. Readers wait
    for each other while they make batches, so `batch` itself does not wait for the database.
    `finish` runs in the transaction of the last batch. Raises UnconfirmedLoss where it loses more than the guard
    believes. `stored` is called with the pages of each batch once it is stored.
    """

    pages: Iterable[Any]
    batch: Callable[[Any], Batch]
    finish: Finish = nothing
    stored: Callable[[Sequence[Any]], None] = nothing
    prepare: Callable[[Sequence[Any]], Any] = as_read


Probe = Callable[[Source, AnyWindow, str | None], Iterator[Any]]
"""Begins to read, for a subject, a window in which there is nothing: the first page shows whether the API allows it."""
Grouping = Callable[[Iterable[Any], int, int], Iterator[Group]]
"""Puts pages into batches of at least a number of rows, which can differ for the first; of fewer if pages are slow."""


@dataclass(frozen=True)
class Stream:
    """A stream: the one declaration from which reading, planning, storing and the view `freshness` follow.

    `open` begins to read a chunk, and `group` puts its pages into batches of at least `batch_rows` rows. `cursor` is
    the API's time field by which it is read in windows and resumed at checkpoints; None: each read is a full read,
    which also shows what the source has deleted. If it `is_one_collection`, every run reads all of it, and stores it as
    one batch. `subject` is what chunks can be limited to; they can be parts of one full read (`is_read_in_parts`),
    which has found everything only together. `loads` are the ways in which its rows come into tables. `schedule` says
    when it is read. A run is complete without an optional stream, which not every account has. One that costs much is
    read only `on_request`, if TABLES asks for it. `needs` are the names of streams that are read for it. Chunks of a
    stream that is read `in_turn` have so few requests that one unit reads all of them. `probe` sends the smallest
    request that needs the same scopes. `shown_as` is for names that mean little to a reader.
    """

    name: str
    open: Callable[[Reading], OpenedChunk]
    group: Grouping
    batch_rows: int
    loads: tuple[Load, ...]
    schedule: str
    probe: Probe
    cursor: str | None = None
    subject: str | None = None
    is_one_collection: bool = False
    is_read_in_parts: bool = False
    on_request: bool = False
    needs: frozenset[str] = frozenset()
    in_turn: bool = False
    is_optional: bool = False
    shown_as: str | None = None

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.shown_as or self.name.replace("_", " ")

    @property
    def table(self) -> Table:
        """The table that it fills first."""
        return self.loads[0].table

    @property
    def tables(self) -> frozenset[str]:
        """The names of the tables that depend on it."""
        names = {load.table.name for load in self.loads}
        derived = any(load.table in _MEMBER_LIST_TABLES for load in self.loads)
        return frozenset(names | {membership.MEMBER_LISTS.name} if derived else names)

    @property
    def leading(self) -> frozenset[str]:
        """The names of the tables without which it is not read: that which it fills first, or is read for."""
        derived = {membership.MEMBER_LISTS.name} if self.table is membership.STG_MEMBER_LISTS else set()
        return frozenset({self.table.name} | derived)


class SweptPart:
    """A part of a sweep, as its batches record it: that it has begun, and that a record was unreadable.

    The warehouse keeps both. Nothing of a part was lost if it has begun there, and a resumed part need not meet an
    unreadable record again.
    """

    def __init__(self, reading: Reading, key: str) -> None:
        self._name = key, reading.run.id, reading.part
        self._has_begun = reading.is_resumed

    def record(self, pages: Iterable[Any]) -> CleanedFrames:
        """Return what a batch of these pages has to store."""
        has_unreadable = any(reject.hides for page in pages for reject in page.rejects)
        if self._has_begun and not has_unreadable:
            return []
        self._has_begun = True
        row = (*self._name, None, has_unreadable)
        return [(loads.SWEEPS, Cleaned(pl.DataFrame([row], loads.SWEEPS.schema, orient="row")))]


def as_one_batch(pages: Iterable[Any], least: int, first: int = 0) -> Iterator[Group]:
    """Put a complete collection into one batch: nothing of it may be stored before its last page has been read."""
    collected = list(pages)
    yield Group(collected, sum(len(page.rows) for page in collected), None, is_last=True)


class BatchEnd:
    """When a batch ends: at `least` rows, the first one at `first` if that is not 0, and each after some seconds.

    The time in which the batch before is stored does not count: a kill does not cost what it stored.
    """

    def __init__(self, least: int, first: int, seconds: float) -> None:
        self._least, self._wanted, self._seconds = least, first or least, seconds
        self._began = monotonic()

    def is_reached(self, rows: int) -> bool:
        """Return whether a batch that has so many rows ends before the next page."""
        is_overdue = rows > 0 and monotonic() - self._began >= self._seconds
        return is_overdue or rows >= self._wanted

    def begin_next(self) -> None:
        """Begin the next batch."""
        self._wanted, self._began = self._least, monotonic()


def by_rows(pages: Iterable[Any], least: int, first: int = 0, seconds: float = BATCH_SECONDS) -> Iterator[Group]:
    """Group pages into batches of at least `least` rows; the first one has at least `first`, if that is not 0.

    Where pages come slowly, a batch ends after so many seconds. A page's `reached` is a checkpoint.

    No checkpoint follows a record that could not be read: a resumed chunk meets it again, so that what was read is not
    taken for complete.
    """
    waiting: list[Any] = []
    is_readable, end = True, BatchEnd(least, first, seconds)
    for page in pages:
        if end.is_reached(sum(len(each.rows) for each in waiting)):
            is_readable &= not any(reject.hides for each in waiting for reject in each.rejects)
            yield _group(waiting, waiting[-1].reached if is_readable else None, is_last=False)
            waiting = []
            end.begin_next()
        waiting.append(page)
    yield _group(waiting, None, is_last=True)


def _group(pages: list[Any], reached: datetime | None, is_last: bool) -> Group:
    return Group(pages, sum(len(each.rows) for each in pages), reached, is_last)


def collected(pages: Iterable[Page[Row]]) -> tuple[list[Row], list[Reject]]:
    """Return the rows and the rejects of pages."""
    read = list(pages)
    return [row for page in read for row in page.rows], [reject for page in read for reject in page.rejects]
