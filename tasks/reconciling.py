"""Counts reconciled with the source: what came late or is missing is found by them, and read again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from klaviyo_pg import reconciliation
from klaviyo_pg.errors import (
    BadSettings,
    KlaviyoPgError,
    MissingScope,
    Refused,
    Stopped,
    TooMuch,
    Unavailable,
    UserError,
)
from klaviyo_pg.klaviyo.http import Traffic
from klaviyo_pg.postgres import ledger
from klaviyo_pg.postgres import reconciliation as books
from klaviyo_pg.reconciliation import DIFFERS, Checked, Compared, Counts, Known
from klaviyo_pg.windows import Window
from tasks import artifacts, edges, stopping
from tasks.plan import Chunk
from tasks.planning import compares_counts
from tasks.reading import Problems, read, told
from tasks.run import Run, patiently
from transforms.routing import KnownMetric, selected

_SHOWN = 500  # rows of the artifact


@dataclass
class Findings(Problems):
    """What went wrong, and what differs: the latter is told, but it is no failure of the run."""

    differing: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        return [*super().sentences, *self.differing]


@dataclass(frozen=True)
class _Scope:
    """What a check judges: the stretches of each metric that have been read, and what was left of them by the last."""

    names: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]
    period: Window
    step: timedelta
    before: Known

    def only(self, metric_ids: Iterable[str]) -> "_Scope":
        return replace(self, windows={each: self.windows[each] for each in metric_ids})


def reconcile(run: Run, findings: Findings) -> None:
    """Compare counts, read again once what differs either way, and tell what differs still."""
    if not run.settings.reconcile_days:
        raise BadSettings("RECONCILE_DAYS is 0: give --days, the days to compare.")
    if not findings.stop and compares_counts(run, findings):
        findings.differing += _check(run, findings, surplus=True, read_from={})


def find_late(run: Run, streams: Collection[str], planned: Iterable[Sequence[Chunk]], problems: Problems) -> None:
    """What a daily run does behind its overlap: read again where the source has more than is stored.

    What this run has read anyhow, the chunks that were `planned`, is compared, but not read once more. A source that
    does not tell its counts is no failure: the next run has a longer overlap then.
    """
    if "events" not in streams or problems.stop or not compares_counts(run, problems):
        return
    chunks = [chunk for phase in planned for chunk in phase if chunk.kind == "events" and chunk.start is not None]
    for sentence in _check(run, problems, surplus=False, read_from=_read_from(chunks)):
        get_run_logger().warning(sentence)


def _read_from(chunks: Iterable[Chunk]) -> dict[str | None, datetime]:
    """From when on events of each metric have been read; of None: of all metrics."""
    found: dict[str | None, datetime] = {}
    for chunk in chunks:
        assert chunk.start is not None
        found[chunk.subject] = min(chunk.start, found.get(chunk.subject, chunk.start))
    return found


def _check(run: Run, problems: Problems, surplus: bool, read_from: Mapping[str | None, datetime]) -> list[str]:
    """One comparison, reading again and comparing again; answers sentences for what differs still."""
    logger, scope = get_run_logger(), _scope(run)
    if not scope.windows:
        logger.info("Nothing that has been read lies in %s: no counts to compare", scope.period)
        return []
    counts = _counts(run, scope, problems if surplus else None)
    scope = scope.only(counts)
    found = _compared(run, scope, counts)
    again = {
        metric_id: [
            step
            for step in checked.steps
            if reconciliation.is_to_be_read(step, scope.before.get(reconciliation.key(step)), surplus)
            and step.window_start < _bound(read_from, metric_id)
        ]
        for metric_id, checked in found.items()
    }
    again = {metric_id: steps for metric_id, steps in again.items() if steps}
    has_read: set[reconciliation.Key] = set()
    if again and not problems.stop:
        skipped = len(problems.skipped)
        read(run, _chunks(run, again, counts), problems)
        found |= _compared_again(run, scope.only(again), counts)
        if not problems.stop and len(problems.skipped) == skipped:  # else it is to be read by the next check
            has_read = {reconciliation.key(step) for steps in again.values() for step in steps}
    _keep(run, scope, found, has_read)
    return _report(run, scope, found, surplus)


def _bound(read_from: Mapping[str | None, datetime], metric_id: str) -> datetime:
    """Before when a metric's steps are worth reading again."""
    return min(read_from.get(each, datetime.max.replace(tzinfo=UTC)) for each in (None, metric_id))


def _scope(run: Run) -> _Scope:
    step = edges.source(run.settings).counts_by
    period = reconciliation.period(run.as_of, run.settings.reconcile_days, step)
    where = (run.schema, run.integration_id)
    metrics = patiently(run, lambda connection: ledger.metrics(connection, *where))
    claimed = patiently(run, lambda connection: books.claimed(connection, *where))
    before = patiently(run, lambda connection: books.known(connection, *where, period))
    known = [KnownMetric(row.id, row.name) for row in metrics]
    wanted = selected(known, run.settings.metrics)
    there = {row.id for row in metrics if not row.is_deleted}
    names = {each.id: each.name or each.id for each in (known if wanted is None else wanted) if each.id in there}
    judged = {each: reconciliation.judged(claimed.get(each, ()), period, step) for each in names}
    return _Scope(names, {each: windows for each, windows in judged.items() if windows}, period, step, before)


