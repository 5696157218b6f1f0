"""The runbook of a daily run: everything that the account gained or changed since the last one."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import partial

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.postgres import departures, lookups
from klaviyo_pg.postgres.ledgers import watermarks
from pipeline import erase_in_run, member_lists, plan
from pipeline.chunk_reading import read_side_by_side
from pipeline.chunks import Chunk
from pipeline.daily.phases import plan_phases
from pipeline.daily.reports import read_reports
from pipeline.finish_tables import finish_tables, forget_other_marts
from pipeline.job import Job
from pipeline.new_metrics import new_metrics_noted
from pipeline.reconcile.check import find_late_events
from pipeline.streams.departures import OWNERS
from pipeline.streams.events import EVENTS
from pipeline.streams.exclusions import EXCLUSIONS
from pipeline.streams.lists import LIST_MEMBERS
from pipeline.streams.people import PEOPLE
from pipeline.streams.selection import selection_of

_NOT_DERIVED = "member_lists was not derived, because the exclusions were never read completely."
_OLD_EXCLUSIONS = "member_lists was derived with the exclusions of the last complete read, at"


def sync(job: Job, since: datetime | None) -> None:
    """Bring the warehouse up to the present, as far as the selected tables go.

    Args:
        since: read events from this time on, whatever has been read before.
    """
    wanted = selection_of(job.run.settings)
    streams = wanted.streams
    with new_metrics_noted(job):
        read_side_by_side(job, "Metrics, lists, campaigns and flows", plan.dimension_chunks(streams))
    phases = plan_phases(job, wanted, since)
    for phase in phases:
        if not job.tally.must_stop:
            read_side_by_side(job, phase.title, _shared_out(job, phase.chunks))
    planned = [chunk for phase in phases for chunk in phase.chunks]
    if EVENTS.name in streams:
        _fail_without_events(job, planned)
        find_late_events(job, planned)
    if OWNERS.name in streams and not job.tally.must_stop and job.transact(departures.has_orphans):
        read_side_by_side(job, "Events of deleted profiles", [Chunk(OWNERS.name)])
    _derive_member_lists(job, streams)
    if not job.tally.must_stop:
        job.tally.add_notes(*erase_in_run.erase_people(job.session, job.run))
        read_reports(job, streams)
    forget_other_marts(job)
    finish_tables(job)


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


def _shared_out(job: Job, chunks: Sequence[Chunk]) -> list[Chunk]:
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
