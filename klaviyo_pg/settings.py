"""Every setting, read from the environment or .env and validated. Built once, in flows, and passed down.

This module knows neither command-line flags nor flow parameters: callers pass the label that an error should show.
"""

import json
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self, get_args
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from klaviyo_pg import env_file, names, schemas
from klaviyo_pg.errors import BadKey, BadSettings
from klaviyo_pg.windows import midnight

_SHORTEST_SALT = 16  # characters
_BLIND_LOOKBACK_DAYS = 7.0  # Klaviyo delivers events days late, and only counts would reveal them
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DESTINATIONS = 'must be a JSON object of metrics and their event tables, such as {"Opened Push": "opens"}'
Revision = Literal["2026-07-15", "2026-10-15"]
"""A revision of the API."""
Mart = Literal["campaign_performance", "flow_performance", "member_engagement", "list_growth", "deliverability"]
"""A view for analysts whose rows can be stored."""
_NO_LABELS: Mapping[str, str] = MappingProxyType({})
COUNTED_DAYS = 1826
"""The age in days up to which the API counts events: five years."""


class Settings(BaseSettings):
    """The configuration of a run. Each field is set by the environment variable of the same name in upper case.

    The same name with the prefix KLAVIYO_PG_ takes precedence, wherever it is set.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    _block: str | None = None  # of Prefect, which has the key

    klaviyo_api_key: SecretStr | None = Field(
        None,
        description="Private API key of the Klaviyo account (pk_...), with read access to everything to be synced.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="URL of the warehouse (postgresql://...). If unset, see EMBEDDED_POSTGRES.",
    )
    embedded_postgres: bool = Field(
        False,
        description="Load a real account into an embedded Postgres in DATA_DIR if DATABASE_URL is not set. The sandbox "
        "does so anyway.",
    )
    klaviyo_base_url: str = Field(
        "https://a.klaviyo.com", description="Base URL of the API. Plain http is accepted only for localhost."
    )
    klaviyo_dialect: Literal["current", "legacy"] = Field(
        "current",
        description="API dialect: current (JSON:API) or legacy (v1/v2, retired by Klaviyo).",
    )
    klaviyo_revision: Revision = Field(
        "2026-07-15",
        description="Revision of the current dialect: 2026-07-15 or 2026-10-15, which differ in campaigns only.",
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
        "klaviyo",
        min_length=1,
        description="Schema that contains the tables. Internal tables are in a second one, such as klaviyo_internal.",
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
    count_requests: int = Field(
        300,
        ge=1,
        le=1_000_000,
        description="Requests of a daily run for counts. Beyond that, metrics without events in RECONCILE_DAYS are "
        "counted in turn, so that each is counted at least once in seven daily runs.",
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
        description="Days between full reads of a list or segment, which show who has left. 0 turns them off.",
    )
    membership_sweep_requests: int = Field(
        6_000,
        ge=1,
        description="Requests for full reads of lists in one daily run, and as many for segments. The next runs read "
        "the rest.",
    )
    segments: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Segments whose members to read, by name or ID, comma-separated or as a JSON list.",
    )
    profile_sweep_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days between sweeps of the IDs of all profiles, which show who was deleted or merged. 0 turns "
        "them off.",
    )
    profile_sweep_requests: int = Field(
        6_000,
        ge=1,
        description="Requests for the sweep of profiles in one daily run. The next runs read the rest.",
    )
    report_days: int = Field(
        30,
        ge=1,
        le=365,
        description="Send dates whose reports are read again every day, because conversions follow later.",
    )
    report_requests: int = Field(
        45,
        ge=1,
        le=225,
        description="Requests of a day for reports on campaigns, and as many for flows. Klaviyo allows 225 of each. "
        "Extra pages, retries and changing REPORT_METRIC use more.",
    )
    report_metric: str | None = Field(
        None,
        description="Metric by which reports count conversions, by name or ID. If unset, the account's metric for "
        "revenue.",
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
    tables: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Tables to fill, comma-separated or as a JSON list. A leading - excludes a table; all means "
        "every table, default all but the opt-in tables and reports.",
    )
    destinations: dict[str, str] = Field(
        {},
        description='Event tables of individual metrics, by name or ID, as JSON: {"Opened Push": "opens"}. Events in '
        "unsubscribes end list memberships, except those of metrics of text messages and push notifications. Stored "
        "events move along. A metric whose entry is removed keeps its table: to take an entry back, set another one.",
    )
    personal_data: Literal["keep", "hash", "drop"] = Field(
        "keep",
        description="Keep, hash or drop addresses, names, phone numbers, streets, coordinates and properties.",
    )
    personal_data_salt: SecretStr | None = Field(
        None,
        description="Secret of at least 16 characters that hash and drop require. Must not change once data is stored.",
    )
    readable_properties: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names of properties that hash and drop keep readable, besides names of usual words, "
        "comma-separated or as a JSON list.",
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Chunks to read at the same time. If unset, 4 to 16, depending on how fast the API responds.",
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes of a backfill: one loads, the others read. If unset, as many as there are processors to "
        "spare.",
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
        le=604_800,
        description="Seconds to keep retrying one request, including the pauses that the API asks for. Waiting before "
        "the first try, to keep the rate limit, does not count.",
    )
    clock_tolerance_seconds: float = Field(
        300,
        ge=10,
        le=3600,
        description="Seconds by which this machine's clock may differ from the database's and the API's. Otherwise, a "
        "run is refused or stopped.",
    )
    spool: bool = Field(
        True,
        description="Keep the batches of a backfill on disk until they are loaded, so that nothing is read twice.",
    )
    spool_megabytes: int = Field(
        2048, ge=1, description="Approximate spool limit in MB. Readers pause when it is reached."
    )
    spool_hours: float = Field(72, gt=0, le=87_600, description="Hours before unloaded spool data is deleted.")
    events_since: date | None = Field(
        None,
        description="First day (UTC) of events to keep. Earlier days, such as those of dropped months, are not "
        "read, not compared and not reported as missing.",
    )
    event_partitions: Literal["none", "month"] = Field(
        "none",
        description="Create event tables as a whole, or with a partition for each month, which can be dropped. Applies "
        "to new warehouses.",
    )
    event_indexes: Annotated[tuple[Literal["campaign", "member"], ...], NoDecode] = Field(
        (),
        description="Additional indexes of event tables, by campaign_key and member_key: campaign, member or both, "
        "comma-separated.",
    )
    stored_marts: Annotated[tuple[Literal[Mart, "all"], ...], NoDecode] = Field(
        (),
        description="Marts to store in tables as well: names, comma-separated, or all. A run that changes their data "
        "derives them again at its end. Empty: none.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="Lines of the log: text, or one JSON object each, for log collectors. The result of a command is "
        "one of them.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest log level to show: debug, info, warning or error."
    )
    quiet: bool = Field(
        False, description="Print only a run's warnings and errors: no progress, no summary and no advice."
    )
    display_timezone: str = Field(
        "UTC",
        description="Time zone in which klaviyo-pg status and report show times, such as Europe/Berlin. JSON logs are "
        "always in UTC.",
    )
    data_dir: Path = Field(
        Path(".data"),
        description="Folder for the embedded Postgres and the spool.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where values come from, the first one first: names with the prefix come before those without."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        prefixed = EnvSettingsSource(settings_cls, env_prefix=names.PREFIX)
        in_file = DotEnvSettingsSource(settings_cls, env_file=dotenv_settings.env_file, env_prefix=names.PREFIX)
        return init_settings, prefixed, in_file, env_settings, dotenv_settings

    @field_validator(
        "metrics", "tables", "segments", "readable_properties", "event_indexes", "stored_marts", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return _json_names(value)
        return tuple(name for part in value.split(",") if (name := part.strip()))

    @field_validator("stored_marts")
    @classmethod
    def _names_marts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return get_args(Mart) if "all" in value else value

    @field_validator("destinations", mode="before")
    @classmethod
    def _is_table_by_metric(cls, value: object) -> object:
        if not isinstance(value, dict) or not all(isinstance(each, str) for pair in value.items() for each in pair):
            raise ValueError(_DESTINATIONS)
        return value

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _ignores_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("display_timezone")
    @classmethod
    def _is_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be the name of a time zone, such as Europe/Berlin") from None
        return value

    @field_validator("klaviyo_integration")
    @classmethod
    def _is_not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator(
        "klaviyo_api_key",
        "database_url",
        "klaviyo_account_id",
        "concurrency",
        "processes",
        "personal_data_salt",
        "events_since",
        "report_metric",
        mode="before",
    )
    @classmethod
    def _blank_is_unset(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("events_since")
    @classmethod
    def _is_past(cls, value: date | None) -> date | None:
        if value is not None and value > datetime.now(UTC).date():
            raise ValueError("must not be in the future")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        url = _split_url(self.klaviyo_base_url)
        if not _has_host(url):
            raise ValueError("KLAVIYO_BASE_URL has no valid host. Use a URL such as https://a.klaviyo.com")
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ValueError("KLAVIYO_BASE_URL must start with https:// (http:// is accepted only for localhost)")
        if "@" in url.netloc or url.query:
            raise ValueError("KLAVIYO_BASE_URL must not contain a user name, a password or a query string")
        if self.database_url and not self.database_url.get_secret_value().startswith(("postgresql", "postgres:")):
            raise ValueError("DATABASE_URL must start with postgresql://")
        if fault := schemas.fault(self.warehouse_schema):
            raise ValueError(f"WAREHOUSE_SCHEMA {fault}")
        if self.personal_data != "keep" and len(self.salt) < _SHORTEST_SALT:
            raise ValueError(
                f"PERSONAL_DATA={self.personal_data} requires PERSONAL_DATA_SALT. Set it to a secret of at least "
                f"{_SHORTEST_SALT} characters"
            )
        return self

    def check_warehouse(self) -> None:
        """Raise BadSettings if a real account would be loaded into the embedded Postgres without being asked to."""
        is_real = _split_url(self.klaviyo_base_url).hostname not in _LOOPBACK
        if is_real and self.database_url is None and not self.embedded_postgres:
            raise BadSettings(
                "DATABASE_URL is not set. Set it to the URL of your warehouse, or set EMBEDDED_POSTGRES=true to load "
                f"the account into the embedded Postgres in {self.data_dir.absolute()}."
            )

    def check_reconcile_days(self, name: str = "RECONCILE_DAYS") -> None:
        """Raise BadSettings if no day is to be reconciled. `name` is that of the setting or argument that says so."""
        if not self.reconcile_days:
            raise BadSettings(f"{name} is 0, so there is nothing to compare: set the number of days.")

    @property
    def events_kept_since(self) -> datetime:
        """The time before which events are not kept: EVENTS_SINCE, or the beginning of time."""
        return midnight(self.events_since or date.min)

    @property
    def spool_dir(self) -> Path:
        """The folder of the spool, with a subfolder for each account."""
        return self.data_dir / "spool"

    def with_key_of(self, block: str) -> Self:
        """Return these settings, whose API key is the one in a block of this name: errors of the key name it."""
        settings = self.model_copy()
        settings._block = block
        return settings

    @property
    def api_key(self) -> str:
        """The API key in plain text. Raises BadKey if it is missing or malformed."""
        if self.klaviyo_api_key is None:
            raise self._bad_key(
                "No API key. Set KLAVIYO_API_KEY to a private API key of the account.",
                f"The block {self._block} has no API key",
            )
        key = self.klaviyo_api_key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            raise self._bad_key(
                "KLAVIYO_API_KEY contains an invalid character. Copy the key from Klaviyo again.",
                f"The API key in the block {self._block} contains an invalid character",
            )
        return key

    def refused_key(self) -> BadKey:
        """Return the error that Klaviyo does not accept the API key."""
        return self._bad_key(None, f"Klaviyo does not accept the API key in the block {self._block}")

    def _bad_key(self, message: str | None, problem_of_block: str) -> BadKey:
        """Return an error of the key with a message (None: the default one), or with the problem of the block."""
        if self._block is None:
            return BadKey(message)
        return BadKey(f"{problem_of_block}. Save it again: klaviyo-pg save-blocks --klaviyo {self._block}.")

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

    @property
    def readable_digest(self) -> str | None:
        """A digest that identifies READABLE_PROPERTIES without revealing them; None if personal data is kept."""
        if self.personal_data == "keep":
            return None
        names = json.dumps(sorted(set(self.readable_properties)))
        return sha256(f"klaviyo-pg readable {self.salt} {names}".encode()).hexdigest()[:16]


def _json_names(text: str) -> tuple[object, ...]:
    try:
        return tuple(json.loads(text))
    except ValueError:
        raise ValueError('must be a JSON list such as ["Opened Email", "Placed Order"], or names with commas') from None


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


def load_settings(labels: Mapping[str, str] = _NO_LABELS, /, **changes: object) -> Settings:
    """Read the settings from the environment and override some of them; None leaves a setting unchanged.

    Raises BadSettings, which names the first invalid setting, or the first unknown name in .env. A setting that is
    overridden has the name in `labels`, such as that of an argument.
    """
    try:
        env_file.check(_setting_names())
        given = {name: value for name, value in changes.items() if value is not None}
        return Settings(_env_file=env_file.path(), **given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = str(next(iter(first["loc"]), ""))
        name = labels.get(field, field.upper()) if changes.get(field) is not None else field.upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{name}: {reason}." if name else f"{reason}.") from None
    except SettingsError:  # raised only for DESTINATIONS: no other setting is decoded before it is validated
        raise BadSettings(f"DESTINATIONS: {_DESTINATIONS}.") from None
    except UnicodeDecodeError:
        raise BadSettings(f"Cannot read {env_file.path()}: it is not UTF-8 text.") from None
    except OSError as error:
        raise BadSettings(f"Cannot read {env_file.path()} ({error.strerror}).") from None


def ignored_variables() -> list[str]:
    """Return a sentence for each variable that is ignored, although it may be meant as a setting."""
    known, upper = _setting_names(), {name.upper(): value for name, value in os.environ.items()}
    twice = (f"{name} is ignored, because {names.PREFIX}{name} is set." for name in names.set_twice(upper, known))
    of_prefect = (
        f"{name} in {env_file.path()} is ignored, because Prefect reads only .env. Set it in the environment."
        for name in env_file.of_prefect()
    )
    return [*names.misspelled(os.environ, known), *twice, *of_prefect]


def name_in_use(name: str) -> str:
    """Return the name under which a setting is set: with the prefix if that is used, otherwise without."""
    found = env_file.first(name)
    return found[0] if found else name


def _setting_names() -> set[str]:
    return {name.upper() for name in Settings.model_fields}
