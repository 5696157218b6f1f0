"""The plan of a backfill as a table: events, chunks and requests by metric, and the least time that they take."""

from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from klaviyo_pg.foreign import printable
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import Window
from pipeline.backfill.chunking import Summary
from pipeline.backfill.preview import preview
from pipeline.session import Session

_COLUMNS = ("metric", "events", "chunks", "requests", "minutes at the API's limit")


def show(settings: Settings, window: Window) -> None:
    """Count the events in a window, and print what a backfill of it would read."""
    watch = partial(track, description="Counting", console=Console(stderr=True), transient=True)
    with Session(settings) as session:
        rows = preview(session, window, watch)
        with session.source() as source:
            Console().print(_table(f"{settings.klaviyo_integration}: history {window}", rows, source))


def _table(title: str, rows: list[tuple[str, Summary]], source: Source) -> Table:
    table = Table(title=escape(title))
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "metric" else "right")
    events = requests = 0
    for name, summary in sorted(rows, key=lambda row: -row[1].expected):
        chunks = summary.chunks - summary.done  # chunks without events are done already
        needed = -(-summary.expected // source.events_per_page) + chunks
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
