"""The views: the state of the warehouse, and what analysts ask for most."""

from klaviyo_pg.catalogue import events
from klaviyo_pg.catalogue.marts import MARTS
from klaviyo_pg.catalogue.types import BOOLEAN, FLOAT, INTEGER, KEY, NUMERIC, TEXT, TIMESTAMP, Column, View

FRESHNESS = View(
    "freshness",
    "How fresh and complete the data is: one row for each metric and for each other stream.",
    (
        Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
        Column("stream", TEXT, "Stream that is read, such as events/<metric id>."),
        Column("name", TEXT, "Name of the metric, list or stream."),
        Column("table_name", TEXT, "Table that the stream fills; if it fills several, the first one."),
        Column("newest_event", TIMESTAMP, "Time of the newest stored event; null if the stream has no events."),
        Column("watermark", TIMESTAMP, "Everything that the source contained at this time has been read."),
        Column(
            "last_complete_run",
            TIMESTAMP,
            "When the last complete daily run finished, with or without differences. Runs that arguments limited, such "
            "as --tables, do not count.",
        ),
        Column("last_reconciled", TIMESTAMP, "When the stored events were last compared with the source's counts."),
        Column(
            "difference",
            NUMERIC,
            "Stored minus counted events over all compared days. Days with too many and with too few cancel out.",
        ),
        Column("age_hours", FLOAT, "Hours since the watermark."),
        Column("count_state", TEXT, "complete, differs or uncounted; null if the counts were never compared."),
        Column(
            "differing_events",
            NUMERIC,
            "Missing and surplus events of all compared days, each counted; 0 if no count differs. Of a day that "
            "differs, its hours count.",
        ),
        Column("oldest_event", TIMESTAMP, "Time of the oldest stored event; null if the stream has no events."),
    ),
)
ATTRIBUTED_REVENUE = View(
    "attributed_revenue",
    "Events and revenue that Klaviyo attributes to campaigns and flows: one row for each message, metric and currency.",
    (
        Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
        Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse; see integrations."),
        Column("campaign_key", KEY, "Key of the campaign (campaigns.campaign_key); null for flows."),
        Column("campaign_id", TEXT, "Klaviyo's ID of the campaign; null for flows."),
        Column("campaign_name", TEXT, "Name of the campaign; null if the warehouse does not have it."),
        Column(
            "campaign_message_key",
            KEY,
            "md5(campaign_message_id); joins to messages.message_key, which has no messages of campaigns that Klaviyo "
            "does not list.",
        ),
        Column("campaign_message_id", TEXT, "Klaviyo's ID of the message of the campaign."),
        Column("automation_key", KEY, "Key of the flow (automations.automation_key); null for campaigns."),
        Column("flow_id", TEXT, "Klaviyo's ID of the flow; null for campaigns."),
        Column("flow_name", TEXT, "Name of the flow; null if the warehouse does not have it."),
        Column("flow_message_key", KEY, "md5(flow_message_id); joins to messages.message_key."),
        Column("flow_message_id", TEXT, "Klaviyo's ID of the message of the flow."),
        Column("flow_message_name", TEXT, "Name of that message in its latest event; null if it has none."),
        Column("metric_key", KEY, "Key of the metric of the attributed events (metrics.key)."),
        Column("metric_name", TEXT, "Name of that metric, such as Placed Order."),
        Column("value_currency", TEXT, "Currency of the revenue; null if the events have none."),
        Column("conversions", INTEGER, "Number of attributed events."),
        Column("revenue", NUMERIC, "Sum of the values of these events; null if none has a value."),
        Column("first_event_at", TIMESTAMP, "Time of the first of these events."),
        Column("last_event_at", TIMESTAMP, "Time of the latest of these events."),
    ),
)
MESSAGES = View(
    "messages",
    "What the $message of events stands for, once for each ID: a message of a campaign, a campaign, or a message of a "
    "flow.",
    (
        Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse."),
        Column("message_key", KEY, "md5(message_id); joins to campaign_key of the event tables."),
        Column("message_type", TEXT, "campaign_message, campaign or flow_message."),
        Column("message_id", TEXT, "The ID that events have as $message."),
        Column("name", TEXT, "Name of the campaign or of the message of the flow."),
        Column("subject", TEXT, "Subject line, or title of a push notification."),
        Column("channel", TEXT, "Channel, such as email; null if it is not known."),
        Column("campaign_id", TEXT, "ID of the campaign; null for a message of a flow."),
        Column("campaign_key", KEY, "md5(campaign id); joins to campaigns.campaign_key."),
        Column("flow_id", TEXT, "ID of the flow; null for campaigns and for a flow that was never read."),
        Column("automation_key", KEY, "md5(flow id); joins to automations.automation_key."),
        Column("deleted_at", TIMESTAMP, "When a complete read of the source no longer contained it."),
        Column("is_placeholder", BOOLEAN, "True if only events mention it; see campaigns.is_placeholder."),
    ),
)
ALL_EVENTS = View(
    "all_events",
    "All events, of every event table. A condition on event_at or table_name limits what Postgres reads.",
    (Column("table_name", TEXT, "Event table that contains the event, such as opens."), *events.EVENTS.columns),
)
USABLE_PUSH_TOKENS = View(
    "usable_push_tokens",
    "Devices that may be sent push notifications: Klaviyo has them, they are enabled, and their owners exist and "
    "receive push marketing.",
    (
        Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse."),
        Column("key", KEY, "Key of the push token; joins to push_tokens.key."),
        Column("id", TEXT, "Klaviyo's ID of the push token."),
        Column("member_id", TEXT, "Profile of the owner."),
        Column("member_key", KEY, "md5(profile id); joins to members.member_key."),
        Column("token_hash", TEXT, "SHA-256 of the token."),
        Column("platform", TEXT, "ios or android."),
        Column("vendor", TEXT, "APNs or FCM."),
        Column("enablement_status", TEXT, "AUTHORIZED or PROVISIONAL."),
        Column("created_at", TIMESTAMP, "When the token was created."),
    ),
)
ACCOUNT_TIME_ZONES = View(
    "account_time_zones",
    "The time zone of each account, by a name that this database has.",
    (
        Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
        Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse; see integrations."),
        Column("account_timezone", TEXT, "Klaviyo's name of it (accounts.timezone); null if it is not known."),
        Column(
            "timezone",
            TEXT,
            "The name to use with AT TIME ZONE: the current one if it was renamed, such as America/New_York for "
            "US/Eastern. UTC if it is not known, or if the database does not have it.",
        ),
    ),
)


