"""The account's rows as JSON:API resources of the current dialect."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.account import Account, Campaign, CampaignMessage, Flow, Group, Metric, Tag, TagGroup
from sandbox.account.attributions import Attribution
from sandbox.account.definitions import CustomMetric, MappedMetric
from sandbox.account.flow_actions import FlowAction
from sandbox.account.people import CHANNELS, Profile

Resource = dict[str, Any]
Names = tuple[str, ...] | None
Ids = Sequence[str] | None
TIMEZONE = "America/New_York"
"""The time zone of the account's own reports."""


def moment(value: datetime | int | None) -> str | None:
    """Return a time in ISO 8601, in UTC and to the second."""
    if value is None:
        return None
    when = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return when.isoformat(timespec="seconds")


def exact(value: datetime | None) -> str | None:
    """Return a time in ISO 8601, to the microsecond."""
    return None if value is None else value.isoformat(timespec="microseconds")


def pick(attributes: dict[str, Any], names: Names) -> dict[str, Any]:
    """Return the requested attributes. A name such as `location.city` requests one member of an attribute."""
    if names is None:
        return attributes
    picked: dict[str, Any] = {}
    for name, value in attributes.items():
        members = {path.split(".")[1] for path in names if path.startswith(f"{name}.")}
        if name in names:
            picked[name] = value
        elif members and isinstance(value, dict):
            picked[name] = {member: inner for member, inner in value.items() if member in members}
    return picked


def new_resource(base: str, kind: str, path: str, row_id: str, attributes: dict[str, Any]) -> Resource:
    """Return a resource with the link to itself."""
    return {
        "type": kind,
        "id": row_id,
        "attributes": attributes,
        "links": {"self": f"{base}/api/{path}/{row_id}/"},
    }


def relation(base: str, path: str, row_id: str, name: str, data: Any = None) -> dict[str, Any]:
    """Return a relationship with its links, and with data if there is any."""
    links = {
        "self": f"{base}/api/{path}/{row_id}/relationships/{name}/",
        "related": f"{base}/api/{path}/{row_id}/{name}/",
    }
    return {"links": links} if data is None else {"data": data, "links": links}


def references(kind: str, ids: Ids) -> list[dict[str, str]] | None:
    """Return the identifiers of related resources; None if they are not asked for."""
    return None if ids is None else [{"type": kind, "id": row_id} for row_id in ids]


def account(base: str, row: Account, account_id: str, names: Names) -> Resource:
    """Return the account as a resource."""
    address = dict.fromkeys(("address1", "address2", "region", "country", "zip")) | {"city": "Boston"}
    attributes = {
        "test_account": False,
        "contact_information": {
            "default_sender_name": 'The "Shop"',
            "default_sender_email": "news@example.com",
            "website_url": "https://shop.example.com",
            "organization_name": "Example Shop",
            "street_address": address,
        },
        "industry": None,
        "timezone": TIMEZONE,
        "preferred_currency": "USD",
        "public_api_key": account_id,
        "locale": "en-US",
    }
    return new_resource(base, "account", "accounts", account_id, pick(attributes, names))


def metric(base: str, row: Metric, names: Names) -> Resource:
    """Return a metric as a resource."""
    source = row.integration
    attributes = {
        "name": row.name,
        "created": moment(row.created),
        "updated": moment(row.updated),
        "integration": source
        and {
            "object": "integration",
            "id": source.id,
            "key": source.key,
            "name": source.name,
            "category": source.category,
        },
    }
    resource = new_resource(base, "metric", "metrics", row.id, pick(attributes, names))
    resource["relationships"] = {"flow-triggers": relation(base, "metrics", row.id, "flow-triggers")}
    return resource


