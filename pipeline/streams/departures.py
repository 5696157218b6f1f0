"""Profiles that Klaviyo may no longer have: looked for in sweeps by time of creation, and then by ID.

See docs/people.md.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.errors import Incomplete, Refused
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import departures
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import watermarks
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Reject
from pipeline.batch import Batch
from pipeline.chunks import key_of
from pipeline.streams.events import probe as probe_events
from pipeline.streams.people import EVENT_OWNERS, LOOKED_UP_AT_ONCE, LookedUp, ids_of, look_up, open_looked_up
from pipeline.streams.people import probe as probe_people
from pipeline.streams.stream import OpenedChunk, Reading, Stream, by_rows
from transforms import people

_MOST_OWNERS = 500  # events whose profile one run asks for: each takes a request
_MOST_ORPHANS = 10_000  # missing profiles that one run looks at: those without events take no request


class _ProfileSweep:
    """One reading of the ids of the profiles that were created in a window."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._from = reading.window.start
        self._found: dict[str, datetime | None] = {}  # since `_from`
        self._rejects: list[Reject] = []
        self._present: list[str] = []  # by ID
        self._is_complete = True

    def pages(self) -> Iterator[LookedUp]:
        """Read the ids. Before each checkpoint, look by ID for the stored profiles that were not among them.

        Also look for those among them that were missing before.
        """
        for page in self._reading.source.profile_ids(self._reading.window):
            self._rejects += page.rejects
            self._is_complete &= not any(reject.hides for reject in page.rejects)
            self._found |= {row.id: row.created for row in page.rows}
            if self._is_due(page.reached):
                yield self._checked(page.reached)
        yield self._checked(None)

    def _is_due(self, reached: datetime | None) -> bool:
        return reached is not None and reached != self._from and len(self._found) >= LOOKED_UP_AT_ONCE

    def _checked(self, reached: datetime | None) -> LookedUp:
        """Look for the profiles created since the last checkpoint and before this one (None: the end of the window)."""
        people, missing = look_up(self._reading, self._doubtful(reached))
        self._present += ids_of(people)
        ids, rejects = list(self._found), [*self._rejects, *(reject for page in people for reject in page.rejects)]
        self._found = {each: at for each, at in self._found.items() if reached and (at is None or at >= reached)}
        self._from, self._rejects = reached, []
        return LookedUp(ids, people, missing, rejects, self._reading.session.now(), reached)

    def _doubtful(self, reached: datetime | None) -> list[str]:
        """Return the profiles about which the sweep and the warehouse disagree.

        An unreadable record may be that of any profile, so then no profile counts as unseen.
        """
        since, until = self._from, reached or self._reading.window.end

        def compare(account: Account) -> list[str]:
            unseen = departures.unseen(account, since, until, self._found) if self._is_complete else []
            return [*unseen, *departures.returned(account, self._found)]

        return self._reading.transact(compare)

    def finish(self, account: Account, guard: Guard) -> None:
        """Record when the window was last swept, and who exists after all; freshness does not show it."""
        departures.forget(account, self._present)
        if self._is_complete:
            run, month = self._reading.run, self._reading.subject
            watermarks.advance(account, key_of(PROFILE_SWEEP.name, month), None, run.as_of, None, month)


def _open_sweep(reading: Reading) -> OpenedChunk:
    sweep = _ProfileSweep(reading)
    return open_looked_up(reading, sweep.pages(), sweep.finish)


def _open_suspected(reading: Reading) -> OpenedChunk:
    present: list[str] = []
    return open_looked_up(
        reading, _suspected(reading, present), lambda account, guard: departures.forget(account, present)
    )


def _suspected(reading: Reading, present: list[str]) -> Iterator[LookedUp]:
    """Look up the suspected profiles by ID, and add those that exist to `present`."""
    after = ""
    while ids := _suspected_ids(reading, after):
        found, missing = look_up(reading, ids)
        present += ids_of(found)
        rejects = [reject for page in found for reject in page.rejects]
        yield LookedUp(ids, found, missing, rejects, reading.session.now())
        after = ids[-1]


def _suspected_ids(reading: Reading, after: str) -> list[str]:
    return reading.transact(lambda account: departures.suspected(account, after, LOOKED_UP_AT_ONCE))


def _open_owners(reading: Reading) -> OpenedChunk:
    return OpenedChunk(_owners(reading), _merges)


class _Owned(NamedTuple):
    """A missing profile, and the profile that its events belong to now, if there is one."""

    rows: Sequence[tuple[str, str | None]]
    rejects: Sequence[Reject]
    read_at: datetime
    reached: datetime | None = None
    incomplete: Incomplete | None = None


def _owners(reading: Reading) -> Iterator[_Owned]:
    """Ask for the owner of one event of each missing profile. Those that are too many are left to the next run."""
    orphans = reading.transact(lambda account: departures.orphans(account, _MOST_ORPHANS))
    eventless = [(orphan.member_id, None) for orphan in orphans if orphan.event_id is None]
    yield _Owned(eventless, (), reading.session.now())
    events = ((orphan.member_id, orphan.event_id) for orphan in orphans if orphan.event_id is not None)
    for member_id, event_id in islice(events, _MOST_OWNERS):
        yield _Owned([(member_id, _owner(reading.source, event_id))], (), reading.session.now())


def _owner(source: Source, event_id: str) -> str | None:
    """Return the owner of an event; None if it has none, or the source does not know the event or refuses its ID."""
    try:
        return source.event_owner(event_id)
    except Refused:
        return None


def _merges(pages: Sequence[_Owned]) -> Batch:
    owned = [(old, new, page.read_at) for page in pages for old, new in page.rows]
    frames: list[tuple[Load, pl.DataFrame]] = [
        (loads.ASKED_PROFILES, people.asked([(old, at) for old, _, at in owned])),
        (loads.PROFILE_MERGES, people.merges([(old, new, at) for old, new, at in owned if new not in (None, old)])),
    ]
    return Batch(frames)


PROFILE_SWEEP = Stream(
    "profile_sweep",
    _open_sweep,
    by_rows,
    LOOKED_UP_AT_ONCE,
    (loads.MEMBERS, loads.MISSING_PROFILES),
    schedule="profiles by the month of their creation, each every PROFILE_SWEEP_DAYS",
    probe=probe_people,
    cursor="created",
    subject="month",
    needs=frozenset({EVENT_OWNERS}),
)
SUSPECTED = Stream(
    "suspected_profiles",
    _open_suspected,
    by_rows,
    LOOKED_UP_AT_ONCE,
    (loads.MEMBERS, loads.MISSING_PROFILES),
    schedule="every daily run: profiles whose events belong to another one now",
    probe=probe_people,
    needs=frozenset({EVENT_OWNERS}),
    shown_as="missing profiles",
)
OWNERS = Stream(
    EVENT_OWNERS,
    _open_owners,
    by_rows,
    _MOST_OWNERS,
    (loads.PROFILE_MERGES, loads.MISSING_PROFILES),
    schedule="every daily run: the owners of the events of missing profiles",
    probe=probe_events,
    shown_as="owners of events",
)
