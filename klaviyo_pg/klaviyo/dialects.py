"""The choice of a dialect. No other module makes it."""

from collections.abc import Callable, Mapping

from klaviyo_pg.errors import RetiredRevision
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current import source as current
from klaviyo_pg.klaviyo.current.source import CurrentSource
from klaviyo_pg.klaviyo.dialect import Dialect
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.klaviyo.pace import Limit, Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.klaviyo.retries import Patience
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings


def _current(settings: Settings, patience: Patience, pace: Pace | None, sizes: PageSizes | None) -> Source:
    headers = {
        "Authorization": f"Klaviyo-API-Key {settings.api_key}",
        "revision": settings.klaviyo_revision,
        "X-Klaviyo-Revision-Fall-Forward-Opt-Out": "1",  # a retired revision returns 410, not the form of a later one
        "Accept": "application/vnd.api+json",
    }
    client = Client(
        settings.klaviyo_base_url,
        headers,
        patience=patience,
        pace=pace,
        retired=RetiredRevision,
        refused_key=settings.refused_key,
    )
    return CurrentSource(client, sizes, settings.events_page_size, settings.klaviyo_revision)


def _legacy(settings: Settings, patience: Patience, pace: Pace | None, sizes: PageSizes | None) -> Source:
    """Return a source that is not paced: the limits of the legacy API were never published."""
    url, key, refused = settings.klaviyo_base_url, settings.api_key, settings.refused_key
    unpaced = [Pace(1.0, patience.budget, check=pace.check) if pace else None for _ in range(2)]
    v1 = Client(url, parameters={"api_key": key}, patience=patience, pace=unpaced[0], refused_key=refused)
    v2 = Client(url, {"api-key": key}, patience=patience, pace=unpaced[1], refused_key=refused)
    return LegacySource(v1, v2, settings.events_page_size)


_DIALECTS: Mapping[str, Callable[[Settings, Patience, Pace | None, PageSizes | None], Source]] = {
    "current": _current,
    "legacy": _legacy,
}

_SOURCES: Mapping[str, type[CurrentSource] | type[LegacySource]] = {"current": CurrentSource, "legacy": LegacySource}


def open_source(settings: Settings, pace: Pace | None = None, sizes: PageSizes | None = None) -> Source:
    """Connect to the account in the dialect of the settings. Threads can share a pace and sizes but not a source."""
    patience = Patience(settings.request_timeout_seconds, settings.request_attempts, settings.retry_budget_seconds)
    return _DIALECTS[settings.klaviyo_dialect](settings, patience, pace, sizes)


def dialect_of(settings: Settings) -> Dialect:
    """Return the traits of the dialect of the settings."""
    return _SOURCES[settings.klaviyo_dialect].dialect


def published_limits(dialect: str) -> Mapping[str, Limit]:
    """Return the published rate limits of a dialect, by endpoint; those of the legacy API were never published."""
    endpoints = (each for each in vars(current).values() if isinstance(each, Endpoint))
    return {each.name: each.limit for each in endpoints if each.limit} if dialect == "current" else {}