def custom_metric(base: str, row: CustomMetric, names: Names, includes_metrics: bool) -> Resource:
    """Return a custom metric as a resource. It refers to its metrics if they are included."""
    groups = [
        {
            "metric_id": metric_id,
            "metric_filters": brand
            and [{"property": "Brand", "filter": {"type": "string", "operator": "equals", "value": brand}}],
            "value_property": None,
        }
        for metric_id, brand in row.groups.items()
    ]
    attributes = {
        "name": row.name,
        "created": moment(row.created),
        "updated": moment(row.updated),
        "definition": {"aggregation_method": row.aggregation_method, "metric_groups": groups},
    }
    resource = new_resource(base, "custom-metric", "custom-metrics", row.id, pick(attributes, names))
    metrics = [{"type": "metric", "id": each} for each in row.groups] if includes_metrics else None
    resource["relationships"] = {"metrics": relation(base, "custom-metrics", row.id, "metrics", metrics)}
    return resource


def mapped_metric(base: str, row: MappedMetric, names: Names, include: Iterable[str]) -> Resource:
    """Return a mapped metric as a resource. It refers to what is included."""
    resource = new_resource(
        base, "mapped-metric", "mapped-metrics", row.id, pick({"updated": moment(row.updated)}, names)
    )
    resource["relationships"] = {
        kind: relation(base, "mapped-metrics", row.id, kind, {"type": kind, "id": row_id})
        if row_id and kind in include
        else relation(base, "mapped-metrics", row.id, kind)
        for kind, row_id in (("metric", row.metric), ("custom-metric", row.custom_metric))
    }
    return resource


def attribution(row: Account, ref: int, attributed: Attribution) -> Resource:
    """Return an attribution of an event as a resource. It has no attributes, and refers only to what there is."""
    related = {
        "event": ("event", row.timeline.id(ref)),
        "attributed-event": ("event", attributed.event),
        "campaign": ("campaign", attributed.campaign),
        "campaign-message": ("campaign-message", attributed.campaign_message),
        "flow": ("flow", attributed.flow),
        "flow-message": ("flow-message", attributed.flow_message),
        "flow-message-variation": ("flow-message", attributed.variation),
    }
    return {
        "type": "attribution",
        "id": attributed.id,
        "relationships": {
            name: {"data": {"type": kind, "id": row_id}} for name, (kind, row_id) in related.items() if row_id
        },
    }


def campaign(base: str, row: Campaign, names: Names, tags: Ids = None) -> Resource:
    """Return a campaign as a resource, with references to its tags if they are included."""
    attributes = {
        "name": row.name,
        "status": row.status,
        "archived": row.archived,
        "audiences": {"included": row.included, "excluded": row.excluded},
        "send_options": {"use_smart_sending": True},
        "tracking_options": {
            "add_tracking_params": True,
            "custom_tracking_params": [],
            "is_tracking_clicks": True,
            "is_tracking_opens": True,
        }
        if row.channel == "email"
        else {"add_tracking_params": True, "custom_tracking_params": []},
        "send_strategy": {"method": row.send_strategy, "datetime": exact(row.scheduled_at)},
        "created_at": exact(row.created_at),
        "scheduled_at": exact(row.scheduled_at),
        "updated_at": exact(row.updated_at),
        "send_time": exact(row.send_time),
    }
    resource = new_resource(base, "campaign", "campaigns", row.id, pick(attributes, names))
    messages = [{"type": "campaign-message", "id": message.id} for message in row.messages]
    resource["relationships"] = {
        "campaign-messages": relation(base, "campaigns", row.id, "campaign-messages", messages),
        "tags": relation(base, "campaigns", row.id, "tags", references("tag", tags)),
    }
    return resource


def campaign_message(base: str, row: CampaignMessage, names: Names) -> Resource:
    """Return a campaign message, which holds the subject and the sender, as a resource."""
    definition = {"channel": row.channel, "label": row.label, "content": row.content}
    if row.channel == "mobile_push":
        definition["notification_type"] = "standard"
    attributes = {
        "definition": definition,
        "send_times": [{"datetime": exact(at), "is_local": False} for at in row.send_times],
        "created_at": exact(row.created_at),
        "updated_at": exact(row.updated_at),
    }
    resource = new_resource(base, "campaign-message", "campaign-messages", row.id, pick(attributes, names))
    owner = {"type": "campaign", "id": row.campaign_id}
    resource["relationships"] = {
        "campaign": relation(base, "campaign-messages", row.id, "campaign", owner),
        "template": relation(base, "campaign-messages", row.id, "template"),
    }
    return resource


