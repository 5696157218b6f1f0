"""The plan of a backfill as two tables: what there is to read of each metric, and how long the whole command takes."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from klaviyo_pg.cli.warehouse import open_warehouse
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.foreign import printable
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import accounts, backfill_ledger, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.backfill.chunking import Summary, summaries
from pipeline.backfill.duration import Step, forecast, total
from pipeline.backfill.preview import Stored, facts, preview, requests_of
from pipeline.session import Session

_COLUMNS = ("metric", "events", "chunks", "requests", "minutes at the API's limit")


def show(settings: Settings, window: Window) -> None:
    """Count the events in a window, and print what a backfill of it would read, and how long that takes."""
    watch = partial(track, description="Counting", console=Console(stderr=True), transient=True)
    stored, began = _stored(settings, window), monotonic()
    with Session(settings) as session:
        rows = preview(session, window, watch)
        counting = monotonic() - began
        steps = forecast(facts(session, [summary for _, summary in rows], stored, counting))
        with session.source() as source:
            Console().print(_table(f"{settings.klaviyo_integration}: history {window}", rows, source))
    if stored.loaded:
        print(f"Loaded already: about {stored.loaded:,} events.")
    Console().print(_forecast(steps))
    seconds, is_known = total(steps)
    print(f"Counting took {_about(counting)}. The backfill takes {'' if is_known else 'at least '}{_about(seconds)}.")


def _stored(settings: Settings, window: Window) -> Stored:
    """Look up what the warehouse has. One that does not exist yet, or cannot be reached, has nothing."""
    schema = settings.warehouse_schema
    try:
        with open_warehouse(settings) as connection:
            registered = accounts.find(connection, schema, settings.klaviyo_integration)
            if registered is None:
                return Stored()
            account = Account(connection, schema, registered.integration_id)
            loaded = sum(each.loaded for each in summaries(backfill_ledger.chunks(account), window))
            return Stored(watermarks.watermarks(account), loaded)
    except KlaviyoPgError:
        return Stored()


def _table(title: str, rows: list[tuple[str, Summary]], source: Source) -> Table:
    table = Table(title=escape(title))
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "metric" else "right")
    events = requests = 0
    for name, summary in sorted(rows, key=lambda row: -row[1].expected):
        chunks, needed = summary.chunks - summary.done, requests_of(summary, source.events_per_page)
        table.add_row(
            escape(printable(name)), f"{summary.expected:,}", str(chunks), f"{needed:,}", _minutes(source, needed)
        )
        events, requests = events + summary.expected, requests + needed
    table.add_section()
    table.add_row("all", f"{events:,}", "", f"{requests:,}", _minutes(source, requests))
    return table


def _minutes(source: Source, requests: int) -> str:
    limit = source.event_requests_per_minute
    return "unknown" if limit is None else f"{requests / limit:.1f}"


def _forecast(steps: Sequence[Step]) -> Table:
    table = Table(title="Forecast of the whole command")
    table.add_column("step")
    table.add_column("takes about", justify="right")
    table.add_column("why")
    for step in steps:
        table.add_row(step.name, "unknown" if step.seconds is None else _about(step.seconds), step.reason)
    return table


def _about(seconds: float) -> str:
    """Return a duration in the precision that an estimate has."""
    if seconds < 1:
        return "less than 1 s"
    return f"{seconds:.0f} s" if seconds < 100 else str(timedelta(minutes=round(seconds / 60)))[:-3] + " hours"
