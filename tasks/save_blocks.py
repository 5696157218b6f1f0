"""`python -m tasks.save_blocks`: keep what the environment (or .env) says as blocks on the Prefect server.

So a key is typed once, into a file or a variable, and never into a command or a deployment.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import sqlalchemy
from prefect_sqlalchemy import SqlAlchemyConnector

from klaviyo_pg.errors import BadSettings, KlaviyoPgError
from klaviyo_pg.settings import Settings, load_settings
from tasks.blocks import KlaviyoCredentials, connector
from tasks.command import check_server


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+", text):
        raise argparse.ArgumentTypeError(f"{text} is no name of a block: lower-case letters, digits and dashes")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.save_blocks", description=__doc__.splitlines()[0])
    parser.add_argument("--klaviyo", metavar="NAME", type=_name, help="keep the account: KLAVIYO_API_KEY and the like")
    parser.add_argument("--warehouse", metavar="NAME", type=_name, help="keep the warehouse: DATABASE_URL")
    return parser


def _warehouse(settings: Settings) -> SqlAlchemyConnector:
    if settings.database_url is None:
        raise BadSettings("No warehouse: set DATABASE_URL.")
    try:
        return connector(settings.database_url.get_secret_value())
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise BadSettings("DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database.") from None


def _account(settings: Settings) -> KlaviyoCredentials:
    settings.api_key  # noqa: B018  # is there, and has no character that no key has
    assert settings.klaviyo_api_key
    return KlaviyoCredentials(
        api_key=settings.klaviyo_api_key,
        integration=settings.klaviyo_integration,
        dialect=settings.klaviyo_dialect,
        base_url=settings.klaviyo_base_url,
        account_id=settings.klaviyo_account_id,
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Register both kinds of block, and save those that are named. Ends the process."""
    given = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        account = _account(settings) if given.klaviyo else None
        warehouse = _warehouse(settings) if given.warehouse else None
        check_server()
    except KlaviyoPgError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    KlaviyoCredentials.register_type_and_schema()
    SqlAlchemyConnector.register_type_and_schema()
    if not (account or warehouse):
        print("Both kinds of block are known to the server; --klaviyo and --warehouse keep one of each.")
    for name, block in ((given.klaviyo, account), (given.warehouse, warehouse)):
        if block is not None:
            block.save(name, overwrite=True)
            print(f"Saved the {block.get_block_type_name()} block {name}.")
    sys.exit(0)


if __name__ == "__main__":
    main()
