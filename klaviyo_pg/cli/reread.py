"""The command that lets the next daily run read tables in full again, without deleting anything."""

from argparse import Namespace
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import chosen_account, open_warehouse
from klaviyo_pg.klaviyo.dialects import dialect_of
from klaviyo_pg.postgres import idle
from pipeline import checks
from pipeline.rereading import Reread, derives_member_lists, read_again, requests_for, streams_to_read


def reread(arguments: Namespace) -> int:
    """Record that the endpoints of some tables have to be read in full, and print which ones. Sends no request."""
    settings = check_settings(klaviyo_integration=arguments.integration)
    name = settings.klaviyo_integration
    dialect = dialect_of(settings)
    streams = streams_to_read(arguments.tables, settings, dialect)
    with open_warehouse(settings) as connection:
        account = chosen_account(connection, settings.warehouse_schema, name)
        checks.check_stays(account, name)
        idle.keep_runs_out(account, name)
        read_again(account, streams, arguments.tables)
        expected = requests_for(account, streams, dialect, settings)
    derives = derives_member_lists(arguments.tables, streams)
    if expected:
        _print(name, expected)
    if derives:
        print("The next daily run derives all rows of member_lists again, from the stored tables.")
    if not expected and not derives:
        print(f"Every run reads {', '.join(arguments.tables)} in full.")
    return 0


def _print(name: str, expected: Iterable[Reread]) -> None:
    table = Table("stream", "requests", title=escape(f"{name}: the next daily run reads in full"))
    for each in expected:
        table.add_row(each.stream.replace("_", " "), _number(each))
    Console().print(table)
    print("Nothing was deleted. Rows that have not changed are not written.")


def _number(reread: Reread) -> str:
    if reread.is_every_run:
        return "as every daily run"
    return "unknown" if reread.requests is None else f"about {reread.requests:,}"
