"""The result of a run's checks: sentences, a table, and the mark that makes the run complete with differences."""

from collections.abc import Iterable, Mapping

from klaviyo_pg.postgres.ledgers import reconciliation
from klaviyo_pg.postgres.ledgers.reconciliation import Comparison
from klaviyo_pg.windows import Window
from pipeline.job import Job
from pipeline.reconcile import compare

_MAX_ARTIFACT_ROWS = 500


class Uncounted:
    """The metrics that the source could not count, by reason."""

    def __init__(self) -> None:
        self._metrics: dict[str, set[str]] = {}

    def add(self, reason: str, metric_id: str) -> None:
        """Note a metric. Several requests for one metric count once."""
        self._metrics.setdefault(reason, set()).add(metric_id)

    @property
    def sentences(self) -> list[str]:
        """One sentence for each reason, with the number of metrics."""
        return [_uncounted(reason, len(metrics)) for reason, metrics in self._metrics.items()]


def _uncounted(reason: str, number: int) -> str:
    metrics, them = ("1 metric", "it") if number == 1 else (f"{number:,} metrics", "them")
    return f"{metrics} could not be counted, so missing events of {them} would not be noticed: {reason}"


class Findings:
    """The results of one run's checks: days that differ and were not reported before, and metrics not counted."""

    def __init__(self) -> None:
        self.new: list[Comparison] = []
        self.uncounted = Uncounted()


def report(job: Job, names: Mapping[str, str], findings: Findings, period: Window | None = None) -> None:
    """Report what differs of these metrics, now or since an earlier check, and publish it as a table.

    With a `period`, earlier differences outside it are left out.
    """
    stored = job.transact(reconciliation.differences)
    new = {_place(day) for day in findings.new}
    days = [
        day
        for day in stored
        if day.metric_id in names and (period is None or _begins_in(period, day) or _place(day) in new)
    ]
    as_before = [day for day in days if _place(day) not in new]
    if days:
        job.tally.add_differences(compare.sentences([(day, names[day.metric_id]) for day in findings.new], as_before))
        publish(job, names, days)
    job.tally.add_notes(*findings.uncounted.sentences)


def _begins_in(period: Window, day: Comparison) -> bool:
    return period.start <= day.window_start < period.end


def _place(day: Comparison) -> tuple[object, ...]:
    return day.metric_id, day.window_start


def publish(job: Job, names: Mapping[str, str], days: Iterable[Comparison]) -> None:
    """Publish a table of days that differ, the latest first."""
    latest = sorted(days, key=lambda day: (day.window_start, day.metric_id), reverse=True)[:_MAX_ARTIFACT_ROWS]
    table = [_row(day, names[day.metric_id]) for day in latest]
    job.publisher.table("reconciliation", table, "Days on which the source's counts differ from the warehouse")


def _row(day: Comparison, name: str) -> dict[str, object]:
    return {
        "metric": name,
        "day": f"{day.window_start:%Y-%m-%d}",
        "source": day.source_events,
        "warehouse": day.warehouse_events,
        "difference": day.difference,
    }
