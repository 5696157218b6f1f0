"""The runbook of a backfill: the history of events, in planned chunks."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, reconciliation, watermarks
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.windows import Window, history_window
from pipeline import coverage
from pipeline.backfill.chunking import Summary, sentences, summaries
from pipeline.backfill.plan import Plan, metrics_of, plan
from pipeline.backfill.side_by_side import ReadPlan, read_history
from pipeline.chunk_reading import read_side_by_side
from pipeline.finish_tables import finish_tables
from pipeline.job import Job
from pipeline.new_metrics import new_metrics_noted
from pipeline.plan import MOST_WAITING, people_chunks, unread_dimension_chunks
from pipeline.reconcile.compare import COUNTS_DELAY
from pipeline.streams.dimensions import LISTS, METRICS
from pipeline.streams.events import stored_metrics
from pipeline.streams.people import PEOPLE
from pipeline.streams.selection import selection_of

_NO_METRICS = "The account has no metrics yet, so there is no history to load."
_NO_HISTORY = "No selected metric has events for the selected tables, so there is no history to load."


def backfill(
    job: Job, start: datetime, end: datetime | None, restart: bool = False, read_plan: ReadPlan = read_history
) -> None:
    """Load the history of events from `start` to `end` (exclusive; None: the last midnight).

    In a warehouse that no daily run has filled yet, the dimensions that events refer to are read first.

    Args:
        start: the first day.
        end: the day after the last one.
        restart: read again what has been read before.
        read_plan: reads the planned chunks.
    """
    window = history_window(job.run.as_of, start, end, job.run.settings.events_kept_since)
    read_to = job.transact(watermarks.read)
    reasons, streams = job.session.dialect.exclusion_reasons, selection_of(job.run.settings).streams
    unread = unread_dimension_chunks(read_to, {METRICS.name, LISTS.name}, reasons, streams)
    with new_metrics_noted(job):
        read_side_by_side(job, "Metrics and lists", unread)
    planned = Plan(()) if job.tally.must_stop else _planned(job, window, restart)
    if not planned.selects_metrics:
        job.tally.add_notes(_NO_HISTORY)
    read_plan(job, planned)
    _complete_people(job)
    finish_tables(job)
    publish(job, window)


def _complete_people(job: Job) -> None:
    """Read the complete records of people, where events bring no more than an ID and an address."""
    waiting = job.transact(lambda account: lookups.count_incomplete(account, MOST_WAITING))
    is_wanted = PEOPLE.name in selection_of(job.run.settings).streams
    if is_wanted and job.session.dialect.lists_people and waiting and not job.tally.must_stop:
        read_side_by_side(job, "People", people_chunks(waiting))


def _planned(job: Job, window: Window, restart: bool) -> Plan:
    """Plan the backfill. Raises the error of the metrics where it is why the warehouse has none."""
    if job.transact(lookups.metrics):
        return job.workers.call(plan, job.run, window, restart)
    if errors := job.tally.errors(METRICS.name):
        raise errors[0]
    job.tally.add_notes(_NO_METRICS)
    return Plan(())


def publish(job: Job, window: Window) -> None:
    """Publish a table of expected and loaded events by metric, and the coverage of the account."""
    names = job.transact(stored_metrics).names
    chunks = job.transact(backfill_ledger.chunks)
    rows = sorted(summaries(chunks, window), key=lambda row: -row.expected)
    job.publisher.table("backfill", [_row(each, names.get(each.metric_id)) for each in rows], f"Backfill {window}")
    coverage.publish(job)
    _report_differences(job, [each for each in chunks if each.window.overlaps(window)], names)


def _report_differences(job: Job, chunks: Sequence[BackfillChunk], names: Mapping[str, str | None]) -> None:
    """Report the chunks that were loaded with another number of events than counted, and are still not right.

    The ledger takes over the numbers of stored events: daily runs and reconcile may have read events in between. Events
    that the source may count a little later are no surplus.
    """

    event_tables = selection_of(job.run.settings).event_tables(job.session.dialect)
    latest = job.run.as_of - COUNTS_DELAY

    def is_suspicious(chunk: BackfillChunk) -> bool:
        is_settled = chunk.window_end <= latest or chunk.loaded < (chunk.expected or 0)
        return chunk.differs and is_settled

    def correct(account: Account) -> list[BackfillChunk]:
        wanted = set(metrics_of(account, job.run, event_tables))
        suspicious = [each for each in chunks if each.metric_id in wanted and is_suspicious(each)]
        corrected = [
            each._replace(loaded=reconciliation.stored_events(account, each.metric_id, each.window))
            for each in suspicious
        ]
        backfill_ledger.recount(account, corrected, job.run.id)
        return [each for each in corrected if each.differs]

    if differing := job.transact(correct):
        job.tally.add_differences(sentences(differing, names))


def _row(summary: Summary, name: str | None) -> dict[str, object]:
    return {
        "metric": name or summary.metric_id,
        "expected": summary.expected,
        "loaded": summary.loaded,
        "loaded_uncounted": summary.loaded_uncounted,
        "difference": summary.loaded - summary.expected,
        "chunks": f"{summary.done} of {summary.chunks}",
        "seconds": round(summary.seconds, 1),
    }
