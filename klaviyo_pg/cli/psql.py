"""The command `psql`: psql on the warehouse, with no secret in its arguments."""

import os
import re
from argparse import Namespace
from tempfile import TemporaryFile
from typing import NoReturn

from psycopg.conninfo import make_conninfo

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.warehouse import warehouse_url
from klaviyo_pg.environment import without_secrets
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.postgres import address
from klaviyo_pg.postgres.server import embedded


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
