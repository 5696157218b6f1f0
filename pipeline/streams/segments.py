"""Members of the segments that SEGMENTS names. A full read of a segment is also a sweep: it finds out who has left."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from klaviyo_pg.catalogue import loads
from klaviyo_pg.errors import NotFound, UnknownSegment
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import membership_sweeps, segments
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Membership, Page
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, as_written, batch_of
from pipeline.chunks import key_of
from pipeline.streams.dimensions import SEGMENTS
from pipeline.streams.lists import was_readable
from pipeline.streams.stream import OpenedChunk, Reading, Stream, SweptPart, by_rows, collected
from transforms import membership, people

_BATCH_ROWS = 2_000  # memberships in one transaction: a page has a hundred


class Named(Protocol):
    """A segment, as the source or the warehouse has it."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str | None: ...


class Chosen(NamedTuple):
    """The IDs of the segments to read, in order, and an error for each name that does not say which one is meant."""

    ids: list[str]
    errors: list[UnknownSegment]


def chosen(wanted: Iterable[str], existing: Iterable[Named]) -> Chosen:
    """Find the segments that names or IDs mean."""
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    ids = set[str]()
    for segment in existing:
        ids.add(segment.id)
        by_name[segment.name or ""].add(segment.id)
    meant = {text: {text} if text in ids else by_name.get(text, set()) for text in wanted}
    return Chosen(
        sorted({segment_id for found in meant.values() if len(found) == 1 for segment_id in found}),
        [UnknownSegment(text, sorted(found)) for text, found in meant.items() if len(found) != 1],
    )


def chosen_of_stored(settings: Settings, stored: Iterable[segments.StoredSegment]) -> Chosen:
    """Find the stored segments that SEGMENTS means. Their names can be stored as hashes."""
    written = as_written(settings, settings.segments)
    return chosen(settings.segments, (each._replace(name=written(each.name)) for each in stored))


class _Sweep:
    """One reading of a segment. Only a full read in which every record was readable makes anybody leave.

    What it finds is stored batch by batch under the id of the run, as that of a list.
    """

    def __init__(self, reading: Reading, segment_id: str) -> None:
        self._reading, self._segment_id = reading, segment_id
        self._is_sweep = reading.is_full_read and reading.run.settings.membership_sweep_days > 0
        self._key = key_of(SEGMENT_MEMBERS.name, segment_id)
        self._part = SweptPart(reading, self._key)
        self._exists = True

    def pages(self) -> Iterator[Page[Membership]]:
        """Read the segment. It ends early if the segment turns out to be deleted."""
        try:
            yield from self._reading.source.segment_members(self._segment_id, self._reading.window)
        except NotFound:
            self._exists = False

    def batch(self, pages: Sequence[Page[Membership]]) -> Batch:
        rows, rejects = collected(pages)
        integration_id = self._reading.integration_id
        frames = [
            (loads.SEGMENT_MEMBERS, membership.segment_members(rows, integration_id)),
            (loads.MEMBER_STUBS, people.stubs(((row.member_id, None) for row in rows), integration_id)),
        ]
        if self._is_sweep:
            found = [(row.member_id, "found") for row in rows]
            swept = membership.swept(self._segment_id, self._reading.run.id, found)
            frames = [*self._part.record(pages), *frames, (loads.SWEPT_MEMBERS, swept)]
        return batch_of(frames, {"segment_members": rejects})

    def finish(self, account: Account, guard: Guard) -> None:
        """Record who has left, in the transaction of the last members.

        A sweep whose loss is not believed keeps what it has found: a resumed run continues it. A segment whose members
        are being computed is swept again by a later run.
        """
        if not self._is_sweep:
            return
        run = self._reading.run
        if (
            self._exists
            and was_readable(account, self._reading, self._key)
            and not segments.is_processing(account, self._segment_id)
        ):
            if not segments.end_sweep(account, guard, self._segment_id, run.id):
                return
            key = key_of(segments.SWEEPS, self._segment_id)
            watermarks.advance(account, key, None, run.as_of, None, self._segment_id)
        membership_sweeps.delete_sweeps(account, self._segment_id)


def _open_segment(reading: Reading) -> OpenedChunk:
    assert reading.subject is not None
    sweep = _Sweep(reading, reading.subject)
    return OpenedChunk(sweep.pages(), sweep.batch, sweep.finish)


def _probe(source: Source, window: AnyWindow, segment_id: str | None) -> Iterator[Page[Membership]]:
    """Begin to read the members of a segment, if there is one."""
    return iter(()) if segment_id is None else source.segment_members(segment_id, window)


SEGMENT_MEMBERS = Stream(
    "segment_members",
    _open_segment,
    by_rows,
    _BATCH_ROWS,
    (loads.SEGMENT_MEMBERS, loads.SWEPT_MEMBERS, loads.SWEEPS),
    schedule="every daily run for new members of the segments in SEGMENTS; all members every MEMBERSHIP_SWEEP_DAYS",
    probe=_probe,
    cursor="joined_group_at",
    subject="segment",
    needs=frozenset({SEGMENTS.name}),
)
