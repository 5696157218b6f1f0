"""The runbook of a daily run: everything that the account gained or changed since the last one."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres import chunk_ledger, departures, lookups, reconciliation, segments, sweep_ledger, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.excluded import Extent, extent
from klaviyo_pg.windows import DAY
from pipeline import erase_in_run, member_lists, plan, reports, stored_marts
from pipeline.batch import as_written
from pipeline.chunk_reading import read_side_by_side
from pipeline.chunks import Chunk, key_of
from pipeline.job import Job
from pipeline.reconcile.check import can_count, find_late_events
from pipeline.runs import Run
from pipeline.streams.departures import OWNERS, PROFILE_SWEEP, SUSPECTED
from pipeline.streams.dimensions import LISTS, METRICS, SEGMENTS
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE, PROFILES
from pipeline.streams.segments import SEGMENT_MEMBERS, chosen
from pipeline.streams.selection import Selection, metrics_to_read, selection_of
from pipeline.streams.stream import Stream
from pipeline.update_statistics import update_statistics

_NOT_DERIVED = "member_lists was not derived, because the exclusions were never read completely."
_OLD_EXCLUSIONS = "member_lists was derived with the exclusions of the last complete read, at"


def sync(job: Job, since: datetime | None) -> None:
    """Bring the warehouse up to the present, as far as the selected tables go.

    Args:
        since: read events from this time on, whatever has been read before.
    """
    wanted = selection_of(job.run.settings)
    streams = wanted.streams
    read_side_by_side(job, "Metrics, lists, campaigns and flows", plan.dimension_chunks(streams))
    phases = _plan(job, wanted, since)
    for title, chunks in phases:
        if not job.tally.must_stop:
            read_side_by_side(job, title, shared_out(job, chunks))
    planned = [chunk for _, chunks in phases for chunk in chunks]
    if EVENTS.name in streams:
        _fail_without_events(job, planned)
        find_late_events(job, planned)
    if OWNERS.name in streams and not job.tally.must_stop and job.transact(departures.has_orphans):
        read_side_by_side(job, "Events of deleted profiles", [Chunk(OWNERS.name)])
    _derive_member_lists(job, streams)
    if not job.tally.must_stop:
        job.tally.add_notes(*erase_in_run.erase_people(job.session, job.run))
        reports.read_reports(job, streams)
    updated = update_statistics(job)
    stored_marts.forget_others(job)
    stored_marts.renew(job)
    update_statistics(job, updated)


def _derive_member_lists(job: Job, streams: Collection[str]) -> None:
    """Derive member_lists, unless the run stops before it has read the exclusions. Note what it was derived without."""
    read_to = job.transact(partial(watermarks.find, stream=EXCLUSIONS.name))
    is_current = read_to is not None and read_to >= job.run.as_of
    if job.tally.must_stop and EXCLUSIONS.name in streams and not is_current:
        return
    job.log.info("Deriving member_lists")
    with job.session.progress.stage("Member lists", "tables"):
        loss = job.workers.call(member_lists.derive, job.run)
    if loss is not None:
        job.tally.add_error(loss)
    if not (is_current or job.tally.must_stop) and {EXCLUSIONS.name, LIST_MEMBERS.name} & set(streams):
        job.tally.add_notes(_NOT_DERIVED if read_to is None else f"{_OLD_EXCLUSIONS} {read_to:%Y-%m-%d %H:%M} UTC.")


def shared_out(job: Job, chunks: Sequence[Chunk]) -> list[Chunk]:
    """Share the people who are incomplete out among readers, by how many there are at this moment."""
    if PEOPLE.name not in {chunk.stream for chunk in chunks}:
        return list(chunks)
    waiting = job.transact(lambda account: lookups.count_incomplete(account, plan.MOST_WAITING))
    return [*plan.people_chunks(waiting), *(chunk for chunk in chunks if chunk.stream != PEOPLE.name)]


def _fail_without_events(job: Job, planned: Iterable[Chunk]) -> None:
    """Fail the run if the API refused everything that events depend on: a partial run would hide that there are none.

    Everything else is read first.
    """
    refused = len(job.tally.refusals(EVENTS.name))
    if refused and refused >= sum(chunk.stream == EVENTS.name for chunk in planned):
        job.tally.add_error(KlaviyoPgError("No events were read, because Klaviyo refused every request for them."))


class _Warehouse(NamedTuple):
    """The state of the warehouse on which the plan depends."""

    metrics: list[lookups.StoredMetric]
    lists: list[str]
    watermarks: plan.Watermarks
    counted: set[str]
    months: list[departures.Month]
    begun: plan.Begun
    excluded: Extent
    swept: dict[str, int]
    segments: list[segments.StoredSegment]
    segments_swept: dict[str, int]
    coupons: list[str]
    has_unlisted_events: bool


Phases = list[tuple[str, list[Chunk]]]


def _plan(job: Job, wanted: Selection, since: datetime | None) -> Phases:
    """Return the chunks to read after the dimensions, in phases of which each needs the one before.

    Returns none where the settings allow none, or where what they depend on could not be read: see the tally.
    """
    if job.tally.must_stop:
        return []
    try:
        return _phases(job, wanted, since)
    except KlaviyoPgError as error:
        job.tally.add_error(error)
        return []


def _phases(job: Job, wanted: Selection, since: datetime | None) -> Phases:
    streams = wanted.streams
    stored = job.transact(partial(_look_up, run=job.run, with_counts=can_count(job)))
    blind = timedelta(days=job.run.settings.blind_lookback_days)
    dialect = job.session.dialect
    chunks: list[Chunk] = []
    # A dialect that does not list people plans none: a later run in the other one would take them for read.
    if PROFILES.name in streams and dialect.lists_people:
        chunks += plan.profile_chunks(stored.watermarks, stored.begun)  # first, since they begin in one sequence
    if EVENTS.name in streams:
        chunks += _event_chunks(job, stored, since, blind, wanted)
    members: list[Chunk] = []
    if LIST_MEMBERS.name in streams:
        as_of = job.run.as_of
        sweeping = _lookup_sweeps(job, stored) if dialect.looks_up_memberships else _list_sweeps(job, stored)
        members += plan.membership_chunks(stored.lists, stored.watermarks, blind, as_of, sweeping, stored.begun)
        _note_rare_sweeps(job, "Lists", stored.lists, sweeping)
        if not stored.lists:
            _pass_on(job, LISTS, LIST_MEMBERS)
    if SEGMENT_MEMBERS.name in streams:
        members += _segment_chunks(job, stored, blind)
    excluded: list[Chunk] = []
    if EXCLUSIONS.name in streams:  # after events, which a run should bring first
        excluded = plan.exclusion_chunks(dialect.exclusion_reasons, stored.excluded, job.run.as_of, stored.begun)
    excluded += plan.content_chunks(streams, stored.watermarks, job.run.as_of, stored.begun)
    excluded += plan.large_chunks(streams, stored.coupons)
    unknown = [Chunk(each.name) for each in (PEOPLE, SUSPECTED) if each.name in streams]
    if PROFILE_SWEEP.name in streams:
        unknown += _sweep_chunks(job, stored)
    if dialect.looks_up_memberships:  # by addresses that come with events
        rest = ("List members and exclusions", [*members, *excluded])
        return [("Events and profiles", chunks), rest, ("Unknown people", unknown)]
    return [("Events, profiles and list members", [*chunks, *members, *excluded]), ("Unknown people", unknown)]


def _list_sweeps(job: Job, stored: _Warehouse) -> plan.ListSweeps:
    settings = job.run.settings
    members = {key.partition("/")[2]: found for key, found in stored.swept.items()}
    every = timedelta(days=settings.membership_sweep_days)
    return plan.ListSweeps(every, settings.membership_sweep_requests, members)


def _lookup_sweeps(job: Job, stored: _Warehouse) -> plan.ListSweeps:
    """Return the sweeps of a dialect in which everyone is looked up twice in each list, as member and as subscriber.

    Their addresses take requests besides, unless the warehouse has them.
    """
    people = job.transact(lookups.count_subscribers)
    is_readable = job.run.settings.personal_data == "keep"
    addresses = 0 if is_readable else job.session.addresses.requests(people, len(stored.lists))
    return _list_sweeps(job, stored)._replace(members=dict.fromkeys(stored.lists, 2 * people), addresses=addresses)


def _note_rare_sweeps(job: Job, what: str, ids: Sequence[str], sweeping: plan.ListSweeps) -> None:
    """Note that the budget does not allow sweeps as often as the settings ask for them."""
    every, interval = sweeping.every / DAY, round(sweeping.interval(ids) / DAY, 1)
    if interval > every:
        job.tally.add_notes(
            f"{what} are read in full about every {interval:g} days instead of every {every:g}, because that takes "
            f"{sweeping.round(ids):,} requests and MEMBERSHIP_SWEEP_REQUESTS allows {sweeping.requests:,} in a run."
        )


def _segment_chunks(job: Job, stored: _Warehouse, overlap: timedelta) -> Iterator[Chunk]:
    """Return the chunks of the segments that SEGMENTS names.

    Note which names say nothing, unless this run could not read which segments there are. A dialect that looks up
    memberships does not say when somebody joined a segment.
    """
    settings = job.run.settings
    written = as_written(settings, settings.segments)
    found = chosen(settings.segments, [each._replace(name=written(each.name)) for each in stored.segments])
    read_to = stored.watermarks.get(SEGMENTS.name)
    if read_to is not None and read_to >= job.run.as_of:
        for error in found.errors:
            job.tally.add_error(error)
    elif found.errors:
        _pass_on(job, SEGMENTS, SEGMENT_MEMBERS)
    members = {key.partition("/")[2]: number for key, number in stored.segments_swept.items()}
    sweeping = _list_sweeps(job, stored)._replace(
        members=members,
        stream=SEGMENT_MEMBERS.name,
        record=segments.SWEEPS,
        in_full_only=job.session.dialect.looks_up_memberships,
    )
    _note_rare_sweeps(job, "Segments", found.ids, sweeping)
    return plan.membership_chunks(found.ids, stored.watermarks, overlap, job.run.as_of, sweeping, stored.begun)


def _sweep_chunks(job: Job, stored: _Warehouse) -> Iterator[Chunk]:
    """Return the chunks that look for deleted profiles, where the settings and the dialect allow it."""
    settings = job.run.settings
    every = timedelta(days=settings.profile_sweep_days)
    months = stored.months if job.session.dialect.lists_people else []
    return plan.sweep_chunks(months, stored.watermarks, job.run.as_of, every, settings.profile_sweep_requests)


def _pass_on(job: Job, stream: Stream, dependent: Stream) -> None:
    """Note that a stream could not be read either, where the API refused the one that it depends on."""
    for error in job.tally.refusals(stream.name):
        job.tally.add_error(error, dependent.name)


def _look_up(account: Account, run: Run, with_counts: bool) -> _Warehouse:
    return _Warehouse(
        lookups.metrics(account),
        lookups.list_ids(account),
        watermarks.valid(account),
        reconciliation.counted_metrics(account) if with_counts else set(),
        departures.months(account),
        chunk_ledger.begun(account, run.id),
        extent(account, plan.MANY_EXCLUSIONS),
        sweep_ledger.found(account, LIST_MEMBERS.name),
        segments.existing(account),
        sweep_ledger.found(account, SEGMENT_MEMBERS.name),
        lookups.coupon_ids(account),
        lookups.has_unlisted_events(account, run.as_of - plan.UNLISTED_FOR),
    )


def _event_chunks(
    job: Job, stored: _Warehouse, since: datetime | None, blind: timedelta, wanted: Selection
) -> list[Chunk]:
    """Return the chunks of events, the newest first. Metrics that the source cannot count get the longer overlap.

    So do those that it does not list, if any of their events came lately.

    Where TABLES selects some event tables, only their metrics are read, and those that list members need; the
    watermarks of the others stay where they are.
    """
    settings, tables = job.run.settings, wanted.event_tables(job.session.dialect)
    if not stored.metrics:
        _pass_on(job, METRICS, EVENTS)
        return []
    ids = [metric.id for metric in metrics_to_read(stored.metrics, settings, tables, wanted.reads_list_members)]
    first_sync = timedelta(days=settings.first_sync_days)
    overlap, kept_since = timedelta(days=settings.lookback_days), settings.events_kept_since
    horizon = plan.Horizon(job.run.as_of, overlap, first_sync, since, kept_since)
    _note_newly_read(job, stored, ids, horizon)
    uncounted: list[str | None] = [each for each in ids if each not in stored.counted]
    if stored.has_unlisted_events:
        uncounted.append(None)
    overlaps = dict.fromkeys(uncounted, blind)
    with job.session.source() as source:
        all_at_once = source.reads_all_metrics_at_once and not settings.metrics and tables is None
    return list(plan.event_chunks(ids, stored.watermarks, horizon, all_at_once, overlaps))[::-1]


def _note_newly_read(job: Job, stored: _Warehouse, ids: Sequence[str], horizon: plan.Horizon) -> None:
    """Note which metrics have a shorter history than others from now on, such as those that TABLES left out before."""
    if all(key_of(EVENTS.name, each) in stored.watermarks for each in ids):
        return
    loaded = job.transact(partial(reconciliation.loaded_windows, since=horizon.kept_since))
    created = {metric.id: metric.created_at for metric in stored.metrics}
    unread = plan.newly_read(created, ids, loaded, horizon)
    if not unread:
        return
    names = sorted(metric.name or metric.id for metric in stored.metrics if metric.id in unread)
    shown = f"{len(names)} metrics are" if len(names) > 1 else f"The metric {names[0]!r} is"
    job.tally.add_notes(
        f"{shown} read for the first time, from {horizon.start(None):%Y-%m-%d} on, although others go further back. "
        "To load the earlier events, run klaviyo-pg backfill --start DATE."
    )
