"""The command `klaviyo-pg`: looking at the warehouse from a terminal."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from klaviyo_pg import __version__
from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.postgres import embedded
from klaviyo_pg.settings import load_settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="klaviyo-pg", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    psql = commands.add_parser("psql", help="open psql on the warehouse; further arguments go to psql", add_help=False)
    psql.set_defaults(run=_psql)
    return parser


def _psql(rest: Sequence[str]) -> int:
    """psql as a child process: the embedded Postgres has to stay for as long as somebody looks at it."""
    settings = load_settings()
    if settings.database_url is None:
        program, url = str(embedded.psql(settings.data_dir)), embedded.url(settings.data_dir)
    else:
        program, url = "psql", settings.database_url.get_secret_value()
    parts = conninfo_to_dict(url)
    environment = {**os.environ, "PGOPTIONS": f"-c search_path={settings.warehouse_schema},public"}
    password = parts.pop("password", None)
    if password:  # not as an argument, which everybody on the machine can see
        environment["PGPASSWORD"] = str(password)
    try:
        return subprocess.call(
            [program, make_conninfo(**{name: str(value) for name, value in parts.items()}), *rest], env=environment
        )
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