def flow(base: str, row: Flow, names: Names, actions: Ids = None, tags: Ids = None) -> Resource:
    """Return a flow as a resource, with references to its actions and tags if they are included."""
    attributes = {
        "name": row.name,
        "status": row.status,
        "archived": row.archived,
        "created": moment(row.created),
        "updated": moment(row.updated),
        "trigger_type": row.trigger_type,
    }
    resource = new_resource(base, "flow", "flows", row.id, pick(attributes, names))
    resource["relationships"] = {
        "flow-actions": relation(base, "flows", row.id, "flow-actions", references("flow-action", actions)),
        "tags": relation(base, "flows", row.id, "tags", references("tag", tags)),
    }
    return resource


def flow_action(base: str, row: FlowAction, flow: Flow, names: Names) -> Resource:
    """Return an action of a flow, which holds the message that it sends, as a resource."""
    attributes = {"definition": row.definition, "created": moment(flow.created), "updated": moment(flow.updated)}
    resource = new_resource(base, "flow-action", "flow-actions", row.id, pick(attributes, names))
    resource["relationships"] = {
        "flow": relation(base, "flow-actions", row.id, "flow", {"type": "flow", "id": flow.id}),
        "flow-messages": relation(base, "flow-actions", row.id, "flow-messages"),
    }
    return resource


def group(base: str, row: Group, names: Names, additional: Iterable[str] = (), tags: Ids = None) -> Resource:
    """Return a list or segment as a resource, with profile_count if `additional` names it, and tags if included."""
    kind = "segment" if row.is_segment else "list"
    attributes: dict[str, Any] = {
        "name": row.name,
        "created": moment(row.created),
        "updated": moment(row.updated),
    }
    if row.is_segment:
        attributes |= {
            "definition": {"condition_groups": []},
            "is_active": row.is_active,
            "is_processing": row.is_processing,
            "is_starred": row.is_starred,
        }
    else:
        attributes["opt_in_process"] = row.opt_in_process
    shown = pick(attributes, names)
    if "profile_count" in additional:
        shown["profile_count"] = len(row.joined)
    resource = new_resource(base, kind, f"{kind}s", row.id, shown)
    resource["relationships"] = {
        name: relation(base, f"{kind}s", row.id, name, references("tag", tags if name == "tags" else None))
        for name in ("profiles", "tags", "flow-triggers")
    }
    return resource


def tag(base: str, row: Tag, names: Names, has_group: bool) -> Resource:
    """Return a tag as a resource, with a reference to its group if that is included."""
    resource = new_resource(base, "tag", "tags", row.id, pick({"name": row.name}, names))
    group = {"type": "tag-group", "id": row.group_id} if has_group else None
    resource["relationships"] = {"tag-group": relation(base, "tags", row.id, "tag-group", group)} | {
        name: relation(base, "tags", row.id, name) for name in ("lists", "segments", "campaigns", "flows")
    }
    return resource


def tag_group(base: str, row: TagGroup, names: Names) -> Resource:
    """Return a group of tags as a resource."""
    attributes = {"name": row.name, "exclusive": row.is_exclusive, "default": row.is_default}
    resource = new_resource(base, "tag-group", "tag-groups", row.id, pick(attributes, names))
    resource["relationships"] = {"tags": relation(base, "tag-groups", row.id, "tags")}
    return resource


