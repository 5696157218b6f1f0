"""The settings of a flow run: those of its environment, changed by the blocks and the parameters that it names."""

from prefect import get_run_logger, runtime
from pydantic import SecretStr

from klaviyo_pg import env_file
from klaviyo_pg.errors import BadKey
from klaviyo_pg.settings import Settings, ignored_variables, load_settings
from tasks.blocks import AccountBlock, KlaviyoCredentials, WarehouseBlock, load_block, name_of


def settings_from(klaviyo: AccountBlock, warehouse: WarehouseBlock, **changes: object) -> Settings:
    """Return the settings of the environment, changed by these blocks, and those by `changes`.

    Raises BadSettings where there is no such block, or where its content cannot be used, and BadKey if neither a block
    nor the environment of a deployed run has the key.
    """
    from_blocks: dict[str, object] = {}
    labels: dict[str, str] = {}
    account_from, block_name = "the environment", None
    if klaviyo is not None:
        loaded = load_block(KlaviyoCredentials, klaviyo)
        block_name = klaviyo if isinstance(klaviyo, str) else loaded._block_document_name
        block = f"the block {block_name}"
        from_blocks |= loaded.changes()
        labels = {name: f"{name.upper()} in {block}" for name in from_blocks if changes.get(name) is None}
        account_from = f"{block} with {', '.join(loaded.settings)}" if loaded.settings else block
    if warehouse is not None:
        from tasks.warehouse_block import database_url  # imports SQLAlchemy's ORM, which few runs need

        from_blocks["database_url"] = SecretStr(database_url(warehouse))
    settings = load_settings(
        labels, **from_blocks | {name: value for name, value in changes.items() if value is not None}
    )
    if block_name is not None:
        settings = settings.with_key_of(block_name)
    elif settings.klaviyo_api_key is None and is_deployed():
        raise BadKey(
            "No API key. The run names no Klaviyo Credentials block, and its worker has no KLAVIYO_API_KEY. Save the "
            "account with klaviyo-pg save-blocks --klaviyo NAME, and deploy again with KLAVIYO_BLOCK=NAME."
        )
    env_file.export_to_libraries()
    log = get_run_logger()
    for sentence in ignored_variables():  # a deployed run has no command that would say so
        log.warning(sentence)
    log.info(
        "Account %s from %s, warehouse from %s",
        settings.klaviyo_integration,
        account_from,
        f"the block {name_of(warehouse)}" if warehouse is not None else "the environment",
    )
    return settings


def is_deployed() -> bool:
    """Return whether this run comes from a deployment, so that no command has checked the settings."""
    return bool(runtime.deployment.id)
