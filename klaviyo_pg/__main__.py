"""The command `klaviyo-pg`: looking at the warehouse from a terminal."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg import __version__
from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.history import Summary, summaries
from klaviyo_pg.postgres import embedded, history, ledger
from klaviyo_pg.postgres.connect import conninfo, translated
from klaviyo_pg.settings import Settings, load_settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="klaviyo-pg", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    psql = commands.add_parser("psql", help="open psql on the warehouse; further arguments go to psql", add_help=False)
    psql.set_defaults(run=_psql)
    status = commands.add_parser("status", help="how far the backfill is")
    status.set_defaults(run=_status)
    return parser


def _url(settings: Settings) -> str:
    return settings.database_url.get_secret_value() if settings.database_url else embedded.url(settings.data_dir)


def _status(rest: Sequence[str]) -> int:
    """Reads the ledger: while a backfill runs, after it, from any machine that reaches the warehouse."""
    settings = load_settings()
    query = SQL("SELECT esp_integration_id, name FROM {} ORDER BY name").format(
        Identifier(settings.warehouse_schema, bookkeeping.INTEGRATIONS.name)
    )
    with translated(), psycopg.connect(make_conninfo(**conninfo(_url(settings)))) as connection:
        try:
            accounts = connection.execute(query).fetchall()
        except errors.UndefinedTable:
            raise BadSettings(f"Schema {settings.warehouse_schema} holds no warehouse yet: run a flow first.") from None
        for integration_id, account in accounts:
            names = {row.id: row.name for row in ledger.metrics(connection, settings.warehouse_schema, integration_id)}
            chunks = history.chunks(connection, settings.warehouse_schema, integration_id)
            Console().print(_table(account, names, summaries(chunks)))
    return 0


def _table(account: str, names: Mapping[str, str | None], found: Sequence[Summary]) -> Table:
    table = Table(title=f"{account}: history")
    for name in ("metric", "expected", "loaded", "left", "chunks done", "failed", "seconds"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for each in sorted(found, key=lambda row: -row.expected):
        table.add_row(
            escape(names.get(each.metric_id) or each.metric_id),
            f"{each.expected:,}",
            f"{each.loaded:,}",
            f"{each.waiting:,}",
            f"{each.done} of {each.chunks}",
            str(each.failed),
            f"{each.seconds:,.1f}",
        )
    return table


def _psql(rest: Sequence[str]) -> int:
    """psql as a child process: the embedded Postgres has to stay for as long as somebody looks at it."""
    settings = load_settings()
    program = "psql" if settings.database_url else str(embedded.psql(settings.data_dir))
    parts = conninfo(_url(settings))
    environment = {**os.environ, "PGOPTIONS": f"-c search_path={settings.warehouse_schema},public"}
    password = parts.pop("password", None)
    if password:  # not as an argument, which everybody on the machine can see
        environment["PGPASSWORD"] = password
    try:
        return subprocess.call([program, make_conninfo(**parts), *rest], env=environment)
    except FileNotFoundError:
        raise BadSettings("There is no psql on this machine: install the PostgreSQL client.") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    given, rest = _parser().parse_known_args(arguments)
    try:
        sys.exit(given.run(rest))
    except KlaviyoPgError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
