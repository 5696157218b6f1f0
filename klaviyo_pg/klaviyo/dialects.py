"""The one place where a dialect is chosen."""

from collections.abc import Callable, Mapping

from klaviyo_pg.klaviyo.current import REVISION, CurrentSource
from klaviyo_pg.klaviyo.http import Client, Patience
from klaviyo_pg.klaviyo.legacy import LegacySource
from klaviyo_pg.klaviyo.limits import Pace
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
    """Its limits were never published, so there is no pace to keep beforehand."""
    v1 = Client(url, parameters={"api_key": key}, patience=patience)
    return LegacySource(v1, Client(url, {"api-key": key}, patience=patience))


_DIALECTS: Mapping[str, Callable[[str, str, Patience, Pace | None], Source]] = {"current": _current, "legacy": _legacy}


def open_source(settings: Settings, pace: Pace | None = None) -> Source:
    """A connection to the account, in the dialect that the settings name. Unlike `pace` not to be shared by threads."""
    patience = Patience(settings.request_timeout_seconds, settings.request_attempts, settings.retry_budget_seconds)
    return _DIALECTS[settings.klaviyo_dialect](settings.klaviyo_base_url, settings.api_key, patience, pace)
