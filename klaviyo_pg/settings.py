"""Every setting, read from the environment or .env and validated. Built once, in flows, and passed down.

This module knows neither command-line flags nor flow parameters: callers pass the label that an error should show.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from klaviyo_pg.errors import BadKey, BadSettings

_LONGEST_NAME = 63  # bytes; Postgres truncates longer identifiers
_SHORTEST_SALT = 16  # characters
_FIRST_YEAR = 1900  # no email is older, and every year back costs requests
_LAST_YEAR = 9998  # a day can still be added without overflowing datetime
_BLIND_LOOKBACK_DAYS = 7.0  # Klaviyo delivers events days late, and only counts would reveal them
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COUNTED_DAYS = 1826
"""The age in days up to which the API counts events: five years."""


class Settings(BaseSettings):
    """The configuration of a run. Each field is set by the environment variable of the same name in upper case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    klaviyo_api_key: SecretStr | None = Field(
        None,
        description="Private API key of the Klaviyo account (pk_...), with read access to everything to be synced.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="URL of the warehouse (postgresql://...). If unset, an embedded Postgres in DATA_DIR is used.",
    )
    klaviyo_base_url: str = Field(
        "https://a.klaviyo.com", description="Base URL of the API. Plain http is accepted only for localhost."
    )
    klaviyo_dialect: Literal["current", "legacy"] = Field(
        "current",
        description="API dialect: current (JSON:API, revision 2026-07-15) or legacy (v1/v2, retired by Klaviyo).",
    )
    klaviyo_integration: str = Field(
        "default",
        min_length=1,
        description="Name of the account in this warehouse. Each account needs a different name.",
    )
    klaviyo_account_id: str | None = Field(
        None, description="Klaviyo's ID of the account. If unset, it is read from the API."
    )
    warehouse_schema: str = Field(
        "klaviyo", min_length=1, max_length=63, description="Schema that contains the tables."
    )
    lookback_days: float = Field(
        3,
        ge=0,
        le=3650,
        description="Days before the watermark that are always read again, because recent events may still change.",
    )
    reconcile_days: int = Field(
        30,
        ge=0,
        le=COUNTED_DAYS,
        description="Days of counts that daily runs compare with Klaviyo's to find missing events. 0 turns this off.",
    )
    reconcile_history_requests: int = Field(
        500,
        ge=0,
        le=1_000_000,
        description="Requests of a reconcile run for counts of history older than RECONCILE_DAYS. 0 turns this off.",
    )
    first_sync_days: float = Field(
        30, gt=0, le=36500, description="Days of events that the first run of an account reads."
    )
    membership_sweep_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days between full reads of a list, which find out who has left it. 0 turns them off.",
    )
    profile_sweep_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days between sweeps of the IDs of all profiles, which find out who was deleted or merged. 0 turns "
        "them off.",
    )
    profile_sweep_requests: int = Field(
        6_000,
        ge=1,
        description="Requests for the sweep of profiles in one daily run. What is left is read by the next runs.",
    )
    deleted_profiles: Literal["mark", "erase"] = Field(
        "mark",
        description="Mark profiles that were deleted in Klaviyo with the time, or erase them once they have been "
        "missing on two days.",
    )
    max_loss_percent: float = Field(
        30,
        ge=0,
        le=100,
        description="Percentage of a stream's stored rows (at least 10) that a full read may lose before a second run "
        "has to confirm it. 100 turns this off.",
    )
    metrics: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Metrics to read, by name or ID, comma-separated or as a JSON list. A leading - excludes a metric.",
    )
    destinations: dict[str, str] = Field(
        {}, description='Event tables of individual metrics, by name or ID, as JSON: {"Opened Push": "opens"}.'
    )
    personal_data: Literal["keep", "hash", "drop"] = Field(
        "keep",
        description="Keep, hash or drop addresses, names, phone numbers, streets, coordinates and properties.",
    )
    personal_data_salt: SecretStr | None = Field(
        None,
        description="Secret of at least 16 characters that hash and drop require. Must not change once data is stored.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Chunks to read at the same time. If unset, 4 to 16, depending on how fast the API responds.",
    )
    chunk_events: int = Field(
        50_000, ge=1_000, le=10_000_000, description="Approximate number of events in one chunk of a backfill."
    )
    events_page_size: int = Field(
        1000,
        ge=1,
        le=1000,
        description="Events to request at once. If Klaviyo refuses so many, the run finds a size that it accepts.",
    )
    request_timeout_seconds: float = Field(
        120,
        gt=0,
        le=86400,
        description="Seconds that one request may take, from connecting to the end of the response.",
    )
    request_attempts: int = Field(8, ge=1, description="Attempts for one request before its chunk fails.")
    rate_limit_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of the API's rate limits to use. The rest is left to other clients of the account.",
    )
    retry_budget_seconds: float = Field(
        900,
        gt=0,
        description="Seconds to keep retrying one request, including the pauses that the API asks for.",
    )
    spool: bool = Field(
        True, description="Keep what a backfill has read on disk until it is loaded, so that nothing is read twice."
    )
    spool_megabytes: int = Field(
        2048, ge=1, description="Approximate spool limit in MB. Readers pause when it is reached."
    )
    spool_hours: float = Field(72, gt=0, description="Hours before unloaded spool data is deleted.")
    data_dir: Path = Field(
        Path(".data"),
        description="Folder for the embedded Postgres and the spool.",
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
            raise ValueError("must not be blank")
        return value

    @field_validator(
        "klaviyo_api_key", "database_url", "klaviyo_account_id", "concurrency", "personal_data_salt", mode="before"
    )
    @classmethod
    def _blank_is_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        url = _split_url(self.klaviyo_base_url)
        if not _has_host(url):
            raise ValueError("KLAVIYO_BASE_URL has no valid host. Use a URL such as https://a.klaviyo.com")
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ValueError("KLAVIYO_BASE_URL must start with https:// (http:// is accepted only for localhost)")
        if url.username or url.query:
            raise ValueError("KLAVIYO_BASE_URL must not contain a user name or a query string")
        if self.database_url and not self.database_url.get_secret_value().startswith(("postgresql", "postgres:")):
            raise ValueError("DATABASE_URL must start with postgresql://")
        if len(self.warehouse_schema.encode()) > _LONGEST_NAME or self.warehouse_schema.startswith("pg_"):
            raise ValueError("WAREHOUSE_SCHEMA must be at most 63 bytes long and must not start with pg_")
        if self.personal_data != "keep" and len(self.salt) < _SHORTEST_SALT:
            raise ValueError(
                f"PERSONAL_DATA={self.personal_data} requires PERSONAL_DATA_SALT. Set it to a secret of at least "
                f"{_SHORTEST_SALT} characters"
            )
        return self

    @property
    def spool_dir(self) -> Path:
        """The folder of the spool, with a subfolder for each account."""
        return self.data_dir / "spool"

    @property
    def api_key(self) -> str:
        """The API key in plain text. Raises BadKey if it is missing or malformed."""
        if self.klaviyo_api_key is None:
            raise BadKey("No API key. Set KLAVIYO_API_KEY to a private API key of the account.")
        key = self.klaviyo_api_key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            raise BadKey("KLAVIYO_API_KEY contains an invalid character. Copy the key from Klaviyo again.")
        return key

    @property
    def blind_lookback_days(self) -> float:
        """The overlap for metrics without counts: LOOKBACK_DAYS if it was set, otherwise at least a week."""
        is_set = "lookback_days" in self.model_fields_set
        return self.lookback_days if is_set else max(self.lookback_days, _BLIND_LOOKBACK_DAYS)

    @property
    def salt(self) -> str:
        """The secret that personal data is hashed with; empty if none is set."""
        return self.personal_data_salt.get_secret_value() if self.personal_data_salt else ""

    @property
    def salt_digest(self) -> str | None:
        """A digest that identifies the salt without revealing it; None if personal data is kept."""
        if self.personal_data == "keep":
            return None
        return sha256(f"klaviyo-pg salt {self.salt}".encode()).hexdigest()[:16]


def _split_url(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # an unclosed bracket
        return SplitResult("", "", "", "", "")


def _has_host(url: SplitResult) -> bool:
    try:
        return bool(url.hostname) and url.port != 0
    except ValueError:  # the port is not a number
        return False


def load_settings(**changes: object) -> Settings:
    """Read the settings from the environment and override some of them; None leaves a setting unchanged.

    Raises BadSettings, which names the first invalid setting.
    """
    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{name}: {reason}." if name else f"{reason}.") from None
    except SettingsError:  # raised only for DESTINATIONS: no other setting is decoded before it is validated
        raise BadSettings("DESTINATIONS: must be a JSON object.") from None
    except ValueError as error:
        raise BadSettings(f"Cannot parse a setting: {error}.") from None


def parse_since(label: str, text: str | None) -> datetime | None:
    """Parse the time from which events are read. Returns None if `text` is None.

    `label` names the argument in errors. Raises BadSettings, also if the time is in the future.
    """
    moment = None if text is None else parse_moment(label, text)
    if moment is not None and moment > datetime.now(UTC):
        raise BadSettings(f"{label} {text}: must not be in the future.")
    return moment


def parse_moment(label: str, text: str) -> datetime:
    """Parse a date or an ISO 8601 time, which is in UTC unless it has an offset.

    `label` names the argument in errors. Raises BadSettings.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadSettings(f"{label} {text}: use a date such as 2026-01-31, or an ISO 8601 time.") from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise BadSettings(f"{label} {text}: use a year from {_FIRST_YEAR} to {_LAST_YEAR}.")
    return moment.replace(tzinfo=moment.tzinfo or UTC)
