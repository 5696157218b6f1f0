"""The account's rows as v1 and v2 show them: flat objects, naive times in v1, ISO 8601 with Z in v2."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.account import Campaign, Flow, Group, Metric
from sandbox.ids import token
from sandbox.people import SUBSCRIBED, UNSUBSCRIBED, Profile, Suppression

Row = dict[str, Any]
# 1 and 2 are Klaviyo's; which numbers the other states had is not known.
_STATUS_IDS = {"Sent": 1, "Draft": 2, "Scheduled": 3, "Sending": 4}
_OTHER_STATUS = 5
LIST_REASONS = {
    "UNSUBSCRIBE": "Unsubscribed",
    "HARD_BOUNCE": "Bounced",
    "INVALID_EMAIL": "Invalid Email",
    "SPAM_COMPLAINT": "Reported Spam",
    "USER_SUPPRESSED": "Manually Excluded",
}
REASONS = {
    "UNSUBSCRIBE": "unsubscribed",
    "HARD_BOUNCE": "bounced",
    "INVALID_EMAIL": "invalid_email",
    "SPAM_COMPLAINT": "reported_spam",
    "USER_SUPPRESSED": "manually_excluded",
}


def _utc(value: datetime | int) -> datetime:
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)


def naive(value: datetime | int | None) -> str | None:
    """A time as v1 writes it: UTC, to the second, without an offset."""
    return None if value is None else f"{_utc(value):%Y-%m-%d %H:%M:%S}"


def zulu(value: datetime | int) -> str:
    """A time as v2 writes it."""
    return f"{_utc(value):%Y-%m-%dT%H:%M:%SZ}"


def metric(row: Metric) -> Row:
    """A row of v1/metrics."""
    source = row.integration
    return {
        "object": "metric",
        "id": row.id,
        "name": row.name,
        "integration": source
        and {"object": "integration", "id": source.id, "name": source.name, "category": source.category},
        "created": naive(row.created),
        "updated": naive(row.updated),
    }


def group(row: Group) -> Row:
    """A row of v1/lists, and a list within a campaign."""
    return {
        "object": "list",
        "id": row.id,
        "name": row.name,
        "list_type": "segment" if row.is_segment else "list",
        "folder": None,
        "created": naive(row.created),
        "updated": naive(row.updated),
        "person_count": len(row.joined),
    }


def campaign(row: Campaign, groups: Mapping[str, Group]) -> Row:
    """A row of v1/campaigns. A campaign with variations shows its first message; a deleted list shows no longer."""
    message = row.messages[0] if row.messages else None
    content = message.content if message else {}
    audience = [groups[group_id] for group_id in row.included if group_id in groups]
    return {
        "object": "campaign",
        "id": row.id,
        "name": row.name,
        "subject": content.get("subject"),
        "from_email": content.get("from_email"),
        "from_name": content.get("from_label"),
        "lists": [group(found) for found in audience],
        "excluded_lists": [group(groups[group_id]) for group_id in row.excluded if group_id in groups],
        "status": row.status.lower(),
        "status_id": _STATUS_IDS.get(row.status, _OTHER_STATUS),
        "status_label": row.status,
        "sent_at": naive(row.send_time),
        "send_time": naive(row.send_time or row.scheduled_at),
        "created": naive(row.created_at),
        "updated": naive(row.updated_at),
        "num_recipients": len(set().union(*(found.joined for found in audience))) if row.status == "Sent" else 0,
        "campaign_type": "Batch" if len(row.messages) > 1 else "Regular",
        "is_segmented": any(found.is_segment for found in audience),
        "message_type": row.channel,
        "template_id": token("template", message.id) if message and row.channel == "email" else None,
    }


def flow(row: Flow) -> Row:
    """A row of v1/flows."""
    return {
        "object": "flow",
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "archived": row.archived,
        "trigger": {"type": row.trigger_type, "filter": None},
        "customer_filter": None,
        "created": naive(row.created),
        "updated": naive(row.updated),
    }


def person(row: Profile) -> Row:
    """A person, alone or within an event: what is not known is "", and custom properties stand beside Klaviyo's own."""
    place = row.location
    given: Row = {
        "$id": row.external_id,
        "$email": row.email,
        "$first_name": row.first_name,
        "$last_name": row.last_name,
        "$phone_number": row.phone_number,
        "$title": row.title,
        "$organization": row.organization,
        **{f"${name}": place.get(name) for name in ("address1", "address2", "city", "region", "country", "zip")},
        "$latitude": _coordinate(row, "latitude"),
        "$longitude": _coordinate(row, "longitude"),
        "$timezone": place.get("timezone"),
        "email": row.email,
        "first_name": row.first_name,
        "last_name": row.last_name,
    }
    shown: Row = {"object": "person", "id": row.id}
    shown |= {name: "" if value is None else value for name, value in given.items()}
    shown |= {"created": naive(row.created), "updated": naive(row.updated)} | _consent(row)
    return shown | {name: value for name, value in row.properties.items() if name not in shown}


def _coordinate(row: Profile, name: str) -> Any:
    """Number or text, as both were met."""
    value = row.location.get(name)
    return str(value) if value is not None and row.created % 2 else value


def _consent(row: Profile) -> Row:
    """Only who ever gave or withdrew consent has these; that an empty list stands for withdrawn is this sandbox's."""
    if row.consent not in (SUBSCRIBED, UNSUBSCRIBED):
        return {}
    given = {"$consent": ["email"] if row.consent == SUBSCRIBED else []}
    return given if row.consent_at is None else given | {"$consent_timestamp": f"{_utc(row.consent_at):%FT%T.000Z}"}


def exclusion(email: str, found: Suppression) -> Row:
    """A row of v1/people/exclusions."""
    return {"object": "exclusion", "email": email, "reason": REASONS[found.reason], "timestamp": naive(found.at)}


def address(row: Profile) -> Row:
    """Who somebody is, in v2: without an address there is at least a telephone number."""
    found = {"id": row.id, "email": row.email or ""}
    return found if row.phone_number is None else found | {"phone_number": row.phone_number}
