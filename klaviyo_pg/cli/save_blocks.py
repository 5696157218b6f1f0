"""The command that saves settings as blocks on the Prefect server. What a block contains is in tasks.save_blocks."""

from argparse import Namespace

from klaviyo_pg.cli.preflight import check_settings
from klaviyo_pg.cli.startup import Startup
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Settings, load_settings


def save_blocks(arguments: Namespace) -> int:
    """Save the account and the warehouse as the blocks that are named."""
    settings = checked_settings(arguments)
    with Startup(None, arguments.began) as startup:
        from tasks.local import check_server
        from tasks.save_blocks import make, save

        blocks = make(settings, arguments.klaviyo, arguments.warehouse)
        startup.wait()
        if startup.must_check_server:
            check_server()
        save(blocks)
    return 0


def checked_settings(arguments: Namespace) -> Settings:
    """Return the settings. Raise the error with which a block could not be made or used, before a server is started.

    An account has the name of its block, unless KLAVIYO_INTEGRATION gives it another one.
    """
    settings = check_settings()
    if arguments.klaviyo is not None:
        if "klaviyo_integration" not in settings.model_fields_set:
            settings = load_settings(klaviyo_integration=arguments.klaviyo)
        settings.api_key  # noqa: B018  # raises BadKey if it is missing or malformed
        if not arguments.no_check:
            _check_account(settings)
    if arguments.warehouse is not None and settings.database_url is None:
        raise BadSettings("There is no warehouse to save. Set DATABASE_URL.")
    return settings


def _check_account(settings: Settings) -> None:
    """Raise the error with which Klaviyo would refuse the key, unless it takes long to answer."""
    from klaviyo_pg.cli.reachable import check_database_and_account  # imports the API client

    check_database_and_account(settings, None)
