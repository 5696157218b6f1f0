"""The things that events are about: metrics, campaigns, automations (flows), lists, members."""

from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import FLOAT, KEY, TEXT, TIMESTAMP, Column, Merge, Personal, Table

METRICS = Table(
    "metrics",
    "One row for each metric (kind of event) of the account.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's id of the metric.", "id", "id"),
        Column("name", TEXT, "Its name today; names change, ids do not.", "name", "name"),
        Column(
            "source", TEXT, "Category of the integration it comes from.", "integration.category", "integration.category"
        ),
        Column("destination", TEXT, "The table that holds this metric's events.", "from the name", "from the name"),
        Column("created_at", TIMESTAMP, "When the metric came to be.", "created", "created"),
        Column("updated_at", TIMESTAMP, "When the metric last changed.", "updated", "updated"),
        *ORIGIN,
        DELETED_AT,
    ),
)

CAMPAIGNS = Table(
    "campaigns",
    "One row for each campaign, and for each message of a flow (a flow campaign, derived from its events).",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Id of the campaign, or of the flow message.", "id | $message", "id | $message"),
        Column("name", TEXT, "Name of the campaign.", "name | Campaign Name", "name | Campaign Name"),
        Column("parent_campaign_key", TEXT, "Always null.", "", ""),
        Column("automation_key", KEY, "md5(flow id) of a flow campaign, else null.", "$flow", "$flow"),
        Column("automation_position", TEXT, "Always null.", "", ""),
        Column(
            "list_key", TEXT, "Id of the first list or segment it goes to.", "audiences.included", "list_id | lists"
        ),
        Column("from_email", TEXT, "Sender's address.", "campaign-message content.from_email", "from_email"),
        Column("from_name", TEXT, "Sender's name.", "campaign-message content.from_label", "from_name"),
        Column("subject", TEXT, "Subject line.", "campaign-message content.subject | Subject", "subject | Subject"),
        Column("status", TEXT, "Where the campaign stands.", "status", "status_label"),
        Column("sent_at", TIMESTAMP, "When it was sent.", "send_time", "sent_at"),
        Column("campaign_type", TEXT, "Channel (current) or kind (legacy).", "messages.channel", "campaign_type"),
        Column("type", TEXT, "Always 'Campaign'.", "constant", "constant"),
        Column(
            "created_at", TIMESTAMP, "When it was made; flow campaign: its earliest event.", "created_at", "created"
        ),
        Column(
            "updated_at", TIMESTAMP, "When it last changed; flow campaign: its latest event.", "updated_at", "updated"
        ),
        *ORIGIN,
        Column("campaign_key", KEY, "md5(id): what events call campaign_key.", "computed", "computed"),
        DELETED_AT,
    ),
)

AUTOMATIONS = Table(
    "automations",
    "One row for each flow.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's id of the flow.", "id", "id"),
        Column("name", TEXT, "Name of the flow.", "name", "name"),
        Column("created_at", TIMESTAMP, "When it was made.", "created", "created"),
        Column("updated_at", TIMESTAMP, "When it last changed.", "updated", "updated"),
        Column("status", TEXT, "draft, manual or live.", "status", "status"),
        *ORIGIN,
        Column("automation_key", KEY, "md5(id): what events call automation_key.", "computed", "computed"),
        DELETED_AT,
    ),
)

LISTS = Table(
    "lists",
    "One row for each list and each segment.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's id of the list or segment.", "id", "list_id"),
        Column("name", TEXT, "Its name; two lists may share one.", "name", "list_name"),
        Column("list_type", TEXT, "'list' or 'segment'.", "resource type", "list_type"),
        Column("status", TEXT, "Always null.", "", ""),
        Column("rating", TEXT, "Always null.", "", ""),
        Column("created_at", TIMESTAMP, "When it was made.", "created", "created"),
        Column("archived_at", TIMESTAMP, "Always null.", "", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)

