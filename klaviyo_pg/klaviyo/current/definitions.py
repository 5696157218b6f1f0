"""The account, and the metrics that it has defined, turned into rows. Sends no requests.

Only ids have to be well-formed. Anything else of another type than expected counts as missing.
"""

from typing import Any

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current.resources import Resource
from klaviyo_pg.klaviyo.lenient import boolean, elements, member, moment, related_id
from klaviyo_pg.klaviyo.properties import plain_text


def account(resource: Resource) -> rows.Account:
    def text(*path: str) -> str | None:
        return plain_text(member(resource.attributes, *path))

    return rows.Account(
        id=resource.id,
        name=text("contact_information", "organization_name"),
        website=text("contact_information", "website_url"),
        industry=text("industry"),
        timezone=text("timezone"),
        currency=text("preferred_currency"),
        locale=text("locale"),
        is_test=boolean(member(resource.attributes, "test_account")),
    )


def custom_metric(resource: Resource) -> rows.CustomMetric:
    attributes = resource.attributes
    definition = member(attributes, "definition")
    ids = (member(each, "metric_id") for each in elements(member(definition, "metric_groups")))
    return rows.CustomMetric(
        id=resource.id,
        name=plain_text(member(attributes, "name")),
        aggregation_method=plain_text(member(definition, "aggregation_method")),
        metric_ids=_json(sorted({each for each in ids if isinstance(each, str)})),
        definition=_json(definition) if definition and isinstance(definition, dict) else None,
        created=moment(member(attributes, "created")),
        updated=moment(member(attributes, "updated")),
    )


def mapped_metric(resource: Resource) -> rows.MappedMetric:
    return rows.MappedMetric(
        id=resource.id,
        metric_id=related_id(resource.relationships, "metric"),
        custom_metric_id=related_id(resource.relationships, "custom-metric"),
        updated=moment(member(resource.attributes, "updated")),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
