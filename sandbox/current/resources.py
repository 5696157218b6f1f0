"""The account's rows as JSON:API resources of the current dialect."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.account import Account, Campaign, CampaignMessage, Flow, Group, Metric, Tag, TagGroup
from sandbox.account.attributions import Attribution
from sandbox.account.definitions import CustomMetric, MappedMetric
from sandbox.account.flow_actions import FlowAction
from sandbox.account.omnichannel import Audience, Message, Variation
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


def _exact(value: datetime | None) -> str | None:
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


def _resource(base: str, kind: str, path: str, row_id: str, attributes: dict[str, Any]) -> Resource:
    return {
        "type": kind,
        "id": row_id,
        "attributes": attributes,
        "links": {"self": f"{base}/api/{path}/{row_id}/"},
    }


def _related(base: str, path: str, row_id: str, name: str, data: Any = None) -> dict[str, Any]:
    links = {
        "self": f"{base}/api/{path}/{row_id}/relationships/{name}/",
        "related": f"{base}/api/{path}/{row_id}/{name}/",
    }
    return {"links": links} if data is None else {"data": data, "links": links}


def _references(kind: str, ids: Ids) -> list[dict[str, str]] | None:
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
    return _resource(base, "account", "accounts", account_id, pick(attributes, names))


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
    resource = _resource(base, "metric", "metrics", row.id, pick(attributes, names))
    resource["relationships"] = {"flow-triggers": _related(base, "metrics", row.id, "flow-triggers")}
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
    resource = _resource(base, "custom-metric", "custom-metrics", row.id, pick(attributes, names))
    metrics = [{"type": "metric", "id": each} for each in row.groups] if includes_metrics else None
    resource["relationships"] = {"metrics": _related(base, "custom-metrics", row.id, "metrics", metrics)}
    return resource


def mapped_metric(base: str, row: MappedMetric, names: Names, include: Iterable[str]) -> Resource:
    """Return a mapped metric as a resource. It refers to what is included."""
    resource = _resource(base, "mapped-metric", "mapped-metrics", row.id, pick({"updated": moment(row.updated)}, names))
    resource["relationships"] = {
        kind: _related(base, "mapped-metrics", row.id, kind, {"type": kind, "id": row_id})
        if row_id and kind in include
        else _related(base, "mapped-metrics", row.id, kind)
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
        "send_strategy": {"method": row.send_strategy, "datetime": _exact(row.scheduled_at)},
        "created_at": _exact(row.created_at),
        "scheduled_at": _exact(row.scheduled_at),
        "updated_at": _exact(row.updated_at),
        "send_time": _exact(row.send_time),
    }
    resource = _resource(base, "campaign", "campaigns", row.id, pick(attributes, names))
    messages = [{"type": "campaign-message", "id": message.id} for message in row.messages]
    resource["relationships"] = {
        "campaign-messages": _related(base, "campaigns", row.id, "campaign-messages", messages),
        "tags": _related(base, "campaigns", row.id, "tags", _references("tag", tags)),
    }
    return resource


def campaign_message(base: str, row: CampaignMessage, names: Names) -> Resource:
    """Return a campaign message, which holds the subject and the sender, as a resource."""
    definition = {"channel": row.channel, "label": row.label, "content": row.content}
    if row.channel == "mobile_push":
        definition["notification_type"] = "standard"
    attributes = {
        "definition": definition,
        "send_times": [{"datetime": _exact(at), "is_local": False} for at in row.send_times],
        "created_at": _exact(row.created_at),
        "updated_at": _exact(row.updated_at),
    }
    resource = _resource(base, "campaign-message", "campaign-messages", row.id, pick(attributes, names))
    owner = {"type": "campaign", "id": row.campaign_id}
    resource["relationships"] = {
        "campaign": _related(base, "campaign-messages", row.id, "campaign", owner),
        "template": _related(base, "campaign-messages", row.id, "template"),
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
    resource = _resource(base, "flow", "flows", row.id, pick(attributes, names))
    resource["relationships"] = {
        "flow-actions": _related(base, "flows", row.id, "flow-actions", _references("flow-action", actions)),
        "tags": _related(base, "flows", row.id, "tags", _references("tag", tags)),
    }
    return resource


def flow_action(base: str, row: FlowAction, flow: Flow, names: Names) -> Resource:
    """Return an action of a flow, which holds the message that it sends, as a resource."""
    attributes = {"definition": row.definition, "created": moment(flow.created), "updated": moment(flow.updated)}
    resource = _resource(base, "flow-action", "flow-actions", row.id, pick(attributes, names))
    resource["relationships"] = {
        "flow": _related(base, "flow-actions", row.id, "flow", {"type": "flow", "id": flow.id}),
        "flow-messages": _related(base, "flow-actions", row.id, "flow-messages"),
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
    resource = _resource(base, kind, f"{kind}s", row.id, shown)
    resource["relationships"] = {
        name: _related(base, f"{kind}s", row.id, name, _references("tag", tags if name == "tags" else None))
        for name in ("profiles", "tags", "flow-triggers")
    }
    return resource


def tag(base: str, row: Tag, names: Names, has_group: bool) -> Resource:
    """Return a tag as a resource, with a reference to its group if that is included."""
    resource = _resource(base, "tag", "tags", row.id, pick({"name": row.name}, names))
    group = {"type": "tag-group", "id": row.group_id} if has_group else None
    resource["relationships"] = {"tag-group": _related(base, "tags", row.id, "tag-group", group)} | {
        name: _related(base, "tags", row.id, name) for name in ("lists", "segments", "campaigns", "flows")
    }
    return resource


def tag_group(base: str, row: TagGroup, names: Names) -> Resource:
    """Return a group of tags as a resource."""
    attributes = {"name": row.name, "exclusive": row.is_exclusive, "default": row.is_default}
    resource = _resource(base, "tag-group", "tag-groups", row.id, pick(attributes, names))
    resource["relationships"] = {"tags": _related(base, "tag-groups", row.id, "tags")}
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
    resource = _resource(base, "profile", "profiles", row.id, shown)
    if names is None:
        resource["relationships"] = {
            name: _related(base, "profiles", row.id, name)
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


def omnichannel_campaign(
    base: str, row: Campaign, names: Names, audiences: Sequence[Audience], message: Message, tags: Ids = None
) -> Resource:
    """Return a campaign as a resource of revision 2026-10-15."""
    definition = {
        "name": row.name,
        "builder": "wizard",
        "archived": row.archived,
        "color": None,
        "description": None,
        "send_settings": {"send_timezone": "UTC", "send_strategy": "static", "exit_condition_enabled": False},
    }
    attributes = {
        "created_at": _exact(row.created_at),
        "updated_at": _exact(row.updated_at),
        "definition": definition,
    }
    resource = _resource(base, "campaign", "campaigns", row.id, pick(attributes, names))
    of_campaign = {
        "campaign-audiences": _references("campaign-audience", [each.id for each in audiences]),
        "campaign-messages": _references("campaign-message", [message.id]),
        "tags": _references("tag", tags),
    }
    resource["relationships"] = {
        name: _related(base, "campaigns", row.id, name, data) for name, data in of_campaign.items()
    }
    return resource


def campaign_audience(base: str, row: Audience, campaign: Campaign, message: Message, names: Names) -> Resource:
    """Return an audience of a campaign as a resource."""
    attributes = {
        "created": _exact(campaign.created_at),
        "updated": _exact(campaign.updated_at),
        "definition": {
            "name": row.name,
            "included": row.included,
            "excluded": row.excluded,
            "priority": row.priority,
        },
    }
    resource = _resource(base, "campaign-audience", "campaign-audiences", row.id, pick(attributes, names))
    messages = [message.id] if message.audience_id == row.id else []
    resource["relationships"] = {
        "campaign": _related(base, "campaign-audiences", row.id, "campaign", {"type": "campaign", "id": campaign.id}),
        "campaign-messages": _related(
            base, "campaign-audiences", row.id, "campaign-messages", _references("campaign-message", messages)
        ),
    }
    return resource


def omnichannel_message(base: str, row: Message, names: Names, has_variations: bool) -> Resource:
    """Return a message of a campaign as a resource of revision 2026-10-15, with references to included variations."""
    variations = [each.id for each in row.variations]
    times = {each: _exact(row.send_time) for each in variations} if len(variations) > 1 and row.send_time else None
    options = {
        "send_time": _exact(row.send_time),
        "send_times": times,
        "send_strategy": row.send_strategy,
        "recipient_percentage": 100,
        "throttling_type": None,
        "throttle_unit": None,
        "is_ignoring_unsubscribes": False,
    }
    definition = {
        "name": row.name,
        "status": row.status,
        "tracking_options": {"is_add_utm": True, "is_tracking_clicks": True, "is_tracking_opens": True},
        "send_options": options,
    }
    attributes = {"created": _exact(row.created), "updated": _exact(row.updated), "definition": definition}
    resource = _resource(base, "campaign-message", "campaign-messages", row.id, pick(attributes, names))
    of_message: dict[str, Any] = {
        "campaign": {"type": "campaign", "id": row.campaign_id},
        "campaign-audience": {"type": "campaign-audience", "id": row.audience_id},
        "campaign-variations": _references("campaign-variation", variations if has_variations else None),
    }
    resource["relationships"] = {
        name: _related(base, "campaign-messages", row.id, name, data) for name, data in of_message.items()
    }
    return resource


def campaign_variation(base: str, row: Variation, message: Message, names: Names) -> Resource:
    """Return a variation of a message, which holds the subject and the sender, as a resource."""
    attributes = {
        "created": _exact(message.created),
        "updated": _exact(message.updated),
        "definition": {"name": row.name, "details": row.details},
    }
    resource = _resource(base, "campaign-variation", "campaign-variations", row.id, pick(attributes, names))
    owner = {"type": "campaign-message", "id": message.id}
    resource["relationships"] = {
        "campaign-message": _related(base, "campaign-variations", row.id, "campaign-message", owner)
    }
    return resource
