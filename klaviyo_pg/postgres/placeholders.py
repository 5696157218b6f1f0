"""Placeholders of messages, which follow what sends them. The caller owns the transaction."""

from klaviyo_pg.catalogue import dimensions, messages
from klaviyo_pg.postgres.account import Account

_FOLLOW = """
UPDATE {} AS stored SET name = followed.name, deleted_at = followed.deleted_at, __synced_at = now()
FROM (
    SELECT message.key, campaign.name, message.deleted_at FROM {} AS message
    JOIN {} AS campaign USING (campaign_key, esp_integration_id)
    WHERE message.esp_integration_id = %(account)s AND campaign.is_placeholder IS NOT TRUE
    UNION ALL
    SELECT key, name, deleted_at FROM {} WHERE esp_integration_id = %(account)s
) AS followed
WHERE stored.key = followed.key AND stored.is_placeholder
AND (stored.name, stored.deleted_at) IS DISTINCT FROM (followed.name, followed.deleted_at)
"""


def follow_messages(account: Account) -> None:
    """Give each placeholder that stands for a message its name, or that of its campaign, and what says it is deleted.

    Events of a message of a flow can lack the flow.
    """
    campaigns = dimensions.CAMPAIGNS
    account.execute(_FOLLOW, campaigns, messages.CAMPAIGN_MESSAGES, campaigns, messages.FLOW_MESSAGES)
