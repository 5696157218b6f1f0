"""Prefect blocks that contain an account and a warehouse, in place of environment variables.

A flow's parameters contain the names of blocks, or the references that Prefect's run form writes when you pick a block.
The content is loaded here and goes nowhere but into the settings.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, with_config
from typing_extensions import TypedDict

from klaviyo_pg import names
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.settings import Revision, Settings

_Kind = TypeVar("_Kind", bound=Block)


def _picker(title: str, slug: str) -> ConfigDict:
    """Return what makes Prefect's run form offer the blocks of a type.

    So would a parameter of the block's own type, but that of a warehouse takes long to import, and few runs need it.
    """
    return ConfigDict(title=title, json_schema_extra={"block_type_slug": slug})


@with_config(_picker("Klaviyo Credentials", "klaviyo-credentials"))
class PickedAccount(TypedDict):
    """A block with an account that was picked in the run form: {"$ref": {"block_document_id": ...}}."""


@with_config(_picker("SQLAlchemy Connector", "sqlalchemy-connector"))
class PickedWarehouse(TypedDict):
    """A block with a warehouse that was picked in the run form."""


Picked = Mapping[str, object]
AccountBlock = PickedAccount | str | None
WarehouseBlock = PickedWarehouse | str | None


# Of the machine that runs a flow.
_OF_WORKERS = frozenset(
    {
        *("embedded_postgres", "data_dir", "spool", "spool_megabytes", "spool_hours"),
        *("concurrency", "processes", "log_format", "log_level", "quiet", "display_timezone"),
        "clock_tolerance_seconds",
    }
)
_SECRET = frozenset({"database_url", "personal_data_salt"})  # a field of a block keeps each of them


class KlaviyoCredentials(Block):
    """One Klaviyo account: its API key, its name in the warehouse, and the settings that are its own."""

    _block_type_name: ClassVar[str] = "Klaviyo Credentials"
    _block_type_slug: ClassVar[str] = "klaviyo-credentials"
    _description: ClassVar[str] = "One Klaviyo account: its API key, its name in the warehouse, and its settings."

    api_key: SecretStr = Field(description="Private API key of the account (pk_...).")
    integration: str = Field(
        "default", description="Name of the account in the warehouse; a different one for each account."
    )
    dialect: Literal["current", "legacy"] = Field("current", description="Dialect of the API.")
    revision: Revision = Field("2026-07-15", description="Revision of the API, in the current dialect.")
    base_url: str = Field("https://a.klaviyo.com", description="URL of the API.")
    account_id: str | None = Field(None, description="Klaviyo's id of the account. Default: the API is asked for it.")
    personal_data_salt: SecretStr | None = Field(None, description="The secret that personal data is hashed with.")
    settings: dict[str, Any] = Field(
        {},
        description='Other settings of the account, such as {"PERSONAL_DATA": "hash"}. They take precedence over those '
        "of the worker.",
    )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the block of the account that settings name, with the other settings that were set for it.

        Settings that belong to a machine, such as CONCURRENCY, are left to each worker. Raises BadKey if the key is
        missing or malformed.
        """
        settings.api_key  # noqa: B018  # raises BadKey
        assert settings.klaviyo_api_key
        names_set = {each for each in settings.model_fields_set if _may_be_in_block(each)} - _OF_WORKERS
        values = settings.model_dump(mode="json", include=names_set)
        return cls(
            api_key=settings.klaviyo_api_key,
            integration=settings.klaviyo_integration,
            dialect=settings.klaviyo_dialect,
            revision=settings.klaviyo_revision,
            base_url=settings.klaviyo_base_url,
            account_id=settings.klaviyo_account_id,
            personal_data_salt=settings.personal_data_salt,
            settings={name.upper(): values[name] for name in sorted(values)},
        )

    def changes(self) -> dict[str, object]:
        """Return the settings that this block stands for. Raises BadSettings if it has a name that is no setting."""
        others = {name.upper().removeprefix(names.PREFIX).lower(): value for name, value in self.settings.items()}
        for name in others:
            if not _may_be_in_block(name):
                raise BadSettings(
                    f"{name.upper()} cannot be among the settings of a Klaviyo Credentials block. Correct the block."
                )
        return others | {
            "personal_data_salt": self.personal_data_salt,
            "klaviyo_api_key": self.api_key,
            "klaviyo_integration": self.integration,
            "klaviyo_dialect": self.dialect,
            "klaviyo_revision": self.revision,
            "klaviyo_base_url": self.base_url,
            "klaviyo_account_id": self.account_id or "",  # KLAVIYO_ACCOUNT_ID belongs to the account in the environment
        }


def _may_be_in_block(setting: str) -> bool:
    """Return whether a block can have this setting among its `settings`, by its name in lower case."""
    return setting in Settings.model_fields and setting not in _SECRET and not setting.startswith("klaviyo_")


def name_of(block: str | Picked) -> str:
    """Return the name of a block, also of one that was picked. Raises BadSettings if that does not exist any more."""
    return block if isinstance(block, str) else str(load_block(Block, block)._block_document_name)


def load_block(kind: type[_Kind], block: str | Picked) -> _Kind:
    """Load a block. Raises BadSettings where there is no such block, or where it cannot be read."""
    name = "block" if kind is Block else f"{kind.get_block_type_name()} block"
    if isinstance(block, str):
        return _loaded(kind, partial(kind.load, block), f"{name} {block}", f"There is no {name} named {block}.")
    load = partial(kind.load_from_ref, cast(dict[str, str], block.get("$ref")))
    return _loaded(kind, load, f"{name} picked for this run", f"The {name} picked for this run no longer exists.")


def _loaded(kind: type[_Kind], load: Callable[[], object], which: str, is_missing: str) -> _Kind:
    try:
        loaded = load()
    except ValueError as error:
        if "Unable to find block document" in str(error):
            raise BadSettings(is_missing) from None
        raise BadSettings(f"Cannot read the {which}: save it again.") from None
    assert isinstance(loaded, kind)
    return loaded
