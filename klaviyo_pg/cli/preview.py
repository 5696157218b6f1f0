"""The plan of a backfill as two tables: what there is to read of each metric, and how long the whole command takes."""

from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic

from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.cli.output import print_warning
from klaviyo_pg.cli.warehouse import open_warehouse
from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.foreign import printable
from klaviyo_pg.grouping import grouped
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres import accounts, schema
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.ledgers import backfill_ledger, watermarks
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from klaviyo_pg.postgres.server import embedded
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import ChunkState
from klaviyo_pg.windows import Window
from pipeline.backfill.chunking import Summary, summaries
from pipeline.commands.duration import Step, expected_duration, total
from pipeline.commands.preview import Stored, facts, preview, requests_of
from pipeline.session import Session

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MOST_SECONDS = 100  # longer times are in minutes
_COLUMNS = ("metric", "events", "chunks", "requests", "minutes at the API's limit")


def show(settings: Settings, window: Window, restart: bool) -> None:
    """Count the events in a window, and print what a backfill of it would read, and how long that takes.

    With `restart`, it reads again what is loaded.
    """
    watch = partial(track, description="Counting", console=Console(stderr=True), transient=True)
    stored, began = _stored(settings, window), monotonic()
    if restart:
        stored = Stored(stored.watermarks)
    with Session(settings) as session:
        found = preview(session, window, watch)
        counting = monotonic() - began
        steps = expected_duration(facts(session, found, stored, counting))
        with session.source() as source:
            Console().print(_table(f"{settings.klaviyo_integration}: history {window}", found.metrics, source))
    if sentence := _uncounted(found.uncounted_chunks):
        print(sentence)
    if loaded := sum(stored.covers(each) for each in found.summaries):
        print(f"Loaded already: about {loaded:,} events.")
    Console().print(_forecast(steps))
    seconds, is_known = total(steps)
    print(
        f"Counting took {_about(counting)}. The backfill takes {'about' if is_known else 'at least'} {_about(seconds)}."
    )


def _stored(settings: Settings, window: Window) -> Stored:
    """Look up what the warehouse has. One that does not exist yet has nothing."""
    if settings.database_url is None and not embedded.exists(settings.data_dir):
        return Stored()
    try:
        with open_warehouse(settings) as connection:
            account = _account(connection, settings)
            if account is None:
                return Stored()
            chunks = backfill_ledger.chunks(account)
            loaded = {each.metric_id: each.loaded for each in summaries(chunks, window)}
            return Stored(watermarks.read(account), loaded, _done(chunks))
    except KlaviyoPgError as error:
        print_warning(f"The warehouse cannot be read, so nothing counts as loaded. {error}")
        return Stored()


def _done(chunks: Iterable[BackfillChunk]) -> dict[str, list[BackfillChunk]]:
    """Return the chunks that are done, by metric."""
    return grouped((chunk.metric_id, chunk) for chunk in chunks if chunk.state is ChunkState.DONE)


def _account(connection: Connection, settings: Settings) -> Account | None:
    """Return the account if it is in the warehouse."""
    name = settings.warehouse_schema
    if not schema.has_table(connection, name, bookkeeping.INTEGRATIONS):
        return None
    registered = accounts.find(connection, name, settings.klaviyo_integration)
    return None if registered is None else Account(connection, name, registered.integration_id)


def _uncounted(chunks: Sequence[BackfillChunk]) -> str | None:
    """Return a sentence about chunks that cannot be counted; None if there are none."""
    if not chunks:
        return None
    metrics = len({chunk.metric_id for chunk in chunks})
    return (
        f"{counted(len(chunks), 'chunk')} of {counted(metrics, 'metric')} cannot be counted. There can be more events "
        "than shown."
    )


def _table(title: str, rows: Sequence[tuple[str, Summary]], source: Source) -> Table:
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
    limit = source.dialect.event_requests_per_minute
    return "unknown" if limit is None else f"{requests / limit:.1f}"


def _forecast(steps: Sequence[Step]) -> Table:
    table = Table(title="Forecast of the whole command")
    table.add_column("step")
    table.add_column("takes about", justify="right")
    table.add_column("why")
    for step in steps:
        takes = "unknown" if step.seconds is None else _about(step.seconds)
        table.add_row(step.name, f"at least {takes}" if step.is_least else takes, step.reason)
    return table


def _about(seconds: float) -> str:
    """Return a duration in the precision that an estimate has."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < _MOST_SECONDS:
        return f"{seconds:.0f} s"
    names, numbers = ("h", "min"), divmod(round(seconds / _MINUTE), 60)
    if seconds >= _DAY:
        names, numbers = ("d", "h"), divmod(round(seconds / _HOUR), 24)
    return " ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True) if number)
