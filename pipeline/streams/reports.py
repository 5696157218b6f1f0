"""Reports on campaigns and flows: streams that are read by day of sending, few requests in a day, in turn."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import report_ledger
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Report
from klaviyo_pg.windows import DAY, AnyWindow, Window
from pipeline.batch import Batch, batch_of
from pipeline.streams.dimensions import MAPPED_METRICS
from pipeline.streams.stream import OpenedChunk, Reading, Stream, as_one_batch, collected
from transforms import reports

Fetch = Callable[[Source, Window, str], Iterator[Page[Report]]]


def _report(name: str, kind: str, fetch: Fetch, load: Load) -> Stream:
    """Declare a report. Its chunks are days; their subject is the metric that counts as a conversion."""

    def open_chunk(reading: Reading) -> OpenedChunk:
        window, metric_id = reading.window, reading.subject
        assert isinstance(window, Window) and metric_id is not None, "the plan gives each chunk both"
        days = window.days

        def batch(pages: Sequence[Page[Report]]) -> Batch:
            rows, unreadable = collected(pages)
            made = reports.reports(rows, days, load, kind, reading.integration_id)
            return batch_of([(load, made)], {name: unreadable})

        def finish(account: Account, guard: Guard) -> None:
            if guard.believes_losses:  # days whose losses are not believed are read again by the next run
                report_ledger.record(account, name, metric_id, days, reading.run.as_of)

        return OpenedChunk(fetch(reading.source, window, metric_id), batch, finish)

    def probe(source: Source, window: AnyWindow, metric_id: str | None) -> Iterator[Page[Report]]:
        if metric_id is None or window.start is None or not source.dialect.reads_reports:
            return iter(())
        return fetch(source, _day_before(window.start), metric_id)

    return Stream(
        name,
        open_chunk,
        as_one_batch,
        0,
        (load,),
        "send dates within REPORT_DAYS, each once a day, REPORT_REQUESTS of them",
        probe,
        subject="metric",
        on_request=True,
        needs=frozenset({MAPPED_METRICS.name}),
        in_turn=True,
    )


def _day_before(moment: datetime) -> Window:
    today = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(today - DAY, today)


CAMPAIGN_REPORTS = _report(
    "campaign_reports",
    "campaign",
    lambda source, window, metric_id: source.campaign_reports(window, metric_id),
    loads.CAMPAIGN_REPORTS,
)
FLOW_REPORTS = _report(
    "flow_reports",
    "flow",
    lambda source, window, metric_id: source.flow_reports(window, metric_id),
    loads.FLOW_REPORTS,
)
LONGEST = {CAMPAIGN_REPORTS.name: 1, FLOW_REPORTS.name: 60}
"""The days of each report that one request reads."""
