"""Tags, their groups, and the campaigns, flows, lists and segments that they are on."""

from klaviyo_pg.catalogue.personal import Harmless, Personal
from klaviyo_pg.catalogue.shared import DELETED_AT, KEY_OF_ID, ORIGIN
from klaviyo_pg.catalogue.types import BOOLEAN, KEY, TEXT, Column, Table

_COMPUTED = "computed"


def _key(name: str, description: str) -> Column:
    return Column(name, KEY, description, _COMPUTED, "", personal=Harmless.KEY)


TAGS = Table(
    "tags",
    "One row for each tag.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the tag.", "id", "", personal=Harmless.ID),
        Column("name", TEXT, "Name of the tag.", "name", "", personal=Personal.CHECKED),
        Column("tag_group_id", TEXT, "ID of its group.", "relationships.tag-group", "", personal=Harmless.ID),
        _key("tag_group_key", "Key of its group; joins to tag_groups.key."),
        *ORIGIN,
        DELETED_AT,
    ),
)

TAG_GROUPS = Table(
    "tag_groups",
    "One row for each group of tags that has a tag.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "Klaviyo's ID of the group.", "included tag-group", "", personal=Harmless.ID),
        Column("name", TEXT, "Name of the group.", "name", "", personal=Personal.CHECKED),
        Column("is_exclusive", BOOLEAN, "True if an object can have only one tag of the group.", "exclusive", ""),
        Column("is_default", BOOLEAN, "True for the group of tags that were given no other one.", "default", ""),
        *ORIGIN,
        DELETED_AT,
    ),
)

TAGGED_OBJECTS = Table(
    "tagged_objects",
    "One row for each tag on a campaign, flow, list or segment. What was deleted keeps the tags that it had.",
    (
        KEY_OF_ID,
        Column("id", TEXT, "tag_id || ':' || object_type || ':' || object_id", _COMPUTED, "", personal=Harmless.ID),
        Column("tag_id", TEXT, "ID of the tag.", "relationships.tags", "", personal=Harmless.ID),
        _key("tag_key", "Key of the tag; joins to tags.key."),
        Column("object_type", TEXT, "campaign, flow, list or segment.", "type", "", personal=Harmless.OWN),
        Column("object_id", TEXT, "ID of the campaign, flow, list or segment.", "id", "", personal=Harmless.ID),
        _key("object_key", "Key of that row; joins to key of campaigns, automations or lists."),
        *ORIGIN,
        DELETED_AT,
    ),
)
