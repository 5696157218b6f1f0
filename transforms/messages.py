"""Frames for the messages of campaigns."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load, loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_TIME = pl.Datetime("us", "UTC")
_CAMPAIGN_MESSAGE = {
    **dict.fromkeys(("id", "campaign_id", "channel", "label", "subject", "preview_text", "body"), pl.String()),
    **dict.fromkeys(("from_email", "from_name", "reply_to_email", "template_id", "status"), pl.String()),
    "send_at": _TIME,
    "last_send_at": _TIME,
    "is_local": pl.Boolean(),
    "created_at": _TIME,
    "updated_at": _TIME,
}


def campaign_messages(campaigns: Sequence[rows.Campaign], integration_id: str) -> Cleaned:
    """Return the frame for the load CAMPAIGN_MESSAGES."""
    messages = [message for campaign in campaigns for message in campaign.messages or ()]
    raw = pl.DataFrame(messages, _CAMPAIGN_MESSAGE, orient="row").pipe(cleaned)
    frame = raw.frame.with_columns(campaign_key=md5(pl.col("campaign_id")))
    return Cleaned(_keyed(frame, loads.CAMPAIGN_MESSAGES, integration_id), raw.nul_characters)


def _keyed(frame: pl.DataFrame, load: Load, integration_id: str) -> pl.DataFrame:
    """Return one row for each id, with its keys and the columns of the load."""
    return (
        frame.pipe(last_by, "id")
        .with_columns(key=row_key(integration_id, pl.col("id")), message_key=md5(pl.col("id")))
        .pipe(conformed, load)
    )
