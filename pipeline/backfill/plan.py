"""The plan of a backfill: chunks from the ledger, and gaps that the source has to count."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from klaviyo_pg.errors import Busy
from klaviyo_pg.postgres import lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, run_ledger
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import DAY, Window, floor
from pipeline.backfill.chunking import adjoining, gaps, years
from pipeline.runs import Run, transact
from pipeline.session import Session
from pipeline.spool import open_spool
from pipeline.streams.selection import metrics_to_read, selection_of

Gap = tuple[str, Window]
"""A metric id, and a part of its time."""


@dataclass(frozen=True)
class Plan:
    """History to read: the chunks that the ledger has, newest first, and gaps whose events have to be counted.

    `start` is where the whole window begins; None where the plan is a part of another one. `loaded` are chunks that
    earlier runs have loaded, to be counted again: those of one metric that follow each other without a gap.
    `selects_metrics` is false if the settings select no metric.
    """

    chunks: tuple[BackfillChunk, ...]
    gaps: tuple[Gap, ...] = ()
    start: datetime | None = None
    loaded: tuple[tuple[BackfillChunk, ...], ...] = ()
    selects_metrics: bool = True

    @property
    def needs_counting(self) -> bool:
        """True if the source has to be asked what there is to read."""
        return bool(self.gaps or self.loaded)


def plan(session: Session, run: Run, window: Window, restart: bool) -> Plan:
    """Plan a backfill. With `restart`, the ledger forgets what lies in the window, and the spool is emptied.

    It does so once: a rerun resumes after an interruption, or if something could not be read.

    Raises Busy where the ledger would forget what parts of a distributed backfill, which has ended, are still reading.
    """

    event_tables = selection_of(run.settings).event_tables(session.dialect)

    def look_up(account: Account) -> tuple[list[str], list[BackfillChunk], set[tuple[str, datetime]], bool]:
        ids = metrics_of(account, run, event_tables)
        chunks = backfill_ledger.chunks(account)
        if is_new := restart and run_ledger.restart(account, run.id, partial(_is_read, chunks, ids, window)):
            check_no_parts(account, [each for each in chunks if each.metric_id in ids and each.window.overlaps(window)])
            backfill_ledger.forget(account, ids, window, run.id)
            chunks = backfill_ledger.chunks(account)
        others = backfill_ledger.counted_by_others(account, run.id)
        return ids, chunks, others, is_new

    metric_ids, chunks, to_check, is_new = transact(session, run, look_up)
    if is_new and (spool := open_spool(run.settings, run.integration_id)):
        spool.clear()
    wanted = [chunk for chunk in chunks if chunk.metric_id in metric_ids and chunk.window.overlaps(window)]
    by_metric: dict[str, list[BackfillChunk]] = {metric_id: [] for metric_id in metric_ids}
    for chunk in wanted:
        by_metric[chunk.metric_id].append(chunk)
    missing = tuple((metric_id, gap) for metric_id, mine in by_metric.items() for gap in gaps(window, mine))
    loaded = tuple(
        group
        for mine in by_metric.values()
        for group in adjoining(chunk for chunk in mine if (chunk.metric_id, chunk.window_start) in to_check)
    )
    return Plan(_newest_first(wanted), missing, window.start, loaded, bool(metric_ids))


def _is_read(chunks: Iterable[BackfillChunk], metric_ids: Iterable[str], window: Window, as_of: datetime) -> bool:
    """Return whether all of a window that was history at a time is done for these metrics."""
    start, end = window.start, min(window.end, floor(as_of, DAY))
    done: dict[str, list[BackfillChunk]] = {metric_id: [] for metric_id in metric_ids}
    for chunk in chunks:
        if chunk.state is ChunkState.DONE and chunk.metric_id in done:
            done[chunk.metric_id].append(chunk)
    return not any(any(gaps(Window(start, end), mine)) for mine in done.values())


def metrics_of(account: Account, run: Run, event_tables: frozenset[str] | None) -> list[str]:
    """Return the ids of the metrics to read: those of these event tables, None is all, that METRICS selects."""
    return [metric.id for metric in metrics_to_read(lookups.metrics(account), run.settings, event_tables)]


def _newest_first(chunks: Iterable[BackfillChunk]) -> tuple[BackfillChunk, ...]:
    return tuple(sorted(chunks, key=lambda chunk: (chunk.window_end, chunk.metric_id), reverse=True))


def check_no_parts(account: Account, chunks: Iterable[BackfillChunk]) -> None:
    """Raise Busy while parts of a distributed backfill are reading any of these chunks."""
    names = {each.group_name for each in chunks if each.group_name and each.state is not ChunkState.DONE}
    if backfill_ledger.parts_alive(account, names):
        raise Busy("Runs of backfill_part are still reading this history. Wait for them to finish or stop them.")


def take_over(account: Account, chunks: Sequence[BackfillChunk]) -> None:
    """Take chunks over from parts of a distributed backfill. A part that begins later finds nothing to read.

    Raises Busy while parts are reading any of these chunks.
    """
    check_no_parts(account, chunks)
    backfill_ledger.ungroup(account, {each.group_name for each in chunks if each.group_name})


def part_of_plan(session: Session, run: Run, group: str) -> Plan:
    """Return the chunks of a group, as the ledger has them, newest first."""
    stored = transact(session, run, backfill_ledger.chunks)
    return Plan(_newest_first(each for each in stored if each.group_name == group))


def questions(missing: Iterable[Gap], answered: Iterable[Iterable[BackfillChunk]]) -> list[Gap]:
    """Return what the source has to be asked to count of each gap, besides what is already known, newest first."""
    asked = [
        (metric_id, part)
        for (metric_id, gap), chunks in zip(missing, answered, strict=True)
        for rest in gaps(gap, chunks)
        for part in years(rest)
    ]
    return sorted(asked, key=lambda question: question[1].end, reverse=True)
