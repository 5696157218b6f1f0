"""The commands that look at the warehouse or change it without a run: status, psql and rename."""

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn
from zoneinfo import ZoneInfo

from psycopg import Connection, errors
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.environment import without_secrets
from klaviyo_pg.errors import BadSettings, DatabaseUnusable, KlaviyoPgError
from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from klaviyo_pg.postgres import (
    accounts,
    address,
    backfill_ledger,
    embedded,
    erase,
    idle,
    lookups,
    reconciliation,
    runs,
    schema,
)
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import connect, translated
from klaviyo_pg.settings import Settings
from pipeline import coverage
from pipeline.backfill.chunking import Summary, summaries
from pipeline.reconcile.compare import summary

_IMAGES = (".png", ".svg")


def status(arguments: Namespace) -> int:
    """Show the last run of each account and the progress of its backfill."""
    settings, file = check_settings(), arguments.coverage
    if file and file.suffix not in _IMAGES:
        raise BadSettings(f"--coverage {file}: the name must end in {' or '.join(_IMAGES)}.")
    with open_warehouse(settings) as connection:
        shown = chosen_accounts(connection, settings.warehouse_schema, arguments.integration)
        if file and len(shown) != 1:
            raise BadSettings(f"--coverage draws one account, and there are {len(shown)}. Choose one: --integration.")
        for name, account in shown:
            _show(name, account, ZoneInfo(settings.display_timezone))
        if file:
            _draw(file, *shown[0], settings.events_kept_since)
    return 0


def chosen_accounts(connection: Connection, schema: str, integration: str | None) -> list[tuple[str, Account]]:
    """Return the accounts of a warehouse with their names, or only this one. Raises BadSettings if it has none."""
    chosen = [each for each in accounts.all_accounts(connection, schema) if integration in (None, each[0])]
    if not chosen:
        raise no_account(schema, integration)
    return chosen


@contextmanager
def open_warehouse(settings: Settings) -> Iterator[Connection]:
    """Connect to a warehouse that exists. Raises BadSettings if it does not."""
    with translated(), connect(warehouse_url(settings), settings.warehouse_schema) as connection:
        connection.prepare_threshold = None  # a pooler in transaction mode would mix up prepared statements
        try:
            yield connection
        except (errors.UndefinedTable, errors.UndefinedColumn):
            connection.rollback()
            raise _unreadable(connection, settings.warehouse_schema) from None


def _unreadable(connection: Connection, name: str) -> KlaviyoPgError:
    """Return the error that tables are missing, or that one of an earlier version is elsewhere or lacks a column."""
    if schema.has_table(connection, name, bookkeeping.INTEGRATIONS):
        return DatabaseUnusable(
            f"The warehouse in the schema {name} was created by an earlier version. Run klaviyo-pg upgrade first."
        )
    return BadSettings(f"There is no warehouse in the schema {name} yet. Run a flow first.")


def warehouse_url(settings: Settings) -> str:
    """Return the URL of a warehouse that exists: looking for an embedded Postgres must not create one."""
    if settings.database_url is None and not embedded.exists(settings.data_dir):
        raise BadSettings(
            "There is no warehouse: DATABASE_URL is not set, and there is no embedded Postgres in "
            f"{settings.data_dir.absolute()}. Run a flow first, or change to the folder where one ran."
        )
    return embedded.warehouse_url(settings)


def no_account(schema_name: str, name: str | None) -> BadSettings:
    """Return the error that a warehouse has no account, or none of this name."""
    if name is None:
        return BadSettings(f"There are no accounts in the schema {schema_name} yet. Run a flow first.")
    return BadSettings(f"There is no account {name} in the schema {schema_name}. Choose another --integration.")


def _show(name: str, account: Account, zone: ZoneInfo) -> None:
    last = runs.last_run(account)
    if last is not None:
        print(
            f"{name}: last run {last.flow}, {last.state}, started {last.started_at.astimezone(zone):%Y-%m-%d %H:%M %Z}"
        )
        if last.message:
            print(printable(last.message, LONGEST_MESSAGE))
    if not accounts.stays(account):
        print(f"Removing {name} is not finished. Run klaviyo-pg remove {name} to resume it.")
    names = {row.id: row.name for row in lookups.metrics(account)}
    if days := reconciliation.differences(account):
        print(f"{summary(days)} See the table reconciliation.")
    if people := erase.pending(account):
        number = "1 person" if people == 1 else f"{people:,} people"
        print(f"Erasing {number} is not finished. The next daily run does the rest, or klaviyo-pg erase.")
    chunks = backfill_ledger.chunks(account)
    Console().print(_table(name, names, summaries(chunks)) if chunks else "No backfill yet.")


