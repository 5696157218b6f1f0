"""The tables of segments: groups of people that Klaviyo chooses by conditions."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, MEMBER_KEY, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, TIMESTAMP, Column, Merge, Table

SEGMENTS = Table(
    "segments",
    "One row for each segment. lists has them as well, because campaigns are sent to both.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the segment.", "id", "lists of a campaign", personal=Harmless.ID),
        Column("name", TEXT, "Name of the segment.", "name", "lists of a campaign", personal=Personal.CHECKED),
        Column("is_active", BOOLEAN, "True if Klaviyo keeps its members up to date.", "is_active", ""),
        Column("is_starred", BOOLEAN, "True if a user of the account has starred it.", "is_starred", ""),
        Column("is_processing", BOOLEAN, "True if Klaviyo was computing its members.", "is_processing", ""),
        Column("created_at", TIMESTAMP, "When the segment was created.", "created", "lists of a campaign"),
        Column("updated_at", TIMESTAMP, "When the segment last changed.", "updated", "lists of a campaign"),
        *ORIGIN,
        DELETED_AT,
    ),
)
SEGMENT_MEMBERS = Table(
    "segment_members",
    "One row for each person who is or was in a segment that SEGMENTS names. It does not say who may be contacted.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "segment_id || ':' || member_id", "computed", "computed", personal=Harmless.ID),
        Column("segment_id", TEXT, "Klaviyo's ID of the segment.", "segments.id", "group", personal=Harmless.ID),
        Column(
            "segment_key",
            KEY,
            "Key of the segment; joins to segments.key.",
            "computed",
            "computed",
            personal=Harmless.KEY,
        ),
        Column("member_id", TEXT, "Klaviyo's ID of the profile.", "profiles.id", "id", personal=Harmless.ID),
        MEMBER_KEY,
        Column(
            "joined_at",
            TIMESTAMP,
            "When the person last became a member of the segment.",
            "joined_group_at",
            "",
            Merge.UNLESS_NULL,
        ),
        Column(
            "left_at",
            TIMESTAMP,
            "When a full read of the segment no longer found the person; null while the person is in it.",
            "computed",
            "computed",
            Merge.CLEAR,
        ),
        *ORIGIN,
    ),
    indexes=(("segment_id",), ("member_id",)),  # for sweeps, and for erasing
)
