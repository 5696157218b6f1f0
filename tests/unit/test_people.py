"""The frames of people for members, member_attributes, member_consents and list_suppressions."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.rows import Consent, Suppression
from tests.people_frames import People, consents, people
from tests.rows import profile_row
from transforms.people import Consents, stubs

ACCOUNT = "account-1"
READ = datetime(2026, 7, 1, 12, tzinfo=UTC)
JOINED = datetime(2025, 1, 1, tzinfo=UTC)
EMPTY = profile_row("p1")
KEYS = {
    "key": hashlib.md5(f"Klaviyo:{ACCOUNT}:p1".encode()).hexdigest(),
    "member_key": hashlib.md5(b"p1").hexdigest(),
}


def frames(*changes: dict[str, Any], load: Any = loads.MEMBERS) -> People:
    """Return the frames of people who have only these fields."""
    return people([EMPTY._replace(**change) for change in changes], load, READ, ACCOUNT)


def agreed(*changes: dict[str, Any]) -> Consents:
    """Return the frames of the consents and suppressions of people who have only these fields."""
    return consents([EMPTY._replace(**change) for change in changes], ACCOUNT)


def test_all_columns_of_a_member_are_filled() -> None:
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
        "external_id": "crm-1",
        "organization": "Ropes Inc.",
        "title": "Dr",
        "locale": "en-IE",
        "last_event_date": READ,
        "klaviyo_updated_at": READ,
    }
    frame = frames({**same, "created": JOINED}).members
    assert dict(frame.schema) == loads.MEMBERS.schema
    assert frame.row(0, named=True) == {
        **same,
        **KEYS,
        "predict_user_id": None,
        "created_at": JOINED,
        "updated_at": READ,
        "details_digest": None,
    }


def test_of_people_who_were_only_met_there_is_an_id_and_an_address() -> None:
    frame = stubs([("p1", "old@example.com"), ("p2", ""), ("p1", "a@example.com")], ACCOUNT).frame.sort("id")
    assert dict(frame.schema) == loads.MEMBER_STUBS.schema
    assert frame.row(0, named=True) == {"id": "p1", "email": "a@example.com", **KEYS}
    assert frame["email"].to_list() == ["a@example.com", None]


def test_a_person_with_only_an_id_is_a_member() -> None:
    """An empty string becomes null."""
    row = frames({"email": "", "first_name": "\x00"}).members.row(0, named=True)
    assert {name: value for name, value in row.items() if value is not None} == {"id": "p1", "updated_at": READ, **KEYS}


@pytest.mark.parametrize(
    ("properties", "attributes"),
    [
        pytest.param({"Size": "L", "Visits": "3"}, [("Size", "L"), ("Visits", "3")], id="text and JSON"),
        pytest.param({"": "x"}, [("", "x")], id="an empty name"),
        pytest.param({"$odd \"'\t\\": "x", "😀": "y"}, [("$odd \"'\t\\", "x"), ("😀", "y")], id="odd names"),
        pytest.param({"email": "x", "id": "y"}, [("email", "x"), ("id", "y")], id="named like columns"),
        pytest.param({"a": "", "b": None}, [("a", None), ("b", None)], id="without a value"),
        pytest.param({"a\x00": "1", "a": "2"}, [("a", "2")], id="names that differ by a NUL"),
        pytest.param({}, [(None, None)], id="none"),
    ],
)
def test_each_custom_property_is_a_row(
    properties: dict[str, str | None], attributes: list[tuple[str | None, str | None]]
) -> None:
    """A person without custom properties has one row without a name."""
    frame = frames({"properties": properties}).attributes
    assert dict(frame.schema) == loads.MEMBER_ATTRIBUTES.schema
    assert frame.select("name", "value").rows() == attributes
    for row in frame.rows(named=True):
        assert row.items() >= {**KEYS, "id": "p1", "created_at": READ, "updated_at": READ}.items()


def test_of_a_person_who_was_read_twice_the_last_row_stays() -> None:
    """The properties, consents and suppressions of the earlier row are dropped with it."""
    earlier = {
        "city": "Cork",
        "properties": {"old": "1"},
        "list_suppressions": [Suppression("L1", "p1", JOINED)],
        "consents": [Consent("sms", "SUBSCRIBED")],
    }
    later = {"city": "Bonn", "properties": {"new": "2"}, "consents": [Consent("email")]}
    later["list_suppressions"] = ()
    result = frames(earlier, later)
    assert result.members["city"].to_list() == ["Bonn"]
    assert result.attributes["name"].to_list() == ["new"]
    assert agreed(earlier, later).consents["channel"].to_list() == ["email"]
    assert agreed(earlier, later).suppressions["list_id"].to_list() == [None]


def test_each_suppression_from_a_list_is_a_row() -> None:
    """A person without suppressions has one row without a list, and one whose suppressions are unknown has none."""
    suppressions = [Suppression("L1", "p1", JOINED, "UNSUBSCRIBE"), Suppression("L2", "p1", None)]
    frame = agreed(
        {"list_suppressions": suppressions}, {"id": "p2", "list_suppressions": ()}, {"id": "p3"}
    ).suppressions
    assert dict(frame.schema) == loads.LIST_SUPPRESSIONS_OF_PEOPLE.schema == loads.LIST_SUPPRESSIONS.schema
    assert frame.select("list_id", "member_id", "suppressed_at", "reason").rows() == [
        ("L1", "p1", JOINED, "UNSUBSCRIBE"),
        ("L2", "p1", None, None),
        (None, "p2", None, None),
    ]


def test_each_channel_is_a_row() -> None:
    """A person without consents has one row without a channel, and one whose consents are unknown has none."""
    sms = Consent("sms", "SUBSCRIBED", True, "API", "form", JOINED, READ, False)
    frame = agreed({"consents": [sms]}, {"id": "p2", "consents": ()}, {"id": "p3"}).consents
    assert dict(frame.schema) == loads.MEMBER_CONSENTS.schema
    assert frame.rows(named=True)[0] == {
        "key": hashlib.md5(f"Klaviyo:{ACCOUNT}:p1:sms".encode()).hexdigest(),
        "id": "p1:sms",
        "member_id": "p1",
        "member_key": KEYS["member_key"],
        "channel": "sms",
        "consent": "SUBSCRIBED",
        "can_receive": True,
        "method": "API",
        "method_detail": "form",
        "consent_timestamp": JOINED,
        "updated_at": READ,
        "double_optin": False,
    }
    assert frame.select("member_id", "key").rows()[1:] == [("p2", None)]


def test_nul_is_counted_in_people_and_their_properties() -> None:
    assert frames({"city": "\x00C\x00", "properties": {"a": "\x00"}}).nul_characters == 3


def test_no_people_make_empty_frames() -> None:
    """The empty frames have the schema of their loads."""
    result = frames()
    assert result.members.is_empty() and result.attributes.is_empty()
    assert agreed().consents.is_empty() and agreed().suppressions.is_empty()
    assert dict(result.members.schema) == loads.MEMBERS.schema
    assert dict(result.attributes.schema) == loads.MEMBER_ATTRIBUTES.schema


def test_a_property_name_that_is_too_long_for_an_index_is_rejected() -> None:
    """Only this property is rejected. The person and the other properties stay."""
    result = frames({"properties": {"x" * 2001: "rejected", "Size": "M"}})
    assert result.members.height == 1
    assert result.attributes["name"].to_list() == ["Size"]
    assert "rejected" in result.rejects[0].raw
