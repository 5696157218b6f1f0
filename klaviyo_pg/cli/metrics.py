"""The command `metrics`: the metrics that METRICS can name, as they are in the warehouse."""

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_accounts, open_warehouse
from klaviyo_pg.foreign import printable
from klaviyo_pg.postgres.recency import MetricState
from klaviyo_pg.postgres.recency import metrics as metrics_of


def metrics(arguments: Namespace) -> int:
    """List the metrics of each account: names, IDs, tables, and how far they are stored."""
    settings = check_settings()
    zone = ZoneInfo(settings.display_timezone)
    with open_warehouse(settings) as connection:
        for name, account in chosen_accounts(connection, settings.warehouse_schema, arguments.integration):
            Console().print(_table(name, metrics_of(account, name), zone))
    return 0


def _table(account: str, rows: Sequence[MetricState], zone: ZoneInfo) -> Table:
    columns = "metric", "ID", "table", "oldest event", "newest event", "read to"
    shown = Table(*columns, title=escape(f"{account}: metrics"), box=None, padding=(0, 2, 0, 0))
    for row in rows:
        days = (_time(each, zone, "%Y-%m-%d") for each in (row.oldest_event, row.newest_event))
        read_to = _time(row.read_to, zone, "%Y-%m-%d %H:%M")
        shown.add_row(escape(printable(row.name or "")), escape(printable(row.id)), row.table_name, *days, read_to)
    return shown


def _time(moment: datetime | None, zone: ZoneInfo, layout: str) -> str:
    return "" if moment is None else moment.astimezone(zone).strftime(layout)
