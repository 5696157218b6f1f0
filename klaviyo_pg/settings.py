"""Every setting, read once from the environment (or .env) and checked. Built in flows and passed down."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from klaviyo_pg.errors import BadKey, BadSettings

_LONGEST_NAME = 63  # bytes, of anything in Postgres
_SHORTEST_SALT = 16  # characters
_FIRST_YEAR = 1900  # none of e-mail is older, and every step back costs requests
_LAST_YEAR = 9998  # an hour or a day behind it can still be told
_COUNTED_DAYS = 1826  # the API counts nothing that is older than five years
_BLIND_LOOKBACK_DAYS = 7.0  # Klaviyo delivers events days late, and without counts nothing tells of them
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseSettings):
    """What a run needs to know. Field names in upper case are the names of the environment variables."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    klaviyo_api_key: SecretStr | None = Field(
        None,
        description="Private API key of the account (pk_...), with read scopes for all that is to be synced.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="postgresql:// URL of the warehouse; without it an embedded Postgres under DATA_DIR is used.",
    )
    klaviyo_base_url: str = Field(
        "https://a.klaviyo.com", description="Where the API is; plain http is accepted for this machine only."
    )
    klaviyo_dialect: Literal["current", "legacy"] = Field(
        "current",
        description="current (JSON:API, revision 2026-07-15) or legacy (v1/v2, retired by Klaviyo).",
    )
    klaviyo_integration: str = Field(
        "default",
        min_length=1,
        description="What this warehouse calls the account; one name for each account.",
    )
    klaviyo_account_id: str | None = Field(
        None, description="Klaviyo's id of the account; asked from the API where it is not given."
    )
    warehouse_schema: str = Field("klaviyo", min_length=1, max_length=63, description="Schema that holds the tables.")
    lookback_days: float = Field(
        3,
        ge=0,
        le=3650,
        description="Days before the watermark that are read again in any case: what is known of an event may grow.",
    )
    reconcile_days: int = Field(
        30,
        ge=0,
        le=_COUNTED_DAYS,
        description="Days for which counts are compared, to find what came late or is missing; 0: by reconcile only.",
    )
    first_sync_days: float = Field(
        30, gt=0, le=36500, description="Days of events that the first run of an account reads."
    )
    membership_sweep_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days after which all members of a list are read again, to learn who has left it; 0: never.",
    )
    metrics: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Metrics to read, by name or id: comma-separated or a JSON list; a leading - leaves one out.",
    )
    destinations: dict[str, str] = Field(
        {}, description='Event tables of single metrics, by name or id, as JSON: {"Opened Push": "opens"}.'
    )
    personal_data: Literal["keep", "hash", "drop"] = Field(
        "keep",
        description="Addresses, names, phones, streets, coordinates and properties: keep, hash or drop them.",
    )
    personal_data_salt: SecretStr | None = Field(
        None,
        description="Secret of 16 or more characters that hash and drop need; the same in every run of a warehouse.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Parts that are read side by side; without it 4, and as many as the API allows in a backfill.",
    )
    chunk_events: int = Field(50_000, ge=1_000, le=10_000_000, description="Events in one chunk of a backfill, about.")
    request_timeout_seconds: float = Field(
        120, gt=0, le=86400, description="How long to wait for an answer of the API."
    )
    request_attempts: int = Field(8, ge=1, description="How often one request is tried before its part fails.")
    rate_limit_share: float = Field(
        0.9, gt=0, le=1, description="Share of the API's rate limits to use; the rest is for other readers."
    )
    retry_budget_seconds: float = Field(
        900,
        gt=0,
        description="How long one request may go on being tried, waits that the API asks for included.",
    )
    spool: bool = Field(
        True, description="Whether a backfill keeps what it has read on disk until it is loaded, to read nothing twice."
    )
    spool_megabytes: int = Field(2048, ge=1, description="How much of that there may be, about; then reading waits.")
    spool_hours: float = Field(72, gt=0, description="After how long it is thrown away if it was never loaded.")
    data_dir: Path = Field(
        Path(".data"),
        description="Folder for the embedded Postgres and for extractions that wait to be loaded.",
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return tuple(json.loads(value))
        return tuple(name for part in value.split(",") if (name := part.strip()))

    @field_validator("klaviyo_integration")
    @classmethod
    def _is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the name is blank")
        return value

    @field_validator(
        "klaviyo_api_key", "database_url", "klaviyo_account_id", "concurrency", "personal_data_salt", mode="before"
    )
    @classmethod
    def _blank_is_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        url = urlsplit(self.klaviyo_base_url)
        if not _has_host(url):
            raise ValueError("KLAVIYO_BASE_URL is no URL of a host such as https://a.klaviyo.com")
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ValueError("KLAVIYO_BASE_URL has to begin with https:// (http:// only for this machine)")
        if url.username or url.query:
            raise ValueError("KLAVIYO_BASE_URL may hold neither a user name nor a query")
        if self.database_url and not self.database_url.get_secret_value().startswith(("postgresql", "postgres:")):
            raise ValueError("DATABASE_URL has to begin with postgresql://")
        if len(self.warehouse_schema.encode()) > _LONGEST_NAME or self.warehouse_schema.startswith("pg_"):
            raise ValueError("WAREHOUSE_SCHEMA has to be a name of at most 63 bytes that does not begin with pg_")
        if self.personal_data != "keep" and len(self.salt) < _SHORTEST_SALT:
            raise ValueError(
                f"PERSONAL_DATA={self.personal_data} needs PERSONAL_DATA_SALT, a secret of at least {_SHORTEST_SALT} "
                "characters"
            )
        return self

    @property
    def spool_dir(self) -> Path:
        """Where extractions wait to be loaded: a folder for each account."""
        return self.data_dir / "spool"

    @property
    def api_key(self) -> str:
        """The key itself. Raises BadKey where none is set."""
        if self.klaviyo_api_key is None:
            raise BadKey("No API key: set KLAVIYO_API_KEY to a private key of the account, or try --sandbox.")
        key = self.klaviyo_api_key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            raise BadKey("KLAVIYO_API_KEY holds a character that no key has: copy it again.")
        return key

    @property
    def blind_lookback_days(self) -> float:
        """LOOKBACK_DAYS where no counts are compared; longer then, unless it was given."""
        is_given = "lookback_days" in self.model_fields_set
        return self.lookback_days if is_given else max(self.lookback_days, _BLIND_LOOKBACK_DAYS)

    @property
    def salt(self) -> str:
        """What personal data are hashed with; empty where none is set."""
        return self.personal_data_salt.get_secret_value() if self.personal_data_salt else ""

    @property
    def salt_digest(self) -> str | None:
        """Tells one salt from another; None where none is used."""
        if self.personal_data == "keep":
            return None
        return sha256(f"klaviyo-pg salt {self.salt}".encode()).hexdigest()[:16]


def _has_host(url: SplitResult) -> bool:
    try:
        return bool(url.hostname) and url.port != 0
    except ValueError:  # the port is no number
        return False


def load_settings(**changes: object) -> Settings:
    """Settings from the environment, with some of them changed. Raises BadSettings, in one sentence."""
    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{name}: {reason}." if name else f"{reason}.") from None
    except (json.JSONDecodeError, ValueError) as error:
        raise BadSettings(f"A setting cannot be read: {error}.") from None


def parse_since(text: str | None) -> datetime | None:
    """What --since says; None where it says nothing."""
    moment = None if text is None else parse_moment("--since", text)
    if moment is not None and moment > datetime.now(UTC):
        raise BadSettings(f"--since {text}: give a time that has been.")
    return moment


def parse_moment(flag: str, text: str) -> datetime:
    """A point in time given by the user: a date or an ISO 8601 time, UTC where it names no offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadSettings(f"{flag} {text}: give a date such as 2026-01-31, or an ISO 8601 time.") from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise BadSettings(f"{flag} {text}: give a year from {_FIRST_YEAR} to {_LAST_YEAR}.")
    return moment.replace(tzinfo=moment.tzinfo or UTC)
