"""The tables that events refer to: metrics, campaigns, automations (flows), lists and members."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, FLOAT, INTEGER, KEY, TEXT, TIMESTAMP, Column, Merge, Table

METRICS = Table(
    "metrics",
    "One row for each metric (kind of event) of the account.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the metric.", "id", "id", personal=Harmless.ID),
        Column(
            "name",
            TEXT,
            "Current name of the metric. Names can change, IDs cannot.",
            "name",
            "name",
            personal=Personal.CHECKED,
        ),
        Column(
            "source",
            TEXT,
            "Category of the integration that sends it.",
            "integration.category",
            "integration.category",
            personal=Personal.CHECKED,
        ),
        Column(
            "destination",
            TEXT,
            "Table that contains the events of this metric.",
            "from the name",
            "from the name",
            personal=Harmless.OWN,
        ),
        Column("created_at", TIMESTAMP, "When the metric was created.", "created", "created"),
        Column("updated_at", TIMESTAMP, "When the metric last changed.", "updated", "updated"),
        *ORIGIN,
        DELETED_AT,
    ),
)

CAMPAIGNS = Table(
    "campaigns",
    "One row for each campaign and for each message of a flow (a flow campaign, derived from its events).",
    (
        KEY_OF_ID,
        Column(
            "id",
            TEXT,
            "ID of the campaign or of the flow message.",
            "id | $message",
            "id | $message",
            personal=Harmless.ID,
        ),
        Column(
            "name",
            TEXT,
            "Name of the campaign.",
            "name | Campaign Name",
            "name | Campaign Name",
            personal=Personal.CHECKED,
        ),
        Column("parent_campaign_key", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
        Column(
            "automation_key",
            KEY,
            "md5(flow id) of a flow campaign; null for other campaigns.",
            "$flow",
            "$flow",
            personal=Harmless.KEY,
        ),
        Column("automation_position", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
        Column(
            "list_key",
            TEXT,
            "ID of the first list or segment that it is sent to; first_list_key joins to lists.",
            "audiences.included",
            "list_id | lists",
            personal=Harmless.ID,
        ),
        Column(
            "from_email",
            TEXT,
            "Email address of the sender.",
            "campaign-message content.from_email",
            "from_email",
            personal=Harmless.SENDER,
        ),
        Column(
            "from_name",
            TEXT,
            "Name of the sender.",
            "campaign-message content.from_label",
            "from_name",
            personal=Harmless.SENDER,
        ),
        Column(
            "subject",
            TEXT,
            "Subject line.",
            "campaign-message content.subject | Subject",
            "subject | Subject",
            personal=Personal.CHECKED,
        ),
        Column("status", TEXT, "Status of the campaign.", "status", "status_label", personal=Personal.CHECKED),
        Column("sent_at", TIMESTAMP, "When the campaign was sent.", "send_time", "sent_at"),
        Column(
            "campaign_type",
            TEXT,
            "Channel (current dialect) or campaign type (legacy dialect).",
            "messages.channel",
            "campaign_type",
            personal=Personal.CHECKED,
        ),
        Column("type", TEXT, "Always 'Campaign'.", "constant", "constant", personal=Harmless.OWN),
        Column(
            "created_at",
            TIMESTAMP,
            "When the campaign was created; for a flow campaign, its earliest event.",
            "created_at",
            "created",
        ),
        Column(
            "updated_at",
            TIMESTAMP,
            "When the campaign last changed; for a flow campaign, its latest event.",
            "updated_at",
            "updated",
        ),
        *ORIGIN,
        Column(
            "campaign_key",
            KEY,
            "md5(id); joins to campaign_key of the event tables.",
            "computed",
            "computed",
            personal=Harmless.KEY,
        ),
        DELETED_AT,
        Column("archived", BOOLEAN, "True if the campaign is archived; null for a flow campaign.", "archived", ""),
        Column("scheduled_at", TIMESTAMP, "When the campaign was scheduled.", "scheduled_at", ""),
        Column(
            "first_list_key",
            KEY,
            "Key of the first list or segment that it is sent to; joins to lists.key.",
            "audiences.included",
            "list_id | lists",
            personal=Harmless.KEY,
        ),
    ),
)

AUTOMATIONS = Table(
    "automations",
    "One row for each flow.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the flow.", "id", "id", personal=Harmless.ID),
        Column("name", TEXT, "Name of the flow.", "name", "name", personal=Personal.CHECKED),
        Column("created_at", TIMESTAMP, "When the flow was created.", "created", "created"),
        Column("updated_at", TIMESTAMP, "When the flow last changed.", "updated", "updated"),
        Column("status", TEXT, "draft, manual or live.", "status", "status", personal=Personal.CHECKED),
        *ORIGIN,
        Column(
            "automation_key",
            KEY,
            "md5(id); joins to automation_key of the event tables.",
            "computed",
            "computed",
            personal=Harmless.KEY,
        ),
        DELETED_AT,
        Column("archived", BOOLEAN, "True if the flow is archived.", "archived", "archived"),
        Column(
            "trigger_type",
            TEXT,
            "What starts the flow: Metric, Added to List, Date Based, ...",
            "trigger_type",
            "trigger.type",
            personal=Personal.CHECKED,
        ),
    ),
)

LISTS = Table(
    "lists",
    "One row for each list and each segment.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the list or segment.", "id", "list_id", personal=Harmless.ID),
        Column(
            "name",
            TEXT,
            "Name of the list or segment; not necessarily unique.",
            "name",
            "list_name",
            personal=Personal.CHECKED,
        ),
        Column("list_type", TEXT, "'list' or 'segment'.", "resource type", "list_type", personal=Harmless.OWN),
        Column("status", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
        Column("rating", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
        Column("created_at", TIMESTAMP, "When the list or segment was created.", "created", "created"),
        Column("updated_at", TIMESTAMP, "When the list or segment last changed.", "updated", "updated"),
        Column("archived_at", TIMESTAMP, "Always null.", "", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)

CAMPAIGN_LISTS = Table(
    "campaign_lists",
    "One row for each list or segment that a campaign is sent to or excludes.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "list_id || ':' || campaign_id", "computed", "computed", personal=Harmless.ID),
        Column(
            "list_id", TEXT, "ID of the list or segment.", "audiences", "lists, excluded_lists", personal=Harmless.ID
        ),
        Column("campaign_id", TEXT, "ID of the campaign.", "id", "id", personal=Harmless.ID),
        *ORIGIN,
        Column(
            "audience", TEXT, "'included' or 'excluded'.", "audiences", "lists, excluded_lists", personal=Harmless.OWN
        ),
    ),
)

MEMBERS = Table(
    "members",
    "One row for each person (profile in Klaviyo).",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the profile.", "id", "person.id", personal=Harmless.ID),
        Column("email", TEXT, "Email address.", "email", "$email", personal=Personal.TEXT),
        Column("timezone", TEXT, "Name of the time zone.", "location.timezone", "$timezone", personal=Personal.CHECKED),
        Column("first_name", TEXT, "First name.", "first_name", "$first_name", personal=Personal.TEXT),
        Column("last_name", TEXT, "Last name.", "last_name", "$last_name", personal=Personal.TEXT),
        Column("source", TEXT, "Source of the profile.", "properties.$source", "$source", personal=Personal.CODE),
        Column("predict_user_id", TEXT, "Always null.", "", "", personal=Harmless.EMPTY),
        Column(
            "address1",
            TEXT,
            "First line of the street address.",
            "location.address1",
            "$address1",
            personal=Personal.TEXT,
        ),
        Column(
            "address2",
            TEXT,
            "Second line of the street address.",
            "location.address2",
            "$address2",
            personal=Personal.TEXT,
        ),
        Column("city", TEXT, "City.", "location.city", "$city", personal=Personal.CHECKED),
        Column("state", TEXT, "Region or state.", "location.region", "$state | $region", personal=Personal.CHECKED),
        Column("zip", TEXT, "Postal code.", "location.zip", "$zip", personal=Personal.TEXT),
        Column("country", TEXT, "Country.", "location.country", "$country", personal=Personal.CHECKED),
        Column("phone_number", TEXT, "Phone number.", "phone_number", "$phone_number", personal=Personal.TEXT),
        Column("longitude", FLOAT, "Degrees east.", "location.longitude", "$longitude", personal=Personal.NUMBER),
        Column("latitude", FLOAT, "Degrees north.", "location.latitude", "$latitude", personal=Personal.NUMBER),
        Column(
            "consent",
            TEXT,
            "Consent to email marketing.",
            "subscriptions.email.marketing.consent",
            "$consent",
            personal=Personal.CHECKED,
        ),
        Column(
            "consent_timestamp",
            TIMESTAMP,
            "When that consent was given or withdrawn.",
            "subscriptions.email.marketing.consent_timestamp",
            "$consent_timestamp",
        ),
        Column("created_at", TIMESTAMP, "When the profile was created.", "created", "created"),
        Column(
            "updated_at",
            TIMESTAMP,
            "Time of the extraction that last changed this row.",
            "extraction",
            "extraction",
            Merge.STAMP,
        ),
        *ORIGIN,
        Column(
            "member_key",
            KEY,
            "md5(id); joins to member_key of the event tables.",
            "computed",
            "computed",
            personal=Harmless.KEY,
        ),
        Column(
            "external_id", TEXT, "ID of the person in your own system.", "external_id", "$id", personal=Personal.TEXT
        ),
        Column("organization", TEXT, "Company.", "organization", "$organization", personal=Personal.TEXT),
        Column("title", TEXT, "Job title or form of address.", "title", "$title", personal=Personal.TEXT),
        Column("locale", TEXT, "Language and region, such as en-US.", "locale", "", personal=Personal.CHECKED),
        Column("last_event_date", TIMESTAMP, "When the person's last event happened.", "last_event_date", ""),
        Column("klaviyo_updated_at", TIMESTAMP, "When the profile last changed in Klaviyo.", "updated", "updated"),
        Column(
            "deleted_at",
            TIMESTAMP,
            "When the profile was first missing in Klaviyo; null while it exists.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
        Column(
            "left_reason",
            TEXT,
            "'merged' if the person's events now belong to another profile (see profile_merges), else 'deleted'; null "
            "while the profile exists.",
            "computed",
            "computed",
            Merge.CLEAR,
            personal=Harmless.OWN,
        ),
        Column(
            "details_digest",
            INTEGER,
            "Digest of the person's stored custom properties, consents and list suppressions. While it is the same, "
            "runs do not compare them. If it is null or 0, they do.",
            "computed",
            "",
            Merge.UNLESS_NULL,
        ),
    ),
    # For sweeps by time of creation, and for a walk through the people who have none yet; for exclusions.
    indexes=(("esp_integration_id", "created_at", "id"), ("email",)),
)

MEMBER_ATTRIBUTES = Table(
    "member_attributes",
    "One row for each custom property of a person.",
    (
        Column(
            "key",
            KEY,
            "Key of the person (members.key), so not unique in this table.",
            "computed",
            "computed",
            personal=Harmless.KEY,
        ),
        Column("id", TEXT, "Klaviyo's ID of the profile.", "id", "person.id", personal=Harmless.ID),
        Column("member_key", KEY, "md5(id)", "computed", "computed", personal=Harmless.KEY),
        Column("name", TEXT, "Name of the property.", "properties", "names without $", personal=Personal.PROPERTY_NAME),
        Column(
            "value",
            TEXT,
            "Value of the property: text unchanged, anything else as JSON.",
            "properties",
            "values",
            personal=Personal.TEXT,
        ),
        Column(
            "created_at", TIMESTAMP, "When the property was first extracted.", "extraction", "extraction", Merge.KEEP
        ),
        Column(
            "updated_at",
            TIMESTAMP,
            "Time of the extraction that last changed this row.",
            "extraction",
            "extraction",
            Merge.STAMP,
        ),
        *ORIGIN,
    ),
    primary_key=("key", "name"),
)
