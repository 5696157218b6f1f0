"""Placeholders of messages, which follow the campaign that sends them. The caller owns the transaction."""

from klaviyo_pg.catalogue import dimensions, messages
from klaviyo_pg.postgres.account import Account

_FOLLOW = """
UPDATE {} AS stored SET name = followed.name, deleted_at = followed.deleted_at, __synced_at = now()
FROM (
    SELECT message.key, campaign.name, message.deleted_at FROM {} AS message
    JOIN {} AS campaign USING (campaign_key, esp_integration_id)
    WHERE message.esp_integration_id = %(account)s AND campaign.is_placeholder IS NOT TRUE
) AS followed
WHERE stored.key = followed.key AND stored.is_placeholder
AND (stored.name, stored.deleted_at) IS DISTINCT FROM (followed.name, followed.deleted_at)
"""


def follow_campaigns(account: Account) -> None:
    """Give each placeholder that stands for a message the name of its campaign, and mark it as deleted if that is."""
    account.execute(_FOLLOW, dimensions.CAMPAIGNS, messages.CAMPAIGN_MESSAGES, dimensions.CAMPAIGNS)
