"""`python -m tasks.save_blocks`: save the settings as blocks on the Prefect server. Knows no flow.

An API key is then typed once, into a file or a variable, and never into a command or a deployment.
"""

if __name__ == "__main__":
    from klaviyo_pg.cli import main

    main("save-blocks")

from collections.abc import Sequence

from prefect.blocks.core import Block
from prefect_sqlalchemy import SqlAlchemyConnector

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Settings
from tasks.blocks import KlaviyoCredentials
from tasks.warehouse_block import connector


def make(settings: Settings, account_name: str | None, warehouse_name: str | None) -> list[tuple[str, Block]]:
    """Return the blocks that are named, each with its name. Raises UserError if a setting is missing or invalid."""
    blocks: list[tuple[str, Block]] = []
    if account_name is not None:
        blocks.append((account_name, KlaviyoCredentials.of(settings)))
    if warehouse_name is not None:
        blocks.append((warehouse_name, _warehouse(settings)))
    return blocks


def save(blocks: Sequence[tuple[str, Block]]) -> None:
    """Register both kinds of block on the Prefect server, and save these."""
    KlaviyoCredentials.register_type_and_schema()
    SqlAlchemyConnector.register_type_and_schema()
    for name, block in blocks:
        block.save(name, overwrite=True)
        print(f"Saved the {block.get_block_type_name()} block {name}.")
        if isinstance(block, KlaviyoCredentials):
            if block.settings:
                print(f"It contains {', '.join(block.settings)}, which take precedence over the settings of workers.")
            print(
                f"Scheduled runs use it if you deploy with KLAVIYO_BLOCK={name}, or after klaviyo-pg schedule {name}."
            )
        else:
            print(f"Scheduled runs use it if you deploy with WAREHOUSE_BLOCK={name}.")
    if not blocks:
        print("Registered both kinds of block. Save blocks with --klaviyo NAME and --warehouse NAME.")


def _warehouse(settings: Settings) -> SqlAlchemyConnector:
    if settings.database_url is None:
        raise BadSettings("There is no warehouse to save. Set DATABASE_URL.")
    return connector(settings.database_url.get_secret_value())
