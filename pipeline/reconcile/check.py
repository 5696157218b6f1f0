"""One check of counts: ask the source, compare with the warehouse, read again what differs, store and report it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, MissingScope, Refused, Stopped, UserError
from klaviyo_pg.klaviyo.client import Traffic
from klaviyo_pg.postgres import lookups, reconciliation, runs
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.reconciliation import Comparison, Key, key
from klaviyo_pg.states import CountState
from klaviyo_pg.windows import Window
from pipeline.chunks import Chunk
from pipeline.job import Job, read
from pipeline.outage import Outage
from pipeline.outcome import describe
from pipeline.reconcile import compare
from pipeline.reconcile.compare import Compared, Comparisons, Counts
from pipeline.run import Run, transact
from pipeline.session import Session
from pipeline.streams.events import EVENTS
from transforms.routing import KnownMetric, selected

METRICS_SCOPE = "metrics:read"
"""The scope for metrics, and for counts of their events."""
_MAX_ARTIFACT_ROWS = 500
_FAILURES = 1  # of the API, after which the other metrics are not asked for: each would be waited for in turn


@dataclass(frozen=True)
class _Scope:
    """The scope of a check: the loaded windows of each metric, and the comparisons that the last check stored."""

    names: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]
    period: Window
    step: timedelta
    before: Comparisons

    def only(self, metric_ids: Iterable[str]) -> "_Scope":
        return replace(self, windows={each: self.windows[each] for each in metric_ids})


def reconcile(job: Job) -> None:
    """Compare counts, read what differs either way again, once, and report what still differs."""
    if not job.run.settings.reconcile_days:
        raise BadSettings("RECONCILE_DAYS is 0, so there is nothing to compare: set the number of days.")
    if not job.tally.must_stop and can_count(job):
        job.tally.notes += _check(job, surplus=True, already_read={})


def can_count(job: Job) -> bool:
    """Return whether this run may ask the source for counts, so that a long overlap is not necessary."""
    return job.run.settings.reconcile_days > 0 and METRICS_SCOPE not in job.tally.missing_scopes


def find_late_events(job: Job, planned: Iterable[Chunk]) -> None:
    """Read events again where the source has more than is stored: those that came late, older than the overlap.

    What this run has already read, `planned`, is compared but not read again. A source that gives no counts is not an
    error: the next run then has a longer overlap.
    """
    if job.tally.must_stop or not can_count(job):
        return
    for sentence in _check(job, surplus=False, already_read=_read_from(planned)):
        job.log.warning(sentence)


def _read_from(planned: Iterable[Chunk]) -> dict[str | None, datetime]:
    """Return from when on events of each metric have been read; None stands for all metrics."""
    earliest: dict[str | None, datetime] = {}
    for chunk in planned:
        if chunk.stream == EVENTS.name and chunk.start is not None:
            earliest[chunk.subject] = min(chunk.start, earliest.get(chunk.subject, chunk.start))
    return earliest


def _check(job: Job, surplus: bool, already_read: Mapping[str | None, datetime]) -> list[str]:
    """Compare, read again, and compare again; return sentences about what still differs."""
    scope = _scope(job)
    if not scope.windows:
        job.log.info("No counts to compare: nothing in %s has been loaded", scope.period)
        return []
    counts = _count(job, scope, is_required=surplus)
    scope = scope.only(counts)
    compared = _compare(job, scope, counts)
    differing = {
        metric_id: [
            step
            for step in found.steps
            if compare.needs_reread(step, scope.before.get(key(step)), surplus)
            and step.window_start < _bound(already_read, metric_id)
        ]
        for metric_id, found in compared.items()
    }
    differing = {metric_id: steps for metric_id, steps in differing.items() if steps}
    reread: set[Key] = set()
    if differing and not job.tally.must_stop:
        omitted = job.tally.omitted
        read(job, "Events that were missing", _rereads(job, differing, counts))
        compared |= _compare_after_reading(job, scope.only(differing), counts)
        if not job.tally.must_stop and job.tally.omitted == omitted:  # otherwise the next check reads it again
            reread = {key(step) for steps in differing.values() for step in steps}
    _store(job, scope, compared, reread)
    return _report(job, scope, compared, surplus)


def _bound(already_read: Mapping[str | None, datetime], metric_id: str) -> datetime:
    """Return the time before which a metric's steps may be read again."""
    return min(already_read.get(each, datetime.max.replace(tzinfo=UTC)) for each in (None, metric_id))


def _scope(job: Job) -> _Scope:
    with job.session.source() as source:
        step = source.count_interval
    settings = job.run.settings
    period = compare.period(job.run.as_of, settings.reconcile_days, step)

    def look_up(
        account: Account,
    ) -> tuple[list[lookups.StoredMetric], Mapping[str, Sequence[Window]], Comparisons]:
        before = reconciliation.comparisons(account, period)
        return lookups.metrics(account), reconciliation.loaded_windows(account), before

    stored, loaded, before = transact(job.session, job.run, look_up)
    metrics = [KnownMetric(row.id, row.name) for row in stored]
    wanted = selected(metrics, settings.metrics)
    existing = {row.id for row in stored if not row.is_deleted}
    names = {each.id: each.name or each.id for each in (metrics if wanted is None else wanted) if each.id in existing}
    windows = {each: compare.comparable(loaded.get(each, ()), period, step) for each in names}
    return _Scope(names, {each: parts for each, parts in windows.items() if parts}, period, step, before)


