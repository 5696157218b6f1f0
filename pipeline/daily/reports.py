"""Reading reports at the end of a daily run: the metric that they count conversions by, and the days that are due."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from itertools import chain
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from klaviyo_pg.errors import LeftOut
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import report_ledger
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import DAY, NEVER, Window, midnight
from pipeline.batch import as_written
from pipeline.chunk_reading import read_side_by_side
from pipeline.chunks import Chunk
from pipeline.job import Job
from pipeline.plan import is_due
from pipeline.runs import Run
from pipeline.streams import REPORTS
from pipeline.streams.reports import LONGEST
from pipeline.streams.stream import Stream

_REVENUE, _ORDERS = "revenue", "Placed Order"


def read_reports(job: Job, streams: Iterable[str]) -> None:
    """Read the days that are due of the reports among these streams.

    Nothing else waits for them. They need a metric to count conversions by; without one, the tally says so.
    """
    wanted = [stream for stream in REPORTS if stream.name in streams]
    if not wanted or job.tally.must_stop or not job.session.dialect.reads_reports:
        return
    metric_id = job.transact(lambda account: conversion_metric(account, job.run.settings))
    if isinstance(metric_id, LeftOut):
        job.tally.add_error(metric_id)
        return
    chunks = job.transact(lambda account: list(_due(account, job.run, wanted, metric_id)))
    if chunks:
        read_side_by_side(job, "Reports", chunks)


def conversion_metric(account: Account, settings: Settings) -> str | LeftOut:
    """Return the ID of the metric of REPORT_METRIC or, without that, for revenue; if not found, the error."""
    existing = [metric for metric in lookups.metrics(account) if not metric.is_deleted]
    name, mapped = settings.report_metric, report_ledger.mapped_metric(account, _REVENUE)
    if name is None and mapped is not None:
        return mapped
    wanted = name or _ORDERS
    written = as_written(settings, [wanted])
    found = [metric.id for metric in existing if wanted in (metric.id, written(metric.name))]
    if len(found) == 1:
        return found[0]
    if name is not None:
        number = f"{len(found)} metrics" if found else "no metric"
        return LeftOut(f"Reports were not read: the account has {number} with the name or ID {name!r} (REPORT_METRIC).")
    return LeftOut(
        "Reports were not read, because Klaviyo does not say which metric of the account counts as revenue. Set "
        "REPORT_METRIC to the name or ID of one."
    )


def _due(account: Account, run: Run, wanted: Sequence[Stream], metric_id: str) -> Iterator[Chunk]:
    """Yield the chunks to read. Days that are too long ago to be read again are forgotten.

    The watermark of a report advances once every day has been read, however long ago.
    """
    days = last_days(run.as_of, zone(report_ledger.timezone(account)), run.settings.report_days)
    for stream in wanted:
        read_at = report_ledger.read_days(account, stream.name, metric_id)
        report_ledger.forget(account, stream.name, metric_id, read_at.keys() - days)
        windows, are_all = due_windows(days, read_at, LONGEST[stream.name], run.as_of, run.settings.report_requests)
        marks = (None,) if are_all else ()
        yield from (Chunk(stream.name, window, metric_id, None, marks) for window in windows)


def due_windows(
    days: Collection[date], read_at: Mapping[date, datetime], longest: int, as_of: datetime, requests: int
) -> tuple[list[Window], bool]:
    """Return the days that were not read today: new ones first, then those that were read longest ago.

    One request reads a window of up to `longest` consecutive days. At most `requests` are sent in a day, whatever the
    number of runs. The next ones read the remaining days: also return whether each of these has been read before.
    """
    due = [day for day in days if is_due(read_at.get(day), as_of, DAY)]
    today = Counter(at for at in read_at.values() if not is_due(at, as_of, DAY))
    left = max(0, requests - sum(-(-number // longest) for number in today.values()))
    blocks = list(_blocks(due, longest))
    blocks.sort(key=lambda block: (min(read_at.get(day, NEVER) for day in block), -block[-1].toordinal()))
    unread = set(chain.from_iterable(blocks[left:])) - read_at.keys()
    return [Window(midnight(block[0]), midnight(block[-1]) + DAY) for block in blocks[:left]], not unread


def _blocks(days: Collection[date], longest: int) -> Iterator[list[date]]:
    """Put consecutive days together, in blocks of at most `longest` days."""
    block: list[date] = []
    for day in sorted(days):
        if block and (len(block) == longest or day - block[-1] > DAY):
            yield block
            block = []
        block.append(day)
    if block:
        yield block


def last_days(as_of: datetime, of: tzinfo, number: int) -> set[date]:
    """Return the last days that have ended in a time zone."""
    today = as_of.astimezone(of).date()
    return {today - back * DAY for back in range(1, number + 1)}


def zone(name: str | None) -> tzinfo:
    """Return a time zone by its name; UTC where the name is unknown."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
