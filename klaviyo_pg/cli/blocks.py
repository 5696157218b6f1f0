"""The command that saves settings as blocks on the Prefect server. What a block contains is in tasks.save_blocks."""

from argparse import Namespace

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.startup import Startup
from klaviyo_pg.errors import BadSettings


def save_blocks(arguments: Namespace) -> int:
    """Save the account and the warehouse as the blocks that are named."""
    _check(arguments)
    with Startup(None, arguments.began) as startup:
        from tasks.local import check_server
        from tasks.save_blocks import make, save

        blocks = make(arguments.klaviyo, arguments.warehouse)
        startup.wait()
        if startup.must_check_server:
            check_server()
        save(blocks)
    return 0


def _check(arguments: Namespace) -> None:
    """Raise the error with which a block could not be made, before a server is started."""
    settings = check_settings()
    if arguments.klaviyo is not None:
        settings.api_key  # noqa: B018  # raises BadKey if it is missing or malformed
    if arguments.warehouse is not None and settings.database_url is None:
        raise BadSettings("There is no warehouse to save. Set DATABASE_URL.")
