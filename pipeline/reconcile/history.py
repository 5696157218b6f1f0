"""History older than RECONCILE_DAYS, compared year by year: which years are due, within a budget of requests.

A year is 365 days, counted from a fixed date, because one request counts a metric for that long. The last check of each
metric and year is on record, and what was checked longest ago comes first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from klaviyo_pg.grouping import grouped
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import compared_history, reconciliation
from klaviyo_pg.postgres.ledgers.compared_history import ComparedHistory
from klaviyo_pg.settings import COUNTED_DAYS
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import DAY, NEVER, Window, floor
from pipeline.job import Job
from pipeline.reconcile import compare
from pipeline.reconcile.check import Loaded, Scope
from pipeline.reconcile.compare import Compared

_YEAR = 365 * DAY
_METRICS_AT_ONCE = 25  # counts by hour of so many metrics and a year fit into little memory


class Year(NamedTuple):
    """A metric's loaded windows in one year of history, and when they were last compared."""

    checked_at: datetime
    period: Window
    metric_id: str
    windows: tuple[Window, ...]

    def requests(self, longest: timedelta) -> int:
        """Return how many requests count it, each of them `longest` at most."""
        return -(-(self.windows[-1].end - self.windows[0].start) // longest)


def due(job: Job, loaded: Loaded) -> Iterator[Scope]:
    """Yield the scopes of the checks that the budget allows, what was compared longest ago first."""
    budget = job.run.settings.reconcile_history_requests
    if not budget:
        return
    recent = compare.period(job.run.as_of, job.run.settings.reconcile_days, loaded.step)
    history = Window(floor(job.run.as_of, DAY) - COUNTED_DAYS * DAY, recent.start)
    checked = job.transact(compared_history.compared)
    all_years = years(loaded, history, checked)
    chosen = within_budget(all_years, budget, job.session.dialect.longest_count)
    if chosen:
        job.log.info("Comparing %d of %d years of metrics older than %s", len(chosen), len(all_years), recent.start)
    for period, metrics in batches(chosen):
        yield _scope(job, loaded, period, metrics)


def years(loaded: Loaded, history: Window, checked: Iterable[ComparedHistory]) -> list[Year]:
    """Return the loaded years of history, what was compared longest ago first."""
    by_metric = grouped((each.metric_id, each) for each in checked)
    found = [
        Year(_checked_at(parts, by_metric.get(metric_id, ()), history), period, metric_id, parts)
        for metric_id in loaded.names
        for period, parts in _parts(loaded, metric_id, history)
    ]
    return sorted(found, key=lambda year: (year.checked_at, -year.period.start.timestamp(), year.metric_id))


def _parts(loaded: Loaded, metric_id: str, history: Window) -> Iterator[tuple[Window, tuple[Window, ...]]]:
    """Yield each year of a metric's history in which anything is loaded, with its loaded windows."""
    windows = compare.comparable(loaded.windows.get(metric_id, ()), history, loaded.step)
    start = floor(windows[0].start, _YEAR) if windows else history.end
    while start < history.end:
        period = Window(start, min(start + _YEAR, history.end))
        if parts := compare.comparable(windows, period, loaded.step):
            yield period, tuple(parts)
        start += _YEAR


def _checked_at(parts: Sequence[Window], checked: Iterable[ComparedHistory], history: Window) -> datetime:
    """Return when all of these windows had last been compared.

    Days that have since become history have been compared as part of the last RECONCILE_DAYS.
    """
    times = [
        max((each.checked_at for each in checked if _covers(each.window, part, history)), default=NEVER)
        for part in parts
    ]
    return min(times)


def _covers(compared: Window, part: Window, history: Window) -> bool:
    reaches_end = part.end <= compared.end or part.end == history.end
    return compared.overlaps(part) and compared.start <= part.start and reaches_end


def within_budget(all_years: Sequence[Year], budget: int, longest: timedelta) -> list[Year]:
    """Return the first years that take no more requests than the budget; at least one, so that all have their turn."""
    chosen, requests = list[Year](), 0
    for year in all_years:
        requests += year.requests(longest)
        if chosen and requests > budget:
            break
        chosen.append(year)
    return chosen


def batches(chosen: Sequence[Year]) -> Iterator[tuple[Window, Mapping[str, Sequence[Window]]]]:
    """Yield some metrics of one year at a time, in order, with their windows."""
    for period, group in groupby(chosen, key=lambda year: year.period):
        metrics = list(group)
        for at in range(0, len(metrics), _METRICS_AT_ONCE):
            yield period, {year.metric_id: year.windows for year in metrics[at : at + _METRICS_AT_ONCE]}


def _scope(job: Job, loaded: Loaded, period: Window, windows: Mapping[str, Sequence[Window]]) -> Scope:
    before = job.transact(lambda account: reconciliation.comparisons(account, period))
    return Scope(loaded.names, windows, period, loaded.step, before, is_history=True)


def record(job: Job, scope: Scope, compared: Mapping[str, Compared]) -> None:
    """Record what a check has compared, or tried to.

    If the run has to stop, differences may not have been read again: these metrics remain due. A metric whose events
    the API refused has its next turn after all others, because it may be refused each time: were it to remain due, or
    come back any sooner, some such metrics would use up a small budget. Its differences are read again at that turn.
    """
    now = datetime.now(UTC)
    rows = [
        ComparedHistory(metric_id, window, found.state, now)
        for metric_id, found in compared.items()
        if not (job.tally.must_stop and found.state is CountState.DIFFERS)
        for window in scope.windows[metric_id]
    ]

    def write(account: Account) -> None:
        compared_history.write(account, scope.period, rows)

    job.transact(write)
