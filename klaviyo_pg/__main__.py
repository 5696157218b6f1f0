"""The command `klaviyo-pg`: looking at the warehouse from a terminal."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg import __version__
from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.coverage import Coverage, picture
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.history import Summary, summaries
from klaviyo_pg.postgres import coverage, embedded, history, ledger, schema
from klaviyo_pg.postgres.connect import connect, conninfo, translated
from klaviyo_pg.postgres.erase import erase
from klaviyo_pg.settings import Settings, load_settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="klaviyo-pg", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    psql = commands.add_parser("psql", help="open psql on the warehouse; further arguments go to psql", add_help=False)
    psql.set_defaults(run=_psql)
    status = commands.add_parser("status", help="how far the backfill is")
    status.add_argument("--integration", metavar="NAME", help="only this account")
    status.add_argument("--coverage", metavar="FILE", type=Path, help="also draw each metric by day: a .png or .svg")
    status.set_defaults(run=_status)
    erasing = commands.add_parser("erase", help="take a person out of the warehouse, for good")
    person = erasing.add_mutually_exclusive_group(required=True)
    person.add_argument("--email", metavar="ADDRESS", help="the person's address")
    person.add_argument("--id", metavar="ID", help="Klaviyo's id of the profile")
    erasing.add_argument("--integration", metavar="NAME", help="what this warehouse calls the account")
    erasing.add_argument("--yes", action="store_true", help="do not ask")
    erasing.set_defaults(run=_erase)
    return parser


def _status(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """Reads the ledger: while a backfill runs, after it, from any machine that reaches the warehouse."""
    settings = load_settings()
    if given.coverage and given.coverage.suffix not in (".png", ".svg"):
        raise BadSettings(f"--coverage {given.coverage}: give a name that ends in .png or .svg.")
    query = SQL("SELECT esp_integration_id, name FROM {} ORDER BY name").format(
        Identifier(settings.warehouse_schema, bookkeeping.INTEGRATIONS.name)
    )
    with translated(), connect(_warehouse(settings)) as connection:
        try:
            accounts = connection.execute(query).fetchall()
        except errors.UndefinedTable:
            raise BadSettings(f"Schema {settings.warehouse_schema} holds no warehouse yet: run a flow first.") from None
        accounts = [each for each in accounts if given.integration in (None, each[1])]
        if not accounts:
            raise _no_account(settings.warehouse_schema, given.integration)
        if given.coverage and len(accounts) != 1:
            raise BadSettings(f"--coverage draws one account, and here are {len(accounts)}: give --integration.")
        for integration_id, account in accounts:
            names = {row.id: row.name for row in ledger.metrics(connection, settings.warehouse_schema, integration_id)}
            last = ledger.last_run(connection, settings.warehouse_schema, integration_id)
            if last is not None:
                print(f"{account}: last run {last.flow}, {last.state}, begun {last.started_at:%Y-%m-%d %H:%M} UTC")
            chunks = history.chunks(connection, settings.warehouse_schema, integration_id)
            Console().print(_table(account, names, summaries(chunks)) if chunks else "No backfill yet.")
            if given.coverage:
                _draw(
                    given.coverage,
                    coverage.read(connection, settings.warehouse_schema, integration_id, account, _today()),
                )
    return 0


def _warehouse(settings: Settings) -> str:
    """The URL of a warehouse that is there: looking for it makes none."""
    if settings.database_url is None and not embedded.is_there(settings.data_dir):
        raise BadSettings(
            "No warehouse: DATABASE_URL is not set, and there is no embedded Postgres in "
            f"{settings.data_dir.absolute()} (run a flow first, or go to the folder where one ran)."
        )
    return embedded.warehouse_url(settings)


def _no_account(schema: str, name: str | None) -> BadSettings:
    return BadSettings(f"Schema {schema} has no account {name or ''}".rstrip() + ": give another --integration.")


def _today() -> date:
    return datetime.now(UTC).date()


def _draw(file: Path, found: Coverage) -> None:
    image = picture(found, "svg" if file.suffix == ".svg" else "png")
    try:
        file.write_bytes(image)
    except OSError as error:
        raise BadSettings(f"--coverage {file}: it cannot be written ({error.strerror}).") from None
    print(f"Drawn: {file}")


def _table(account: str, names: Mapping[str, str | None], found: Sequence[Summary]) -> Table:
    table = Table(title=escape(f"{account}: history"))
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


def _erase(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """One transaction; what a backfill keeps on this machine's disk until it is loaded goes, too."""
    settings = load_settings(klaviyo_integration=given.integration)
    account, name = settings.klaviyo_integration, settings.warehouse_schema
    if not (given.email or given.id or "").strip():
        raise BadSettings("Name the person: give --email or --id.")
    with translated(), connect(_warehouse(settings)) as connection:
        integration_id = _integration_id(connection, name, account)
        connection.commit()
        schema.upgrade(connection, name)
        stored, _ = ledger.protection(connection, name, integration_id)
        if given.email is not None and stored != "keep":
            raise BadSettings(f"{account} is stored with PERSONAL_DATA={stored}, without addresses: give --id.")
        connection.commit()
        if not given.yes and not _confirmed(account):
            return 1
        counts = erase(connection, name, integration_id, given.email, given.id)
        if given.email and not any(counts.values()):
            raise BadSettings(f"Nothing was erased: {account} knows nobody with this address.")
        shutil.rmtree(settings.spool_dir / integration_id, ignore_errors=True)
    if not any(counts.values()):
        print(f"{account} knows nobody with this id; should it come, runs leave it out.")
        return 0
    table = Table("table", "rows", title=escape(f"{account}: erased"))
    for table_name, rows in counts.items():
        table.add_row(table_name, f"{rows:,}")
    Console().print(table)
    return 0


def _integration_id(connection: psycopg.Connection, name: str, account: str) -> str:
    query = SQL("SELECT esp_integration_id FROM {} WHERE name = %s")
    try:
        row = connection.execute(query.format(Identifier(name, bookkeeping.INTEGRATIONS.name)), [account]).fetchone()
    except errors.UndefinedTable:
        raise BadSettings(f"Schema {name} holds no warehouse yet: run a flow first.") from None
    if row is None:
        raise _no_account(name, account)
    return str(row[0])


def _confirmed(account: str) -> bool:
    if not sys.stdin.isatty():
        raise BadSettings("Nothing was erased: add --yes where nobody can be asked.")
    answer = input(f"Erase this person from all tables of {account}? This cannot be taken back. [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _psql(given: argparse.Namespace, rest: Sequence[str]) -> int:
    """psql as a child process: the embedded Postgres has to stay for as long as somebody looks at it."""
    settings = load_settings()
    parts = conninfo(_warehouse(settings))
    program = "psql" if settings.database_url else str(embedded.psql(settings.data_dir))
    environment = {**os.environ, "PGOPTIONS": f"-c search_path={_option(settings.warehouse_schema)},public"}
    password = parts.pop("password", None)
    if password:  # not as an argument, which everybody on the machine can see
        environment["PGPASSWORD"] = password
    try:
        return subprocess.call([program, make_conninfo(**parts), *rest], env=environment)
    except FileNotFoundError:
        raise BadSettings("There is no psql on this machine: install the PostgreSQL client.") from None


def _option(name: str) -> str:
    """An identifier in PGOPTIONS, where a backslash keeps blanks and backslashes from ending it."""
    quoted = '"{}"'.format(name.replace('"', '""'))
    return re.sub(r"([\\\s])", r"\\\1", quoted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    parser = _parser()
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command != "psql":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        sys.exit(given.run(given, rest))
    except KlaviyoPgError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
