"""The tables of excluded addresses and list memberships: as last extracted (stg_), and with their history."""

from klaviyo_pg.catalogue.shared import ESP_INTEGRATION_ID, KEY_OF_ID, ORIGIN, SYNCED_AT
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Merge, Personal, Table

_ACCOUNT_ID = Column("_account_id", TEXT, "Klaviyo's ID of the account.", "accounts.id", "configured")

_EXCLUSION = (
    Column("reason", TEXT, "Reason for the exclusion, in the source's words.", "suppression.reason", "reason"),
    Column("created_at", TIMESTAMP, "When the address was excluded.", "suppression.timestamp", "timestamp"),
    _ACCOUNT_ID,
    Column("_sync_id", KEY, "md5(email)", "computed", "computed", personal=Personal.KEY_OF_EMAIL),
    SYNCED_AT,
    Column("email", TEXT, "Excluded email address.", "email", "email", personal=Personal.TEXT),
    ESP_INTEGRATION_ID,
)
_EXCLUSION_KEY = ("_sync_id", "esp_integration_id")

STG_MEMBER_EXCLUSIONS = Table(
    "stg_member_exclusions",
    "Excluded addresses, as returned by the last extraction.",
    _EXCLUSION,
    primary_key=_EXCLUSION_KEY,
)
MEMBER_EXCLUSIONS = Table(
    "member_exclusions",
    "One row for each address that is or was excluded from email marketing.",
    (
        *_EXCLUSION,
        Column(
            "removed_at",
            TIMESTAMP,
            "When a complete extraction no longer contained the address; null while it does.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
    ),
    primary_key=_EXCLUSION_KEY,
)

STG_MEMBER_LISTS = Table(
    "stg_member_lists",
    "List memberships, each as it was last extracted.",
    (
        Column("list_id", TEXT, "ID of the list.", "lists.id", "list_id"),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "profiles.id", "id"),
        Column("created_at", TIMESTAMP, "When the person last joined the list.", "joined_group_at", "created"),
        _ACCOUNT_ID,
        Column("_sync_id", KEY, "md5(list_id || ':' || member_id)", "computed", "computed"),
        SYNCED_AT,
        ESP_INTEGRATION_ID,
        Column(
            "is_subscribed",
            BOOLEAN,
            "Subscription status according to the list; null if the source does not return it.",
            "",
            "list/{id}/subscribe",
        ),
        Column(
            "absent_since",
            TIMESTAMP,
            "When a sweep of the list no longer found the person; null while the person is on the list.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
    ),
    primary_key=("_sync_id", "esp_integration_id"),
)
MEMBER_LISTS = Table(
    "member_lists",
    "One row for each list that a person is or was on.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "list_id || ':' || member_id", "computed", "computed"),
        Column("list_id", TEXT, "ID of the list.", "stg_member_lists", "stg_member_lists"),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "stg_member_lists", "stg_member_lists"),
        Column(
            "subscribed",
            TIMESTAMP,
            "Time of the latest subscribe event; without one, when the person joined the list.",
            "derived",
            "derived",
        ),
        Column(
            "unsubscribed_at", TIMESTAMP, "When the person left the list; null while on the list.", "derived", "derived"
        ),
        *ORIGIN,
        Column("is_subscribed", BOOLEAN, "True if the person may be emailed through the list.", "derived", "derived"),
        Column("left_reason", TEXT, "'event', 'suppressed' or 'absent'; null while on the list.", "derived", "derived"),
    ),
)
SUBSCRIPTION_CHANGES = Table(
    "subscription_changes",
    "Records of people joining and leaving lists. member_lists is derived from them.",
    (
        Column("id", TEXT, "ID of the event; for a suppression from a list, the IDs of list and member.", "id", "id"),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "relationships.profile", "person.id"),
        Column("change", TEXT, "'subscribed', 'unsubscribed' or 'suppressed'.", "metric", "event_name"),
        Column("list_id", TEXT, "ID of the list, if the source returns it.", "list_suppressions.list_id", "list id"),
        Column(
            "list_name", TEXT, "Name of the list, if the source returns only that.", "event_properties.List", "List"
        ),
        Column("changed_at", TIMESTAMP, "When the change happened.", "timestamp", "timestamp"),
        ESP_INTEGRATION_ID,
        SYNCED_AT,
    ),
    primary_key=("esp_integration_id", "member_id", "change", "id"),
)
SWEPT_MEMBERS = Table(
    "swept_members",
    "People found so far by a sweep of a list. Empty when no sweep is in progress.",
    (
        ESP_INTEGRATION_ID,
        Column("list_id", TEXT, "ID of the list."),
        Column("sweep", TEXT, "ID of the sweep, which keeps the rows of an interrupted sweep apart."),
        Column("member_id", TEXT, "Klaviyo's ID of the profile."),
        Column("answer", TEXT, "'found', or 'asked' if the source was asked about this person by address."),
    ),
    primary_key=("esp_integration_id", "list_id", "sweep", "member_id", "answer"),
)