def _channel(channel: str, meaning: str, reasons: str) -> tuple[Column, Column]:
    return (
        Column(f"can_{channel}", BOOLEAN, f"True if the person may be {meaning}; null if it is not known."),
        Column(f"{channel}_reason", TEXT, f"Why not: {reasons} or unknown; null if can_{channel} is true."),
    )


_OF_TEXTS = "no_phone_number, unsubscribed, never_subscribed, cannot_receive"
CONTACTABLE = View(
    "contactable",
    "Who may be contacted, and why not: one row for each person, without deleted and merged profiles.",
    (
        Column("integration", TEXT, "Name of the account in this warehouse (KLAVIYO_INTEGRATION)."),
        Column("esp_integration_id", TEXT, "ID of the Klaviyo account in this warehouse; see integrations."),
        Column("member_key", KEY, "md5(profile id); joins to members.member_key."),
        Column("member_id", TEXT, "Klaviyo's ID of the profile."),
        Column("email", TEXT, "Email address."),
        Column("phone_number", TEXT, "Phone number."),
        *_channel("email", "emailed", "no_address, unsubscribed, never_subscribed, suppressed"),
        *_channel("sms", "sent text messages", _OF_TEXTS),
        *_channel(
            "push",
            "sent push notifications, as in usable_push_tokens",
            "unsubscribed, never_subscribed, cannot_receive, no_token",
        ),
        *_channel("whatsapp", "sent messages on WhatsApp", _OF_TEXTS),
    ),
)
VIEWS = (
    FRESHNESS,
    ALL_EVENTS,
    MESSAGES,
    ATTRIBUTED_REVENUE,
    ACCOUNT_TIME_ZONES,
    *MARTS,
    USABLE_PUSH_TOKENS,
    CONTACTABLE,
)
