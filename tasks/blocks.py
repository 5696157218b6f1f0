"""Prefect blocks that contain an account and a warehouse, in place of environment variables.

A flow's parameters contain the names of blocks. Their content is loaded here and goes nowhere but into the settings.
"""

from typing import ClassVar, Literal, TypeVar

from prefect import get_run_logger, runtime
from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from klaviyo_pg.errors import BadKey, BadSettings
from klaviyo_pg.settings import Revision, Settings, load_settings, misspelled_settings

_Kind = TypeVar("_Kind", bound=Block)


class KlaviyoCredentials(Block):
    """One Klaviyo account: its API key, and its name in the warehouse."""

    _block_type_name: ClassVar[str] = "Klaviyo Credentials"
    _block_type_slug: ClassVar[str] = "klaviyo-credentials"
    _description: ClassVar[str] = "One Klaviyo account: its API key, and its name in the warehouse."

    api_key: SecretStr = Field(description="Private API key of the account (pk_...).")
    integration: str = Field(
        "default", description="Name of the account in the warehouse; a different one for each account."
    )
    dialect: Literal["current", "legacy"] = Field("current", description="Dialect of the API.")
    revision: Revision = Field("2026-07-15", description="Revision of the API, in the current dialect.")
    base_url: str = Field("https://a.klaviyo.com", description="URL of the API.")
    account_id: str | None = Field(None, description="Klaviyo's id of the account. Default: the API is asked for it.")

    def changes(self) -> dict[str, object]:
        """Return the settings that this block stands for."""
        return {
            "klaviyo_api_key": self.api_key,
            "klaviyo_integration": self.integration,
            "klaviyo_dialect": self.dialect,
            "klaviyo_revision": self.revision,
            "klaviyo_base_url": self.base_url,
            "klaviyo_account_id": self.account_id or "",  # KLAVIYO_ACCOUNT_ID belongs to the account in the environment
        }


def settings_from(klaviyo: str | None, warehouse: str | None, **changes: object) -> Settings:
    """Return the settings of the environment, changed by the blocks with these names, and those by `changes`.

    Raises BadSettings where there is no such block, or where its content cannot be used, and BadKey if neither a block
    nor the environment of a deployed run has the key.
    """
    from_blocks: dict[str, object] = {}
    if klaviyo is not None:
        from_blocks |= load_block(KlaviyoCredentials, klaviyo).changes()
    if warehouse is not None:
        from tasks.warehouse_block import database_url  # imports SQLAlchemy's ORM, which few runs need

        from_blocks["database_url"] = SecretStr(database_url(warehouse))
    settings = load_settings(**from_blocks | {name: value for name, value in changes.items() if value is not None})
    if settings.klaviyo_api_key is None and is_deployed():
        raise BadKey(
            "No API key. The run names no Klaviyo Credentials block, and its worker has no KLAVIYO_API_KEY. Save the "
            "account with klaviyo-pg save-blocks --klaviyo NAME, and deploy again with KLAVIYO_BLOCK=NAME."
        )
    log = get_run_logger()
    for sentence in misspelled_settings():  # a deployed run has no command that would say so
        log.warning(sentence)
    log.info(
        "Account %s from %s, warehouse from %s",
        settings.klaviyo_integration,
        f"the block {klaviyo}" if klaviyo is not None else "the environment",
        f"the block {warehouse}" if warehouse is not None else "the environment",
    )
    return settings


def is_deployed() -> bool:
    """Return whether this run comes from a deployment, so that no command has checked the settings."""
    return bool(runtime.deployment.id)


def load_block(kind: type[_Kind], name: str) -> _Kind:
    """Load a block. Raises BadSettings where there is no such block, or where it cannot be read."""
    try:
        loaded = kind.load(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise BadSettings(f"Cannot read the {kind.get_block_type_name()} block {name}: save it again.") from None
        raise BadSettings(f"There is no {kind.get_block_type_name()} block named {name}.") from None
    assert isinstance(loaded, kind)
    return loaded
