"""The choice of a dialect. No other module makes it."""

from collections.abc import Callable, Mapping

from klaviyo_pg.klaviyo.client import Client, Patience
from klaviyo_pg.klaviyo.current.source import REVISION, CurrentSource
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings


def _current(url: str, key: str, patience: Patience, pace: Pace | None) -> Source:
    headers = {
        "Authorization": f"Klaviyo-API-Key {key}",
        "revision": REVISION,
        "Accept": "application/vnd.api+json",
    }
    return CurrentSource(Client(url, headers, patience=patience, pace=pace))


def _legacy(url: str, key: str, patience: Patience, pace: Pace | None) -> Source:
    """Return a source that is not paced: the limits of the legacy API were never published."""
    v1 = Client(url, parameters={"api_key": key}, patience=patience)
    return LegacySource(v1, Client(url, {"api-key": key}, patience=patience))


_DIALECTS: Mapping[str, Callable[[str, str, Patience, Pace | None], Source]] = {"current": _current, "legacy": _legacy}


def open_source(settings: Settings, pace: Pace | None = None) -> Source:
    """Connect to the account in the dialect of the settings. Threads can share a pace but not a source."""
    patience = Patience(settings.request_timeout_seconds, settings.request_attempts, settings.retry_budget_seconds)
    return _DIALECTS[settings.klaviyo_dialect](settings.klaviyo_base_url, settings.api_key, patience, pace)
