"""The account, and the metrics that it has defined: the current dialect's documents, and their rows.

Only ids have to be well-formed. Anything else of another type than expected counts as missing. Sends no requests.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from klaviyo_pg import rows
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.current.resources import Links
from klaviyo_pg.klaviyo.fields import Id


class Definition(Struct):
    """The account, a custom metric or a mapping."""

    id: Id
    attributes: Any = None
    relationships: Any = None


class DefinitionDocument(Struct):
    """A page of them."""

    data: list[Definition]
    links: Links | None = None


def account(resource: Definition) -> rows.Account:
    attributes = _object(resource.attributes)
    contact = _object(attributes.get("contact_information"))
    is_test = attributes.get("test_account")
    return rows.Account(
        id=resource.id,
        name=properties.plain_text(contact.get("organization_name")),
        website=properties.plain_text(contact.get("website_url")),
        industry=properties.plain_text(attributes.get("industry")),
        timezone=properties.plain_text(attributes.get("timezone")),
        currency=properties.plain_text(attributes.get("preferred_currency")),
        locale=properties.plain_text(attributes.get("locale")),
        is_test=is_test if isinstance(is_test, bool) else None,
    )


def custom_metric(resource: Definition) -> rows.CustomMetric:
    attributes = _object(resource.attributes)
    definition = _object(attributes.get("definition"))
    groups = definition.get("metric_groups")
    ids = [_object(each).get("metric_id") for each in groups] if isinstance(groups, list) else []
    return rows.CustomMetric(
        id=resource.id,
        name=properties.plain_text(attributes.get("name")),
        aggregation_method=properties.plain_text(definition.get("aggregation_method")),
        metric_ids=_json(sorted({each for each in ids if isinstance(each, str)})),
        definition=_json(definition) if definition else None,
        created=_moment(attributes.get("created")),
        updated=_moment(attributes.get("updated")),
    )


def mapped_metric(resource: Definition) -> rows.MappedMetric:
    related = _object(resource.relationships)
    return rows.MappedMetric(
        id=resource.id,
        metric_id=_related(related, "metric"),
        custom_metric_id=_related(related, "custom-metric"),
        updated=_moment(_object(resource.attributes).get("updated")),
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _related(relationships: Mapping[str, Any], name: str) -> str | None:
    row_id = _object(_object(relationships.get(name)).get("data")).get("id")
    return row_id if isinstance(row_id, str) and row_id else None


def _moment(value: Any) -> datetime | None:
    try:
        return rows.utc(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return None
