"""The views with the names and types of Fivetran's Klaviyo schema, which dbt_klaviyo reads. Knows no SQL.

Each account has separate ones, in a separate schema, so they are not among the views of the warehouse.
"""

from klaviyo_pg.catalogue.types import BOOLEAN, FLOAT, JSON, TEXT, UTC_TIMESTAMP, Column, View

OLD_NAMES = {
    "Unsubscribed from Email Marketing": "Unsubscribed",
    "Received Text Message": "Received SMS",
    "Sent Text Message": "Sent SMS",
    "Clicked Text Message": "Clicked SMS",
    "Unsubscribed from Text Message Marketing": "Unsubscribed from SMS",
}
"""The names by which dbt_klaviyo counts events, by the names that Klaviyo has given to these metrics since."""
UNKNOWN = "unknown"
"""The person_id of events of people who were erased. dbt's models choose what to rebuild by it, so it is never null."""

_CREATED = Column("created", UTC_TIMESTAMP, "When it was created (UTC).")
_UPDATED = Column("updated", UTC_TIMESTAMP, "When it last changed (UTC).")
_DELETED = Column("_fivetran_deleted", BOOLEAN, "True if Klaviyo no longer has it.")
_SYNCED = Column(
    "_fivetran_synced",
    UTC_TIMESTAMP,
    "When the row was last written or, if that is later, the time up to which its table has been read (UTC).",
)
_EVENT_SYNCED = Column("_fivetran_synced", UTC_TIMESTAMP, "When the event or its attribution was last written (UTC).")

CAMPAIGN = View(
    "campaign",
    "One row for each campaign.",
    (
        Column("id", TEXT, "Klaviyo's ID of the campaign."),
        Column("name", TEXT, "Name of the campaign."),
        Column("campaign_type", TEXT, "Channel (current dialect) or campaign type (legacy dialect)."),
        Column("status", TEXT, "Status of the campaign, in lower case."),
        Column("status_label", TEXT, "Status of the campaign."),
        Column("status_id", TEXT, "Always null: only Klaviyo's legacy API had it."),
        Column("subject", TEXT, "Subject line."),
        Column("from_email", TEXT, "Email address of the sender."),
        Column("from_name", TEXT, "Name of the sender."),
        Column("email_template_id", TEXT, "ID of the template of the campaign's first message that has one."),
        _CREATED,
        _UPDATED,
        Column("scheduled", UTC_TIMESTAMP, "When the campaign was scheduled (UTC)."),
        Column("send_time", UTC_TIMESTAMP, "When the campaign is or was to be sent (UTC)."),
        Column("sent_at", UTC_TIMESTAMP, "When the campaign was sent (UTC); null unless it was sent or is being sent."),
        Column("archived", BOOLEAN, "True if the campaign is archived."),
        _DELETED,
        _SYNCED,
    ),
)
FLOW = View(
    "flow",
    "One row for each flow.",
    (
        Column("id", TEXT, "Klaviyo's ID of the flow."),
        Column("name", TEXT, "Name of the flow."),
        Column("status", TEXT, "draft, manual or live."),
        Column("archived", BOOLEAN, "True if the flow is archived."),
        Column("trigger_type", TEXT, "What starts the flow."),
        _CREATED,
        _UPDATED,
        _DELETED,
        _SYNCED,
    ),
)
METRIC = View(
    "metric",
    "One row for each metric (kind of event).",
    (
        Column("id", TEXT, "Klaviyo's ID of the metric."),
        Column("name", TEXT, "Name of the metric, the same as event.type."),
        Column("integration_id", TEXT, "Klaviyo's ID of the integration that sends it."),
        Column("integration_name", TEXT, "Name of the integration, such as Shopify."),
        Column("integration_category", TEXT, "Category of the integration."),
        _CREATED,
        _UPDATED,
        _DELETED,
        _SYNCED,
    ),
)
PERSON = View(
    "person",
    "One row for each person (profile in Klaviyo).",
    (
        Column("id", TEXT, "Klaviyo's ID of the profile."),
        Column("email", TEXT, "Email address."),
        Column("phone_number", TEXT, "Phone number."),
        Column("first_name", TEXT, "First name."),
        Column("last_name", TEXT, "Last name."),
        Column("organization", TEXT, "Company."),
        Column("title", TEXT, "Job title or form of address."),
        Column("address_1", TEXT, "First line of the street address."),
        Column("address_2", TEXT, "Second line of the street address."),
        Column("city", TEXT, "City."),
        Column("region", TEXT, "Region or state."),
        Column("zip", TEXT, "Postal code."),
        Column("country", TEXT, "Country."),
        Column("latitude", FLOAT, "Degrees north."),
        Column("longitude", FLOAT, "Degrees east."),
        Column("timezone", TEXT, "Name of the time zone."),
        _CREATED,
        _UPDATED,
        Column("last_event_date", UTC_TIMESTAMP, "When the person's last event happened (UTC)."),
        _DELETED,
        _SYNCED,
        Column("custom_source", TEXT, "Source of the profile."),
        Column("subscriptions_email_marketing_consent", TEXT, "Consent to email marketing."),
        Column(
            "subscriptions_email_marketing_consent_timestamp",
            UTC_TIMESTAMP,
            "When that consent was given or withdrawn (UTC).",
        ),
    ),
)
EVENT = View(
    "event",
    "One row for each event of any metric.",
    (
        Column("id", TEXT, "Klaviyo's ID of the event; md5 of an ID that could be a name."),
        Column(
            "person_id",
            TEXT,
            f"ID of the person; md5 of the ID if the person is not stored, '{UNKNOWN}' if the person was erased.",
        ),
        Column("metric_id", TEXT, "ID of the metric."),
        Column("type", TEXT, "Name of the metric: the old one where Klaviyo itself has renamed a metric."),
        Column("campaign_id", TEXT, "ID of the campaign; null for events of flows."),
        Column("flow_id", TEXT, "ID of the flow; null for events of campaigns."),
        Column("flow_message_id", TEXT, "ID of the message of the flow."),
        Column("_variation", TEXT, "ID of the variation of the message."),
        Column("datetime", UTC_TIMESTAMP, "When the event happened (UTC)."),
        Column("timestamp", UTC_TIMESTAMP, "When the event happened (UTC)."),
        Column("uuid", TEXT, "Always null."),
        Column("property_value", TEXT, "Value of the event; null if it has none, or if it is 1e21 or more."),
        Column("properties", JSON, "All properties of the event."),
        _DELETED,
        _EVENT_SYNCED,
    ),
)
ATTRIBUTION = Column(
    "property_attribution",
    JSON,
    "The event that this one is attributed to, as $attributed_event_id, and the message of that event.",
)
"""A column of `event` where attributions are stored. It alone makes dbt_klaviyo credit orders as Klaviyo does."""
VIEWS = (CAMPAIGN, FLOW, METRIC, PERSON, EVENT)
