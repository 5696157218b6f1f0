"""Tags and their groups turned into rows, and the tags that another resource has. Sends no requests."""

from collections.abc import Sequence
from typing import Any

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.lenient import boolean, identifier, member, related_id
from klaviyo_pg.klaviyo.properties import plain_text


def tags(document: resources.ResourceDocument) -> list[rows.Tag | rows.TagGroup]:
    """Return the tags of a page, and the groups that they are in."""
    groups = (each for each in document.included if each.type in (None, "tag-group"))
    return [*map(_tag, document.data), *map(_group, groups)]


def _tag(resource: resources.Resource) -> rows.Tag:
    name = plain_text(member(resource.attributes, "name"))
    return rows.Tag(resource.id, name, related_id(resource.relationships, "tag-group"))


def _group(resource: resources.Resource) -> rows.TagGroup:
    attributes = resource.attributes
    return rows.TagGroup(
        resource.id,
        plain_text(member(attributes, "name")),
        boolean(member(attributes, "exclusive")),
        boolean(member(attributes, "default")),
    )


def ids_of(relationships: Any) -> Sequence[str] | None:
    """Return the ids of the tags of a resource; None if the response does not say which it has."""
    data = member(relationships, "tags", "data")
    if not isinstance(data, list):
        return None
    ids = (identifier(member(each, "id")) for each in data)
    return [each for each in ids if each is not None]
