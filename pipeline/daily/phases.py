"""The plan of a daily run: what it reads after the dimensions, in phases, as far as the warehouse does not have it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.postgres import departures, lookups, segments
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.excluded import Extent, extent
from klaviyo_pg.postgres.ledgers import chunk_ledger, reconciliation, sweep_ledger, watermarks
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import DAY
from pipeline import plan
from pipeline.chunks import Chunk, key_of
from pipeline.daily.sweeps import ListSweeps, membership_chunks, profile_sweep_chunks
from pipeline.job import Job
from pipeline.reconcile.check import can_count
from pipeline.runs import Run
from pipeline.streams.departures import PROFILE_SWEEP, SUSPECTED
from pipeline.streams.dimensions import LISTS, METRICS, SEGMENTS
from pipeline.streams.events import EVENTS, reads_at_once
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.segments import SEGMENT_MEMBERS, chosen_of_stored
from pipeline.streams.selection import Selection, metrics_to_read
from pipeline.streams.stream import Stream


class Phase(NamedTuple):
    """Chunks that are read side by side, under a title. Each phase needs what the one before has read."""

    title: str
    chunks: list[Chunk]


def plan_phases(job: Job, wanted: Selection, since: datetime | None) -> list[Phase]:
    """Return the phases after the dimensions. Events are read from `since` on, whatever has been read before.

    Returns none where the settings allow none, or where what they depend on could not be read: see the tally.
    """
    if job.tally.must_stop:
        return []
    try:
        stored = job.transact(partial(_look_up, run=job.run, with_counts=can_count(job)))
        return _Plan(job, wanted, since, stored).phases()
    except KlaviyoPgError as error:
        job.tally.add_error(error)
        return []


class _Warehouse(NamedTuple):
    """The state of the warehouse on which the plan depends."""

    metrics: list[lookups.StoredMetric]
    lists: list[str]
    watermarks: plan.Watermarks
    counted: set[str]
    months: list[departures.Month]
    begun: plan.Begun
    excluded: Extent
    swept: Mapping[str, int]
    segments: list[segments.StoredSegment]
    segments_swept: Mapping[str, int]
    coupons: list[str]
    has_unlisted_events: bool


def _look_up(account: Account, run: Run, with_counts: bool) -> _Warehouse:
    return _Warehouse(
        metrics=lookups.metrics(account),
        lists=lookups.list_ids(account),
        watermarks=watermarks.valid(account),
        counted=reconciliation.counted_metrics(account) if with_counts else set(),
        months=departures.months(account),
        begun=chunk_ledger.begun(account, run.id),
        excluded=extent(account, plan.MANY_EXCLUSIONS),
        swept=_members_found(account, LIST_MEMBERS),
        segments=segments.existing(account),
        segments_swept=_members_found(account, SEGMENT_MEMBERS),
        coupons=lookups.coupon_ids(account),
        has_unlisted_events=lookups.has_unlisted_events(account, run.as_of - plan.UNLISTED_FOR),
    )


def _members_found(account: Account, stream: Stream) -> Mapping[str, int]:
    """Return the number of members that the last sweep of each list or segment found, by its ID."""
    return {key.partition("/")[2]: number for key, number in sweep_ledger.found(account, stream.name).items()}


@dataclass(frozen=True)
class _Plan:
    """Plans the chunks of a run from the state of the warehouse. The job's tally notes what cannot be read, and why."""

    job: Job
    wanted: Selection
    since: datetime | None
    stored: _Warehouse

    def phases(self) -> list[Phase]:
        """Return the phases. What a run should bring first comes first in each."""
        changes = [*self._profiles(), *self._events()]
        members = [*self._list_members(), *self._segment_members()]
        rest = [*self._exclusions(), *self._content()]
        unknown = Phase("Unknown people", list(self._unknown_people()))
        if self._dialect.looks_up_memberships:  # by addresses that come with events
            memberships = Phase("List members and exclusions", [*members, *rest])
            return [Phase("Events and profiles", changes), memberships, unknown]
        return [Phase("Events, profiles and list members", [*changes, *members, *rest]), unknown]

    @property
    def _as_of(self) -> datetime:
        return self.job.run.as_of

    @property
    def _settings(self) -> Settings:
        return self.job.run.settings

    @property
    def _dialect(self) -> Dialect:
        return self.job.session.dialect

    @property
    def _blind(self) -> timedelta:
        """The overlap of what the source does not count."""
        return timedelta(days=self._settings.blind_lookback_days)

    def _reads(self, stream: Stream) -> bool:
        return stream.name in self.wanted.streams

    def _profiles(self) -> Iterator[Chunk]:
        """Yield the chunks of profiles, which come first, since they begin in one sequence.

        A dialect that does not list people plans none: a later run in the other one would take them for read.
        """
        if self._reads(PROFILES) and self._dialect.lists_people:
            yield from plan.profile_chunks(self.stored.watermarks, self.stored.begun)

    def _events(self) -> Sequence[Chunk]:
        """Return the chunks of events, the newest first.

        Where TABLES selects some event tables, only their metrics are read, and those that list members need; the
        watermarks of the others stay where they are.
        """
        if not self._reads(EVENTS):
            return []
        if not self.stored.metrics:
            self._pass_on(METRICS, EVENTS)
            return []
        settings, tables = self._settings, self.wanted.event_tables(self._dialect)
        metrics = metrics_to_read(self.stored.metrics, settings, tables, self.wanted.reads_list_members)
        ids = [metric.id for metric in metrics]
        horizon = plan.Horizon(
            self._as_of,
            timedelta(days=settings.lookback_days),
            timedelta(days=settings.first_sync_days),
            self.since,
            settings.events_kept_since,
        )
        self._note_newly_read(ids, horizon)
        with self.job.session.source() as source:
            all_at_once = reads_at_once(source, settings, tables)
        chunks = plan.event_chunks(ids, self.stored.watermarks, horizon, all_at_once, self._overlaps(ids))
        return list(chunks)[::-1]

    def _overlaps(self, ids: Sequence[str]) -> Mapping[str | None, timedelta]:
        """Return the longer overlap of metrics that the source cannot count, by ID.

        None stands for those that it does not list: they have it too, if any of their events came lately.
        """
        uncounted: list[str | None] = [each for each in ids if each not in self.stored.counted]
        if self.stored.has_unlisted_events:
            uncounted.append(None)
        return dict.fromkeys(uncounted, self._blind)

    def _note_newly_read(self, ids: Sequence[str], horizon: plan.Horizon) -> None:
        """Note which metrics have a shorter history than others from now on, such as those that TABLES left out."""
        if all(key_of(EVENTS.name, each) in self.stored.watermarks for each in ids):
            return
        loaded = self.job.transact(partial(reconciliation.loaded_windows, since=horizon.kept_since))
        created = {metric.id: metric.created_at for metric in self.stored.metrics}
        unread = plan.newly_read(created, ids, loaded, horizon)
        if not unread:
            return
        names = sorted(metric.name or metric.id for metric in self.stored.metrics if metric.id in unread)
        shown = f"{len(names)} metrics are" if len(names) > 1 else f"The metric {names[0]!r} is"
        self.job.tally.add_notes(
            f"{shown} read for the first time, from {horizon.start(None):%Y-%m-%d} on, although others go further "
            "back. To load the earlier events, run klaviyo-pg backfill --start DATE."
        )

    def _list_members(self) -> Iterator[Chunk]:
        if not self._reads(LIST_MEMBERS):
            return
        sweeps = self._lookup_sweeps() if self._dialect.looks_up_memberships else self._list_sweeps()
        yield from self._members("Lists", self.stored.lists, sweeps)
        if not self.stored.lists:
            self._pass_on(LISTS, LIST_MEMBERS)

    def _segment_members(self) -> Iterator[Chunk]:
        """Yield the chunks of the segments that SEGMENTS names.

        Note which names say nothing, unless this run could not read which segments there are. A dialect that looks up
        memberships does not say when somebody joined a segment.
        """
        if not self._reads(SEGMENT_MEMBERS):
            return
        found = chosen_of_stored(self._settings, self.stored.segments)
        read_to = self.stored.watermarks.get(SEGMENTS.name)
        if read_to is not None and read_to >= self._as_of:
            for error in found.errors:
                self.job.tally.add_error(error)
        elif found.errors:
            self._pass_on(SEGMENTS, SEGMENT_MEMBERS)
        sweeps = self._list_sweeps()._replace(
            members=self.stored.segments_swept,
            stream=SEGMENT_MEMBERS.name,
            record=segments.SWEEPS,
            in_full_only=self._dialect.looks_up_memberships,
        )
        yield from self._members("Segments", found.ids, sweeps)

    def _members(self, what: str, ids: Sequence[str], sweeps: ListSweeps) -> list[Chunk]:
        """Return the chunks of members of lists or segments. Note if they are swept more rarely than the settings ask.

        That is so if the budget of requests does not allow more.
        """
        every, interval = sweeps.every / DAY, round(sweeps.interval(ids) / DAY, 1)
        if interval > every:
            self.job.tally.add_notes(
                f"{what} are read in full about every {interval:g} days instead of every {every:g}, because that takes "
                f"{sweeps.round(ids):,} requests and MEMBERSHIP_SWEEP_REQUESTS allows {sweeps.requests:,} in a run."
            )
        stored = self.stored
        return list(membership_chunks(ids, stored.watermarks, self._blind, self._as_of, sweeps, stored.begun))

    def _list_sweeps(self) -> ListSweeps:
        every = timedelta(days=self._settings.membership_sweep_days)
        return ListSweeps(every, self._settings.membership_sweep_requests, self.stored.swept)

    def _lookup_sweeps(self) -> ListSweeps:
        """Return the sweeps of a dialect in which everyone is looked up in each list, as member and as subscriber.

        Their addresses take requests besides, unless the warehouse has them.
        """
        lists, people = self.stored.lists, self.job.transact(lookups.count_subscribers)
        is_readable = self._settings.personal_data == "keep"
        addresses = 0 if is_readable else self.job.session.addresses.requests(people, len(lists))
        return self._list_sweeps()._replace(members=dict.fromkeys(lists, 2 * people), addresses=addresses)

    def _exclusions(self) -> list[Chunk]:
        """Return the chunks of exclusions, which come after events."""
        if not self._reads(EXCLUSIONS):
            return []
        return plan.exclusion_chunks(
            self._dialect.exclusion_reasons, self.stored.excluded, self._as_of, self.stored.begun
        )

    def _content(self) -> Iterator[Chunk]:
        streams = self.wanted.streams
        yield from plan.content_chunks(streams, self.stored.watermarks, self._as_of, self.stored.begun)
        yield from plan.large_chunks(streams, self.stored.coupons)

    def _unknown_people(self) -> Iterator[Chunk]:
        """Yield the chunks of people who may be incomplete or gone, and those that look for deleted profiles."""
        yield from (Chunk(each.name) for each in (PEOPLE, SUSPECTED) if self._reads(each))
        if self._reads(PROFILE_SWEEP) and self._dialect.lists_people:
            every, requests = timedelta(days=self._settings.profile_sweep_days), self._settings.profile_sweep_requests
            yield from profile_sweep_chunks(self.stored.months, self.stored.watermarks, self._as_of, every, requests)

    def _pass_on(self, stream: Stream, dependent: Stream) -> None:
        """Note that a stream could not be read either, where the API refused the one that it depends on."""
        for error in self.job.tally.refusals(stream.name):
            self.job.tally.add_error(error, dependent.name)
