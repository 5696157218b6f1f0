"""Prefect blocks that name an account and a warehouse, in place of environment variables.

A flow's parameters hold the names of blocks; what is in them is loaded here, goes into the settings, and nowhere else.
"""

from typing import ClassVar, Literal, TypeVar

import sqlalchemy
from prefect import get_run_logger
from prefect.blocks.core import Block
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector
from pydantic import Field, SecretStr

from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Settings, load_settings

_DRIVER = "postgresql+psycopg"
_Kind = TypeVar("_Kind", bound=Block)


class KlaviyoCredentials(Block):
    """One Klaviyo account: its key, and what the warehouse calls it."""

    _block_type_name: ClassVar[str] = "Klaviyo Credentials"
    _block_type_slug: ClassVar[str] = "klaviyo-credentials"
    _description: ClassVar[str] = "One Klaviyo account: its key, and what the warehouse calls it."

    api_key: SecretStr = Field(description="Private API key of the account (pk_...).")
    integration: str = Field("default", description="What the warehouse calls the account; one name for each account.")
    dialect: Literal["current", "legacy"] = Field("current", description="The dialect of the API.")
    base_url: str = Field("https://a.klaviyo.com", description="Where the API is.")
    account_id: str | None = Field(None, description="Klaviyo's id of the account; asked from the API if not given.")

    def changes(self) -> dict[str, object]:
        """The settings that this block stands for."""
        return {
            "klaviyo_api_key": self.api_key,
            "klaviyo_integration": self.integration,
            "klaviyo_dialect": self.dialect,
            "klaviyo_base_url": self.base_url,
            "klaviyo_account_id": self.account_id or "",  # the environment's belongs to the environment's account
        }


def settings_from(klaviyo: str | None, warehouse: str | None, **changes: object) -> Settings:
    """Settings from the environment, changed by the blocks of these names, and those by `changes`.

    Raises BadSettings where there is no such block, or where it holds what cannot be used.
    """
    given: dict[str, object] = {}
    if klaviyo is not None:
        given |= _load(KlaviyoCredentials, klaviyo).changes()
    if warehouse is not None:
        given["database_url"] = SecretStr(_url(_load(SqlAlchemyConnector, warehouse), warehouse))
    settings = load_settings(**given | {name: value for name, value in changes.items() if value is not None})
    get_run_logger().info(
        "Account %s by %s, warehouse by %s",
        settings.klaviyo_integration,
        f"the block {klaviyo}" if klaviyo is not None else "environment",
        f"the block {warehouse}" if warehouse is not None else "environment",
    )
    return settings


def _load(kind: type[_Kind], name: str) -> _Kind:
    try:
        loaded = kind.load(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise BadSettings(f"The {kind.get_block_type_name()} block {name} cannot be used: save it again.") from None
        raise BadSettings(f"There is no {kind.get_block_type_name()} block named {name}.") from None
    assert isinstance(loaded, kind)
    return loaded


def _url(connector: SqlAlchemyConnector, name: str) -> str:
    parts = connector.connection_info
    if not isinstance(parts, ConnectionComponents):
        raise BadSettings(
            f"The block {name} holds a URL, which Prefect shows to everybody: save it with ConnectionComponents."
        )
    url = parts.create_url()
    if not url.drivername.startswith("postgresql"):
        raise BadSettings(f"The block {name} is for {url.drivername}: give one for {_DRIVER}.")
    more = {option: str(value) for option, value in (connector.connect_args or {}).items()}
    rendered: str = url.set(drivername="postgresql").update_query_dict(more).render_as_string(hide_password=False)
    return rendered


def connector(url: str) -> SqlAlchemyConnector:
    """A warehouse block of a URL's parts, as they are what Prefect keeps a password's secret in."""
    parts = sqlalchemy.make_url(url)
    return SqlAlchemyConnector(
        connection_info=ConnectionComponents(
            driver=_DRIVER,
            database=parts.database,
            username=parts.username,
            password=SecretStr(parts.password) if parts.password else None,
            host=parts.host,
            port=parts.port,
            query={name: value if isinstance(value, str) else value[-1] for name, value in parts.query.items()},
        )
    )
