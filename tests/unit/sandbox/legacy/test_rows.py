"""The members of the rows of v1 and v2, and the values that they take from the account."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sandbox.account import Campaign, CampaignMessage, Group
from sandbox.account.people import Profile
from sandbox.legacy import rows

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
PERSON = Profile(
    id="01ABC",
    email="ada@example.com",
    phone_number=None,
    external_id=None,
    first_name="Ada",
    last_name=None,
    organization=None,
    locale=None,
    title=None,
    image=None,
    created=1_795_000_000,
    updated=1_795_000_001,
    last_event_date=None,
    location={"city": "Boston", "latitude": 42.5, "longitude": -71.25, "timezone": "America/New_York"},
    properties={},
)


@pytest.mark.parametrize(
    ("moment", "in_v1", "in_v2"),
    [
        pytest.param(NOON, "2026-11-03 12:00:00", "2026-11-03T12:00:00Z", id="UTC"),
        pytest.param(1_795_000_000, "2026-11-18 11:06:40", "2026-11-18T11:06:40Z", id="unix seconds"),
        pytest.param(
            NOON + timedelta(microseconds=999_999), "2026-11-03 12:00:00", "2026-11-03T12:00:00Z", id="microseconds"
        ),
        pytest.param(
            datetime(2026, 11, 3, 12, tzinfo=timezone(timedelta(hours=2))),
            "2026-11-03 10:00:00",
            "2026-11-03T10:00:00Z",
            id="another zone",
        ),
    ],
)
def test_times_are_in_utc_and_to_the_second(moment: datetime | int, in_v1: str, in_v2: str) -> None:
    """v1 has no offset, and v2 has a Z."""
    assert (rows.naive_time(moment), rows.iso_time(moment)) == (in_v1, in_v2)


def test_a_person_has_all_standard_fields() -> None:
    """A person has Klaviyo's fields with and without $. Missing values are ""."""
    assert rows.person(PERSON) == {
        "object": "person",
        "id": "01ABC",
        "$id": "",
        "$email": "ada@example.com",
        "$first_name": "Ada",
        "$last_name": "",
        "$phone_number": "",
        "$title": "",
        "$organization": "",
        "$address1": "",
        "$address2": "",
        "$city": "Boston",
        "$region": "",
        "$country": "",
        "$zip": "",
        "$latitude": 42.5,
        "$longitude": -71.25,
        "$timezone": "America/New_York",
        "email": "ada@example.com",
        "first_name": "Ada",
        "last_name": "",
        "created": "2026-11-18 11:06:40",
        "updated": "2026-11-18 11:06:41",
    }


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        pytest.param(
            {"consent": "NEVER_SUBSCRIBED"}, {"$consent": "absent", "$consent_timestamp": "absent"}, id="never"
        ),
        pytest.param(
            {"consent": "SUBSCRIBED", "consent_at": 1_795_000_000},
            {"$consent": ["email"], "$consent_timestamp": "2026-11-18T11:06:40.000Z"},
            id="subscribed",
        ),
        pytest.param(
            {"consent": "UNSUBSCRIBED", "consent_at": 1_795_000_000},
            {"$consent": [], "$consent_timestamp": "2026-11-18T11:06:40.000Z"},
            id="unsubscribed",
        ),
        pytest.param({"consent": "SUBSCRIBED"}, {"$consent": ["email"], "$consent_timestamp": "absent"}, id="no time"),
        pytest.param(
            {"created": 1_795_000_001}, {"$latitude": "42.5", "$longitude": "-71.25"}, id="coordinates as text"
        ),
        pytest.param({"location": {}}, {"$latitude": "", "$city": ""}, id="no location"),
        pytest.param(
            {"properties": {"Hi": None, "": 1, "$source": -6, "nul\u0000": {"a": []}}},
            {"Hi": None, "": 1, "$source": -6, "nul\u0000": {"a": []}},
            id="custom properties",
        ),
        pytest.param(
            {"properties": {"email": "no", "$email": "no", "id": "no", "object": "no", "created": "no"}},
            {"email": "ada@example.com", "$email": "ada@example.com", "id": "01ABC", "object": "person"},
            id="standard fields take precedence",
        ),
    ],
)
def test_a_person_reflects_the_profile(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    shown_row = rows.person(replace(PERSON, **changes))
    assert {name: shown_row.get(name, "absent") for name in shown} == shown


def campaign(channel: str = "email", **changes: Any) -> Campaign:
    content = {"subject": "Hello", "from_email": "a@example.com", "from_label": "A"} if channel == "email" else {}
    message = CampaignMessage("M1", "C1", channel, "One", content, NOON, NOON, [NOON])
    row = Campaign("C1", "First", "Sent", False, channel, ["L1"], [], "static", NOON, NOON, NOON, NOON, [message])
    return replace(row, **changes)


GROUPS = {
    "L1": Group("L1", "List", NOON, NOON, joined={1: 1, 2: 1}),
    "S1": Group("S1", "Segment", NOON, NOON, is_segment=True, joined={2: 1, 3: 1}),
}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        pytest.param(campaign(), {"status": "sent", "status_id": 1, "status_label": "Sent"}, id="sent"),
        pytest.param(
            campaign(status="Draft", send_time=None, scheduled_at=None),
            {"status": "draft", "status_id": 2, "status_label": "Draft", "sent_at": None, "send_time": None},
            id="draft",
        ),
        pytest.param(
            campaign(status="Scheduled"),
            {"status": "scheduled", "sent_at": None, "send_time": "2026-11-03 12:00:00", "num_recipients": 0},
            id="scheduled",
        ),
        pytest.param(
            campaign(), {"subject": "Hello", "from_email": "a@example.com", "from_name": "A"}, id="subject and sender"
        ),
        pytest.param(
            campaign("sms"),
            {"message_type": "sms", "subject": None, "from_email": None, "from_name": None, "template_id": None},
            id="text message",
        ),
        pytest.param(
            campaign(included=["L1", "S1"]), {"num_recipients": 3, "is_segmented": True}, id="recipients counted once"
        ),
        pytest.param(campaign(included=["gone"]), {"lists": [], "num_recipients": 0}, id="deleted list"),
        pytest.param(campaign(messages=[]), {"subject": None, "template_id": None}, id="without a message"),
    ],
)
def test_a_campaign_reflects_its_state_content_and_audience(row: Campaign, shown: dict[str, Any]) -> None:
    shown_row = rows.campaign(row, GROUPS)
    assert {name: shown_row[name] for name in shown} == shown


def test_a_campaign_contains_its_lists_and_segments() -> None:
    shown_row = rows.campaign(campaign(included=["L1"], excluded=["S1"]), GROUPS)
    common = {"object": "list", "folder": None, "created": "2026-11-03 12:00:00", "updated": "2026-11-03 12:00:00"}
    assert shown_row["lists"] == [{**common, "id": "L1", "name": "List", "list_type": "list", "person_count": 2}]
    assert shown_row["excluded_lists"] == [
        {**common, "id": "S1", "name": "Segment", "list_type": "segment", "person_count": 2}
    ]
