"""The views: the state of the warehouse, and joins that many queries need."""

from klaviyo_pg.catalogue.types import FLOAT, KEY, NUMERIC, TEXT, TIMESTAMP, Column, View

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
            "When the last complete daily run finished, with or without differences.",
        ),
        Column("last_reconciled", TIMESTAMP, "When the stored events were last compared with the source's counts."),
        Column("difference", NUMERIC, "Stored minus counted events over all compared days; 0 if nothing is missing."),
        Column("age_hours", FLOAT, "Hours since the watermark."),
        Column("count_state", TEXT, "complete, differs or uncounted; null if the counts were never compared."),
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
    ),
)
VIEWS = (FRESHNESS, MESSAGES)