def _table(account: str, names: Mapping[str, str | None], rows: Sequence[Summary]) -> Table:
    table = Table(title=escape(f"{account}: history"))
    has_uncounted = any(row.loaded_uncounted for row in rows)  # rarely, and few terminals have room for another column
    columns = ["metric", "expected", "loaded", "left", "chunks done", "failed", "seconds"]
    for name in [*columns, "loaded uncounted"] if has_uncounted else columns:
        table.add_column(name, justify="left" if name == "metric" else "right")
    for row in sorted(rows, key=lambda row: -row.expected):
        table.add_row(
            escape(printable(names.get(row.metric_id) or row.metric_id)),
            f"{row.expected:,}",
            f"{row.loaded:,}",
            f"{row.waiting:,}",
            f"{row.done} of {row.chunks}",
            str(row.failed),
            f"{row.seconds:,.1f}",
            *([f"{row.loaded_uncounted:,}"] if has_uncounted else ()),
        )
    return table


def _draw(file: Path, name: str, account: Account, since: datetime) -> None:
    from pipeline.coverage_picture import picture

    covered = coverage.read(account, name, datetime.now(UTC).date(), since)
    image = picture(covered, "svg" if file.suffix == ".svg" else "png")
    try:
        file.write_bytes(image)
    except OSError as error:
        raise BadSettings(f"--coverage {file}: cannot write the file ({error.strerror}).") from None
    print(f"Wrote {file}")


def psql(arguments: Namespace) -> NoReturn:
    """Replace this process by psql, connected to the warehouse."""
    settings = check_settings()
    parameters = address.parse(warehouse_url(settings))
    program = "psql"
    if settings.database_url is None:
        program = str(embedded.psql(settings.data_dir))
        embedded.keep_after_exec(settings.data_dir)
    environment = without_secrets(os.environ)
    search_path = f"-c search_path={_option(settings.warehouse_schema)},public"
    environment["PGOPTIONS"] = f"{search_path} {parameters.pop('options', '')}".strip()
    environment |= _hidden(parameters)
    try:
        os.execvpe(program, ["psql", make_conninfo("", **parameters), *arguments.rest], environment)
    except FileNotFoundError:
        raise BadSettings("psql is not installed on this machine. Install the PostgreSQL client.") from None


def _hidden(parameters: dict[str, str]) -> dict[str, str]:
    """Move the secrets from the parameters, which other users of the machine can see, into variables of psql.

    Those that libpq reads from no variable go into a service file, which has no name and ends with psql.
    """
    secrets = {name: parameters.pop(name) for name in address.secret_names() if name in parameters}
    variables = {"PGPASSWORD": secrets.pop("password")} if "password" in secrets else {}
    if not secrets:
        return variables
    if "service" in parameters:
        raise BadSettings(f"Move {min(secrets)} from DATABASE_URL into the service {parameters['service']}.")
    lines = ["[warehouse]", *(f"{name}={value}" for name, value in secrets.items())]
    with TemporaryFile() as nameless:
        file = os.dup(nameless.fileno())
    os.write(file, "\n".join([*lines, ""]).encode())
    os.set_inheritable(file, True)
    parameters["service"] = "warehouse"
    return {**variables, "PGSERVICEFILE": f"/dev/fd/{file}"}


def _option(name: str) -> str:
    """Quote an identifier for PGOPTIONS, in which blanks and backslashes need a backslash."""
    quoted = '"{}"'.format(name.replace('"', '""'))
    return re.sub(r"([\\\s])", r"\\\1", quoted)


def rename(arguments: Namespace) -> int:
    """Give an account another name."""
    settings, old, new = check_settings(), arguments.old, arguments.new
    schema_name = settings.warehouse_schema
    if not new.strip():
        raise BadSettings("The new name must not be blank.")
    with open_warehouse(settings) as connection:
        registered = accounts.find(connection, schema_name, old)
        if registered is None:
            raise no_account(schema_name, old)
        if accounts.find(connection, schema_name, new) is not None:
            raise BadSettings(f"There is an account {new} in the schema {schema_name} already. Choose another name.")
        account = Account(connection, schema_name, registered.integration_id)
        idle.keep_runs_out(account, old)
        accounts.rename(connection, schema_name, old, new)
    print(f"Renamed {old} to {new}. Set KLAVIYO_INTEGRATION={new}, also in deployments and blocks.")
    return 0