CAMPAIGN_LISTS = Table(
    "campaign_lists",
    "One row for each list or segment that a campaign goes to, or leaves out.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "list_id || ':' || campaign_id", "computed", "computed"),
        Column("list_id", TEXT, "Id of the list or segment.", "audiences", "lists, excluded_lists"),
        Column("campaign_id", TEXT, "Id of the campaign.", "id", "id"),
        *ORIGIN,
        Column("audience", TEXT, "'included' or 'excluded'.", "audiences", "lists, excluded_lists"),
    ),
)

MEMBERS = Table(
    "members",
    "One row for each person (Klaviyo: profile).",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's id of the profile.", "id", "person.id"),
        Column("email", TEXT, "E-mail address.", "email", "$email", personal=Personal.TEXT),
        Column("timezone", TEXT, "Time zone by name.", "location.timezone", "$timezone"),
        Column("first_name", TEXT, "First name.", "first_name", "$first_name", personal=Personal.TEXT),
        Column("last_name", TEXT, "Last name.", "last_name", "$last_name", personal=Personal.TEXT),
        Column("source", TEXT, "Where the profile came from.", "properties.$source", "$source"),
        Column("predict_user_id", TEXT, "Always null.", "", ""),
        Column("address1", TEXT, "Street, first line.", "location.address1", "$address1", personal=Personal.TEXT),
        Column("address2", TEXT, "Street, second line.", "location.address2", "$address2", personal=Personal.TEXT),
        Column("city", TEXT, "City.", "location.city", "$city"),
        Column("state", TEXT, "Region or state.", "location.region", "$region"),
        Column("zip", TEXT, "Postal code.", "location.zip", "$zip", personal=Personal.TEXT),
        Column("country", TEXT, "Country.", "location.country", "$country"),
        Column("phone_number", TEXT, "Phone number.", "phone_number", "$phone_number", personal=Personal.TEXT),
        Column("longitude", FLOAT, "Degrees east.", "location.longitude", "$longitude", personal=Personal.NUMBER),
        Column("latitude", FLOAT, "Degrees north.", "location.latitude", "$latitude", personal=Personal.NUMBER),
        Column("consent", TEXT, "E-mail marketing consent.", "subscriptions.email.marketing.consent", "$consent"),
        Column(
            "consent_timestamp",
            TIMESTAMP,
            "When that consent was given or withdrawn.",
            "subscriptions.email.marketing.consent_timestamp",
            "$consent_timestamp",
        ),
        Column("created_at", TIMESTAMP, "When the profile was made.", "created", "created"),
        Column(
            "updated_at", TIMESTAMP, "When it was extracted with these values.", "extraction", "extraction", Merge.STAMP
        ),
        *ORIGIN,
        Column("member_key", KEY, "md5(id): what events call member_key.", "computed", "computed"),
    ),
)

MEMBER_ATTRIBUTES = Table(
    "member_attributes",
    "One row for each custom property of a person.",
    (
        Column(
            "key",
            KEY,
            "md5(esp_source || ':' || esp_integration_id || ':' || id): the person's, so not unique here.",
            "computed",
            "computed",
        ),
        Column("id", TEXT, "Klaviyo's id of the profile.", "id", "person.id"),
        Column("member_key", KEY, "md5(id)", "computed", "computed"),
        Column("name", TEXT, "Name of the property.", "properties", "names without $", personal=Personal.NAME),
        Column(
            "value", TEXT, "A string as it is, anything else as JSON.", "properties", "values", personal=Personal.TEXT
        ),
        Column("created_at", TIMESTAMP, "When it was first extracted.", "extraction", "extraction", Merge.KEEP),
        Column(
            "updated_at", TIMESTAMP, "When it was extracted with this value.", "extraction", "extraction", Merge.STAMP
        ),
        *ORIGIN,
    ),
    primary_key=("key", "name"),
)
