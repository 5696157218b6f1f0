"""Who may not be written to, and who is on which list: each as last extracted (stg_) and as it stands."""

from klaviyo_pg.catalogue.shared import ESP_INTEGRATION_ID, KEY_OF_ID, ORIGIN, SYNCED_AT
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Merge, Personal, Table

_ACCOUNT_ID = Column("_account_id", TEXT, "Klaviyo's id of the account.", "accounts.id", "configured")

_EXCLUSION = (
    Column("reason", TEXT, "Why, in the source's word.", "suppression.reason", "reason"),
    Column("created_at", TIMESTAMP, "Since when.", "suppression.timestamp", "timestamp"),
    _ACCOUNT_ID,
    Column("_sync_id", KEY, "md5(email)", "computed", "computed", personal=Personal.KEY_OF_EMAIL),
    SYNCED_AT,
    Column("email", TEXT, "The excluded address.", "email", "email", personal=Personal.TEXT),
    ESP_INTEGRATION_ID,
)
_EXCLUSION_KEY = ("_sync_id", "esp_integration_id")

STG_MEMBER_EXCLUSIONS = Table(
    "stg_member_exclusions",
    "Excluded addresses as the last extraction returned them.",
    _EXCLUSION,
    primary_key=_EXCLUSION_KEY,
)
MEMBER_EXCLUSIONS = Table(
    "member_exclusions",
    "One row for each address that is, or was, excluded from e-mail marketing.",
    (
        *_EXCLUSION,
        Column(
            "removed_at",
            TIMESTAMP,
            "When a complete extraction no longer held the address.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
    ),
    primary_key=_EXCLUSION_KEY,
)

STG_MEMBER_LISTS = Table(
    "stg_member_lists",
    "List memberships as extractions returned them, the last one of each.",
    (
        Column("list_id", TEXT, "Id of the list.", "lists.id", "list_id"),
        Column("member_id", TEXT, "Klaviyo's id of the profile.", "profiles.id", "id"),
        Column("created_at", TIMESTAMP, "When the person joined the list, last.", "joined_group_at", "created"),
        _ACCOUNT_ID,
        Column("_sync_id", KEY, "md5(list_id || ':' || member_id)", "computed", "computed"),
        SYNCED_AT,
        ESP_INTEGRATION_ID,
        Column("is_subscribed", BOOLEAN, "What the list itself says, if anything.", "", "list/{id}/subscribe"),
        Column(
            "absent_since",
            TIMESTAMP,
            "When a sweep of the list no longer found the person; null while it does.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
    ),
    primary_key=("_sync_id", "esp_integration_id"),
)
MEMBER_LISTS = Table(
    "member_lists",
    "One row for each person who is, or was, on a list.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "list_id || ':' || member_id", "computed", "computed"),
        Column("list_id", TEXT, "Id of the list.", "stg_member_lists", "stg_member_lists"),
        Column("member_id", TEXT, "Klaviyo's id of the profile.", "stg_member_lists", "stg_member_lists"),
        Column("subscribed", TIMESTAMP, "The subscribe event, else when the person joined.", "derived", "derived"),
        Column("unsubscribed_at", TIMESTAMP, "When the person left, unless back since.", "derived", "derived"),
        *ORIGIN,
        Column("is_subscribed", BOOLEAN, "Whether the list may write to the person.", "derived", "derived"),
        Column("left_reason", TEXT, "'event', 'suppressed' or 'absent'; null while on the list.", "derived", "derived"),
    ),
)
SUBSCRIPTION_CHANGES = Table(
    "subscription_changes",
    "What is known of people joining and leaving lists; member_lists is derived from it.",
    (
        Column("id", TEXT, "Event id, or list and member of a list suppression.", "id", "id"),
        Column("member_id", TEXT, "Klaviyo's id of the profile.", "relationships.profile", "person.id"),
        Column("change", TEXT, "'subscribed', 'unsubscribed' or 'suppressed'.", "metric", "event_name"),
        Column("list_id", TEXT, "Id of the list, where the source names it.", "list_suppressions.list_id", "list id"),
        Column("list_name", TEXT, "Name of the list, where the source tells no more.", "event_properties.List", "List"),
        Column("changed_at", TIMESTAMP, "When.", "timestamp", "timestamp"),
        ESP_INTEGRATION_ID,
        SYNCED_AT,
    ),
    primary_key=("esp_integration_id", "member_id", "change", "id"),
)
SWEPT_MEMBERS = Table(
    "swept_members",
    "Whom a sweep of a list has found so far; empty when no sweep is under way.",
    (
        ESP_INTEGRATION_ID,
        Column("list_id", TEXT, "Id of the list."),
        Column("sweep", TEXT, "Id of the sweep; one that broke off tells another nothing."),
        Column("member_id", TEXT, "Klaviyo's id of the profile."),
        Column("answer", TEXT, "'found', or 'asked' where the source only tells of those whom it is asked for."),
    ),
    primary_key=("esp_integration_id", "list_id", "sweep", "member_id", "answer"),
)
