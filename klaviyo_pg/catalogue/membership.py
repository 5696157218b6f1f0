"""The tables of excluded addresses and list memberships: as last extracted (stg_), and with their history."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import ESP_INTEGRATION_ID, KEY_OF_ID, MEMBER_KEY, ORIGIN, SYNCED_AT
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Merge, Table

_ACCOUNT_ID = Column(
    "_account_id", TEXT, "Klaviyo's ID of the account.", "accounts.id", "configured", personal=Harmless.ID
)

_EXCLUSION = (
    Column(
        "reason",
        TEXT,
        "Reason for the exclusion, in the source's words.",
        "suppression.reason",
        "reason",
        personal=Personal.CHECKED,
    ),
    Column(
        "created_at",
        TIMESTAMP,
        "When the address was excluded; null if the source has never returned it.",
        "suppression.timestamp",
        "timestamp",
        Merge.UNLESS_NULL,
    ),
    _ACCOUNT_ID,
    Column("_sync_id", KEY, "md5(email)", "computed", "computed", personal=Personal.KEY_OF_EMAIL),
    SYNCED_AT,
    Column("email", TEXT, "Excluded email address.", "email", "email", personal=Personal.ADDRESS),
    ESP_INTEGRATION_ID,
    Column(
        "member_id",
        TEXT,
        "Klaviyo's ID of the profile; null if the source does not return it.",
        "id",
        "",
        personal=Harmless.ID,
    ),
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
    indexes=(("member_id",),),
)

SWEPT_EXCLUSIONS = Table(
    "swept_exclusions",
    "Excluded addresses read so far by a full read. Empty when none is in progress.",
    (
        *_EXCLUSION,
        Column(
            "sweep", TEXT, "ID of the run, which keeps the rows of an interrupted read apart.", personal=Harmless.OWN
        ),
        Column(
            "part", TEXT, "Chunk that the address was read with: it can have several reasons.", personal=Harmless.OWN
        ),
    ),
    primary_key=("esp_integration_id", "sweep", "part", "_sync_id"),
    unlogged=True,
    internal=True,
)
STG_MEMBER_LISTS = Table(
    "stg_member_lists",
    "List memberships, each as it was last extracted.",
    (
        Column("list_id", TEXT, "ID of the list.", "lists.id", "list_id", personal=Harmless.ID),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "profiles.id", "id", personal=Harmless.ID),
        Column("created_at", TIMESTAMP, "When the person last joined the list.", "joined_group_at", "created"),
        _ACCOUNT_ID,
        Column("_sync_id", KEY, "md5(list_id || ':' || member_id)", "computed", "computed", personal=Harmless.KEY),
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
    indexes=(("member_id",), ("list_id",)),
)
MEMBER_LISTS = Table(
    "member_lists",
    "One row for each list that a person is or was on.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "list_id || ':' || member_id", "computed", "computed", personal=Harmless.ID),
        Column("list_id", TEXT, "ID of the list.", "stg_member_lists", "stg_member_lists", personal=Harmless.ID),
        Column(
            "member_id",
            TEXT,
            "Klaviyo's ID of the profile.",
            "stg_member_lists",
            "stg_member_lists",
            personal=Harmless.ID,
        ),
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
        Column(
            "left_reason",
            TEXT,
            "'event', 'suppressed', 'absent', 'list_deleted' or 'profile_deleted'; null while on the list.",
            "derived",
            "derived",
            personal=Harmless.OWN,
        ),
        Column(
            "joined_at",
            TIMESTAMP,
            "When the person last joined the list; later than `subscribed` if no event says so, as after an import.",
            "derived",
            "derived",
        ),
    ),
)
SUBSCRIPTION_CHANGES = Table(
    "subscription_changes",
    "Events of people joining and leaving lists. member_lists is derived from them.",
    (
        Column("id", TEXT, "ID of the event.", "id", "id", personal=Personal.EVENT_ID),
        Column(
            "member_id",
            TEXT,
            "Klaviyo's ID of the profile.",
            "relationships.profile",
            "person.id",
            personal=Harmless.ID,
        ),
        Column("change", TEXT, "'subscribed' or 'unsubscribed'.", "metric", "event_name", personal=Harmless.OWN),
        Column(
            "list_id",
            TEXT,
            "ID of the list; null while no single list had this name.",
            "derived",
            "derived",
            personal=Harmless.ID,
        ),
        Column(
            "list_name",
            TEXT,
            "Name of the list at that time.",
            "event_properties.List",
            "List",
            personal=Personal.LABEL,
        ),
        Column("changed_at", TIMESTAMP, "When the change happened.", "timestamp", "timestamp"),
        ESP_INTEGRATION_ID,
        SYNCED_AT,
        Column(
            "scope",
            TEXT,
            "'list' if the change concerns one list, 'all' if it concerns all.",
            "metric",
            "metric",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("esp_integration_id", "member_id", "change", "id"),
    indexes=(("list_id", "list_name"),),  # to find what could not be resolved
)
LIST_SUPPRESSIONS = Table(
    "list_suppressions",
    "One row for each person who is or was suppressed for one list.",
    (
        ESP_INTEGRATION_ID,
        Column("list_id", TEXT, "ID of the list.", "list_suppressions.list_id", "list id", personal=Harmless.ID),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "profiles.id", "id", personal=Harmless.ID),
        Column(
            "reason",
            TEXT,
            "Reason for the suppression, in the source's words.",
            "reason",
            "reason",
            personal=Personal.CHECKED,
        ),
        Column("suppressed_at", TIMESTAMP, "When the person was suppressed.", "timestamp", "created"),
        Column(
            "lifted_at",
            TIMESTAMP,
            "When the source no longer returned the suppression; null while it does.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
        SYNCED_AT,
    ),
    primary_key=("esp_integration_id", "member_id", "list_id"),
)
LIST_NAMES = Table(
    "list_names",
    "The names of each list over time, because events name a list by the name that it had.",
    (
        ESP_INTEGRATION_ID,
        Column("list_id", TEXT, "ID of the list.", personal=Harmless.ID),
        Column("name", TEXT, "Name of the list.", personal=Personal.LABEL),
        Column(
            "since",
            TIMESTAMP,
            "The earliest time at which the list can have had this name: when it was created, or when it was last read "
            "with the name before; null if unknown.",
        ),
        Column("until", TIMESTAMP, "When the list was first read with another name; null for its current name."),
        Column("seen_at", TIMESTAMP, "When the list was first read with this name."),
    ),
    primary_key=("esp_integration_id", "list_id", "seen_at"),
    internal=True,
)
MEMBER_CONSENTS = Table(
    "member_consents",
    "One row for each person and channel: the consent to marketing, and if Klaviyo would send.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "member_id || ':' || channel", "computed", "computed", personal=Harmless.ID),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "id", "person.id", personal=Harmless.ID),
        MEMBER_KEY,
        Column(
            "channel",
            TEXT,
            "'email', 'sms', 'sms_transactional', 'push' or 'whatsapp'.",
            "subscriptions",
            "constant",
            personal=Harmless.OWN,
        ),
        Column("consent", TEXT, "Consent, in the source's words.", "consent", "$consent", personal=Personal.CHECKED),
        Column(
            "can_receive",
            BOOLEAN,
            "True if Klaviyo would send. For email it only excludes a global suppression, so it is also true for "
            "people who have never subscribed.",
            "can_receive_...",
            "",
        ),
        Column(
            "method",
            TEXT,
            "How the consent was given or withdrawn.",
            "method",
            "$consent_method",
            personal=Personal.CHECKED,
        ),
        Column("method_detail", TEXT, "Details of the method.", "method_detail", "", personal=Personal.TEXT),
        Column(
            "consent_timestamp",
            TIMESTAMP,
            "When the consent was given or withdrawn.",
            "consent_timestamp",
            "$consent_timestamp",
        ),
        Column("updated_at", TIMESTAMP, "When Klaviyo last changed the consent.", "last_updated", ""),
        Column("double_optin", BOOLEAN, "True if the person confirmed the consent.", "double_optin", ""),
        *ORIGIN,
    ),
    primary_key=("member_id", "channel", "esp_integration_id"),  # rows of a person lie together, unlike their keys
)
PROFILE_MERGES = Table(
    "profile_merges",
    "Profiles that were merged into another one, as their events show.",
    (
        ESP_INTEGRATION_ID,
        Column(
            "old_member_key", KEY, "md5(old profile id)", "relationships.profile", "person.id", personal=Harmless.KEY
        ),
        Column(
            "new_member_key",
            KEY,
            "md5(profile id); joins to members.member_key.",
            "relationships.profile",
            "person.id",
            personal=Harmless.KEY,
        ),
        Column(
            "old_member_id",
            TEXT,
            "Klaviyo's ID of the profile that the events had; null if it is not stored.",
            "relationships.profile",
            "person.id",
            personal=Harmless.ID,
        ),
        Column(
            "new_member_id",
            TEXT,
            "Klaviyo's ID of the profile that the events have now; null if it is not stored.",
            "relationships.profile",
            "person.id",
            personal=Harmless.ID,
        ),
        Column(
            "detected_at", TIMESTAMP, "When an event was first read with the other profile.", "computed", "computed"
        ),
        Column(
            "events_moved_at",
            TIMESTAMP,
            "When all stored events of the old profile had followed.",
            "computed",
            "computed",
        ),
    ),
    primary_key=("esp_integration_id", "old_member_key", "new_member_key"),
)
MISSING_PROFILES = Table(
    "missing_profiles",
    "Profiles that Klaviyo no longer has: a sweep did not find them, and neither did a request by ID.",
    (
        ESP_INTEGRATION_ID,
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", personal=Harmless.ID),
        Column("missing_since", TIMESTAMP, "When it was first missing.", merge=Merge.EARLIEST),
        Column("last_missing_at", TIMESTAMP, "When it was last missing.", merge=Merge.LATEST),
        Column("asked_at", TIMESTAMP, "When Klaviyo was asked for the owner of its events; null if it was not."),
    ),
    primary_key=("esp_integration_id", "member_id"),
    internal=True,
)
SWEPT_MEMBERS = Table(
    "swept_members",
    "People found so far by a sweep of a list or segment. Empty when no sweep is in progress.",
    (
        ESP_INTEGRATION_ID,
        Column("list_id", TEXT, "ID of the list or segment.", personal=Harmless.ID),
        Column(
            "sweep", TEXT, "ID of the sweep, which keeps the rows of an interrupted sweep apart.", personal=Harmless.OWN
        ),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", personal=Harmless.ID),
        Column(
            "answer",
            TEXT,
            "'found', 'suppressed' for the list, or 'asked' if the source was asked about this person by address.",
            personal=Harmless.OWN,
        ),
    ),
    primary_key=("esp_integration_id", "list_id", "sweep", "member_id", "answer"),
    unlogged=True,
    internal=True,
)