def _counts(run: Run, scope: _Scope, problems: Problems | None) -> dict[str, Counts | None]:
    """What the source counts of each metric; None where it does not.

    Where a source gives no answer, it does not count, either; with `problems` the metric is left out and they tell why.
    """
    windows = {each: Window(found[0].start, found[-1].end) for each, found in scope.windows.items()}
    found: dict[str, Counts | None] = {}
    reasons: dict[str, list[str]] = {}
    for metric_id, counted in ask_counts(run, windows).items():
        if not isinstance(counted, KlaviyoPgError):
            found[metric_id] = counted
        elif problems is None or isinstance(counted, Refused | MissingScope):
            reasons.setdefault(told(counted), []).append(scope.names[metric_id])
            found[metric_id] = None
        else:
            problems.add(counted)
    for reason, names in reasons.items():
        get_run_logger().info("Not counted: %s. %s", ", ".join(names), reason)
    return found


@task(task_run_name="count at the source", cache_policy=NO_CACHE, persist_result=False)
def ask_counts(run: Run, windows: Mapping[str, Window]) -> dict[str, Counts | KlaviyoPgError]:
    """POST metric-aggregates: metric -> start of an hour (legacy: a day) -> events, or why there are none.

    Once there is no answer for a metric the others are not asked for: the run must not wait for each in turn.
    """
    away: list[KlaviyoPgError] = []

    def ask(metric_id: str) -> tuple[Counts | KlaviyoPgError, Traffic]:
        source = edges.source(run.settings)
        before = source.traffic
        try:
            stopping.check()
            if away:
                return away[0], Traffic()
            counted = {each.start.astimezone(UTC): each.events for each in source.counts(metric_id, windows[metric_id])}
            return counted, source.traffic.since(before)
        except (UserError, Stopped):
            raise
        except KlaviyoPgError as error:
            if isinstance(error, Unavailable) and not isinstance(error, TooMuch):
                away.append(error)
            return error, source.traffic.since(before)

    with ThreadPoolExecutor(edges.side_by_side(run.settings)) as pool:
        answers = list(pool.map(ask, windows))
    asked = Traffic.total(traffic for _, traffic in answers)
    patiently(run, lambda connection: ledger.add_requests(connection, run.schema, run.id, asked))
    return {metric_id: counted for metric_id, (counted, _) in zip(windows, answers, strict=True)}


def _compared(run: Run, scope: _Scope, counts: Mapping[str, Counts | None]) -> dict[str, Checked]:
    what = (run.schema, run.integration_id, list(scope.windows), scope.period, scope.step)
    stored = patiently(run, lambda connection: books.stored(connection, *what))
    return {
        each: reconciliation.compare(each, windows, scope.step, counts[each], stored.get(each, {}), scope.before)
        for each, windows in scope.windows.items()
    }


def _compared_again(run: Run, scope: _Scope, counts: Mapping[str, Counts | None]) -> dict[str, Checked]:
    """The same after reading; where it does not agree the source is asked again, since more may have come meanwhile."""
    found = _compared(run, scope, counts)
    if odd := [metric_id for metric_id, checked in found.items() if checked.steps]:
        newer = {each: new for each, new in _counts(run, scope.only(odd), None).items() if new is not None}
        found |= _compared(run, scope.only(odd), {**counts, **newer})
    return found


def _chunks(run: Run, again: Mapping[str, Sequence[Compared]], counts: Mapping[str, Counts | None]) -> list[Chunk]:
    """Streams of their own, told apart by the time: each check reads, whatever this run has read before."""
    page, now = edges.source(run.settings).events_in_request, datetime.now(UTC)
    return [
        Chunk(f"events/{metric_id}/again {now:%H%M%S}", window, metric_id)
        for metric_id, steps in again.items()
        for window in reconciliation.windows_to_read(steps, counts[metric_id] or {}, page)
    ]


def _keep(run: Run, scope: _Scope, found: Mapping[str, Checked], has_read: Collection[reconciliation.Key]) -> None:
    now = datetime.now(UTC)
    rows = [
        row
        for metric_id, checked in found.items()
        for row in reconciliation.rows(checked, scope.before, {each for each in has_read if each[0] == metric_id}, now)
    ]
    patiently(run, lambda connection: books.write(connection, run.schema, run.integration_id, rows, now))


def _report(run: Run, scope: _Scope, found: Mapping[str, Checked], surplus: bool) -> list[str]:
    """A line of the log, an artifact in Prefect where something differs, and sentences for what had not been told."""
    told_now: list[tuple[Compared, str]] = []
    as_before = 0
    for metric_id, checked in found.items():
        new, left = reconciliation.differing(checked, scope.before, read_since=surplus)
        told_now += [(day, scope.names[metric_id]) for day in new]
        as_before += left
    days = [day for checked in found.values() for day in checked.days]
    odd = [day for day in days if day.state == DIFFERS]
    uncounted = sum(checked.days[0].source_events is None for checked in found.values())
    get_run_logger().info(
        "Counts of %d metrics compared in %s: of %d days of a metric %d differ; %d metrics cannot be counted",
        *(len(found), scope.period, len(days), len(odd), uncounted),
    )
    if odd:
        table = [
            {
                "metric": scope.names[day.metric_id],
                "day": f"{day.window_start:%Y-%m-%d}",
                "source": day.source_events,
                "warehouse": day.warehouse_events,
                "difference": day.difference,
            }
            for day in odd[:_SHOWN]
        ]
        artifacts.table("reconciliation", table, f"What differs in {scope.period}")
    return reconciliation.sentences(told_now, as_before)
