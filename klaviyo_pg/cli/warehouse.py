"""The warehouse as commands open it without a run; and the commands psql and rename."""

import os
import re
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import NoReturn

from psycopg import Connection, errors
from psycopg.conninfo import make_conninfo

from klaviyo_pg.catalogue import bookkeeping
from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.environment import without_secrets
from klaviyo_pg.errors import BadSettings, DatabaseUnusable, KlaviyoPgError
from klaviyo_pg.postgres import (
    accounts,
    address,
    embedded,
    idle,
    schema,
)
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.connect import connect, translated
from klaviyo_pg.settings import Settings


def chosen_accounts(connection: Connection, schema: str, integration: str | None) -> list[tuple[str, Account]]:
    """Return the accounts of a warehouse with their names, or only this one. Raises BadSettings if it has none."""
    chosen = [each for each in accounts.all_accounts(connection, schema) if integration in (None, each[0])]
    if not chosen:
        raise no_account(connection, schema, integration)
    return chosen


def chosen_account(connection: Connection, schema: str, name: str, option: str = "--integration") -> Account:
    """Return the account of this name, which `option` has chosen. Raises BadSettings if the warehouse has none."""
    registered = accounts.find(connection, schema, name)
    if registered is None:
        raise no_account(connection, schema, name, option)
    return Account(connection, schema, registered.integration_id)


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
    return no_warehouse(name)


def no_warehouse(name: str) -> BadSettings:
    """Return the error that a schema of this name has no warehouse."""
    return BadSettings(f"There is no warehouse in the schema {name} yet. Run a flow first.")


def warehouse_url(settings: Settings) -> str:
    """Return the URL of a warehouse that exists: looking for an embedded Postgres must not create one."""
    if settings.database_url is None and not embedded.exists(settings.data_dir):
        raise BadSettings(
            "There is no warehouse: DATABASE_URL is not set, and there is no embedded Postgres in "
            f"{settings.data_dir.absolute()}. Run a flow first, or change to the folder where one ran."
        )
    return embedded.warehouse_url(settings)


def no_account(
    connection: Connection, schema_name: str, name: str | None, option: str = "--integration"
) -> BadSettings:
    """Return the error that a warehouse has no account, or none of this name, which `option` has chosen."""
    others = [each for each, _ in accounts.all_accounts(connection, schema_name)]
    if name is None or not others:
        return BadSettings(f"There are no accounts in the schema {schema_name} yet. Run a flow first.")
    return BadSettings(
        f"There is no account {name} in the schema {schema_name}. Choose another {option}: {', '.join(others)}."
    )


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
        account = chosen_account(connection, schema_name, old, "name")
        if accounts.find(connection, schema_name, new) is not None:
            raise BadSettings(f"There is an account {new} in the schema {schema_name} already. Choose another name.")
        idle.keep_runs_out(account, old)
        accounts.rename(connection, schema_name, old, new)
    print(f"Renamed {old} to {new}. Set KLAVIYO_INTEGRATION={new}, also in deployments and blocks.")
    return 0