def profile(
    base: str, row: Profile, names: Names, additional: Iterable[str] = (), joined: int | None = None
) -> Resource:
    """Return a profile as a resource. `joined` is the time of joining if it is listed as a member."""
    attributes = {
        "email": row.email,
        "phone_number": row.phone_number,
        "external_id": row.external_id,
        "first_name": row.first_name,
        "last_name": row.last_name,
        "organization": row.organization,
        "locale": row.locale,
        "title": row.title,
        "image": row.image,
        "created": moment(row.created),
        "updated": moment(row.updated),
        "last_event_date": moment(row.last_event_date),
        "location": row.location,
        "properties": row.properties,
    }
    shown = pick(attributes, names)
    if joined is not None and (names is None or "joined_group_at" in names):
        shown["joined_group_at"] = moment(joined)
    if "subscriptions" in additional:
        shown["subscriptions"] = _subscriptions(row)
    if "predictive_analytics" in additional:
        shown["predictive_analytics"] = _predictions(row)
    resource = new_resource(base, "profile", "profiles", row.id, shown)
    if names is None:
        resource["relationships"] = {
            name: relation(base, "profiles", row.id, name)
            for name in ("lists", "segments", "push-tokens", "conversations")
        }
    return resource


_PREDICTIVE = (
    "historic_clv",
    "predicted_clv",
    "total_clv",
    "historic_number_of_orders",
    "predicted_number_of_orders",
    "average_days_between_orders",
    "average_order_value",
    "churn_probability",
    "expected_date_of_next_order",
    "ranked_channel_affinity",
)


def _predictions(row: Profile) -> dict[str, Any]:
    """Return what is predicted of a person: of every third one nothing."""
    orders = row.created % 3
    if not orders:
        return dict.fromkeys(_PREDICTIVE)
    values = {
        "historic_clv": 25.5 * orders,
        "predicted_clv": 10.25,
        "total_clv": 25.5 * orders + 10.25,
        "historic_number_of_orders": orders,
        "predicted_number_of_orders": 0.4,
        "average_days_between_orders": 30.5 if orders > 1 else None,
        "average_order_value": 25.5,
        "churn_probability": row.created % 100 / 100 or 0.5,
        "expected_date_of_next_order": moment(row.created + 90 * 86_400),
        "ranked_channel_affinity": ["email", "sms"],
    }
    return {name: values[name] for name in _PREDICTIVE}


def _subscriptions(row: Profile) -> dict[str, Any]:
    everywhere = [entry for entry in row.suppressions if entry.list_id is None]
    marketing = {
        "can_receive_email_marketing": row.email is not None and not everywhere,
        "consent": row.consent,
        "consent_timestamp": moment(row.consent_at),
        "last_updated": moment(row.consent_at),
        "method": None if row.consent_at is None else "API",
        "method_detail": None if row.consent_at is None else "",
        "custom_method_detail": None,
        "double_optin": None if row.consent_at is None else row.created % 2 == 0,
        "suppression": [{"reason": entry.reason, "timestamp": moment(entry.at)} for entry in everywhere],
        "list_suppressions": [
            {"list_id": entry.list_id, "reason": entry.reason, "timestamp": moment(entry.at)}
            for entry in row.suppressions
            if entry.list_id is not None
        ],
    }
    on = {channel: row.consents.get(channel, {}) for channel in CHANNELS}
    return {
        "email": {"marketing": marketing | on["email"]},
        "sms": {
            "marketing": {"can_receive_sms_marketing": False, **_NO_SMS} | on["sms"],
            "transactional": {"can_receive_sms_transactional": False, **_NO_SMS} | on["sms_transactional"],
        },
        "mobile_push": {"marketing": {"can_receive_push_marketing": False, **_NEVER} | on["push"]},
        "whatsapp": {"marketing": _NO_WHATSAPP | on["whatsapp"]} if on["whatsapp"] else None,
    }


_NEVER = {"consent": "NEVER_SUBSCRIBED", "consent_timestamp": None}
_NO_SMS = {**_NEVER, "method": None, "method_detail": None, "last_updated": None}
_NO_WHATSAPP = {
    **_NEVER,
    "last_updated": None,
    "created_timestamp": None,
    "metadata": None,
    "can_receive": False,
    "valid_until": None,
    "phone_number": None,
}
