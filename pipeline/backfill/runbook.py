"""The runbook of a backfill: the history of events, in planned chunks."""

from datetime import datetime

from klaviyo_pg.postgres import backfill_ledger
from klaviyo_pg.postgres import watermarks as ledger
from klaviyo_pg.windows import Window
from pipeline import coverage
from pipeline.backfill.chunking import Summary, summaries
from pipeline.backfill.plan import Plan, history_window, plan
from pipeline.backfill.side_by_side import Read, read_history
from pipeline.job import Job, read
from pipeline.plan import unread_dimension_chunks
from pipeline.run import transact
from pipeline.streams.dimensions import LISTS, METRICS
from pipeline.streams.events import stored_metrics


def backfill(
    job: Job, start: datetime, end: datetime | None, restart: bool = False, read_plan: Read = read_history
) -> None:
    """Load the history of events from `start` to `end` (exclusive; None: the last midnight).

    In a warehouse that no daily run has filled yet, the dimensions that events refer to are read first.

    Args:
        start: the first day.
        end: the day after the last one.
        restart: read again what has been read before.
        read_plan: reads the planned chunks.
    """
    window = history_window(job.run.as_of, start, end)
    watermarks = transact(job.session, job.run, ledger.watermarks)
    read(job, "Metrics and lists", unread_dimension_chunks(watermarks, {METRICS.name, LISTS.name}))
    planned = Plan(()) if job.tally.must_stop else job.workers.call(plan, job.run, window, restart)
    read_plan(job, planned)
    publish(job, window)


def publish(job: Job, window: Window) -> None:
    """Publish a table of expected and loaded events by metric, and the coverage of the account."""
    names = transact(job.session, job.run, stored_metrics).names
    chunks = transact(job.session, job.run, backfill_ledger.chunks)
    rows = sorted(summaries(chunks, window), key=lambda row: -row.expected)
    job.publisher.table("backfill", [_row(each, names.get(each.metric_id)) for each in rows], f"Backfill {window}")
    coverage.publish(job)


def _row(summary: Summary, name: str | None) -> dict[str, object]:
    return {
        "metric": name or summary.metric_id,
        "expected": summary.expected,
        "loaded": summary.loaded,
        "difference": summary.loaded - summary.expected,
        "chunks": f"{summary.done} of {summary.chunks}",
        "seconds": round(summary.seconds, 1),
    }
