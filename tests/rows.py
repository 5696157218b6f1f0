"""Rows as a source returns them. A test sets only the fields that it needs."""

from typing import Any

from klaviyo_pg.rows import Campaign, Profile


def campaign_row(campaign_id: str, **fields: Any) -> Campaign:
    """Return a campaign. Fields without a value are None, or empty."""
    values: dict[str, Any] = {**dict.fromkeys(Campaign._fields), "included": (), "excluded": (), "messages": ()}
    return Campaign(**values | fields | {"id": campaign_id})


def profile_row(profile_id: str, **fields: Any) -> Profile:
    """Return a person. Fields without a value are None; there are no properties."""
    values: dict[str, Any] = {**dict.fromkeys(Profile._fields), "properties": {}}
    return Profile(**values | fields | {"id": profile_id})
