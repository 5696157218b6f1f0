"""People on their way into members, member_attributes and subscription_changes."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo.rows import Profile
from transforms.people import People, people

ACCOUNT = "account-1"
READ = datetime(2026, 7, 1, 12, tzinfo=UTC)
JOINED = datetime(2025, 1, 1, tzinfo=UTC)
NOBODY = Profile("p1", *[None] * 15, ())
KEYS = {
    "key": hashlib.md5(f"Klaviyo:{ACCOUNT}:p1".encode()).hexdigest(),
    "member_key": hashlib.md5(b"p1").hexdigest(),
}


def made(*changes: dict[str, Any], load: Any = loads.MEMBERS) -> People:
    """Frames of people who differ from nobody by these fields."""
    return people([NOBODY._replace(**change) for change in changes], load, READ, ACCOUNT)


def test_every_column_of_a_member() -> None:
    """All that the table promises, from a person of whom everything is known."""
    same = {
        "id": "p1",
        "email": "zoë@example.com",
        "timezone": "Europe/Berlin",
        "first_name": "Zoë",
        "last_name": "O'Neil",
        "source": "checkout",
        "address1": "1 High Street",
        "address2": "Flat 2",
        "city": "Cork",
        "state": "Munster",
        "zip": "T12",
        "country": "Ireland",
        "phone_number": "+353211234567",
        "longitude": -8.5,
        "latitude": 51.9,
        "consent": "SUBSCRIBED",
        "consent_timestamp": JOINED,
    }
    frame = made({**same, "created": JOINED}).members
    assert dict(frame.schema) == loads.MEMBERS.schema
    assert frame.row(0, named=True) == {
        **same,
        **KEYS,
        "predict_user_id": None,
        "created_at": JOINED,
        "updated_at": READ,
    }


def test_people_on_event_pages_bring_no_consent() -> None:
    """Consent is not on an event page, so it must not be overwritten with null from there."""
    frame = made({"email": "a@example.com"}, load=loads.EVENT_MEMBERS).members
    assert frame.columns == [each for each in loads.MEMBERS.schema if not each.startswith("consent")]


def test_a_person_of_whom_nothing_is_known() -> None:
    """An id is enough; an empty string is nothing."""
    row = made({"email": "", "first_name": "\x00"}).members.row(0, named=True)
    assert {name: value for name, value in row.items() if value is not None} == {"id": "p1", "updated_at": READ, **KEYS}


@pytest.mark.parametrize(
    ("properties", "attributes"),
    [
        pytest.param([("Size", "L"), ("Visits", "3")], [("Size", "L"), ("Visits", "3")], id="text and JSON"),
        pytest.param([("", "x")], [("", "x")], id="a name that is empty"),
        pytest.param([("$odd \"'\t\\", "x"), ("😀", "y")], [("$odd \"'\t\\", "x"), ("😀", "y")], id="odd names"),
        pytest.param([("email", "x"), ("id", "y")], [("email", "x"), ("id", "y")], id="named like columns"),
        pytest.param([("a", ""), ("b", None)], [("a", None), ("b", None)], id="without a value"),
        pytest.param([("a\x00", "1"), ("a", "2")], [("a", "2")], id="one name but for NUL"),
        pytest.param([], [(None, None)], id="none"),
    ],
)
def test_custom_properties_are_rows(
    properties: list[tuple[str, str | None]], attributes: list[tuple[str | None, str | None]]
) -> None:
    """A row for each property; one without a name says that the person has none."""
    frame = made({"properties": properties}).attributes
    assert dict(frame.schema) == loads.MEMBER_ATTRIBUTES.schema
    assert frame.select("name", "value").rows() == attributes
    for row in frame.rows(named=True):
        assert row.items() >= {**KEYS, "id": "p1", "created_at": READ, "updated_at": READ}.items()


def test_of_a_person_who_was_read_twice_the_last_reading_stays() -> None:
    """Older properties do not stay beside newer ones."""
    found = made(
        {"city": "Cork", "properties": [("old", "1")], "list_suppressions": [("L1", JOINED)]},
        {"city": "Bonn", "properties": [("new", "2")]},
    )
    assert found.members["city"].to_list() == ["Bonn"]
    assert found.attributes["name"].to_list() == ["new"]
    assert found.suppressions.is_empty()


def test_list_suppressions_are_changes_of_membership() -> None:
    """A suppression that concerns one list is noted for that list, also where its time is not known."""
    frame = made({"list_suppressions": [("L1", JOINED), ("L2", None)]}).suppressions
    assert dict(frame.schema) == loads.SUBSCRIPTION_CHANGES.schema
    assert frame.select("id", "member_id", "change", "list_id", "list_name", "changed_at").rows() == [
        ("L1:p1", "p1", "suppressed", "L1", None, JOINED),
        ("L2:p1", "p1", "suppressed", "L2", None, None),
    ]


def test_nul_is_counted_in_people_and_their_properties() -> None:
    """Both frames count."""
    assert made({"city": "\x00C\x00", "properties": [("a", "\x00")]}).nul_characters == 3


def test_nobody_is_no_rows() -> None:
    """A page without people makes empty frames of the right shape."""
    found = made()
    assert found.members.is_empty() and found.attributes.is_empty() and found.suppressions.is_empty()
    assert dict(found.members.schema) == loads.MEMBERS.schema
    assert dict(found.attributes.schema) == loads.MEMBER_ATTRIBUTES.schema


def test_a_name_too_long_for_an_index_is_rejected() -> None:
    """A property whose name no primary key can hold is set aside; the person and the other properties stay."""
    found = made({"properties": (("x" * 2001, "kept aside"), ("Size", "M"))})
    assert found.members.height == 1
    assert found.attributes["name"].to_list() == ["Size"]
    assert "kept aside" in found.rejects[0].raw