def _count(job: Job, scope: _Scope, is_required: bool) -> dict[str, Counts | None]:
    """Ask for the source's counts of each metric; None where it cannot count it.

    If counts are required, a metric that got no answer is left out, and the tally has the error.
    """
    windows = {each: Window(parts[0].start, parts[-1].end) for each, parts in scope.windows.items()}
    counts: dict[str, Counts | None] = {}
    reasons: dict[str, list[str]] = {}
    with job.session.progress.stage("Counts at the source", "metrics"):
        answers = job.workers.call(ask_counts, job.run, windows)
    for metric_id, answer in answers.items():
        if not isinstance(answer, KlaviyoPgError):
            counts[metric_id] = answer
        elif not is_required or isinstance(answer, Refused | MissingScope):
            reasons.setdefault(describe(answer), []).append(scope.names[metric_id])
            counts[metric_id] = None
        else:
            job.tally.add(answer)
            job.session.stop.request_if_throttled(answer)
    for reason, names in reasons.items():
        job.log.info("Not counted: %s. %s", ", ".join(names), reason)
    return counts


def ask_counts(session: Session, run: Run, windows: Mapping[str, Window]) -> dict[str, Counts | KlaviyoPgError]:
    """Ask the source for counts of metrics: by start of an hour (legacy: a day), or the error instead.

    After one failure of the API the other metrics are not asked for.
    """
    outage, progress = Outage(_FAILURES), session.progress
    progress.expect("counts", "counts", len(windows))

    def ask(metric_id: str) -> tuple[Counts | KlaviyoPgError, Traffic]:
        session.stop.check()
        if isinstance(outage.error, KlaviyoPgError):
            return outage.error, Traffic()
        with session.source() as source:
            before = source.traffic
            try:
                counts = {
                    each.start.astimezone(UTC): each.events for each in source.counts(metric_id, windows[metric_id])
                }
            except (UserError, Stopped):
                raise
            except KlaviyoPgError as error:
                outage.failed(error)
                return error, source.traffic.since(before)
            progress.add("counts", done=1)
            return counts, source.traffic.since(before)

    with ThreadPoolExecutor(session.worker_count()) as pool:
        answers = list(pool.map(ask, windows))
    sent = Traffic.total(traffic for _, traffic in answers)
    transact(session, run, lambda account: runs.add_requests(account, run.id, sent))
    return {metric_id: counts for metric_id, (counts, _) in zip(windows, answers, strict=True)}


def _compare(job: Job, scope: _Scope, counts: Mapping[str, Counts | None]) -> dict[str, Compared]:
    def look_up(account: Account) -> Mapping[str, Counts]:
        return reconciliation.stored(account, list(scope.windows), scope.period, scope.step)

    with job.session.progress.stage("Counts in the warehouse", "metrics"):
        job.session.progress.expect("stored", "counts", None)
        stored = transact(job.session, job.run, look_up)
        job.session.progress.complete("stored", len(scope.windows))
    return {
        each: compare.compare(each, windows, scope.step, counts[each], stored.get(each, {}), scope.before)
        for each, windows in scope.windows.items()
    }


def _compare_after_reading(job: Job, scope: _Scope, counts: Mapping[str, Counts | None]) -> dict[str, Compared]:
    """Compare again; where counts still differ ask the source again, since more events may have come in between."""
    compared = _compare(job, scope, counts)
    if differing := [metric_id for metric_id, found in compared.items() if found.steps]:
        answers = _count(job, scope.only(differing), is_required=False)
        newer = {each: answer for each, answer in answers.items() if answer is not None}
        compared |= _compare(job, scope.only(differing), {**counts, **newer})
    return compared


def _rereads(
    job: Job, differing: Mapping[str, Sequence[Comparison]], counts: Mapping[str, Counts | None]
) -> list[Chunk]:
    """Return chunks with a mark, the time, so that each check reads them even if this run has already done so."""
    with job.session.source() as source:
        page = source.events_per_page
    mark = f"{datetime.now(UTC):%H%M%S}"
    return [
        Chunk(EVENTS.name, window, metric_id, reread=mark)
        for metric_id, steps in differing.items()
        for window in compare.windows_to_read(steps, counts[metric_id] or {}, page)
    ]


def _store(job: Job, scope: _Scope, compared: Mapping[str, Compared], reread: Collection[Key]) -> None:
    now = datetime.now(UTC)
    rows = [
        row
        for metric_id, found in compared.items()
        for row in compare.rows(found, scope.before, {each for each in reread if each[0] == metric_id}, now)
    ]
    transact(job.session, job.run, lambda account: reconciliation.write(account, rows, now))


def _report(job: Job, scope: _Scope, compared: Mapping[str, Compared], surplus: bool) -> list[str]:
    """Log the result, publish a table of what differs, and return sentences for differences that are new."""
    new: list[tuple[Comparison, str]] = []
    as_before = 0
    for metric_id, found in compared.items():
        changed, same = compare.differing(found, scope.before, reread_counts=surplus)
        new += [(day, scope.names[metric_id]) for day in changed]
        as_before += same
    days = [day for found in compared.values() for day in found.days]
    differing = [day for day in days if day.state is CountState.DIFFERS]
    uncounted = sum(found.days[0].source_events is None for found in compared.values())
    job.log.info(
        "Compared counts of %d metrics in %s: %d of %d days differ; %d metrics cannot be counted",
        *(len(compared), scope.period, len(differing), len(days), uncounted),
    )
    if differing:
        table = [_row(day, scope.names[day.metric_id]) for day in differing[:_MAX_ARTIFACT_ROWS]]
        job.publisher.table("reconciliation", table, f"Differences in {scope.period}")
    return compare.sentences(new, as_before)


def _row(day: Comparison, name: str) -> dict[str, object]:
    return {
        "metric": name,
        "day": f"{day.window_start:%Y-%m-%d}",
        "source": day.source_events,
        "warehouse": day.warehouse_events,
        "difference": day.difference,
    }
