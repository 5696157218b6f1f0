"""The account's rows as v1 and v2 return them: flat objects, with naive times in v1 and ISO 8601 times in v2."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox.account import Campaign, Flow, Group, Metric
from sandbox.account.ids import token
from sandbox.account.model import audience_size
from sandbox.account.people import SUBSCRIBED, UNSUBSCRIBED, Profile, Suppression

Row = dict[str, Any]
# Klaviyo documents 1 and 2. The numbers of the other states are not documented.
_STATUS_IDS = {"Sent": 1, "Draft": 2, "Scheduled": 3, "Sending": 4}
_OTHER_STATUS = 5
_LOCATION = ("address1", "address2", "city", "region", "country", "zip")
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


def naive_time(value: datetime | int | None) -> str | None:
    """Return a time in the format of v1: UTC, to the second, without an offset."""
    return None if value is None else f"{_utc(value):%Y-%m-%d %H:%M:%S}"


def iso_time(value: datetime | int) -> str:
    """Return a time in the format of v2: UTC, to the second, with a Z."""
    return f"{_utc(value):%Y-%m-%dT%H:%M:%SZ}"


def metric(row: Metric) -> Row:
    """Return a row of v1/metrics."""
    source = row.integration
    return {
        "object": "metric",
        "id": row.id,
        "name": row.name,
        "integration": source
        and {"object": "integration", "id": source.id, "name": source.name, "category": source.category},
        "created": naive_time(row.created),
        "updated": naive_time(row.updated),
    }


def group(row: Group) -> Row:
    """Return a row of v1/lists, which is also the format of a list within a campaign."""
    return {
        "object": "list",
        "id": row.id,
        "name": row.name,
        "list_type": "segment" if row.is_segment else "list",
        "folder": None,
        "created": naive_time(row.created),
        "updated": naive_time(row.updated),
        "person_count": len(row.joined),
    }


def campaign(row: Campaign, groups: Mapping[str, Group]) -> Row:
    """Return a row of v1/campaigns with the content of the first message. Deleted lists are left out."""
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
        "lists": [group(included) for included in audience],
        "excluded_lists": [group(groups[group_id]) for group_id in row.excluded if group_id in groups],
        "status": row.status.lower(),
        "status_id": _STATUS_IDS.get(row.status, _OTHER_STATUS),
        "status_label": row.status,
        "sent_at": naive_time(row.send_time if row.status in ("Sent", "Sending") else None),
        "send_time": naive_time(row.send_time),
        "created": naive_time(row.created_at),
        "updated": naive_time(row.updated_at),
        "num_recipients": audience_size(audience) if row.status == "Sent" else 0,
        "campaign_type": "Batch" if len(row.messages) > 1 else "Regular",
        "is_segmented": any(included.is_segment for included in audience),
        "message_type": row.channel,
        "template_id": token("template", message.id) if message and row.channel == "email" else None,
    }


def flow(row: Flow) -> Row:
    """Return a row of v1/flows."""
    return {
        "object": "flow",
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "archived": row.archived,
        "trigger": {"type": row.trigger_type, "filter": None},
        "customer_filter": None,
        "created": naive_time(row.created),
        "updated": naive_time(row.updated),
    }


def person(row: Profile) -> Row:
    """Return a person, alone or within an event. Missing values are "", and custom properties follow Klaviyo's."""
    standard: Row = {
        "$id": row.external_id,
        "$email": row.email,
        "$first_name": row.first_name,
        "$last_name": row.last_name,
        "$phone_number": row.phone_number,
        "$title": row.title,
        "$organization": row.organization,
        **{f"${name}": row.location.get(name) for name in _LOCATION},
        "$latitude": _coordinate(row, "latitude"),
        "$longitude": _coordinate(row, "longitude"),
        "$timezone": row.location.get("timezone"),
        "email": row.email,
        "first_name": row.first_name,
        "last_name": row.last_name,
    }
    shown: Row = {"object": "person", "id": row.id}
    shown |= {name: "" if value is None else value for name, value in standard.items()}
    shown |= {"created": naive_time(row.created), "updated": naive_time(row.updated)} | _consent(row)
    return shown | {name: value for name, value in row.properties.items() if name not in shown}


def _coordinate(row: Profile, name: str) -> Any:
    """Return a number or text, as real accounts contain both."""
    value = row.location.get(name)
    return str(value) if value is not None and row.created % 2 else value


def _consent(row: Profile) -> Row:
    """Return the consent of a person who gave or withdrew it. Only this sandbox shows withdrawal as an empty list."""
    if row.consent not in (SUBSCRIBED, UNSUBSCRIBED):
        return {}
    consent = {"$consent": ["email"] if row.consent == SUBSCRIBED else []}
    return consent if row.consent_at is None else consent | {"$consent_timestamp": f"{_utc(row.consent_at):%FT%T.000Z}"}


def exclusion(email: str, suppression: Suppression) -> Row:
    """Return a row of v1/people/exclusions."""
    return {
        "object": "exclusion",
        "email": email,
        "reason": REASONS[suppression.reason],
        "timestamp": naive_time(suppression.at),
    }


def address(row: Profile) -> Row:
    """Return the identifiers of a person in v2: the id, the email and, if there is one, the phone number."""
    identifiers = {"id": row.id, "email": row.email or ""}
    return identifiers if row.phone_number is None else identifiers | {"phone_number": row.phone_number}
