"""The one place where a dialect is chosen."""

from klaviyo_pg.klaviyo.current import REVISION, CurrentSource
from klaviyo_pg.klaviyo.http import Client, Patience
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings


def open_source(settings: Settings) -> Source:
    """A connection to the account, in the dialect that the settings name. Not to be shared between threads."""
    patience = Patience(settings.request_timeout_seconds, settings.request_attempts, settings.retry_budget_seconds)
    headers = {
        "Authorization": f"Klaviyo-API-Key {settings.api_key}",
        "revision": REVISION,
        "Accept": "application/vnd.api+json",
    }
    return CurrentSource(Client(settings.klaviyo_base_url, headers, patience=patience))
