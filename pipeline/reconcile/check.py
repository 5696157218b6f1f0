"""One check of counts: ask the source, compare with the warehouse, read again what differs, store and report it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from klaviyo_pg.errors import KlaviyoPgError, MissingScope, Refused, Stopped, UserError
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import event_tables, lookups
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import reconciliation
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison, Key, LastCheck
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import DAY, Window, floor
from pipeline.asking import ask_each
from pipeline.chunk_reading import read_side_by_side
from pipeline.chunks import Chunk
from pipeline.job import Job
from pipeline.outage import Outage
from pipeline.outcome import describe
from pipeline.reconcile import compare
from pipeline.reconcile.compare import Compared, Comparisons, EventCounts
from pipeline.reconcile.report import Findings, report
from pipeline.reconcile.rotation import MOST_MISSED, turn
from pipeline.runs import Run
from pipeline.session import Session
from pipeline.streams.events import EVENTS
from pipeline.streams.selection import metrics_to_read, selection_of

METRICS_SCOPE = "metrics:read"
"""The scope for metrics, and for counts of their events."""
_FAILURES = 1  # of the API, after which the other metrics are not asked for: each would be waited for in turn


class Loaded(NamedTuple):
    """The events that have been loaded: names of the metrics that the settings select, and the windows of each."""

    names: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]
    step: timedelta


@dataclass(frozen=True)
class Scope:
    """The scope of a check: the loaded windows of each metric, and the comparisons that the last check stored.

    Of history, only differences are stored: it is long, and the windows that have been compared are recorded.
    """

    names: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]
    period: Window
    step: timedelta
    before: Comparisons
    is_history: bool = False

    def only(self, metric_ids: Iterable[str]) -> "Scope":
        return replace(self, windows={each: self.windows[each] for each in metric_ids})


class Rereads(NamedTuple):
    """The windows that a check may read again: with `surplus`, also where more is stored than the source counts.

    `already_read` says from when on events of each metric have just been read; None stands for all metrics.
    """

    surplus: bool
    already_read: Mapping[str | None, datetime] = MappingProxyType({})

    def contain(self, step: Comparison, before: Comparisons) -> bool:
        """Return whether a step has to be read again."""
        bounds = (self.already_read.get(each) for each in (None, step.metric_id))
        is_new = all(bound is None or step.window_start < bound for bound in bounds)
        return is_new and compare.needs_reread(step, before.get(step.key), self.surplus)


def can_count(job: Job) -> bool:
    """Return whether this run may ask the source for counts, so that a long overlap is not necessary."""
    return job.run.settings.reconcile_days > 0 and METRICS_SCOPE not in job.tally.missing_scopes


def find_late_events(job: Job, planned: Iterable[Chunk]) -> None:
    """Read events again where the source has more than is stored: those that came late, older than the overlap.

    What this run has already read, `planned`, is compared but not read again. A source that gives no counts is not an
    error: it is reported, and the next run has a longer overlap.
    """
    if job.tally.must_stop or not can_count(job):
        return
    loaded, findings = look_up(job), Findings()
    period = compare.period(job.run.as_of, job.run.settings.reconcile_days, loaded.step)
    scope = _in_turn(job, loaded, period)
    check(job, scope, findings, Rereads(surplus=False, already_read=_read_from(planned)))
    report(job, loaded.names, findings, period)


def _in_turn(job: Job, loaded: Loaded, period: Window) -> Scope:
    """Return the scope of a daily check: the metrics whose turn it is.

    A metric that was left out by earlier runs is compared as far back as those would have done, so that nothing that
    came late in the meantime is missed. The budget allows for that.
    """

    def look_up(account: Account) -> tuple[set[str], dict[str, LastCheck]]:
        return reconciliation.active_metrics(account, period), reconciliation.last_checks(account)

    active, checks = job.transact(look_up)
    requests = -(-(period.end - period.start + MOST_MISSED) // job.session.dialect.longest_count)
    ids = [each for each in loaded.names if compare.comparable(loaded.windows.get(each, ()), period, loaded.step)]
    checked = {metric_id: last.at for metric_id, last in checks.items()}
    chosen = turn(ids, active, checked, job.run.settings.count_requests, requests)
    _log_turn(job, len(chosen.metric_ids), len(ids), chosen.runs)
    periods = {each: _since_last_count(checks.get(each), period, job.run.as_of) for each in chosen.metric_ids}
    return _scope(job, loaded, periods, period)


def _log_turn(job: Job, counted: int, number: int, runs: int) -> None:
    if counted < number:
        others = "run counts" if runs == 1 else f"{runs} runs count"
        text = (
            "Counting %d of %d metrics: those with events, and those counted longest ago. The next daily %s the others"
        )
        job.log.info(text, counted, number, others)


def _since_last_count(last: LastCheck | None, period: Window, as_of: datetime) -> Window:
    """Return the period of a metric, extended by the days on which it was not counted."""
    if last is None or last.counted_at is None:
        return period
    missed = floor(as_of, DAY) - floor(last.counted_at, DAY) - DAY
    return Window(period.start - max(timedelta(), missed), period.end)


def _read_from(planned: Iterable[Chunk]) -> dict[str | None, datetime]:
    """Return from when on events of each metric have been read; None stands for all metrics."""
    earliest: dict[str | None, datetime] = {}
    for chunk in planned:
        if chunk.stream == EVENTS.name and chunk.start is not None:
            earliest[chunk.subject] = min(chunk.start, earliest.get(chunk.subject, chunk.start))
    return earliest


def look_up(job: Job) -> Loaded:
    """Look up what has been loaded of the metrics that the settings select."""
    dialect, wanted = job.session.dialect, selection_of(job.run.settings)
    tables, since = wanted.event_tables(dialect), job.run.settings.events_kept_since

    def read_ledger(account: Account) -> tuple[list[lookups.StoredMetric], dict[str, list[Window]]]:
        return lookups.metrics(account), reconciliation.loaded_windows(account, since)

    stored, windows = job.transact(read_ledger)
    metrics = metrics_to_read(stored, job.run.settings, tables, wanted.reads_list_members)
    names = {each.id: each.name or each.id for each in metrics}
    return Loaded(names, windows, dialect.count_interval)


def recent(job: Job, loaded: Loaded) -> Scope:
    """Return the scope of a check of the last RECONCILE_DAYS."""
    period = compare.period(job.run.as_of, job.run.settings.reconcile_days, loaded.step)
    return _scope(job, loaded, dict.fromkeys(loaded.names, period), period)


def _scope(job: Job, loaded: Loaded, periods: Mapping[str, Window], period: Window) -> Scope:
    """Return a scope that compares each metric in its own period; `period` is the shortest one."""
    windows = {
        each: compare.comparable(loaded.windows.get(each, ()), own, loaded.step) for each, own in periods.items()
    }
    widest = Window(min((own.start for own in periods.values()), default=period.start), period.end)
    before = job.transact(lambda account: reconciliation.comparisons(account, widest))
    return Scope(loaded.names, {each: parts for each, parts in windows.items() if parts}, widest, loaded.step, before)


def check(job: Job, scope: Scope, findings: Findings, rereads: Rereads) -> dict[str, Compared]:
    """Compare, read again, compare again, and store the result; note what still differs.

    Returns the metrics that have been compared, or could not be counted.
    """
    if not scope.windows:
        job.log.info("No counts to compare: nothing in %s has been loaded", scope.period)
        return {}
    counts: Mapping[str, EventCounts | None] = _count(job, scope, findings, is_required=rereads.surplus)
    scope = scope.only(counts)
    compared = _compare(job, scope, counts)
    differing = {
        metric_id: [step for step in found.steps if rereads.contain(step, scope.before)]
        for metric_id, found in compared.items()
    }
    differing = {metric_id: steps for metric_id, steps in differing.items() if steps}
    reread: set[Key] = set()
    if differing and not job.tally.must_stop:
        omitted = job.tally.omitted
        read_side_by_side(job, "Events that were missing", _rereads(job, differing, counts))
        recompared, counts = _compare_after_reading(job, scope.only(differing), counts, findings)
        compared |= recompared
        if rereads.surplus:
            compared |= _compare_without_outdated(job, scope, counts, {each: compared[each] for each in differing})
        if not job.tally.must_stop and job.tally.omitted == omitted:  # otherwise the next check reads it again
            reread = {step.key for steps in differing.values() for step in steps}
    _store(job, scope, compared, reread)
    _note(job, scope, compared, findings, rereads.surplus)
    return compared


def _count(job: Job, scope: Scope, findings: Findings, is_required: bool) -> dict[str, EventCounts | None]:
    """Ask for the source's counts of each metric; None where it cannot count it, which is noted.

    If counts are required, a metric that got no answer is left out, and the tally has the error.
    """
    windows = {each: Window(parts[0].start, parts[-1].end) for each, parts in scope.windows.items()}
    counts: dict[str, EventCounts | None] = {}
    with job.session.progress.stage("Counts at the source", "metrics"):
        answers = job.workers.call(ask_counts, job.run, windows)
    for metric_id, answer in answers.items():
        if not isinstance(answer, KlaviyoPgError):
            counts[metric_id] = answer
        elif not is_required or isinstance(answer, Refused | MissingScope):
            findings.uncounted.add(describe(answer), metric_id)
            counts[metric_id] = None
        else:
            job.tally.add_error(answer)
            job.session.stop.request_if_throttled(answer)
    return counts


def ask_counts(session: Session, run: Run, windows: Mapping[str, Window]) -> dict[str, EventCounts | KlaviyoPgError]:
    """Ask the source for counts of metrics: by start of an hour (legacy: a day), or the error instead.

    After one failure of the API the other metrics are not asked for.
    """
    outage, progress = Outage(_FAILURES), session.progress
    progress.expect("counts", "counts", len(windows))

    def ask(source: Source, metric_id: str) -> EventCounts | KlaviyoPgError:
        if isinstance(outage.error, KlaviyoPgError):
            return outage.error
        try:
            counts = {each.start.astimezone(UTC): each.events for each in source.counts(metric_id, windows[metric_id])}
        except (UserError, Stopped):
            raise
        except KlaviyoPgError as error:
            outage.failed(error)
            return error
        progress.add("counts", done=1)
        return counts

    answers = ask_each(session, run, windows, ask, lambda account, answer: answer)
    return dict(zip(windows, answers, strict=True))


def _compare(job: Job, scope: Scope, counts: Mapping[str, EventCounts | None]) -> dict[str, Compared]:
    def look_up(account: Account) -> Mapping[str, EventCounts]:
        return reconciliation.stored(account, list(scope.windows), scope.period, scope.step)

    with job.session.progress.stage("Counts in the warehouse", "metrics"):
        job.session.progress.expect("stored", "counts", None)
        stored = job.transact(look_up)
        job.session.progress.complete("stored", len(scope.windows))
    return {
        each: compare.compare(each, windows, scope.step, counts[each], stored.get(each, {}), scope.before)
        for each, windows in scope.windows.items()
    }


def _compare_after_reading(
    job: Job, scope: Scope, counts: Mapping[str, EventCounts | None], findings: Findings
) -> tuple[dict[str, Compared], Mapping[str, EventCounts | None]]:
    """Compare again; where counts still differ ask the source again, since more events may have come in between.

    Returns the counts that were compared as well.
    """
    compared = _compare(job, scope, counts)
    if differing := [metric_id for metric_id, found in compared.items() if found.steps]:
        answers = _count(job, scope.only(differing), findings, is_required=False)
        newer = {each: answer for each, answer in answers.items() if answer is not None}
        counts = {**counts, **newer}
        compared |= _compare(job, scope.only(differing), counts)
    return compared, counts


def _compare_without_outdated(
    job: Job, scope: Scope, counts: Mapping[str, EventCounts | None], compared: Mapping[str, Compared]
) -> dict[str, Compared]:
    """Delete events that have another time now, where more are stored than the source counts, and compare again."""
    surplus = {
        metric_id: [Window(step.window_start, step.window_end) for step in found.steps if (step.difference or 0) > 0]
        for metric_id, found in compared.items()
    }
    surplus = {metric_id: windows for metric_id, windows in surplus.items() if windows}
    if not surplus:
        return {}
    deleted = job.transact(lambda account: event_tables.delete_outdated(account, surplus))
    if not deleted:
        return {}
    job.log.info("Deleted %s rows of events that have another time now", f"{deleted:,}")
    return _compare(job, scope.only(surplus), counts)


def _rereads(
    job: Job, differing: Mapping[str, Sequence[Comparison]], counts: Mapping[str, EventCounts | None]
) -> list[Chunk]:
    """Return chunks with a mark, the time, so that each check reads them even if this run has already done so."""
    with job.session.source() as source:
        page = source.events_per_page
    mark = f"{datetime.now(UTC):%H%M%S}"
    return [
        Chunk(EVENTS.name, window, metric_id, reread=mark)
        for metric_id, steps in differing.items()
        for window in compare.windows_to_read(steps, counts[metric_id] or {}, page, job.run.settings.chunk_events)
    ]


def _store(job: Job, scope: Scope, compared: Mapping[str, Compared], reread: Collection[Key]) -> None:
    now, rows, uncounted = datetime.now(UTC), list[Comparison](), set[Key]()
    known = compare.by_metric(scope.before)
    for metric_id, found in compared.items():
        if found.is_counted:
            rows += compare.rows(found, scope.before, {each for each in reread if each[0] == metric_id}, now)
        elif not scope.is_history:  # what is known of history outlives a failure to count it
            kept = compare.kept(found, known.get(metric_id, ()))
            rows += kept
            uncounted |= {each.key for each in kept if each.state is not CountState.UNCOUNTED}

    def write(account: Account) -> None:
        reconciliation.write(account, rows, scope.before, now, scope.is_history, uncounted)

    job.transact(write)


def _note(job: Job, scope: Scope, compared: Mapping[str, Compared], findings: Findings, surplus: bool) -> None:
    """Log the result, and note the days that differ in another way than an earlier check reported."""
    for found in compared.values():
        findings.new += compare.newly_differing(found, scope.before, reread_counts=surplus)
    days = [day for found in compared.values() for day in found.days]
    differing = sum(day.state is CountState.DIFFERS for day in days)
    uncounted = sum(not found.is_counted for found in compared.values())
    job.log.info("%s", described(str(scope.period), len(compared), len(days), differing, uncounted))


def described(period: str, metrics: int, days: int, differing: int, uncounted: int) -> str:
    """Return the result of comparing counts as a sentence. `days` are those of each metric, added up."""
    result = f"{differing:,} of them {'differs' if differing == 1 else 'differ'}" if differing else "all of them agree"
    missing = f"; {counted(uncounted, 'metric')} cannot be counted" if uncounted else ""
    counts = f"{counted(days, 'daily count')} of {counted(metrics, 'metric')}"
    return f"Compared {counts} in {period}: {result}{missing}"
